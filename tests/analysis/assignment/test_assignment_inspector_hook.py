"""AssignmentInspectorHook on this package's heads and mmdet's."""

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.paths import CONFIGS, MMDET_CONFIGS
from mmdet.registry import HOOKS, MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.structures import InstanceData
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import misalign_det  # noqa: F401
from misalign_det.analysis.assignment.recorded_assignments import recorded_assignments
from misalign_det.errors import InputError

DETECTORS = {
    "JLA": CONFIGS / "jla_triplehead_r18_fpn_12e_bccd.py",
    "SpatialAlign": CONFIGS / "spatial-align_rfahead_r18_fpn_12e_bccd.py",
    "ATSS": MMDET_CONFIGS / "atss/atss_r50_fpn_1x_coco.py",
    "RetinaNet": MMDET_CONFIGS / "retinanet/retinanet_r50_fpn_1x_coco.py",
    "RTMDet": MMDET_CONFIGS / "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
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
    model = Config.fromfile(DETECTORS[name]).model
    model.backbone.init_cfg = None
    if name == "RTMDet":
        model.data_preprocessor.batch_augments = None
    return MODELS.build(model)


def watch(model, packed, iterations=(0, 1), **kwargs):
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=2, **kwargs))
    runner = SimpleNamespace(model=model, visualizer=Visualizer(), iter=0, max_iters=100)
    for runner.iter in iterations:
        hook.before_train_iter(runner, 0, packed)
        losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
        hook.after_train_iter(runner, 0, packed, losses)
    return runner.visualizer


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
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


def test_recording_changes_no_decision():
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
        hook.before_train_iter(SimpleNamespace(model=nn.Identity(), iter=0, max_iters=1), 0, None)


@pytest.fixture(scope="module")
def small():
    """A head that trains through an assigner, on a network of a few weights."""
    return small_detector()


def small_detector(channels=3, **preprocessor):
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / "jla_triplehead_r18_fpn_12e_bccd.py").model
    cfg.data_preprocessor.update(mean=None, std=None, bgr_to_rgb=False)
    cfg.data_preprocessor.update(preprocessor)
    cfg.backbone.update(base_channels=8, init_cfg=None, in_channels=channels)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.bbox_head.update(in_channels=8, feat_channels=8, norm_cfg=dict(type="GN", num_groups=2))
    return MODELS.build(cfg)


def packed(count=1, size=64):
    return demo_mm_inputs(count, image_shapes=[(3, size, size)] * count,
                          num_items=[2] * count, num_classes=3)  # fmt: skip


def pictures_of(model, *batches, detector=None):
    """The pictures that are written in a step that trains a detector on these batches in turn."""
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=1, references=()))
    runner = SimpleNamespace(model=model, visualizer=Visualizer(), iter=0, max_iters=100)
    hook.before_train_iter(runner, 0, None)
    detector = detector or model
    for batch in batches:
        detector(**detector.data_preprocessor(batch, training=True), mode="loss")
    hook.after_train_iter(runner, 0, None)
    assigner = vars(detector.bbox_head.assigner)  # no longer watched
    assert not {"assign", "assign_batch"} & set(assigner)
    assert "loss_by_feat" not in vars(detector.bbox_head)
    assert not detector.backbone._forward_pre_hooks
    assert len(runner.visualizer.scalars) == 1
    return [picture for _, picture, _ in runner.visualizer.images]


def most_frequent(picture):
    # 640 pixels, and one or two lines of text below that say what the marks are.
    assert 640 < picture.shape[0] <= 640 + 48 and picture.shape[1:] == (640, 3)
    assert picture.dtype == np.uint8
    assert (picture[640:] == 255).mean() > 0.8 and (picture[640:] < 60).any()
    colors, counts = np.unique(picture[:640].reshape(-1, 3), axis=0, return_counts=True)
    return colors[counts.argmax()].tolist()


@pytest.mark.parametrize(
    "kind", ["uint8", "float", "one channel", "five channels", "normalised", "BGR normalised"]
)
def test_pictures_of_any_pixels(kind):
    """RGB, in the colours of the image: blue here, which the pipeline has first."""
    pixels = torch.zeros(3, 64, 64, dtype=torch.uint8)
    pixels[0] = 200
    statistics = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    pixels, preprocessor, expected = {
        "uint8": (pixels, {}, [0, 0, 200]),
        "float": (pixels.float(), {}, [0, 0, 200]),
        "one channel": (pixels[:1], {}, [200, 200, 200]),
        "five channels": (pixels[[0, 0, 0, 0, 1]], {}, [160, 160, 160]),
        "normalised": (pixels, dict(statistics, bgr_to_rgb=True), [0, 0, 200]),
        "BGR normalised": (pixels, statistics, [0, 0, 200]),
    }[kind]
    batch = dict(packed(), inputs=[pixels])
    (picture,) = pictures_of(small_detector(len(pixels), **preprocessor), batch)
    assert most_frequent(picture) == expected


def test_the_picture_of_a_student_is_of_its_first_branch():
    small = small_detector(mean=[100.0] * 3, std=[50.0] * 3)
    semi = nn.Module()
    semi.student, semi.teacher = small, nn.Identity()
    semi.data_preprocessor = nn.Module()
    semi.data_preprocessor.data_preprocessor = small.data_preprocessor
    pixels = torch.full((3, 64, 64), 80, dtype=torch.uint8)
    batches = [dict(packed(), inputs=[pixels]), dict(packed(), inputs=[pixels * 2])]
    del small.data_preprocessor
    (picture,) = pictures_of(semi, *batches, detector=WithPreprocessor(semi))
    assert most_frequent(picture) == [80] * 3


class WithPreprocessor:
    """Passes batches to a student through the preprocessor of the detector that holds it."""

    def __init__(self, semi):
        self.student, self.data_preprocessor = (
            semi.student,
            semi.data_preprocessor.data_preprocessor,
        )

    def __call__(self, **batch):
        return self.student(**batch)

    def __getattr__(self, name):
        return getattr(self.student, name)


def yolox(augments=None):
    torch.manual_seed(0)
    model = Config.fromfile(MMDET_CONFIGS / "yolox/yolox_tiny_8xb8-300e_coco.py").model
    model.backbone.init_cfg = None
    model.data_preprocessor.batch_augments = augments
    return MODELS.build(model)


def two_images(first, second):
    """Images of one grey each, and their objects."""
    data = packed(2)
    for sample, boxes in zip(data["data_samples"], (first, second)):
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.zeros(len(boxes), dtype=torch.long),
        )
    data["inputs"] = [torch.full((3, 64, 64), grey, dtype=torch.uint8) for grey in (40, 180)]
    return data


def test_objects_are_drawn_on_their_image():
    """YOLOX calls its assigner only for images with objects."""
    (picture,) = pictures_of(yolox(), two_images([], [[10, 10, 30, 30]]))
    assert most_frequent(picture) == [180] * 3
    (picture,) = pictures_of(small_detector(), two_images([], [[10, 10, 30, 30]]))
    assert most_frequent(picture) == [180] * 3
    (picture,) = pictures_of(yolox(), two_images([[10, 10, 30, 30]], [[10, 10, 30, 30]]))
    assert most_frequent(picture) == [40] * 3


def test_objects_are_drawn_where_a_resized_batch_has_them(monkeypatch):
    resize = dict(type="BatchSyncRandomResize", random_size_range=(128, 128), size_divisor=32)
    model = yolox([resize])
    model.data_preprocessor.batch_augments[0]._input_size = (128, 128)
    drawn = []

    def draw(image, assignment):
        drawn.append((image.shape, assignment.gt_bboxes.tolist()))
        return image

    monkeypatch.setattr("misalign_det.analysis.assignment.assignment_figure.draw_assignment", draw)
    MessageHub.get_current_instance().runtime_info["iter"] = 0
    pictures_of(model, two_images([[10, 10, 30, 30]], []))
    assert drawn == [((128, 128, 3), [[20, 20, 60, 60]])]


@pytest.mark.parametrize("epoch", [0, 4])
def test_both_assigners_of_tood(epoch):
    model = Config.fromfile(MMDET_CONFIGS / "tood/tood_r50_fpn_1x_coco.py").model
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
    model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=2)
    torch.manual_seed(0)
    model = MODELS.build(model)
    MessageHub.get_current_instance().runtime_info["epoch"] = epoch
    seen = watch(model, packed(2, size=128), iterations=[1])
    assert seen.scalars[2]["assignment/positives_per_gt"] > 0 and len(seen.images) == 1
    assert ("assignment/agreement_task_aligned" in seen.scalars[2]) == (epoch == 4)
    assert not vars(model.bbox_head.alignment_assigner).get("assign")
    MessageHub.get_current_instance().runtime_info.clear()


def test_a_step_without_an_assignment_is_named(caplog):
    with caplog.at_level("WARNING"), capture_warnings(caplog):
        assert pictures_of(yolox(), two_images([], [])) == []
    assert "nothing was recorded at step 1: the head did not call its assigner" in caplog.text


@contextmanager
def capture_warnings(caplog):
    """mmengine's logger does not pass its messages on to pytest's handler."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        yield
    finally:
        logger.removeHandler(caplog.handler)


def test_no_picture_is_asked_for(small):
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=1, pictures=False))
    runner = SimpleNamespace(model=small, visualizer=Visualizer(), iter=0, max_iters=100)
    data = packed()
    hook.before_train_iter(runner, 0, data)
    small(**small.data_preprocessor(data, training=True), mode="loss")
    hook.after_train_iter(runner, 0, data)
    seen = runner.visualizer
    assert seen.images == [] and "assignment/agreement_task_aligned" in seen.scalars[1]


def test_steps_between_are_not_touched(small):
    hook = HOOKS.build(dict(type="AssignmentInspectorHook"))
    assert hook.interval == 50
    runner = SimpleNamespace(model=small, visualizer=Visualizer(), iter=0, max_iters=100)
    for runner.iter in (0, 48, 50):
        hook.before_train_iter(runner, 0, None)
        assert not {"assign", "assign_batch"} & set(vars(small.bbox_head.assigner))
        hook.after_train_iter(runner, 0, None)
    assert runner.visualizer.scalars == {}
    runner.iter = 49
    hook.before_train_iter(runner, 0, None)
    assert "assign_batch" in vars(small.bbox_head.assigner)
    hook._recording.close()


def test_the_head_of_a_student_is_watched(small):
    """A semi-supervised detector's, inside what wraps it for several processes."""
    semi = nn.Module()
    semi.student, semi.teacher = small, nn.Identity()
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=1))
    hook.before_train_iter(SimpleNamespace(model=semi, iter=0, max_iters=9), 0, None)
    assert "assign_batch" in vars(small.bbox_head.assigner)
    hook._recording.close()


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_run_shorter_than_the_interval_has_its_last_step(small, iterations):
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=50))
    runner = SimpleNamespace(model=small, visualizer=Visualizer(), iter=0, max_iters=iterations)
    data = packed()
    for runner.iter in range(iterations):
        train_step(hook, runner, data)
    assert list(runner.visualizer.scalars) == [iterations]
    assert [step for _, _, step in runner.visualizer.images] == [iterations]


def train_step(hook, runner, data):
    hook.before_train_iter(runner, 0, data)
    runner.model(**runner.model.data_preprocessor(data, training=True), mode="loss")
    hook.after_train_iter(runner, 0, data)


def run_with(backend, model, folder):
    """Two recorded steps, written through mmengine's visualizer by one of its backends."""
    visualizer = DetLocalVisualizer(vis_backends=[backend], save_dir=str(folder))
    hook = HOOKS.build(dict(type="AssignmentInspectorHook", interval=2))
    runner = SimpleNamespace(model=model, visualizer=visualizer, iter=0, max_iters=3)
    data = packed()
    for runner.iter in range(3):
        train_step(hook, runner, data)
    visualizer.close()


def test_tensorboard_has_scalars_and_pictures(small, tmp_path):
    run_with(dict(type="TensorboardVisBackend"), small, tmp_path)
    events = EventAccumulator(str(tmp_path / "vis_data")).Reload()
    scalars = events.Scalars("assignment/positives_per_gt")
    assert [event.step for event in scalars] == [2, 3] and scalars[0].value > 0
    pictures = events.Images("assignment")
    assert [event.step for event in pictures] == [2, 3] and pictures[0].width == 640


def test_wandb_has_scalars_and_pictures(small, tmp_path, monkeypatch):
    """What mmengine's backend passes to W&B's functions, which stand-ins record."""
    logged, metrics = [], []
    wandb = ModuleType("wandb")
    wandb.init = lambda **options: None
    wandb.define_metric = lambda **options: metrics.append(options)
    wandb.Image = lambda pixels: pixels
    wandb.log = lambda values, commit: logged.append(values)
    wandb.join = lambda: None
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    axis = dict(name="assignment/*", step_metric="assignment/step")
    run_with(dict(type="WandbVisBackend", define_metric_cfg=[axis]), small, tmp_path)
    assert metrics == [axis]
    steps = [values["assignment/step"] for values in logged if "assignment/step" in values]
    assert steps == [2, 3]
    pictures = [values["assignment"] for values in logged if "assignment" in values]
    assert (
        len(pictures) == 2 and pictures[0].dtype == np.uint8 and pictures[0].shape[1:] == (640, 3)
    )
