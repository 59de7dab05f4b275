"""The misalignment report: whole, self-contained, readable in a real browser."""

import base64
import json
import re
import shutil
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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
    assert str(path) in capsys.readouterr().out
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "http" not in html
    pictures = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    assert len(pictures) >= len(HEADS) + 2
    for picture in pictures:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), 1)
        assert image.std() > 1
    for head in HEADS:
        assert f"</span>{head}</td>" in html
    assert "not measured" not in html  # GFL's distributions are read, too
    assert html.count("<h2>") == html.count("<p>") - html.count('<p><span class="dot"')


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
    assert "no better box was suppressed" in html and ">nan<" not in html


def test_the_command_line_names_what_is_wrong(tmp_path, data, capsys):
    module = tool("analysis", "misalignment_report")
    for arguments, message in (
        (["a.py"], "number of arguments is odd"),
        (["a.py", "a.pth", "--names", "x", "y"], "2 names for 1"),
    ):
        with pytest.raises(SystemExit):
            module.parse_args(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(tmp_path, data, width):
    path = report(tmp_path, data, ["TripleHead", "FCOSHead"])
    script = """<script>addEventListener('load', () => {
        const images = [...document.images], root = document.documentElement;
        parent.postMessage({images: images.length, overflow: root.scrollWidth - root.clientWidth,
            broken: images.filter(i => !i.naturalWidth).length, width: root.clientWidth,
            }, '*'); });</script>"""
    path.write_text(path.read_text().replace("</body>", script + "</body>"))
    # A window has a least width; a frame has none.
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<script>addEventListener('message', e => document.body.innerHTML = "
        "'<pre>' + JSON.stringify(e.data) + '</pre>');</script>"
        f'<body><iframe src="{path.as_uri()}" style="width: {width}px; height: 800px"></iframe>'
    )
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900",
         "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = json.loads(re.search(r"<pre>(\{.*\})</pre>", done.stdout)[1])
    assert found["images"] >= 4 and found["broken"] == 0
    assert found["overflow"] <= 0 and width - 20 <= found["width"] <= width
