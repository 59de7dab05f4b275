"""This package's modules in mmdet's stock configs: the lines of each, and the page made of them.

`python tests/helpers/drop_in.py` writes configs/drop_in.md and prints the matrix of
misalign_det/README.md; tests/test_drop_in.py trains and runs each of the configs.
"""

from pathlib import Path

from helpers.stock_configs import CONFIGS


def assigner(kind, scores):
    return f"""\
model = dict(
    train_cfg=dict(assigner=dict(_delete_=True, type='{kind}', score_format='{scores}'))
)"""


def iac(head, kind):
    return f"""\
model = dict(
    bbox_head=dict(type='{head}'),
    train_cfg=dict(assigner=dict(type='{kind}')),
)"""


def dc(head, loss):
    return f"""\
model = dict(
    bbox_head=dict(
        type='{head}',
        loss_cls=dict(
            _delete_=True,
            type='DCLoss',
            loss=dict({loss}),
        ),
    )
)"""


LEVELS = (8, 16, 32, 64, 128)


def new_head(kind, channels, strides, more=""):
    return f"""\
    bbox_head=dict(
        _delete_=True,
        type='{kind}',
        num_classes=80,
        in_channels={channels},
        strides={list(strides)},{more}
    )"""


def head(kind, assigner, replaces, channels=256, strides=LEVELS):
    delete = "_delete_=True, " if replaces else ""
    return f"""\
model = dict(
{new_head(kind, channels, strides)},
    train_cfg=dict({delete}assigner=dict(type='{assigner}')),
)"""


def misalign(kind, assigner, replaces, channels=256, strides=LEVELS):
    delete = "\n        _delete_=True," if replaces else ""
    distances = [1.5] + [4.0] * (len(strides) - 1)
    options = f"""
        cls_shortcut=True,
        init_distance={distances},
        iou_target='refined',
        score_mode='geometric_mean',
        score_alpha=0.25,
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_bbox_coarse=dict(type='GIoULoss', loss_weight=1.0),"""
    return f"""\
model = dict(
{new_head(kind, channels, strides, options)},
    train_cfg=dict({delete}
        assigner=dict(type='{assigner}', topk=9, num_levels=2, per_gt_reweight=1.0),
    ),
    test_cfg=dict(box_voting=dict(sigma=0.05)),
)"""


def heads(kind, assigner, head=head):
    usual = {
        name: head(kind, assigner, replaces=name != "FCOS")
        for name in ("RetinaNet", "FCOS", "ATSS", "GFL", "PAA", "VFNet", "TOOD", "DDOD",
                     "AutoAssign")
    }  # fmt: skip
    three = dict(replaces=True, channels=96, strides=(8, 16, 32))
    return {
        **usual,
        "RTMDet": head(kind, assigner, **three),
        "YOLOX": head(kind, assigner, **three),
    }


def voting(name):
    more = "\n        score_voting=False," if name == "PAA" else ""
    return f"""\
model = dict(
    bbox_head=dict(
        type='BoxVotingHead',
        head_type='{VOTING[name]}',{more}
    ),
    test_cfg=dict(box_voting=dict(sigma=0.025)),
)"""


FOCAL = "type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25"
QUALITY = "type='QualityFocalLoss', use_sigmoid=True, beta=2.0"
NMS = """\
model = dict(test_cfg=dict(nms=dict(_delete_=True, type='CLBalancedNMS', iou_threshold=0.6)))"""
VOTING = {
    "RetinaNet": "RetinaHead", "FCOS": "FCOSHead", "ATSS": "ATSSHead", "GFL": "GFLHead",
    "PAA": "PAAHead", "VFNet": "VFNetHead", "TOOD": "TOODHead", "DDOD": "DDODHead",
    "AutoAssign": "AutoAssignHead", "RTMDet": "RTMDetSepBNHead", "YOLOX": "YOLOXHead",
}  # fmt: skip
TWO_STAGES = """\
model = dict(
    test_cfg=dict(rcnn=dict(nms=dict(_delete_=True, type='CLBalancedNMS', iou_threshold=0.5)))
)"""
CHANGES = {
    "misalign": heads("TripleHead", "SpatialAlignAssigner", misalign),
    "TripleHead": heads("TripleHead", "JLAAssigner"),
    "RFAHead": heads("RFAHead", "SpatialAlignAssigner"),
    "LossAwareFCOSHead": heads("LossAwareFCOSHead", "JLAAssigner"),
    "JLAAssigner": {
        "RTMDet": assigner("JLAAssigner", "logits"), "YOLOX": assigner("JLAAssigner", "probs"),
    },
    "SpatialAlignAssigner": {
        "RTMDet": assigner("SpatialAlignAssigner", "logits"),
        "YOLOX": assigner("SpatialAlignAssigner", "probs"),
    },
    "IACAssigner": {"RetinaNet": iac("DCRetinaHead", "IACAssigner")},
    "IACATSSAssigner": {
        "ATSS": iac("DCATSSHead", "IACATSSAssigner"), "GFL": iac("DCGFLHead", "IACATSSAssigner"),
    },
    "DCLoss": {
        "RetinaNet": dc("DCRetinaHead", FOCAL),
        "FCOS": dc("DCFCOSHead", FOCAL),
        "ATSS": dc("DCATSSHead", FOCAL),
        "GFL": dc("DCGFLHead", QUALITY),
    },
    "CLBalancedNMS": {
        **{name: NMS for name in CONFIGS if name != "Faster R-CNN"}, "Faster R-CNN": TWO_STAGES,
    },
    "BoxVotingHead": {name: voting(name) for name in VOTING},
}  # fmt: skip


def matrix():
    """The table of misalign_det/README.md."""
    lines = ["| | " + " | ".join(CHANGES) + " |", "| --- |" + " :-: |" * len(CHANGES)]
    for name in CONFIGS:
        cells = ("✓" if name in changes else "" for changes in CHANGES.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def config(name, change):
    """The whole config: mmdet's stock config, and the lines on top of it."""
    return (
        f"_base_ = 'mmdet::{CONFIGS[name]}'\n"
        f"custom_imports = dict(imports=['misalign_det'])\n{change}\n"
    )


def page():
    """configs/drop_in.md: the config of each cell of the matrix, equal ones once."""
    parts = [HEAD, "| detector | base |", "| --- | --- |"]
    parts += [f"| {name} | `mmdet::{base}` |" for name, base in CONFIGS.items()]
    for module, changes in CHANGES.items():
        parts.append(f"\n## {module}")
        for change in dict.fromkeys(changes.values()):
            first, *others = (name for name, own in changes.items() if own == change)
            also = f"; with their own `_base_` also {', '.join(others)}" if others else ""
            parts.append(f"\n{first}{also}:\n\n```python\n{config(first, change)}```")
    return "\n".join(parts) + "\n"


HEAD = """\
# This package's modules in mmdet's detectors

A config for each cell of the [matrix](../misalign_det/README.md#what-fits-where). Each has been
trained for a step and run. Save it as a file, and `python tools/train.py FILE` trains it, as does
mmdet's own `tools/train.py`. With `--data FOLDER` the former fills in classes and paths of a data
set of your own. `misalign` is no module but the [recommended settings](misalign.md) of
`TripleHead`, `SpatialAlignAssigner` and box voting; start with it.
"""

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    (root / "configs/drop_in.md").write_text(page(), encoding="utf-8")
    print(matrix())
