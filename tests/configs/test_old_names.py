"""Every config of commit deb3dd5 is still found under its name of then, and still the same.

``configs_of_deb3dd5.json`` has a hash of each part of each merged config, written at that commit.
"""

import hashlib
import json
import warnings
from pathlib import Path

import pytest
from mmengine.config import Config

from misalign_det.apis.config_keys import top_level_keys
from misalign_det.apis.config_lookup import (
    RENAMED_CONFIGS,
    REPLACED_CONFIGS,
    find_config,
    packaged_configs,
)
from misalign_det.apis.training_safeguards import add_safeguards
from misalign_det.utils.old_names import RenamedWarning

FROZEN = json.loads(Path(__file__).with_name("configs_of_deb3dd5.json").read_text())
OLD_NAMES = {**RENAMED_CONFIGS, **{old: new for old, (new, _) in REPLACED_CONFIGS.items()}}
# What was renamed since: name of today -> name of then, for keys and for types.
KEYS = {"per_gt_reweight": "gt_balance"}
TYPES = {"AtomicCheckpointHook": "SafeCheckpointHook", "RecordInvalidLossHook": "FiniteLossHook"}
BASELINES = ("atss", "fcos", "gfl", "plain")
# Not compared: which package a config imports, and, by config, what was changed on purpose.
CHANGED = {
    # Baselines are mmdet's alone: the hook is now an option, see configs/README.md.
    **{name: {"custom_hooks"} for name in FROZEN if name.split("_")[0] in BASELINES},
    # It had none of the safeguards but the checkpoint hook.
    "dc-clnms_gfl_x101-32x4d-dcn_fpn_ms-2x_coco": {"default_hooks", "train_dataloader"},
}


def as_then(value):
    """A part of a config in the words of deb3dd5; None is no different from a missing key."""
    if isinstance(value, dict):
        value = {KEYS.get(k, k): as_then(v) for k, v in value.items() if v is not None}
        if isinstance(value.get("type"), str):
            value["type"] = TYPES.get(value["type"], value["type"])
        return iou_branch_as_then(value)
    return [as_then(v) for v in value] if isinstance(value, (list, tuple)) else value


def iou_branch_as_then(head):
    """The IoU branch was the confidence of TripleHead and the quality of RFAHead."""
    if head.get("type") == "LossAwareFCOSHead" and head.get("with_iou_branch"):
        # RFAHead without its adaptors, with RFAHead's defaults.
        defaults = dict(
            with_iou_branch=True,
            iou_mode="giou",
            score_mode="geometric_mean",
            centerness_weight=True,
        )
        assert defaults == {key: head.pop(key) for key in defaults}
        head["type"] = "RFAHead"
    elif head.get("type") == "RFAHead":
        head.setdefault("rfa_position", "first")  # the default, which the configs gave then
    old = {"RFAHead": "quality", "TripleHead": "confidence"}.get(head.get("type"))
    if old:
        names = {"loss_iou": f"loss_{old}", "with_iou_branch": f"with_{old}"}
        return {names.get(key, key): part for key, part in head.items()}
    return head


def hashes(config, name):
    """{top-level key: hash} of what is read of a merged config."""
    parts = as_then({key: config[key] for key in set(config) & top_level_keys()})
    if name.startswith("plain_"):  # with mmdet's own loss and assigner the two heads are the same
        assert parts["model"]["bbox_head"]["type"] in ("RetinaHead", "DCRetinaHead")
        parts["model"]["bbox_head"]["type"] = "DCRetinaHead"
    texts = {key: json.dumps(part, sort_keys=True) for key, part in parts.items()}
    return {
        key: hashlib.sha256(text.encode()).hexdigest()[:12]
        for key, text in texts.items()
        if key != "custom_imports" and key not in CHANGED.get(name, ())
    }


@pytest.fixture(autouse=True)
def default_roots(monkeypatch):
    for name in ("SHAPES", "BCCD", "COCO", "VOC"):
        monkeypatch.delenv(f"MISALIGN_DET_{name}", raising=False)


def test_what_is_gone_has_a_new_name():
    packaged = set(packaged_configs())
    assert len(FROZEN) == 68 and len(OLD_NAMES) == 26
    assert set(OLD_NAMES) == set(FROZEN) - packaged
    assert set(OLD_NAMES.values()) <= packaged


@pytest.mark.parametrize("name", FROZEN)
def test_an_old_name_gives_the_old_config(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path, options, run_name = find_config(name)
    assert run_name == name
    said = [str(w.message) for w in caught if w.category is RenamedWarning]
    if name in OLD_NAMES:
        assert len(said) == 1 and f"{name} is now" in said[0] and OLD_NAMES[name] in said[0]
    else:
        assert said == [] and options == {}
    config = Config.fromfile(path)
    config.merge_from_dict(dict(options))
    add_safeguards(config)
    assert hashes(config.to_dict(), name) == FROZEN[name]
