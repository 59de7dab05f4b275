"""Splitting a COCO annotation file by image."""

import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
from types import SimpleNamespace

import pytest
from helpers.paths import TOOLS

from misalign_det.datasets.formats import read_folder

TOOL = TOOLS / "dataset_converters/split_coco.py"
HELD_OUT_BY_SEED_5 = [1, 2, 3]


@pytest.fixture
def annotations(tmp_path):
    path = tmp_path / "instances.json"
    images = [dict(id=i, file_name=f"{i}.jpg") for i in range(10)]
    boxes = [dict(id=i, image_id=i // 2, category_id=1) for i in range(20)]
    path.write_text(json.dumps(dict(images=images, annotations=boxes, categories=[dict(id=1)])))
    return path


def run(*args):
    """Run the tool in this process, where the package is imported already."""
    spec = importlib.util.spec_from_file_location("split_coco", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            tool.main(list(map(str, args)))
        except SystemExit as end:
            status = end.code
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())


def test_the_held_out_images_are_those_of_before(annotations):
    """Of the version that shuffled the ids alone: studies have held out these images."""
    run(annotations, "--num-images", 3, "--seed", 5)
    held = json.loads((annotations.parent / "instances_held-out.json").read_text())
    assert [image["id"] for image in held["images"]] == HELD_OUT_BY_SEED_5


def test_every_image_and_its_boxes_go_to_one_side(annotations):
    assert run(annotations, "--num-images", 3).returncode == 0
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
    run(annotations, "--num-images", 3)
    first = held.read_text()
    run(annotations, "--num-images", 3)
    assert held.read_text() == first
    run(annotations, "--num-images", 3, "--seed", 1)
    assert held.read_text() != first


@pytest.mark.parametrize("num", [0, 10])
def test_an_empty_side_is_refused(annotations, num):
    result = run(annotations, "--num-images", num)
    assert result.returncode == 2 and "between 1 and 9" in result.stderr


def test_the_folder_is_made(annotations, tmp_path):
    out = tmp_path / "a/b"
    result = run(annotations, "--num-images", 3, "--out-dir", out)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "instances_held-out.json",
        "instances_rest.json",
    ]
    assert f"{out / 'instances_rest.json'}: 7 images, 14 boxes" in result.stdout


def test_a_folder_that_cannot_be_made_is_named(annotations, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(annotations, "--num-images", 3, "--out-dir", tmp_path / "file/below")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "error: cannot write" in result.stderr and "--out-dir" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "instances.json: Expecting"),
        ("[]", "no dictionary"),
        ('{"images": []}', "no annotations, categories"),
        ('{"images": [{}, {}], "annotations": [], "categories": []}', "an image without 'id'"),
    ],
)
def test_other_files_are_refused_in_one_line(annotations, text, message):
    annotations.unlink() if text is None else annotations.write_text(text)
    result = run(annotations, "--num-images", 1)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert message in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(id=4), "images with id 4 are listed more than once. Merge them"),
        (dict(file_name="4.jpg"), "images with file_name '4.jpg' are listed more than once."),
    ],
)
def test_an_image_that_is_listed_twice_is_refused(annotations, change, said):
    """It could be in both parts."""
    content = json.loads(annotations.read_text())
    content["images"][5] |= change
    annotations.write_text(json.dumps(content))
    result = run(annotations, "--num-images", 4)
    assert result.returncode == 2 and said in result.stderr.splitlines()[-1]
    assert not list(annotations.parent.glob("*held-out*"))


def test_a_byte_order_mark(annotations):
    annotations.write_text(annotations.read_text(), encoding="utf-8-sig")
    assert run(annotations, "--num-images", 4).returncode == 0


def test_numbers_and_strings_as_ids(annotations):
    content = json.loads(annotations.read_text())
    for image in content["images"][5:]:
        image["id"] = f"n{image['id']}"
    annotations.write_text(json.dumps(content))
    assert run(annotations, "--num-images", 4).returncode == 0
    held = json.loads((annotations.parent / "instances_held-out.json").read_text())
    assert len(held["images"]) == 4


def test_the_folder_can_be_trained_on_after_the_command_of_the_page(shapes, tmp_path, monkeypatch):
    """`--data data/quickstart`, of the same page, takes one file of training images."""
    line = re.search(r"`python \S+/split_coco.py ([^`]*)`", (TOOLS / "README.md").read_text())[1]
    shutil.copytree(shapes, tmp_path / "data/quickstart")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.replace("--num-images 100", "--num-images 1"))
    assert run(*words).returncode == 0
    out = tmp_path / words[words.index("--out-dir") + 1]
    assert sorted(path.name for path in out.iterdir()) == [
        "instances_train_held-out.json",
        "instances_train_rest.json",
    ]
    assert len(read_folder("data/quickstart").splits["train"].content["images"]) == 4
