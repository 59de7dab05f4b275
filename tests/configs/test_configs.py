"""Every config builds; each distinct model makes one training and one inference step."""

import difflib
import itertools
import re

import pytest
import torch
from helpers.paths import CONFIGS
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import get_loading_pipeline
from mmdet.registry import DATASETS, MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub

from misalign_det.apis.config_keys import check_options, top_level_keys
from misalign_det.apis.model_check import check_model
from misalign_det.apis.training_safeguards import add_safeguards
from misalign_det.datasets.transforms import LoadImageOrSkip, transform_class
from misalign_det.utils import leaf_datasets

BASELINE_METHODS = (  # mmdet's
    "atss autoassign ddod fcos gfl paa retinanet rtmdet tood vfnet yolox".split()
)
FILES = sorted(CONFIGS.glob("*.py"))
BASELINES = [  # EfficientNet-Lite0 is this package's
    path
    for path in FILES
    if path.stem.split("_")[0] in BASELINE_METHODS and "_effnet-lite0_" not in path.stem
]
CHECKED = set()  # (type, key) of values that another config has, too


def is_part(value):
    return isinstance(value, dict) or (
        isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    )


def parts_alone(value):
    """A config without its values: the dicts in it, and the lists of dicts."""
    if isinstance(value, dict):
        return {key: parts_alone(part) for key, part in value.items() if is_part(part)}
    return [parts_alone(part) for part in value]


def values(value, head=""):
    """Dotted keys and values that `parts_alone` leaves out."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if is_part(part):
            yield from values(part, f"{head}{key}.")
        elif head:
            yield f"{head}{key}", part


def known_part(cfg, key):
    """What decides whether a key is read: the type of what it belongs to, else its place."""
    *place, name = key.split(".")
    for part in place:
        cfg = cfg[int(part)] if isinstance(cfg, list) else cfg[part]
    return cfg.get("type", ".".join(place)), name


def distinct_models():
    """One config for each model whose layers or assigner differ; the rest share its steps."""
    seen = {}
    for path in FILES:
        cfg = Config.fromfile(path).model
        cfg.backbone.init_cfg = None
        seen.setdefault(Config(dict(model=cfg)).pretty_text, path)
    return list(seen.values())


def test_names_follow_the_pattern():
    """{method}_{backbone}_{neck}_{schedule}_{data}; the method is [assigner, ...]_detector."""
    pattern = re.compile(
        r"(?:(?:jla|iac|dc|rfa|spatial-align)[a-z0-9-]*_)?"
        rf"(?:{'|'.join(BASELINE_METHODS)}|misalign|rfahead|triplehead)[a-z-]*"
        r"_(?:r18|r50|r101|x101|effnet-lite0)[a-z0-9-]*_fpn_[a-z0-9-]+_[a-z0-9-]+"
    )
    for path in FILES:
        assert pattern.fullmatch(path.stem), path.name


def only_names_its_bases(path):
    """Whether a config has nothing but its bases and the number of classes of its data."""
    lines = path.read_text().split("]\n", 1)
    return (
        len(lines) == 2
        and re.fullmatch(r"_base_ = \[[^\[]*", lines[0])
        and re.fullmatch(r"model = dict\(bbox_head=dict\(num_classes=\d+\)\)\n", lines[1])
    )


def test_near_identical_configs():
    """Pairs of files whose texts difflib calls alike by 0.8 or more (98 before the 36-epoch copies
    went; what remains are rows of the papers' tables that differ in one number). A file that only
    names its bases has no text of its own: its list of bases must be the only one of its kind."""
    named = [path for path in FILES if only_names_its_bases(path)]
    bases = [re.findall(r"'(_base_/.*?)'", path.read_text()) for path in named]
    assert len({tuple(sorted(parts)) for parts in bases}) == len(named) > 20
    alike = 0
    texts = [path.read_text() for path in FILES if path not in named]
    for first, second in itertools.combinations(texts, 2):
        matcher = difflib.SequenceMatcher(None, first, second)
        alike += matcher.quick_ratio() >= 0.8 and matcher.ratio() >= 0.8  # the quick one is a bound
    assert alike <= 33


def test_no_two_configs_are_the_same():
    merged = {}
    for path in FILES:
        cfg = Config.fromfile(path)
        used = {key: cfg[key] for key in sorted(set(cfg) & top_level_keys())}
        merged.setdefault(Config(used).pretty_text, []).append(path.stem)
    assert [names for names in merged.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    "copies",
    [
        # mmengine merges no two bases that both have a model: these lines stand in each.
        "misalign_{effnet-lite0,r18,r50}",
        "{atss,fcos,gfl,retinanet,rfahead,triplehead}_effnet-lite0",
    ],
)
def test_what_several_models_share_is_the_same_in_each(copies):
    head, choices, tail = re.split(r"[{}]", copies)
    names = [f"{head}{choice}{tail}_fpn.py" for choice in choices.split(",")]
    texts = [(CONFIGS / "_base_/models" / name).read_text() for name in names]
    shared = {text[text.index("\nmodel = ") :] for text in texts}
    assert len(shared) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_is_complete(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == "mmdet"
    if path not in BASELINES:
        assert cfg.custom_imports.imports == ["misalign_det"]
    assert cfg.train_cfg and cfg.val_cfg and cfg.optim_wrapper and cfg.param_scheduler
    check_model(cfg.model)
    for split in ("train", "val", "test"):
        dataset = cfg[f"{split}_dataloader"].dataset
        while "dataset" in dataset:
            dataset = dataset.dataset
        assert DATASETS.get(dataset.get("type", dataset.get("datasets", [{}])[0].get("type")))
    for key, data in leaf_datasets(cfg.train_dataloader.dataset):
        image, annotations = get_loading_pipeline(data.pipeline)  # what mmdet's tools look for
        assert issubclass(transform_class(image), LoadImageFromFile), key
        assert annotations.type == "LoadAnnotations"
    # Each value as if it were new: no option for it would be refused.
    used = {key: cfg[key] for key in set(cfg) & top_level_keys()}
    new = {key: value for key, value in values(used) if known_part(cfg, key) not in CHECKED}
    check_options(parts_alone(used), cfg, new)
    CHECKED.update(known_part(cfg, key) for key in new)
    add_safeguards(cfg)
    for key, data in leaf_datasets(cfg.train_dataloader.dataset):
        image, _ = get_loading_pipeline(data.pipeline)
        assert transform_class(image) is LoadImageOrSkip, key


@pytest.mark.slow
@pytest.mark.parametrize("path", distinct_models(), ids=lambda path: path.stem)
def test_one_training_and_one_inference_step(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(path).model
    cfg.backbone.init_cfg = None
    model = MODELS.build(cfg)
    model.bbox_head.init_weights()  # of the rest, thousands of lines of log and nothing new
    classes = cfg.bbox_head.num_classes
    # mmcv's deformable convolution refuses maps smaller than its kernel: on stride 32 those of the
    # backbone, on stride 128 those of DDOD's towers.
    size = 96 if cfg.backbone.get("dcn") else 288 if cfg.bbox_head.type == "DDODHead" else 64
    packed = demo_mm_inputs(1, image_shapes=[(3, size, size)], num_items=[2], num_classes=classes)
    model.train()
    # TOOD has another assigner and another loss from the fifth epoch on.
    for epoch in (0, cfg.train_cfg.initial_epoch) if cfg.type == "TOOD" else (0,):
        MessageHub.get_current_instance().update_info("epoch", epoch)
        losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
        total = sum(sum(v) if isinstance(v, list) else v for v in losses.values())
        assert total.isfinite()
        total.backward()
    unused = [n for n, p in model.bbox_head.named_parameters() if p.grad is None]
    assert unused == []
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(packed, training=False), mode="predict")
    assert results[0].pred_instances.bboxes.shape[1] == 4
