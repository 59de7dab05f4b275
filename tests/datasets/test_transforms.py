"""Unreadable training images are counted, named and replaced; never fatal, never endless."""

import json
import logging
from importlib import import_module

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import get_loading_pipeline
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.utils import register_all_modules
from torch.utils.data import DataLoader

from misalign_det.datasets.transforms import LoadImageOrSkip, transform_class

register_all_modules()


@pytest.fixture
def folder(tmp_path):
    """Two good images, a cut-off one, an empty one and a name without a file."""
    rng = np.random.default_rng(0)
    for name in ("good0.jpg", "good1.jpg", "cut.jpg"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:30])
    (tmp_path / "empty.jpg").write_bytes(b"")
    return tmp_path


def dataset(folder, names, **kwargs):
    images = [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(names)]
    annotations = [
        {
            "id": i + 1,
            "image_id": i,
            "category_id": 1,
            "bbox": [4, 4, 20, 20],
            "area": 400,
            "iscrowd": 0,
        }
        for i in range(len(names))
    ]
    (folder / "ann.json").write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "thing"}],
            }
        )
    )
    return DATASETS.build(
        {
            "type": "CocoDataset",
            "ann_file": str(folder / "ann.json"),
            "data_prefix": {"img": str(folder)},
            "metainfo": {"classes": ("thing",)},
            "pipeline": [
                {"type": "LoadImageOrSkip"},
                {"type": "LoadAnnotations", "with_bbox": True},
                {"type": "PackDetInputs"},
            ],
            **kwargs,
        }
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.jpg", "there is no such file"),
        ("empty.jpg", "the file is empty"),
        ("cut.jpg", "not an image that can be decoded"),
    ],
)
def test_the_log_names_the_file_the_reason_and_the_count(folder, caplog, monkeypatch, name, reason):
    lines = []
    monkeypatch.setattr(
        "misalign_det.datasets.transforms.print_log",
        lambda text, logger, level: lines.append((level, text)),
    )
    load = LoadImageOrSkip()
    for count in (1, 2):
        assert load({"img_path": str(folder / name)}) is None
        level, text = lines[-1]
        assert level == logging.WARNING
        assert str(folder / name) in text and reason in text and f"({count} skipped" in text


def test_a_good_image_is_loaded_as_mmcv_does(folder):
    load = LoadImageOrSkip()
    results = load({"img_path": str(folder / "good0.jpg")})
    assert np.array_equal(results["img"], cv2.imread(str(folder / "good0.jpg")))
    assert results["img_shape"] == results["ori_shape"] == (48, 64)
    assert int(load.skipped) == 0


def test_the_log_does_not_grow_without_bound(folder, monkeypatch):
    lines = []
    monkeypatch.setattr(
        "misalign_det.datasets.transforms.print_log", lambda text, **kwargs: lines.append(text)
    )
    load = LoadImageOrSkip()
    for _ in range(250):
        load({"img_path": str(folder / "missing.jpg")})
    assert len(lines) == 20 + 2
    assert "(200 skipped" in lines[-1]


def test_the_dataset_puts_another_image_in_its_place(folder):
    data = dataset(folder, ["cut.jpg", "good0.jpg", "missing.jpg", "good1.jpg", "empty.jpg"])
    good = {str(folder / "good0.jpg"), str(folder / "good1.jpg")}
    for index in range(len(data)):
        assert data[index]["data_samples"].img_path in good
    assert int(data.pipeline.transforms[0].skipped) >= 3


def test_workers_count_together(folder):
    data = dataset(folder, ["cut.jpg", "good0.jpg", "missing.jpg", "good1.jpg"])
    loader = DataLoader(data, num_workers=2, batch_size=1, collate_fn=list)
    assert sum(len(batch) for batch in loader) == 4
    assert int(data.pipeline.transforms[0].skipped) >= 2


def test_no_good_image_ends_with_an_error_and_not_never(folder):
    data = dataset(folder, ["cut.jpg", "missing.jpg"], max_refetch=20)
    with pytest.raises(Exception, match="Cannot find valid image after 20"):
        data[0]
    assert int(data.pipeline.transforms[0].skipped) == 21


# --- the name under which mmdet's tools find it -------------------------------------------------

SCOPED = {"type": "LoadImageFromFile", "_scope_": "misalign_det", "to_float32": True}


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (SCOPED, LoadImageOrSkip),
        ({"type": "LoadImageOrSkip"}, LoadImageOrSkip),
        ({"type": "mmdet.LoadImageOrSkip"}, LoadImageOrSkip),
        ({"type": LoadImageOrSkip, "_scope_": "mmdet"}, LoadImageOrSkip),
        ({"type": "LoadImageFromFile"}, LoadImageFromFile),
        ({"type": "LoadImageFromFile", "_scope_": "mmdet"}, LoadImageFromFile),
        ({"type": "NoSuchStep"}, None),
        ({}, None),
    ],
)
def test_what_a_step_is_built_from(step, kind):
    assert transform_class(step) is kind
    if kind:
        assert type(TRANSFORMS.build(dict(step))) is kind


def test_mmdets_tools_find_the_step(folder):
    """`get_loading_pipeline` keeps what is called as mmcv's loader is, and wants two steps."""
    pipeline = [SCOPED, {"type": "LoadAnnotations", "with_bbox": True}, {"type": "PackDetInputs"}]
    found = get_loading_pipeline(pipeline)
    assert found == pipeline[:2]
    data = dataset(folder, ["cut.jpg", "good0.jpg"], pipeline=[*found, pipeline[2]])
    assert type(data.pipeline.transforms[0]) is LoadImageOrSkip
    assert data[0]["data_samples"].img_path == str(folder / "good0.jpg")
    assert data.pipeline.transforms[0].to_float32
    assert int(data.pipeline.transforms[0].skipped) >= 1


def test_the_scope_falls_back_to_mmdets_steps():
    with TRANSFORMS.switch_scope_and_registry("misalign_det") as registry:
        assert registry.get("Resize") is TRANSFORMS.get("Resize")


def test_mmengine_finds_the_scope_of_the_package(caplog):
    """It imports `{scope}.registry` and warns where there is none."""
    found = import_module("misalign_det.registry").TRANSFORMS
    assert found.scope == "misalign_det" and found.parent is TRANSFORMS
    step = TRANSFORMS.build(dict(type="LoadImageFromFile", _scope_="misalign_det"))
    assert type(step) is LoadImageOrSkip
    assert "Failed to import" not in caplog.text
