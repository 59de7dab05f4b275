"""tools/predict.py: images, folders, globs, videos and webcams; what they write."""

import json
import os

import cv2
import numpy as np
import pytest
from helpers.tiny_detectors import make_detector, tool

predict = tool(".", "predict")
CLASSES = 6


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return make_detector(tmp_path_factory.mktemp("detector"), "FCOSHead", spread=0.3)


@pytest.fixture
def images(tmp_path):
    """A folder with an image, one in a subfolder, one that cannot be read, and a video."""
    random = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    frames = random.integers(0, 256, (3, 72, 96, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.png"), frames[0])
    cv2.imwrite(str(folder / "sub/a.png"), frames[1])
    (folder / "broken.jpg").write_text("no image")
    writer = cv2.VideoWriter(
        str(tmp_path / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 72)
    )
    for frame in frames:
        writer.write(frame)
    writer.release()
    return folder


def results(folder):
    return json.loads((folder / "predictions.json").read_text())


def test_a_folder_and_a_video(detector, images, tmp_path, capsys):
    out = tmp_path / "out"
    inputs = [str(images), str(tmp_path / "film.mp4")]
    options = ["--out-dir", str(out), "--batch-size", "2", "--score-thr", "0", "--device", "cpu"]
    predict.main([*detector, *inputs, *options])
    text = capsys.readouterr().out
    assert "on 5 images and frames" in text
    assert f"1 images cannot be used: {images / 'broken.jpg'}" in text
    assert {p.name for p in (out / "pictures").iterdir()} == {"a.jpg", "sub_a.jpg"}
    picture, image = cv2.imread(str(out / "pictures/a.jpg")), cv2.imread(str(images / "a.png"))
    assert picture.shape == image.shape and np.abs(picture.astype(int) - image).max() > 100
    film = cv2.VideoCapture(str(out / "film.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and film.get(cv2.CAP_PROP_FPS) == 10
    found = results(out)
    assert {r["image_id"] for r in found} == {1, 2, 3, 4, 5}
    assert {r.get("frame") for r in found} == {None, 0, 1, 2}
    assert {r["file_name"] for r in found} >= {str(images / "a.png"), inputs[1]}
    for result in found:
        left, top, width, height = result["bbox"]
        assert 0 <= left <= left + width <= 96.01 and 0 <= top <= top + height <= 72.01
        assert 1 <= result["category_id"] <= CLASSES and 0 < result["score"] < 1


def test_classes_are_kept_by_name(detector, images, tmp_path):
    one = str(images / "a.png")
    predict.main([*detector, one, "--out-dir", str(tmp_path / "all"), "--no-pictures"])
    assert not (tmp_path / "all/pictures").exists()
    found = results(tmp_path / "all")
    name = found[0]["category_name"]
    options = ["--out-dir", str(tmp_path / "some"), "--no-pictures", "--classes", name]
    predict.main([*detector, one, *options])
    assert results(tmp_path / "some") == [r for r in found if r["category_name"] == name]


def test_images_and_frames_without_a_detection(detector, images, tmp_path):
    film, out = str(tmp_path / "film.mp4"), tmp_path / "out"
    options = ["--cfg-options", "model.test_cfg.score_thr=1.0"]
    predict.main([*detector, str(images / "a.png"), film, "--out-dir", str(out), *options])
    assert results(out) == []
    assert (out / "pictures/a.jpg").is_file() and (out / "film.mp4").is_file()


def test_mistakes_end_with_one_line_before_the_model_is_loaded(detector, images, monkeypatch):
    monkeypatch.setattr(predict, "Inferencer", None)
    (images / "empty").mkdir()
    cases = {
        "nothing.jpg": "there is no file or folder 'nothing.jpg'",
        str(images / "broken.jpg"): "cannot be read as an image",
        str(images / "empty"): "have no image",
        str(images / "*.gif"): "matches no image or video",
        "97": "webcam 97 cannot be opened",
        detector[0]: "is neither an image nor a video",
    }
    for name, message in cases.items():
        with pytest.raises(SystemExit, match=message) as caught:
            predict.main([*detector, name])
        assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit, match="no class 'unicorn'. Its classes are"):
        predict.main([*detector, str(images / "a.png"), "--classes", "unicorn"])


def test_a_webcam_ends_with_ctrl_c_and_keeps_its_video(detector, images, tmp_path, monkeypatch):
    capture = cv2.VideoCapture

    class Webcam:
        """The film, and then Ctrl-C."""

        def __init__(self, source):
            self.film = capture(str(tmp_path / "film.mp4") if source == 0 else source)

        def read(self):
            there, frame = self.film.read()
            if not there:
                raise KeyboardInterrupt
            return there, frame

        def __getattr__(self, name):
            return getattr(self.film, name)

    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    monkeypatch.chdir(tmp_path)
    predict.main([*detector, "0", "--out-dir", "out"])
    assert capture("out/webcam0.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert {r["file_name"] for r in results(tmp_path / "out")} == {"webcam 0"}


def test_inputs_are_not_replaced(detector, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load_config", None)
    pictures, film = tmp_path / "pictures", tmp_path / "film.mp4"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "a.jpg"), np.zeros((72, 96, 3), np.uint8))
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 72))
    writer.write(np.zeros((72, 96, 3), np.uint8))
    writer.release()
    (tmp_path / "link").symlink_to(tmp_path)
    for source in (pictures, film):
        for out in (tmp_path, tmp_path / "link"):
            with pytest.raises(SystemExit, match=f"{source.name}.* is one of the inputs"):
                predict.main([*detector, str(source), "--out-dir", str(out)])


def test_subfolders_that_are_links_and_pictures_of_a_run_before(images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    cv2.imwrite(str(other / "b.png"), np.zeros((72, 96, 3), np.uint8))
    (images / "linked").symlink_to(other)
    (images / "again").symlink_to(images)
    pictures = images / "predictions/pictures"
    pictures.mkdir(parents=True)
    (pictures / "a.jpg").write_bytes((images / "a.png").read_bytes())
    found = predict.find_sources([str(images), str(images)], leave_out=str(pictures)).images
    names = ["a.png", "broken.jpg", "linked/b.png", "sub/a.png"]
    assert found == [str(images / name) for name in names]
    assert predict.find_sources([str(pictures)], leave_out=str(pictures)).images == [
        str(pictures / "a.jpg")
    ]


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("file", "--out-dir .*out.* is a file, not a folder"),
        ("file/pictures", "pictures is a file, not a folder"),
        ("folder/predictions.json", "predictions.json is a folder"),
        ("folder/pictures/a.jpg", "a.jpg is a folder"),
        ("folder/film.mp4", "film.mp4 is a folder"),
    ],
)
def test_what_cannot_be_written_is_named_before_the_work(
    detector, images, tmp_path, monkeypatch, before, said
):
    monkeypatch.setattr(predict, "Inferencer", None)
    out = tmp_path / "out"
    kind, _, below = before.partition("/")
    path = out / below
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("") if kind == "file" else path.mkdir()
    inputs = [str(images / "a.png"), str(tmp_path / "film.mp4")]
    with pytest.raises(SystemExit, match=said) as error:
        predict.main([*detector, *inputs, "--out-dir", str(out)])
    assert "\n" not in str(error.value)


def test_a_video_that_cannot_be_written(detector, images, tmp_path, monkeypatch):
    def never(path, *rest):
        return opened(str(tmp_path / "no/such/folder.mp4"), *rest)

    opened = cv2.VideoWriter
    monkeypatch.setattr(predict.detect_video.__globals__["cv2"], "VideoWriter", never)
    never.fourcc = opened.fourcc
    film, out = str(tmp_path / "film.mp4"), tmp_path / "out"
    with pytest.raises(SystemExit, match=r"video .*out/film.mp4 cannot be written \(96x72, 10 fr"):
        predict.main([*detector, film, "--out-dir", str(out)])
    assert {found["frame"] for found in results(out)} == {0}


@pytest.fixture
def six(tmp_path):
    """A folder with six images."""
    random, folder = np.random.default_rng(0), tmp_path / "six"
    folder.mkdir()
    for i in range(6):
        cv2.imwrite(str(folder / f"{i}.jpg"), random.integers(0, 256, (72, 96, 3), np.uint8))
    return folder


def test_ctrl_c_keeps_what_was_found(detector, six, tmp_path, monkeypatch, capsys):
    def read(path):
        if path.endswith("3.jpg"):
            raise KeyboardInterrupt
        return read_image(path)

    read_image = predict.detect_images.__globals__["read_image"]
    monkeypatch.setitem(predict.detect_images.__globals__, "read_image", read)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        predict.main([*detector, str(six), "--out-dir", str(out)])
    said = capsys.readouterr()
    assert ended.value.code == 130 and "predict.py: interrupted." in said.err
    assert "detections on 3 images and frames, in " in said.out
    assert {found["image_id"] for found in results(out)} == {1, 2, 3}


@pytest.mark.parametrize("batch", ["1", "3", "9"])
def test_an_image_that_the_pipeline_cannot_use_is_left_out(detector, six, tmp_path, capsys, batch):
    """One of a pixel's width can be read, and not be resized."""
    cv2.imwrite(str(six / "2.jpg"), np.zeros((2000, 1, 3), np.uint8))
    out = tmp_path / "out"
    options = ["--out-dir", str(out), "--batch-size", batch]
    predict.main([*detector, str(six), *options])
    said = capsys.readouterr().out
    assert f"1 images cannot be used: {six / '2.jpg'} (error: OpenCV" in said
    assert "detections on 5 images and frames" in said
    names = {found["file_name"] for found in results(out)}
    assert names == {str(six / f"{i}.jpg") for i in (0, 1, 3, 4, 5)}
    assert len(list((out / "pictures").iterdir())) == 5
    with pytest.raises(SystemExit, match=r"none of the images can be used: .*2\.jpg \(error: Open"):
        predict.main([*detector, str(six / "2.jpg"), *options])


def test_an_error_of_the_detector_is_not_the_images(detector, six, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(predict.Inferencer, "forward", fails)
    with pytest.raises(ZeroDivisionError):
        predict.main([*detector, str(six), "--out-dir", str(tmp_path / "out")])


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="only Linux has a full disk to write to"
)
def test_a_full_disk_keeps_what_was_found(detector, six, tmp_path):
    out = tmp_path / "out"
    (out / "pictures").mkdir(parents=True)
    (out / "pictures/3.jpg").symlink_to("/dev/full")
    with pytest.raises(SystemExit, match="the disk is full.* Free some space") as ended:
        predict.main([*detector, str(six), "--out-dir", str(out)])
    assert "--resume" not in str(ended.value)
    assert {found["image_id"] for found in results(out)} == {1, 2, 3, 4}


def test_long_names_of_folders(detector, six, tmp_path):
    """Names of pictures have those of the folders, and may be longer than a file's may."""
    inner = tmp_path / "all" / ("ä" * 120) / ("b" * 130)
    inner.mkdir(parents=True)
    for path in (tmp_path / "all/0.jpg", inner / "0.jpg", inner.parent / "0.jpg"):
        path.write_bytes((six / "0.jpg").read_bytes())
    other = tmp_path / "all" / ("ö" * 120) / ("b" * 130)  # ends alike
    other.mkdir(parents=True)
    (other / "0.jpg").write_bytes((six / "0.jpg").read_bytes())
    out = tmp_path / "out"
    predict.main([*detector, str(tmp_path / "all"), "--out-dir", str(out)])
    names = {path.name for path in (out / "pictures").iterdir()}
    assert len(names) == 4 and "0.jpg" in names and max(map(len, names)) <= 204


def test_a_pattern_leaves_out_the_pictures_of_a_run_before(detector, six, monkeypatch):
    monkeypatch.chdir(six)
    for _ in range(2):
        predict.main([*detector, "**/*.jpg"])
        assert sorted(os.listdir("predictions/pictures")) == [f"{i}.jpg" for i in range(6)]
    found = predict.find_sources(["predictions/pic*/*.jpg"], "predictions/pictures").images
    assert len(found) == 6
    (six / "predictions/pictures2").mkdir()
    (six / "predictions/pictures2/x.jpg").write_bytes((six / "0.jpg").read_bytes())
    found = predict.find_sources(["**/*.jpg"], leave_out="predictions/pictures").images
    assert found == [*(f"{i}.jpg" for i in range(6)), "predictions/pictures2/x.jpg"]


WRAPPED = """
_base_ = '{}'
inner = dict(type='CocoDataset', ann_file='none.json', metainfo=dict(classes=list('abcdef')),
             pipeline={{{{_base_.test_dataloader.dataset.pipeline}}}})
bare = dict(type='CocoDataset', ann_file='none.json', metainfo=dict(classes=list('abcdef')))
test_dataloader = dict(dataset=dict(_delete_=True, {}))
"""


def test_datasets_in_wrappers(detector, images, tmp_path):
    config, one = tmp_path / "wrapped.py", str(images / "a.png")
    found = []
    for number, dataset in enumerate((
        "**inner",
        "type='RepeatDataset', times=2, dataset=inner",
        "type='ConcatDataset', datasets=[bare, dict(type='RepeatDataset', times=2, dataset=inner)]",
    )):  # fmt: skip
        config.write_text(WRAPPED.format(detector[0], dataset))
        out = tmp_path / str(number)
        predict.main([str(config), detector[1], one, "--out-dir", str(out), "--no-pictures"])
        found.append(results(out))
    assert found[0] == found[1] == found[2] != []
    config.write_text(WRAPPED.format(detector[0], "type='ConcatDataset', datasets=[bare]"))
    with pytest.raises(SystemExit, match="no dataset of the config's test_dataloader has a pip"):
        predict.main([str(config), detector[1], one, "--out-dir", str(out)])
