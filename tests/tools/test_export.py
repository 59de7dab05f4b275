"""tools/export.py as a command, and the example of how to use its file."""

import re

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.tiny_detectors import make_detector, tool

from misalign_det.apis.inference import Inferencer

export = tool(".", "export")
NAMES = ("a.png", "image.jpg")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return make_detector(tmp_path_factory.mktemp("detector"), "TripleHead", spread=0.3)


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The working directory, with two images."""
    monkeypatch.chdir(tmp_path)
    for name, image in zip(NAMES, np.random.default_rng(0).integers(0, 256, (2, 72, 96, 3))):
        cv2.imwrite(name, image.astype(np.uint8))
    return tmp_path


@pytest.mark.slow
def test_the_example_gives_the_detectors_boxes(detector, images, capsys):
    """Of a portrait image too, whose long side is resized to the larger number."""
    export.main([*detector, "--out", "model.onnx", "--nms", "--images", "."])
    assert re.search(
        r"model\.onnx: boxes within \S+ of the image and scores within \S+ of torch's on 2 images "
        r".*\(ONNX, opset 17, NMS inside\)", capsys.readouterr().out)  # fmt: skip
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "tools/README.md").read_text(), re.S)
    (example,) = (block for block in blocks if "InferenceSession" in block)
    detect = Inferencer(*detector, device="cpu")
    for size in ((72, 96), (96, 72), (100, 60)):
        image = np.random.default_rng(1).integers(0, 256, (*size, 3))
        cv2.imwrite(NAMES[1], image.astype(np.uint8))
        found: dict = {}
        exec(example, found)
        detections = found["detections"][0][found["labels"][0] >= 0]
        (expected,) = detect(NAMES[1])["predictions"]
        assert len(detections) == len(expected["scores"]) > 0
        np.testing.assert_allclose(detections[:, 4], expected["scores"], atol=1e-4)
        boxes = detections[:, :4] / found["factor"]
        near = np.abs(boxes[:, None] - np.array(expected["bboxes"])[None]).max(-1).min(1)
        assert near.max() < 0.05  # pixels of the image


def test_a_missing_validation_set_is_named(detector, images):
    options = ["--cfg-options", "val_dataloader.dataset.ann_file=nowhere.json"]
    with pytest.raises(SystemExit, match=r"nowhere\.json, of the validation set, is missing"):
        export.main([*detector, "--out", "model.onnx", *options])


def test_a_config_without_a_validation_set(detector, images):
    none = ["val_dataloader=None", "val_cfg=None", "val_evaluator=None"]
    with pytest.raises(SystemExit, match=r"no validation set\. Give images by --images FOLDER"):
        export.main([*detector, "--out", "model.onnx", "--cfg-options", *none])


@pytest.mark.parametrize("text", ['{"images": [', "[]", '{"images": []}', "\ufeff{}"])
def test_a_damaged_validation_set(detector, images, text):
    (images / "cut.json").write_text(text, encoding="utf-8")
    options = ["--cfg-options", f"val_dataloader.dataset.ann_file={images / 'cut.json'}"]
    with pytest.raises(SystemExit, match=r"--images FOLDER\.$") as ended:
        export.main([*detector, "--out", "model.onnx", *options])
    assert "\n" not in str(ended.value) and not (images / "model.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("nms", [False, True])
def test_a_file_that_differs_is_not_written(detector, images, capsys, monkeypatch, nms):
    """With NMS inside, the boxes before it are compared first."""
    (images / "model.onnx").write_text("the one before")
    load, compared = export.load_onnx, []

    def wrong(path):
        run = load(path)

        def outputs(batch):
            first, second = run(batch)
            compared.append(second.dim())
            return first + 0.1, second

        return outputs

    monkeypatch.setattr(export, "load_onnx", wrong)
    with pytest.raises(SystemExit) as error:
        export.main([*detector, "--out", "model.onnx", "--images", NAMES[0], *["--nms"] * nms])
    assert set(compared) == {3}  # scores of all classes, and not labels
    assert "It is not written" in f"{error.value}{capsys.readouterr().err}"
    assert (images / "model.onnx").read_text() == "the one before"
    assert sorted(path.name for path in images.iterdir()) == sorted([*NAMES, "model.onnx"])


def test_other_images_are_read_where_some_cannot_be(tmp_path):
    for i in range(9):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((8, 8, 3), np.uint8))
    for i in (0, 3):
        (tmp_path / f"{i}.png").write_text("no image")
    options = ["x.py", "x.pth", "--out", "x.onnx", "--images", str(tmp_path), "--num-images"]
    for number, names in ((3, "612"), (8, "1245678")):
        found = export.image_paths(export.parse_args([*options, str(number)]), None)
        assert sorted(found) == sorted(str(tmp_path / f"{name}.png") for name in names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "x.onnx", "--img-scale", "0", "8"], "both numbers of --img-scale"),
        (["--out", "x.onnx", "--img-scale", "8", "-1"], "both numbers of --img-scale"),
        (["--out", "folder.onnx"], "folder.onnx is a folder"),
    ],
)
def test_mistakes_are_named_before_the_model_is_loaded(
    options, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(SystemExit):
        export.parse_args(["x.py", "x.pth", *options])
    assert said in capsys.readouterr().err
