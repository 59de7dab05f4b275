"""Images that are missing, do not load, or are not what the annotation file says."""

import cv2
import numpy as np
import pytest
import torch.utils.data
from helpers.coco_set import CocoSet
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import DATASETS, TRANSFORMS
from PIL import Image

from misalign_det.datasets import image_checks
from misalign_det.datasets.image_checks import _spread, explain_load_error
from misalign_det.datasets.preflight import InputError, check_config
from misalign_det.datasets.transforms import LoadImageOrSkip

WHERE = "train_dataloader.dataset"


@pytest.fixture
def good(tmp_path):
    return CocoSet(tmp_path)


def test_missing_images_are_named_and_skipped_in_training_only(good):
    good.image(2).unlink()
    notes = good.notes(("train",))
    assert notes == [f"{WHERE}: 1 of 4 images are missing: {good.image(2)}. Training skips them."]
    said = good.fault(("val",))
    assert f"val_dataloader.dataset: 1 of 4 images are missing: {good.image(2)}" in said


def test_undecodable_images_are_named_and_skipped_in_training_only(good):
    good.image(1).write_bytes(b"")
    good.image(3).write_bytes(good.image(3).read_bytes()[:20])
    notes = good.notes(("train",))
    assert "2 of 4 images tested cannot be decoded" in notes[0]
    assert str(good.image(1)) in notes[0] and str(good.image(3)) in notes[0]
    assert "cannot be decoded" in good.fault(("test",))


@pytest.mark.parametrize(
    ("size", "used"), [((2000, 1), False), ((1, 2000), False), ((640, 1), True), ((700, 1), False)]
)
def test_an_image_that_is_too_narrow_to_be_resized(good, size, used):
    cv2.imwrite(str(good.image(2)), np.zeros((*size, 3), np.uint8))
    good.content["images"][2].update(height=size[0], width=size[1])
    del good.content["annotations"][2]
    good.write()
    resize = dict(type="Resize", scale=(320, 240), keep_ratio=True)
    pipeline = [dict(type="LoadImageFromFile"), resize, dict(type="PackDetInputs", meta_keys=())]
    data = DATASETS.build(good.dataset(pipeline=pipeline, test_mode=True))
    if used:
        good.notes(("val",), pipeline=pipeline)
        assert min(data[2]["inputs"].shape) == 1
    else:
        said = good.fault(("val",), pipeline=pipeline)
        assert "val_dataloader.dataset: 1 of 4 images are so narrow that Resize leaves " in said
        assert str(good.image(2)) in said and "\n" not in said
        with pytest.raises(cv2.error):
            data[2]
    good.notes(("train",), pipeline=pipeline)  # `min_size` leaves it out
    assert len(DATASETS.build(good.dataset(pipeline=pipeline))) == 3


def test_a_pipeline_that_does_not_skip_is_told_how(good):
    good.image(2).unlink()
    cfg = good.config()
    cfg.train_dataloader.dataset.pipeline[0].type = "LoadImageFromFile"
    with pytest.raises(InputError, match="dict\\(type='LoadImageOrSkip'\\)"):
        check_config(cfg, ("train",))


def test_no_image_there(good):
    said = good.fault(data_prefix={"img": "pictures/"})
    first = good.root / "pictures" / "0.jpg"
    assert f"none of the 4 images exists; the first should be {first}" in said
    assert "data_prefix" in said


def test_no_image_can_be_decoded(good):
    for number in range(4):
        good.image(number).write_bytes(b"not an image")
    assert "none of the 4 image files can be decoded" in good.fault()


def test_image_of_another_size_than_the_file_says(good):
    cv2.imwrite(str(good.image(0)), np.zeros((64, 48, 3), np.uint8))
    assert f"{good.image(0)} is 48 x 64, not 64 x 48" in good.notes()[0]


def spoilt(good, **changes):
    """The training config, its first step changed."""
    cfg = good.config()
    step = cfg.train_dataloader.dataset.pipeline[0]
    step.update(changes)
    return cfg


# --- the pipeline's own loader ---------------------------------------------------------------


@TRANSFORMS.register_module()
class LoadArray(BaseTransform):
    """A loader of one's own: `NAME.npy` beside each `NAME.jpg`."""

    def transform(self, results):
        results["img"] = np.load(results["img_path"].replace(".jpg", ".npy"))
        return results


@TRANSFORMS.register_module()
class NotALoader(BaseTransform):
    def transform(self, results):
        results["seen"] = True
        return results


@TRANSFORMS.register_module()
class LoadOrSkipArray(LoadImageOrSkip):
    """Reads other files than its base class, and leaves out as it does."""

    def transform(self, results):
        try:
            return LoadArray().transform(results)
        except OSError:
            return None


def arrays(good, names=range(4)):
    for number in range(4):
        good.image(number).unlink()
    for number in names:
        np.save(good.root / "images" / f"{number}.npy", np.zeros((48, 64, 7), np.float32))


def test_images_are_read_by_the_pipelines_backend(good):
    for number, image in enumerate(good.content["images"]):
        good.image(number).unlink()
        image["file_name"] = f"{number}.pcx"  # Pillow reads it, OpenCV does not
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(good.root / f"images/{number}.pcx")
    good.write()
    assert check_config(spoilt(good, imdecode_backend="pillow"), ("train",)) == []
    assert "none of the 4 image files can be decoded" in good.fault()


def test_exif_orientation_is_taken_as_the_pipeline_takes_it(good):
    for number in range(4):
        image = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
        exif = image.getexif()
        exif[0x0112] = 6  # turned by a quarter
        image.save(good.image(number), exif=exif)
    assert "0.jpg is 48 x 64, not 64 x 48" in good.notes()[0]
    assert check_config(spoilt(good, color_type="color_ignore_orientation"), ("train",)) == []


def test_a_loader_of_ones_own_finds_its_own_files(good):
    arrays(good)
    assert check_config(spoilt(good, type="LoadArray"), ("train",)) == []
    np.save(good.root / "images" / "1.npy", np.zeros((30, 20, 7)))
    assert (
        "1.jpg is 20 x 30, not 64 x 48"
        in check_config(spoilt(good, type="LoadArray"), ("train",))[0]
    )


def test_a_loader_of_ones_own_that_fails_for_some(good):
    arrays(good, names=(0, 1, 3))
    with pytest.raises(InputError, match="1 of 4 images tested cannot be decoded.*2.jpg"):
        check_config(spoilt(good, type="LoadArray"), ("train",))


@pytest.mark.parametrize(
    "kind",
    ["NotALoader", "LoadImageFromNDArray", "NoSuchTransform", "LoadMultiChannelImageFromFiles"],
)
def test_what_is_no_loader_that_runs_alone_is_not_judged(good, kind):
    arrays(good, names=())
    assert check_config(spoilt(good, type=kind), ("train",)) == []
    cfg = good.config()
    cfg.train_dataloader.dataset.pipeline = []
    assert check_config(cfg, ("train",)) == []


@pytest.mark.parametrize("backend", ["petrel", "http"])
def test_images_behind_a_storage_backend_are_not_looked_for(good, backend):
    good.image(0).unlink()
    cfg = spoilt(good, backend_args={"backend": backend})
    assert check_config(cfg, ("train",)) == [
        f"{WHERE}: its images are on remote storage and were not checked."
    ]
    local = spoilt(good, backend_args={"backend": "local"})
    assert "1 of 4 images are missing" in check_config(local, ("train",))[0]


def test_why_an_image_does_not_load_is_said(good):
    cfg = spoilt(good, imdecode_backend="no such backend")
    with pytest.raises(InputError, match="decoded, e.g. .*0.jpg .*backend"):
        check_config(cfg, ("train",))


# --- which loaders skip ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        {"type": LoadImageOrSkip},
        {"type": "mmdet.LoadImageOrSkip"},
        {"type": "LoadOrSkipArray"},
        {"type": "LoadImageFromFile", "_scope_": "misalign_det"},
    ],
    ids=["class", "scoped", "subclass", "scope"],
)
def test_each_way_to_name_the_skipping_loader(good, step):
    if step["type"] == "LoadOrSkipArray":
        arrays(good)
    else:
        good.image(2).unlink()
    cfg = good.config()
    cfg.train_dataloader.dataset.pipeline[0] = step
    notes = check_config(cfg, ("train",))
    missing = 4 if step["type"] == "LoadOrSkipArray" else 1
    assert missing == 4 or notes == [
        f"{WHERE}: 1 of 4 images are missing: {good.image(2)}. Training skips them."
    ]


def test_ignore_empty_leaves_out_what_is_missing_but_not_what_is_no_image(good):
    good.image(2).unlink()
    cfg = spoilt(good, type="LoadImageFromFile", ignore_empty=True)
    assert "are missing" in check_config(cfg, ("train",))[0]
    good.image(1).write_bytes(b"not an image")
    with pytest.raises(InputError, match="tested cannot be decoded: .*1.jpg"):
        check_config(cfg, ("train",))


def test_validation_skips_nothing(good):
    good.image(2).unlink()
    cfg = good.config()
    cfg.val_dataloader.dataset.pipeline[0].type = "LoadImageOrSkip"
    with pytest.raises(InputError, match="1 of 4 images are missing"):
        check_config(cfg, ("val",))


def test_looking_counts_no_skipped_image(good, monkeypatch):
    lines = []
    monkeypatch.setattr(
        "misalign_det.datasets.transforms.print_log", lambda *a, **k: lines.append(a)
    )
    good.image(1).write_bytes(b"")
    assert "1 of 4 images tested cannot be decoded" in good.notes()[0]
    assert lines == []


def test_a_bad_sample_is_not_a_bad_set(good, monkeypatch):
    monkeypatch.setattr(image_checks, "_SAMPLES", 1)
    good.image(0).write_bytes(b"")
    assert "1 of 1 images tested cannot be decoded" in good.notes()[0]


@pytest.mark.parametrize("count", [23, 24, 25, 100])
def test_a_sample_is_loaded(count):
    sample = _spread(list(range(count)))
    assert len(sample) == min(count, 24) and sample[0] == 0
    assert len(set(sample)) == len(sample) and sample[-1] >= count * 0.9


# --- an image that would stop the run --------------------------------------------------------


def many(good, number=60):
    """The set with many images, of which only the last cannot be decoded."""
    good.content["images"] = [
        {"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(number)
    ]
    for i in range(number):
        cv2.imwrite(str(good.image(i)), np.zeros((48, 64, 3), np.uint8))
    good.image(number - 1).write_bytes(good.image(number - 1).read_bytes()[:300])
    good.write()
    return number - 1


def test_every_image_is_decoded_where_one_would_stop_the_run(good, monkeypatch):
    last = many(good)
    assert f"1 of 60 images tested cannot be decoded: {good.image(last)}" in good.fault(("val",))
    with pytest.raises(InputError, match="1 of 60 images tested"):
        check_config(spoilt(good, type="LoadImageFromFile"), ("train",))
    assert not any("decoded" in note for note in good.notes(("train",)))  # it is skipped there
    monkeypatch.setattr(image_checks, "_SECONDS", -1.0)  # no time but for the sample
    good.notes(("val",))


class Images(torch.utils.data.Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return LoadImageFromFile().transform({"img_path": str(self.paths[index])})["img"].shape


@pytest.mark.parametrize("workers", [0, 1])
def test_the_error_of_an_image_that_does_not_load_is_explained(good, workers):
    good.image(2).write_bytes(good.image(2).read_bytes()[:300])
    loader = torch.utils.data.DataLoader(Images([good.image(2)]), num_workers=workers)
    with pytest.raises(AssertionError) as caught:
        list(loader)
    said = explain_load_error(caught.value)
    assert said.startswith(f"{good.image(2)} cannot be decoded.") and "--resume" in said
    assert explain_load_error(AssertionError("failed")) is None
    assert explain_load_error(ValueError("failed to load image: a")) is None
