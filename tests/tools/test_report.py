"""The misalignment report: whole, self-contained, readable in a real browser."""

import base64
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from tiny_detectors import make_detector, tool

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


@pytest.mark.slow
def test_a_detector_that_finds_nothing(tmp_path, data):
    html = report(tmp_path, data, ["TripleHead"], threshold=1.0).read_text()
    assert "no image lost a box" in html and ">nan<" not in html


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
