"""Writing COCO data sets: what to_coco.py writes can be read again, and links to the images."""

import importlib.util
import json

import pytest
from helpers.data_folders import IMAGES, WRITERS, boxes_in, coco_of, write_folder, write_text
from helpers.paths import TOOLS

from misalign_det.datasets.formats import files, read_folder
from misalign_det.datasets.formats.export import export_coco
from misalign_det.datasets.formats.folder import FORMATS
from misalign_det.errors import InputError


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "to_coco", TOOLS / "dataset_converters/to_coco.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_written_is_read_again(kind, tmp_path, tool, capsys):
    source = write_folder(tmp_path / "source", kind)
    tool.main([str(source), "--out-dir", str(tmp_path / "out")])
    data = read_folder(str(tmp_path / "out"))
    for name, split in data.splits.items():
        truth = {image: boxes for image, (own, boxes) in IMAGES.items() if own == name}
        assert boxes_in(split.content) == truth
        assert split.file == tmp_path / f"out/annotations/instances_{name}.json"
        for image in split.content["images"]:
            assert (split.images / image["file_name"]).resolve().is_relative_to(source)
    said = capsys.readouterr().out
    assert f"{source}: {kind.removeprefix('Roboflow ') if 'COCO' not in kind else kind}" in said
    assert "instances_train.json: 3 images, 4 boxes" in said
    assert "left out or changed: nothing" in said


def test_a_split_by_group(tmp_path, tool):
    source = write_folder(tmp_path / "source", "CSV")
    tool.main([str(source), "--out-dir", str(tmp_path / "out"), "--fractions", "0.5", "0.5", "0",
               "--group", "video"])  # fmt: skip
    names = [
        {i["file_name"] for i in json.loads(path.read_text())["images"]}
        for path in sorted((tmp_path / "out/annotations").iterdir())
    ]
    assert len(names) == 2
    assert {frozenset(n) for n in names} == {
        frozenset(f"images/{name}.jpg" for name in group) for group in ("abc", "def")
    }


def test_one_file_is_split(tmp_path):
    source = write_folder(tmp_path / "source", "COCO")
    write_text(source / "annotations/instances_train.json", coco_of("abcdef"))
    lines = export_coco(str(source / "annotations/instances_train.json"), str(tmp_path / "out"))
    numbers = [line.split(": ")[1].split() for line in lines[1:4]]
    assert [words[0] for words in numbers] == ["4", "1", "1"]
    assert sum(int(words[2]) for words in numbers) == sum(
        len(boxes) for _, boxes in IMAGES.values()
    )


@pytest.mark.parametrize("limit", [2000, 0])
def test_missing_and_unreadable_images_are_left_out_with_their_boxes(tmp_path, limit, monkeypatch):
    monkeypatch.setattr(files, "_DECODED_IMAGES", limit)  # in a large folder too
    source = write_folder(tmp_path / "source", "COCO")
    (source / "images/a.jpg").unlink()
    (source / "images/b.jpg").write_bytes(b"no image")
    lines = export_coco(str(source), str(tmp_path / "out"))
    assert "instances_train.json: 1 images, 1 boxes" in lines[1]
    assert "1 missing images (first: images/a.jpg)" in lines[-1]
    assert "1 unreadable images (first: images/b.jpg)" in lines[-1]
    assert "3 boxes of images that are left out" in lines[-1]


def test_copies_are_files(tmp_path, tool):
    source = write_folder(tmp_path / "source", "YOLO")
    out = ["--out-dir", str(tmp_path / "out")]
    tool.main([str(source), *out])
    tool.main([str(source), *out, "--copy-images"])  # in place of the links of before
    images = list((tmp_path / "out/images").rglob("*.jpg"))
    assert len(images) == 6 and not any(path.is_symlink() for path in images)
    assert images[0].read_bytes() == (source / "images/train/a.jpg").read_bytes()


def test_the_source_is_not_written_to(tmp_path):
    source = write_folder(tmp_path / "source", "YOLO")
    with pytest.raises(InputError, match="Choose a folder outside"):
        export_coco(str(source), str(source / "out"))


def in_one_folder(root):
    """A YOLO set whose texts are beside its images, in a folder named images."""
    source = write_folder(root / "source", "YOLO")
    folder = root / "mine/images"
    folder.mkdir(parents=True)
    for file in [*source.rglob("*.jpg"), *source.rglob("labels/**/*.txt")]:
        file.rename(folder / file.name)
    write_text(folder / "classes.txt", "cat\ndog\n")
    return folder


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("below", ["", "more"])
def test_images_are_not_replaced_by_links_to_themselves(tmp_path, copy, below):
    folder = in_one_folder(tmp_path / below if below else tmp_path)
    out = folder.parent if not below else tmp_path / "out"
    if below:  # the folder to write to has a link to the source
        out.mkdir()
        (out / "images").symlink_to(folder.parent)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(InputError, match="Choose a(nother)? folder"):
        export_coco(str(folder), str(out), copy_images=copy)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert not (out / "annotations").exists()


def test_images_are_not_written_into_the_source_by_a_link(tmp_path):
    source = write_folder(tmp_path / "source", "YOLO")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images").symlink_to(source / "images")
    before = {file: file.stat().st_mtime_ns for file in source.rglob("*")}
    with pytest.raises(InputError, match="Choose a folder outside"):
        export_coco(str(source), str(tmp_path / "out"))
    assert {file: file.stat().st_mtime_ns for file in source.rglob("*")} == before


def test_images_from_elsewhere_are_not_replaced(tmp_path):
    source = write_folder(tmp_path / "source", "COCO")
    outside = tmp_path / "elsewhere.jpg"
    (source / "images/a.jpg").rename(outside)
    file = source / "annotations/instances_train.json"
    file.write_text(file.read_text().replace('"a.jpg"', f'"{outside}"'))
    with pytest.raises(InputError, match="elsewhere.jpg"):
        export_coco(str(source), str(tmp_path / "out"))
    assert outside.is_file() and not outside.is_symlink()
    assert not (tmp_path / "out").exists()


def test_a_split_of_an_earlier_conversion_does_not_stay(tmp_path):
    source = write_folder(tmp_path / "source", "YOLO")
    out = tmp_path / "out"
    export_coco(str(source), str(out))
    before = {file: file.read_bytes() for file in out.glob("annotations/*")}
    assert len(before) == 3
    with pytest.raises(InputError, match="instances_test.json is there from an earlier conversion"):
        export_coco(str(source), str(out), fractions=(0.5, 0.5, 0), seed=3)
    assert {file: file.read_bytes() for file in out.glob("annotations/*")} == before


def test_the_tool_offers_every_format(tool):
    assert tool.FORMATS == ("auto", *FORMATS)
