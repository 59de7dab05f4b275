"""AssignmentInspectorHook on this package's heads and mmdet's."""

from pathlib import Path
from types import SimpleNamespace

import mmdet
import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from torch import nn

import misalign_det  # noqa: F401
from misalign_det.engine.annotation_checks import InputError
from misalign_det.evaluation.recorded_assignments import recorded_assignments

STOCK = Path(mmdet.__file__).parent / ".mim/configs"
OURS = Path(__file__).parents[2] / "configs"
CONFIGS = {
    "JLA": OURS / "jla_triplehead_r18_fpn_12e_bccd.py",
    "SpatialAlign": OURS / "spatial-align_rfahead_r18_fpn_12e_bccd.py",
    "ATSS": STOCK / "atss/atss_r50_fpn_1x_coco.py",
    "RetinaNet": STOCK / "retinanet/retinanet_r50_fpn_1x_coco.py",
    "RTMDet": STOCK / "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
}


class Visualizer:
    def __init__(self):
        self.scalars, self.images = {}, []

    def add_scalars(self, scalars, step):
        self.scalars[step] = scalars

    def add_image(self, name, image, step):
        self.images.append((name, image, step))


def detector(name):
    torch.manual_seed(0)
    model = Config.fromfile(CONFIGS[name]).model
    model.backbone.init_cfg = None
    if name == "RTMDet":
        model.data_preprocessor.batch_augments = None
    return MODELS.build(model)


def watch(model, packed, iterations=(0, 1), **kwargs):
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=2, **kwargs))
    runner = SimpleNamespace(model=model, visualizer=Visualizer(), iter=0)
    for runner.iter in iterations:
        hook.before_train_iter(runner, 0, packed)
        losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
        hook.after_train_iter(runner, 0, packed, losses)
    return runner.visualizer


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_scalars_and_picture(name):
    model = detector(name)
    classes = model.bbox_head.num_classes
    packed = demo_mm_inputs(
        2, image_shapes=[(3, 128, 160)] * 2, num_items=[3, 0], num_classes=classes
    )
    seen = watch(model, packed)
    assert list(seen.scalars) == [2]  # the second of two steps, counted from 1
    scalars = {key.removeprefix("assignment/"): value for key, value in seen.scalars[2].items()}
    levels = [value for key, value in scalars.items() if key.startswith("level_")]
    assert sum(levels) == pytest.approx(1)
    assert scalars["positives_per_gt"] > 0 and 0 <= scalars["agreement_atss"] <= 1
    assert ("threshold" in scalars) == (name in ("JLA", "SpatialAlign"))
    if name == "ATSS":
        assert scalars["agreement_atss"] == 1
    ((title, picture, step),) = seen.images
    assert title == "assignment" and step == 2 and picture.std() > 10
    assert "assign" not in vars(model.bbox_head.assigner)
    assert "assign_batch" not in vars(model.bbox_head.assigner)


def test_watching_changes_no_decision():
    model = detector("JLA")
    packed = demo_mm_inputs(2, image_shapes=[(3, 96, 96)] * 2, num_items=[3, 2], num_classes=3)
    data = model.data_preprocessor(packed, training=True)
    plain = model(**data, mode="loss")
    with recorded_assignments(model.bbox_head) as images:
        watched = model(**data, mode="loss")
    assert len(images) == 2 and [len(image.gt_bboxes) for image in images] == [3, 2]
    for image in images:
        assert image.gt_inds.max() < len(image.gt_bboxes)
        x, y = image.points[image.prior_inds].T
        left, top, right, bottom = image.gt_bboxes[image.gt_inds].T
        assert ((x > left) & (x < right) & (y > top) & (y < bottom)).all()
    for key, value in plain.items():
        torch.testing.assert_close(torch.as_tensor(watched[key]), torch.as_tensor(value))


def test_bad_input_is_named():
    for options in (dict(interval=0), dict(references=("paa",))):
        with pytest.raises(ValueError, match=next(iter(options))):
            HOOKS.build(dict(type="AssignmentInspectorHook", **options))
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=1))
    with pytest.raises(InputError, match="no assigner"):
        hook.before_train_iter(SimpleNamespace(model=nn.Identity(), iter=0), 0, None)
