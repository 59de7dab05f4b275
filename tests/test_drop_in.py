"""The matrix of misalign_det/README.md: this package's modules in mmdet's own configs.

Each cell is a stock config and the lines that a user adds to it: one training step, with and
without objects, and one inference step. The matrix there is what this file gives;
`python tests/test_drop_in.py` prints it.
"""

import pytest
import torch
from helpers.paths import MMDET_CONFIGS, ROOT
from helpers.stock_configs import CONFIGS
from mmdet.models.dense_heads import DDODHead
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub

from misalign_det.apis.model_check import check_model


def assigner(kind, scores):
    return f"""model = dict(train_cfg=dict(assigner=dict(
    _delete_=True, type='{kind}', score_format='{scores}')))"""


def iac(head, kind):
    return f"""model = dict(
    bbox_head=dict(type='{head}'), train_cfg=dict(assigner=dict(type='{kind}')))"""


def dc(head, loss):
    return f"""model = dict(bbox_head=dict(type='{head}', loss_cls=dict(
    _delete_=True, type='DCLoss', loss=dict({loss}))))"""


def head(kind, assigner, replaces, channels=256, strides=(8, 16, 32, 64, 128)):
    delete = "_delete_=True, " if replaces else ""
    return f"""model = dict(
    bbox_head=dict(_delete_=True, type='{kind}', num_classes=80, in_channels={channels},
                   strides={list(strides)}),
    train_cfg=dict({delete}assigner=dict(type='{assigner}')))"""


def heads(kind, assigner):
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
    more = ", score_voting=False" if name == "PAA" else ""
    return f"""model = dict(
    bbox_head=dict(type='BoxVotingHead', head_type='{VOTING[name]}'{more}),
    test_cfg=dict(box_voting=dict(sigma=0.025)))"""


FOCAL = "type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25"
QUALITY = "type='QualityFocalLoss', use_sigmoid=True, beta=2.0"
NMS = """model = dict(test_cfg=dict(nms=dict(
    _delete_=True, type='CLBalancedNMS', iou_threshold=0.6)))"""
VOTING = {
    "RetinaNet": "RetinaHead", "FCOS": "FCOSHead", "ATSS": "ATSSHead", "GFL": "GFLHead",
    "PAA": "PAAHead", "VFNet": "VFNetHead", "TOOD": "TOODHead", "DDOD": "DDODHead",
    "AutoAssign": "AutoAssignHead", "RTMDet": "RTMDetSepBNHead", "YOLOX": "YOLOXHead",
}  # fmt: skip
TWO_STAGES = """model = dict(test_cfg=dict(rcnn=dict(nms=dict(
    _delete_=True, type='CLBalancedNMS', iou_threshold=0.5))))"""
CHANGES = {
    "TripleHead": heads("TripleHead", "JLAAssigner"),
    "RFAHead": heads("RFAHead", "SpatialAlignAssigner"),
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
CASES = [(module, name) for module, changes in CHANGES.items() for name in changes]


def matrix():
    """The table of misalign_det/README.md."""
    lines = ["| | " + " | ".join(CHANGES) + " |", "| --- |" + " :-: |" * len(CHANGES)]
    for name in CONFIGS:
        cells = ("✓" if name in changes else "" for changes in CHANGES.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def detector(folder, name, change):
    """The stock model with the change, untrained, on inputs of one size."""
    path = folder / "config.py"
    path.write_text(
        f"_base_ = {str(MMDET_CONFIGS / CONFIGS[name])!r}\n"
        f"custom_imports = dict(imports=['misalign_det'])\n{change}\n"
    )
    model = Config.fromfile(path).model
    check_model(model)
    model.backbone.init_cfg = None
    if "batch_augments" in model.data_preprocessor:
        model.data_preprocessor.batch_augments = None
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD's warm-up asks for it
    return built


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), CASES)
def test_training_and_inference(tmp_path, module, name):
    model = detector(tmp_path, name, CHANGES[module][name])
    # DDOD's deformable layers want three locations on the coarsest level.
    size = 384 if isinstance(getattr(model, "bbox_head", None), DDODHead) else 128
    for counts in ([3, 1], [0, 0]):
        if name == "Faster R-CNN" and not any(counts):
            continue  # mmdet's own part
        packed = demo_mm_inputs(
            2, image_shapes=[(3, size, size)] * 2, num_items=counts, num_classes=80
        )
        losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
        total, _ = model.parse_losses(losses)
        assert total.isfinite()
        model.zero_grad()
        total.backward()
        part = model.roi_head if name == "Faster R-CNN" else model.bbox_head
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())
    model.eval()
    with torch.no_grad():
        found = model(**model.data_preprocessor(packed, training=False), mode="predict")
    assert len(found) == 2
    for sample in found:
        assert sample.pred_instances.bboxes.isfinite().all()


def test_the_readme_shows_the_matrix():
    readme = (ROOT / "misalign_det/README.md").read_text(encoding="utf-8")
    assert matrix() in readme, f"put this into the README:\n{matrix()}"


if __name__ == "__main__":
    print(matrix())
