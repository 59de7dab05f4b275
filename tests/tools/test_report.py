"""The misalignment report of detectors on disk: whole, and one line for what is wrong."""

import base64
import datetime
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.tiny_detectors import make_detector, tool
from mmdet.registry import MODELS
from mmengine.config import Config
from plotly.offline import get_plotlyjs

HEADS = ("TripleHead", "FCOSHead", "GFLHead")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    tool("dataset_converters", "shapes").make_set(folder, train=1, val=5, size=(160, 128), seed=3)
    path = folder / "annotations/instances_val.json"
    content = json.loads(path.read_text())
    # One image without objects, and a class without instances.
    first = content["images"][0]["id"]
    absent = content["categories"][-1]["id"]
    content["annotations"] = [
        a for a in content["annotations"]
        if a["image_id"] != first and a["category_id"] != absent
    ]  # fmt: skip
    path.write_text(json.dumps(content))
    return folder


def report(folder, data, heads, **kwargs):
    kwargs = dict(most=50, spread=0.3, **kwargs)
    pairs = [part for head in heads for part in make_detector(folder, head, **kwargs)]
    out = folder / "out/report.html"
    options = ["--device", "cpu", "--out", str(out), "--cfg-options", f"data_root={data}"]
    tool("analysis", "misalignment_report").main([*pairs, *options])
    return out


@pytest.mark.slow
def test_whole_and_self_contained(tmp_path, data, capsys):
    path = report(tmp_path, data, HEADS)
    html = path.read_text()
    printed = capsys.readouterr().out
    assert str(path) in printed and "Scores explain" in printed
    assert path.stat().st_size <= 8_000_000
    page = without_library(html)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "default-src 'none'" in page  # a browser refuses every request
    data = page_data(html)
    assert [d["name"] for d in data["detectors"]] == list(HEADS)
    assert data["images"] and len(data["classes"]) == 6
    for image in data["images"].values():
        kind, content = image["picture"].split(",")
        assert kind == "data:image/jpeg;base64"
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), 1)
        assert pixels.shape[:2] == (image["height"], image["width"]) == (128, 160)
        assert pixels.std() > 1 and len(image["boxes"]) == len(HEADS)
    for head in HEADS:
        assert f"</span>{head}</td>" in html
        assert f"{head}.pth" in html
    for text in ("--cfg-options", "instances_val.json", "5, ", "score of at least 0.000", "nms"):
        assert text in page
    assert f"Written on {datetime.date.today().year}" in page
    assert "not measured" not in html  # GFL's distributions are read, too
    assert page.count("beside TripleHead") == 2  # a table of differences for each of the others
    for row in re.findall(r"<tr><td>AP</td>(.*?)</tr>", page):
        _, _, gain, ends, _ = re.findall(r"<td>(.*?)</td>", row)
        low, high = map(float, ends.split(" to "))
        assert low <= float(gain) + 0.05 and float(gain) - 0.05 <= high


def page_data(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


def without_library(html):
    """The page without plotly, whose source names addresses."""
    return html.replace(get_plotlyjs(), "")


@pytest.mark.slow
def test_differences_only_on_the_same_images(tmp_path, data):
    """A detector on another split stands beside, with no interval of a difference."""
    content = json.loads((data / "annotations/instances_val.json").read_text())
    other = data / "annotations/fewer.json"
    kept = [image["id"] for image in content["images"][:4]]
    content["images"] = content["images"][:4]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    other.write_text(json.dumps(content))
    config, checkpoint = make_detector(tmp_path, "FCOSHead", most=20, spread=0.3)
    second = tmp_path / "fewer.py"
    second.write_text(
        f"_base_ = {config!r}\n"
        "val_dataloader = dict(dataset=dict(ann_file='annotations/fewer.json'))\n"
        f"val_evaluator = dict(ann_file={str(other)!r})\n"
    )
    out = tmp_path / "report.html"
    options = ["--device", "cpu", "--out", str(out), "--resamples", "10", "--cfg-options"]
    pairs = [config, checkpoint, str(second), checkpoint]
    tool("analysis", "misalignment_report").main([*pairs, *options, f"data_root={data}"])
    page = without_library(out.read_text())
    assert "not measured on the same images" in page and "beside FCOSHead" not in page


@pytest.mark.slow
def test_without_plotly_one_line_says_so_before_the_work(tmp_path, data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(SystemExit, match=r"^misalignment_report.py: .*misalign_det\[report\]"):
        report(tmp_path, data, ["FCOSHead"])
    assert "==>" not in capsys.readouterr().out


TWO_STAGES = """
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py',
          '{root}/configs/_base_/datasets/shapes_detection.py',
          '{root}/configs/_base_/default_runtime.py']
model = dict(
    backbone=dict(depth=18, base_channels=8, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=8),
                  bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=6)),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=20)))
"""


@pytest.mark.slow
def test_two_stages_beside_one(tmp_path, data, capsys):
    """What is about boxes and scores is measured; the rest says why not."""
    config, checkpoint = tmp_path / "FasterRCNN.py", tmp_path / "FasterRCNN.pth"
    config.write_text(TWO_STAGES.format(root=ROOT))
    one = make_detector(tmp_path, "FCOSHead", most=50, spread=0.3)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    out = tmp_path / "report.html"
    options = ["--device", "cpu", "--out", str(out), "--cfg-options", f"data_root={data}"]
    pairs = [str(config), str(checkpoint), *one]
    tool("analysis", "misalignment_report").main([*pairs, *options])
    html = out.read_text()
    assert "FasterRCNN: AP" in capsys.readouterr().out
    assert html.count("not measured. FasterRCNN is not a one-stage detector") == 2
    assert "FCOSHead, CLBalancedNMS" in html and "FasterRCNN, nms" not in html


MEASURE = """
import json, resource, sys
import torch
from mmengine.config import Config
from misalign_det.apis.detector import load_detector
from misalign_det.analysis.report.measurement import ScoreAlignment, measure

torch.set_num_threads(1)
cfg = Config.fromfile(sys.argv[1])
cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
peaks = []
update = ScoreAlignment.update
def watched(self, *image):
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return update(self, *image)
ScoreAlignment.update = watched
found = measure(load_detector(cfg, sys.argv[2]), cfg, progress=False)
print(json.dumps([found.num_images, len(found.detections), peaks]))
"""


@pytest.mark.slow
def test_memory_stays_flat_over_500_images(tmp_path, data):
    """What grows are the kept boxes: some kilobytes an image, not maps or pictures."""
    content = json.loads((data / "annotations/instances_val.json").read_text())
    images = [dict(content["images"][i % 5], id=i) for i in range(500)]
    annotations = [
        dict(found, id=100 * i + k, image_id=i)
        for i in range(500)
        for k, found in enumerate(
            a for a in content["annotations"] if a["image_id"] == content["images"][i % 5]["id"]
        )
    ]  # fmt: skip
    path = data / "annotations/many.json"
    path.write_text(json.dumps(dict(content, images=images, annotations=annotations)))
    config, checkpoint = make_detector(tmp_path, "TripleHead", most=100, spread=0.3)
    cfg = Config.fromfile(config)
    cfg.val_dataloader.dataset.update(data_root=str(data), ann_file=str(path))
    cfg.val_evaluator.ann_file = str(path)
    cfg.dump(tmp_path / "many.py")
    command = [sys.executable, "-c", MEASURE, tmp_path / "many.py", checkpoint]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    count, boxes, peaks = json.loads(done.stdout.splitlines()[-1])
    assert count == 500 and boxes > 20_000
    # kilobytes; the first tenth warms caches up
    assert (peaks[-1] - peaks[len(peaks) // 10]) / 450 < 100


@pytest.mark.slow
def test_a_detector_that_finds_nothing(tmp_path, data):
    html = report(tmp_path, data, ["TripleHead"], threshold=1.0).read_text()
    page = without_library(html)
    assert "no better box was suppressed" in page and not re.search(r">\+?nan", page)
    assert "The detector found nothing." in page
    assert page_data(html)["detectors"][0]["dots"]["box"] == []


def refused(words, capsys):
    """What the tool ends with, before it has measured anything."""
    with pytest.raises(SystemExit) as end:
        tool("analysis", "misalignment_report").main(words)
    assert "==>" not in capsys.readouterr().out
    return str(end.value)


def test_all_detectors_are_checked_before_the_first_is_measured(tmp_path, data, capsys):
    config, checkpoint = make_detector(tmp_path, "FCOSHead")
    options = ["--device", "cpu", "--out", str(tmp_path / "r.html"), "--cfg-options"]
    options += [f"data_root={data}"]
    pair = [config, checkpoint]
    none = str(tmp_path / "none.pth")
    assert f"there is no checkpoint {none}" in refused([*pair, config, none, *options], capsys)
    assert "none.py" in refused([*pair, "none.py", checkpoint, *options], capsys)
    other = tmp_path / "other.py"
    names = ["disc", "rectangle"]
    content = json.loads((data / "annotations/instances_val.json").read_text())
    kept = [c["id"] for c in content["categories"] if c["name"] in names]
    content["categories"] = [c for c in content["categories"] if c["id"] in kept]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] in kept]
    (data / "annotations/two.json").write_text(json.dumps(content))
    other.write_text(
        f"_base_ = {config!r}\nmodel = dict(bbox_head=dict(num_classes=2))\n"
        f"val_dataloader = dict(dataset=dict(metainfo=dict(classes={names!r}, palette=None),\n"
        "    ann_file='annotations/two.json'))\n"
        f"val_evaluator = dict(ann_file={str(data / 'annotations/two.json')!r})\n"
    )
    said = refused([*pair, str(other), checkpoint, *options], capsys)
    assert "other has the classes ('disc', 'rectangle'), FCOSHead ('disc', " in said
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"nothing")
    assert str(damaged) in refused([*pair, config, str(damaged), *options], capsys)
    unlike = make_detector(tmp_path, "GFLHead")[1]
    assert unlike in refused([*pair, config, unlike, *options], capsys)
    other.write_text(f"_base_ = {config!r}\nval_dataloader = None\n")
    said = refused([*pair, str(other), checkpoint, *options], capsys)
    assert "other: the config has no val_dataloader. Choose another --split" in said


def test_an_evaluator_that_does_not_fit_is_left_out(tmp_path, data, capsys):
    """Two sets whose image ids repeat: the objects of the dataset count."""
    config, checkpoint = make_detector(tmp_path, "FCOSHead", spread=0.3)
    cfg = Config.fromfile(config)
    leaf = dict(cfg.val_dataloader.dataset.to_dict(), data_root=str(data))
    cfg.val_dataloader.dataset = dict(type="ConcatDataset", datasets=[leaf, dict(leaf, indices=2)])
    cfg.val_evaluator.ann_file = str(data / leaf["ann_file"])
    cfg.dump(tmp_path / "concat.py")
    out = tmp_path / "r.html"
    options = ["--device", "cpu", "--out", str(out), "--resamples", "0"]
    words = [str(tmp_path / "concat.py"), checkpoint, *options]
    tool("analysis", "misalignment_report").main(words)
    said = capsys.readouterr().out
    assert "The figures refer to the objects of the dataset, since val_evaluator: " in said
    page = without_library(out.read_text())
    assert "concat: AP" in said and "7 images" in page
    assert "<td>val: the objects of the dataset</td>" in page
    cfg.val_dataloader.dataset = dict(leaf, ann_file="none.json")
    cfg.dump(tmp_path / "concat.py")
    assert "val_dataloader.dataset: there is no annotation file" in refused(words, capsys)


def test_the_command_line_names_what_is_wrong(tmp_path, data, capsys):
    module = tool("analysis", "misalignment_report")
    for arguments, message in (
        (["a.py"], "number of arguments is odd"),
        (["a.py", "a.pth", "--names", "x", "y"], "2 names for 1"),
        (["a.py", "a.pth", "--resamples", "-1"], "at least 0"),
    ):
        with pytest.raises(SystemExit):
            module.parse_args(arguments)
        assert message in capsys.readouterr().err
