"""The generated set: same bytes each time, valid COCO, and as varied as it claims."""

import json

import cv2
import numpy as np
import pytest
import shape_scenes
import shapes
from pycocotools.coco import COCO


@pytest.fixture(scope="module")
def scenes():
    """120 scenes of the default training split, drawn without files."""
    rngs = [shape_scenes.scene_rng(0, "train", i) for i in range(120)]
    return [shape_scenes.draw_scene(rng, 320, 240) for rng in rngs]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "shapes"
    assert shapes.make_set(out, train=6, val=3, seed=5)
    return out


def boxes_of(scenes):
    return np.array([o["box"] for _, _, objects in scenes for o in objects], float)


def test_same_seed_same_bytes_and_other_seed_other_bytes(made, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    shapes.make_set(again, train=6, val=3, seed=5)
    shapes.make_set(other, train=6, val=3, seed=6)
    names = sorted(p.relative_to(made) for p in made.rglob("*") if p.is_file())
    assert len(names) == 6 + 3 + 2 + 1
    assert all((made / n).read_bytes() == (again / n).read_bytes() for n in names)
    assert (made / "train/000000.jpg").read_bytes() != (other / "train/000000.jpg").read_bytes()


def test_larger_set_starts_with_the_smaller_one(made, tmp_path):
    larger = tmp_path / "larger"
    shapes.make_set(larger, train=7, val=4, seed=5)
    for split, count in (("train", 6), ("val", 3)):
        for i in range(count):
            name = f"{split}/{i:06d}.jpg"
            assert (made / name).read_bytes() == (larger / name).read_bytes()


def test_no_object_is_drawn_smaller_than_asked():
    rngs = [shape_scenes.scene_rng(0, "train", i) for i in range(60)]
    whole = [
        np.sqrt(w * h)
        for rng in rngs
        for _, _, _, w, h in shape_scenes.plan(rng, 256, 192, min_size=40)
    ]
    # 40 at 320 x 240 are 32 here; sides are rounded
    assert 31 < min(whole) < 36 and max(whole) > 100


def test_sets_with_other_smallest_objects_are_drawn_anew(tmp_path):
    out = tmp_path / "set"
    assert shapes.make_set(out, train=1, val=1)
    first = (out / "train/000000.jpg").read_bytes()
    # as sets were recorded before there was a choice
    stamp = out / shapes.STAMP
    recorded = json.loads(stamp.read_text())
    del recorded["min_size"]
    stamp.write_text(json.dumps(recorded))
    assert not shapes.make_set(out, train=1, val=1)
    assert shapes.make_set(out, train=1, val=1, min_size=40)
    assert (out / "train/000000.jpg").read_bytes() != first
    assert shapes.make_set(out, train=1, val=1)


def test_train_and_val_do_not_share_images(made):
    train = {p.read_bytes() for p in (made / "train").iterdir()}
    val = {p.read_bytes() for p in (made / "val").iterdir()}
    assert len(train) == 6 and len(val) == 3 and not train & val


@pytest.mark.parametrize(("split", "count"), [("train", 6), ("val", 3)])
def test_pycocotools_reads_it_and_every_image_is_there(made, split, count):
    coco = COCO(str(made / "annotations" / f"instances_{split}.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(shapes.CLASSES)
    assert len(coco.getImgIds()) == count
    for info in coco.loadImgs(coco.getImgIds()):
        assert cv2.imread(str(made / split / info["file_name"])).shape == (240, 320, 3)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        x, y, w, h = annotation["bbox"]
        assert x >= 0 and y >= 0 and x + w <= 320 and y + h <= 240
        assert 0 < annotation["area"] <= w * h
        assert annotation["iscrowd"] == 0


def test_boxes_touch_the_visible_pixels_on_all_four_sides(scenes):
    for _, owner, objects in scenes:
        assert owner.max() == len(objects) - 1
        for number, item in enumerate(objects):
            mask = (owner == number).astype(np.uint8)
            assert list(cv2.boundingRect(mask)) == item["box"]
            assert mask.sum() == item["area"]
            assert item["visible"] >= shape_scenes.MIN_VISIBLE - 0.001


def test_figures_are_where_the_boxes_say(scenes):
    """Away from its rim a figure has its class's hue, and the ground has hardly any colour."""
    checked = 0
    for image, owner, objects in scenes[:40]:
        hue, saturation, _ = cv2.split(
            cv2.cvtColor(cv2.GaussianBlur(image, (5, 5), 0), cv2.COLOR_BGR2HSV)
        )
        for number, item in enumerate(objects):
            inside = cv2.erode((owner == number).astype(np.uint8), np.ones((9, 9))) > 0
            if inside.sum() < 20:
                continue
            away = np.abs(int(np.median(hue[inside])) - shape_scenes.HUES[item["label"]])
            assert min(away, 180 - away) <= 10
            assert np.median(saturation[inside]) > 120
            checked += 1
    assert checked > 60


def test_sizes_span_ten_to_one_and_ratios_six_to_one(scenes):
    boxes = boxes_of(scenes)
    sizes = np.sqrt(boxes[:, 2] * boxes[:, 3])
    ratios = boxes[:, 2] / boxes[:, 3]
    low, high = np.percentile(sizes, [1, 99])
    assert sizes.max() / sizes.min() >= 10
    assert high / low >= 8, "the range must not rest on one odd object"
    assert ratios.max() / ratios.min() >= 6
    low, high = np.percentile(ratios, [2, 98])
    assert high / low >= 4.5
    assert set(range(len(shapes.CLASSES))) == {o["label"] for _, _, s in scenes for o in s}


def test_scenes_overlap_and_crowd_and_some_are_empty(scenes):
    counts = [len(objects) for _, _, objects in scenes]
    assert 1 <= sum(c == 0 for c in counts) <= 0.1 * len(counts)
    assert sum(c >= 8 for c in counts) >= 0.08 * len(counts)
    ambiguous = total = 0
    for _, _, objects in scenes:
        boxes = np.array([o["box"] for o in objects], float).reshape(-1, 4)
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        inside = (
            (centres[:, None] > boxes[None, :, :2])
            & (centres[:, None] < (boxes[:, :2] + boxes[:, 2:])[None])
        ).all(-1)
        ambiguous += (inside.sum(1) > 1).sum()
        total += len(boxes)
    assert ambiguous / total >= 0.25, "centres that lie in the box of another object too"


def test_kept_when_the_same_and_drawn_anew_when_not(tmp_path, capsys):
    out = tmp_path / "set"
    command = ["--out-dir", str(out), "--num-train", "2", "--num-val", "1"]
    assert shapes.main(command) == 0
    before = (out / "train/000000.jpg").stat().st_mtime_ns
    assert shapes.main(command) == 0
    assert "already there, kept" in capsys.readouterr().out
    assert (out / "train/000000.jpg").stat().st_mtime_ns == before
    (out / "train/000001.jpg").unlink()  # no longer whole
    assert shapes.main(command) == 0
    assert (out / "train/000001.jpg").is_file()
    assert shapes.main([*command, "--seed", "1"]) == 0
    assert json.loads((out / shapes.STAMP).read_text())["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["set"], "nothing half-made is left beside it"


def test_a_test_split_when_asked_for(tmp_path):
    out = tmp_path / "set"
    command = ["--out-dir", str(out), "--num-train", "1", "--num-val", "2"]
    assert shapes.main(command) == 0
    assert not (out / "test").exists()
    before = (out / "val/000001.jpg").read_bytes()
    assert shapes.main([*command, "--num-test", "2"]) == 0
    assert (out / "val/000001.jpg").read_bytes() == before
    images = {(out / f"{split}/000001.jpg").read_bytes() for split in ("val", "test")}
    assert len(images) == 2, "other images than the validation split's"
    content = json.loads((out / "annotations/instances_test.json").read_text())
    assert len(content["images"]) == 2 and content["annotations"]
    assert shapes.make_set(out, train=1, val=2) is False, "kept with its test split"
    assert (out / "test/000001.jpg").is_file()


def test_two_processes_at_once(tmp_path, monkeypatch):
    """The other one is done while this one still draws: its set stays, nothing is left behind."""
    out, drawn = tmp_path / "set", []
    real = shapes.write_split

    def other_is_quicker(*args):
        if not drawn:
            drawn.append(True)
            with monkeypatch.context() as other:
                other.setattr(shapes.os, "getpid", lambda: 0)
                shapes.make_set(out, train=2, val=1)
            drawn.append((out / "train/000000.jpg").stat().st_mtime_ns)
        real(*args)

    monkeypatch.setattr(shapes, "write_split", other_is_quicker)
    assert shapes.make_set(out, train=2, val=1) is False
    assert (out / "train/000000.jpg").stat().st_mtime_ns == drawn[1]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_foreign_folder_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert shapes.main(["--out-dir", str(tmp_path), "--num-train", "1", "--num-val", "1"]) == 1
    assert "was not made by this tool" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_broken_off_run_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shapes.cv2, "imwrite", lambda *a: False)
    assert (
        shapes.main(["--out-dir", str(tmp_path / "set"), "--num-train", "1", "--num-val", "1"]) == 1
    )
    assert "is the disk full?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--img-scale", "32", "240"], "at least 64 pixels"),
        (["--num-train", "0"], "at least 1"),
        (["--num-test", "-1"], "--num-test and --seed at least 0"),
    ],
)
def test_senseless_arguments(tmp_path, capsys, arguments, message):
    assert shapes.main(["--out-dir", str(tmp_path / "set"), *arguments]) == 1
    assert message in capsys.readouterr().err
