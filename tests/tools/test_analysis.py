"""loss_maps.py, receptive_field.py and tune_nms.py on this package's heads and mmdet's own."""

import json
import re
from pathlib import Path

import cv2
import pytest
from helpers.tiny_detectors import HEADS, image_with_objects, make_detector, tool
from mmengine.config import Config

from misalign_det.datasets.preflight import check_config
from misalign_det.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    tool("dataset_converters", "shapes").make_set(folder, train=1, val=6, size=(160, 128), seed=3)
    return folder


@pytest.fixture(params=HEADS)
def detector(request, tmp_path, data):
    """Arguments for a small untrained detector with one of the heads."""
    common = ["--device", "cpu", "--out-dir", str(tmp_path / "out")]
    options = ["--cfg-options", f"data_root={data}"]
    return [*make_detector(tmp_path, request.param), *common], options, tmp_path


@pytest.mark.slow
def test_loss_maps_of_every_supported_head(detector, data, capsys):
    arguments, options, folder = detector
    name, count = image_with_objects(data)
    module = tool("analysis", "loss_maps")
    positives = 0
    for gt in range(min(2, count)):
        module.main([*arguments, "--image", name, "--gt", str(gt), *options])
        text = capsys.readouterr().out
        lines = [line for line in text.splitlines() if line.strip().startswith("stride")]
        assert len(lines) == 5
        positives += sum(int(line.split("box,")[1].split()[0]) for line in lines)
        picture = folder / "out" / f"loss_maps_{Path(name).stem}_{gt}.png"
        assert cv2.imread(str(picture)).std() > 10
    assert positives > 0


@pytest.mark.slow
def test_receptive_fields_of_every_supported_head(detector, capsys):
    arguments, options, folder = detector
    module = tool("analysis", "receptive_field")
    module.main([*arguments, "--num-images", "2", "--num-objects", "1", *options])
    table = json.loads((folder / "out/receptive_field.json").read_text())
    assert [row["stride"] for row in table[::2]] == [8, 16, 32, 64, 128]
    # ResNet-18's stage 5 sees 435 px; each 3x3 convolution of the pyramid adds twice its stride.
    assert [row["feature"] for row in table[4::2]] == [435 + 64, 499 + 64, 563 + 128]
    for row in table:
        convs = (row["theoretical"] - row["feature"]) / (2 * row["stride"])
        assert convs == 2 + ("TripleHead" in Path(arguments[0]).read_text())
        assert 0 < row["effective"] <= 2 * 192
    assert (folder / "out/receptive_field.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["TripleHead"], indirect=True)
def test_nms_is_chosen_on_one_split_and_reported_on_another(detector, capsys):
    (config, checkpoint, *_), options, folder = detector
    out = folder / "r.json"
    arguments = ["--gamma", "0.3", "1", "--sigma", "0.1", "--output-score", "own"]
    tool("analysis", "tune_nms").main(
        [config, checkpoint, "--device", "cpu", *arguments, "--out", str(out), *options]
    )
    text = capsys.readouterr().out
    assert "on val" in text
    rows = json.loads(out.read_text())
    assert [row["split"] for row in rows] == ["val"] * 3 + ["test"] * 2
    best = max(rows[1:3], key=lambda row: row["coco/bbox_mAP"])
    assert rows[4]["nms"] == best["nms"] and rows[3]["nms"]["type"] == "nms"
    assert re.search(r"AP \([+-][\d.]+ to [+-][\d.]+ on resamples of the 6 images\) on test", text)


@pytest.mark.parametrize("name", ["loss_maps"])
@pytest.mark.parametrize(
    "extra, message",
    [
        (["--image", "nothing.jpg"], "no image 'nothing.jpg'"),
        (["--image", "WITH_OBJECTS", "--gt", "99"], "--gt 99: the image has"),
    ],
)
def test_wrong_image_and_object_are_named(tmp_path, data, name, extra, message, capsys):
    pair = make_detector(tmp_path, "FCOSHead")
    extra = [image_with_objects(data)[0] if part == "WITH_OBJECTS" else part for part in extra]
    with pytest.raises(SystemExit) as stop:
        tool("analysis", name).main(
            [*pair, "--out-dir", str(tmp_path), "--device", "cpu", *extra, "--cfg-options",
             f"data_root={data}"]
        )  # fmt: skip
    assert message in str(stop.value) + capsys.readouterr().err


@pytest.mark.parametrize("name", ["tune_nms", "save_pictures", "loss_maps", "receptive_field",
                                  "figures"])  # fmt: skip
def test_an_evaluator_that_is_not_used_is_not_checked(name, data, tmp_path, monkeypatch):
    """Two sets whose image ids repeat, which the evaluator's one file cannot tell apart."""
    config, checkpoint = make_detector(tmp_path, "FCOSHead")
    cfg = Config.fromfile(config)
    leaf = dict(cfg.test_dataloader.dataset.to_dict(), data_root=str(data))
    cfg.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[leaf, dict(leaf, indices=1)])
    cfg.val_dataloader.dataset = leaf
    cfg.test_evaluator.ann_file = str(data / leaf["ann_file"])
    cfg.dump(tmp_path / "concat.py")
    with pytest.raises(InputError, match="test_evaluator: .* the same file is listed more"):
        check_config(cfg, ("test",))
    module = tool("analysis", name)

    def load_detector(*args):
        raise InputError("the checks are over")

    loader = "load_detectors" if name == "figures" else "load_detector"
    monkeypatch.setattr(module, loader, load_detector)
    words = {"tune_nms": [], "figures": ["--split", "test", "--out-dir", str(tmp_path)]}
    words = [str(tmp_path / "concat.py"), checkpoint, *words.get(name, words["figures"])]
    with pytest.raises(SystemExit, match="the checks are over"):
        module.main([*["detections"] * (name == "figures"), *words])
