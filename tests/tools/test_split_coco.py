"""Splitting a COCO annotation file by image."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "dataset_converters" / "split_coco.py"


@pytest.fixture
def annotations(tmp_path):
    path = tmp_path / "instances.json"
    images = [dict(id=i, file_name=f"{i}.jpg") for i in range(10)]
    boxes = [dict(id=i, image_id=i // 2, category_id=1) for i in range(20)]
    path.write_text(json.dumps(dict(images=images, annotations=boxes, categories=[dict(id=1)])))
    return path


def run(*args):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, args)], capture_output=True, text=True, check=False
    )


def test_every_image_and_its_boxes_go_to_one_side(annotations):
    assert run(annotations, "--num", 3).returncode == 0
    rest, held = (
        json.loads((annotations.parent / f"instances_{part}.json").read_text())
        for part in ("rest", "held-out")
    )
    assert (len(rest["images"]), len(held["images"])) == (7, 3)
    ids = [{image["id"] for image in part["images"]} for part in (rest, held)]
    assert ids[0] | ids[1] == set(range(10)) and not ids[0] & ids[1]
    for part, own in zip((rest, held), ids):
        assert sorted(box["image_id"] for box in part["annotations"]) == sorted([*own, *own])
        assert part["categories"] == [dict(id=1)]


def test_the_same_seed_holds_out_the_same_images(annotations):
    held = annotations.parent / "instances_held-out.json"
    run(annotations, "--num", 3)
    first = held.read_text()
    run(annotations, "--num", 3)
    assert held.read_text() == first
    run(annotations, "--num", 3, "--seed", 1)
    assert held.read_text() != first


@pytest.mark.parametrize("num", [0, 10])
def test_an_empty_side_is_refused(annotations, num):
    result = run(annotations, "--num", num)
    assert result.returncode == 2 and "between 1 and 9" in result.stderr
