"""Images that are missing, do not load, or are not what the annotation file says."""

import cv2
import numpy as np
import pytest
from coco_set import CocoSet

from misalign_det.engine.preflight import InputError, check_config

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
    assert "2 of 4 images looked at cannot be decoded" in notes[0]
    assert str(good.image(1)) in notes[0] and str(good.image(3)) in notes[0]
    assert "cannot be decoded" in good.fault(("test",))


def test_a_pipeline_that_does_not_skip_is_told_how(good):
    good.image(2).unlink()
    cfg = good.config()
    cfg.train_dataloader.dataset.pipeline[0].type = "LoadImageFromFile"
    with pytest.raises(InputError, match="dict\\(type='LoadImageOrSkip'\\)"):
        check_config(cfg, ("train",))


def test_no_image_there(good):
    said = good.fault(data_prefix={"img": "pictures/"})
    first = good.root / "pictures" / "0.jpg"
    assert f"none of the 4 images is there; the first should be {first}" in said
    assert "data_prefix" in said


def test_no_image_can_be_decoded(good):
    for number in range(4):
        good.image(number).write_bytes(b"not an image")
    assert "none of the 4 image files can be decoded" in good.fault()


def test_image_of_another_size_than_the_file_says(good):
    cv2.imwrite(str(good.image(0)), np.zeros((64, 48, 3), np.uint8))
    assert f"{good.image(0)} is 48 x 64, not 64 x 48" in good.notes()[0]
