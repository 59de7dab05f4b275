"""The report's file: small, safe, complete, and used by a reader in a real browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.report_measurements import CLASSES, make_measurement

from misalign_det.analysis.report import html_report
from misalign_det.analysis.report.html_report import MAX_BYTES, Source, write_report
from misalign_det.analysis.report.page_data import PageData, kinds_of
from misalign_det.analysis.report.pictures import choose_images, embedded, images_of_class

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
NODE = shutil.which("node")
SOURCE = Source("config.py", "checkpoint.pth", "val", "type nms, iou_threshold 0.6")


def page_data(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


def test_the_data_is_complete(tmp_path):
    found = make_measurement(tmp_path)
    write_report(tmp_path / "report.html", ["one"], [found], [SOURCE])
    html = (tmp_path / "report.html").read_text()
    assert "&lt;star&gt;" in html and "<star>" not in re.sub(
        r"<script.*?</script>", "", html, flags=re.S
    )
    data = page_data(html)
    assert data["classes"] == list(CLASSES) and len(data["images"]) == 8
    (detector,) = data["detectors"]
    kinds = np.bincount(kinds_of(found.detections), minlength=4)
    counted = [sum(row[4] for row in detector["counts"] if row[2] == kind) for kind in range(4)]
    assert counted == kinds.tolist() and sum(counted) == 240
    names = ("correct", "redundant", "error", "background")
    assert counted == [found.metrics[name] for name in names]
    dots = detector["dots"]
    assert len(dots["box"]) == detector["overlapping"] == (found.detections.overlaps > 0.1).sum()
    for column, values in (("score", found.detections.scores), ("iou", found.detections.overlaps)):
        np.testing.assert_allclose(dots[column], values[dots["box"]], atol=5e-4)
    # A mark leads to its box in its image.
    for box, image in zip(dots["box"], dots["image"]):
        (row,) = [b for b in data["images"][str(image)]["boxes"][0] if b[9] == box]
        np.testing.assert_allclose(row[:4], found.bboxes[box], atol=0.051)
        assert found.images[image].first <= box < found.images[image].end
    for label, order in enumerate(data["order"]):
        expected = [found.images.index(i) for i in found.images if label in i.gt_labels]
        assert set(order) <= set(expected) and len(set(order)) == len(order) > 0


def test_at_most_eight_megabytes_whatever_the_images(tmp_path):
    """Noise cannot be compressed: without a limit these pictures would have 12 MB."""
    found = make_measurement(tmp_path, count=60, size=(640, 640))
    path = tmp_path / "report.html"
    write_report(path, ["one", "another"], [found] * 2, [SOURCE] * 2)
    assert 0.9 * MAX_BYTES < path.stat().st_size <= MAX_BYTES
    images = page_data(path.read_text())["images"]
    assert 3 <= len(images) < 60
    assert set(images) == {str(found.images.index(i)) for i in found.images
                           if i.path in choose_images([found])[: len(images)]}  # fmt: skip
    uri, width, height = embedded(found.images[0].path)
    assert len(uri) * 60 > 12e6 and (width, height) == (640, 640)


def test_many_boxes_are_a_sample(tmp_path):
    found = make_measurement(tmp_path, count=3, boxes=2000, resamples=0)
    data = json.loads(PageData(["one"], [found]).json())["detectors"][0]
    assert len(data["dots"]["box"]) == 3000 < data["overlapping"]
    assert sum(row[4] for row in data["counts"]) == 6000  # the counts are of all


def test_images_without_pixels_have_boxes_on_an_empty_canvas(tmp_path):
    found = make_measurement(tmp_path, count=2)
    for image in found.images:
        (tmp_path / image.path).write_bytes(b"no image")
    entry = PageData(["one"], [found]).image(found.images[0].path)
    assert entry["picture"] == "" and entry["width"] >= found.images[0].gt_bboxes[:, 2].max()
    assert len(entry["boxes"][0]) == 30 and len(entry["gts"]) == 4


def test_the_most_wrongly_ranked_boxes_come_first(tmp_path):
    found = make_measurement(tmp_path, count=6, boxes=10)
    found.worst = []
    boxes = found.detections
    boxes.labels[:] = 0
    boxes.overlaps[:] = boxes.scores[:] = 0.5 + np.arange(60) / 200  # aligned
    boxes.overlaps[25] = 0.99  # of the third image: far above the rank of its score
    assert images_of_class([found], 0)[0] == found.images[2].path
    assert images_of_class([found], 1) == [] and choose_images([found], 1) == [found.images[2].path]


@pytest.mark.skipif(not NODE, reason="needs node")
def test_the_script_parses():
    script = ROOT / "misalign_det/analysis/report/report.js"
    subprocess.run([NODE, "--check", script], check=True, timeout=60)


def test_the_script_names_no_element_that_the_page_lacks():
    script = (html_report.FOLDER / "report.js").read_text()
    page = (html_report.FOLDER / "report.html.j2").read_text()
    asked = re.findall(r'element\("([a-z-]+)"\)', script) + re.findall(r'draw\("([a-z]+)"', script)
    assert len(asked) > 8 and all(f'id="{name}"' in page for name in asked)
    for part in ("scatter", "shown"):
        assert f"`{part}-${{" in script and f'id="{part}-{{{{' in page


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium or google-chrome")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_in_a_browser(tmp_path, width, dark):
    path = tmp_path / "report.html"
    both = [make_measurement(tmp_path, seed) for seed in (1, 2)]
    write_report(path, ["one", "another"], both, [SOURCE] * 2, "a command " + 30 * "/long/path")
    content = page_data(path.read_text())
    script = (ROOT / "tests/helpers/read_report.js").read_text()
    path.write_text(path.read_text().replace("</body>", f"<script>{script}</script></body>"))
    # A window has a least width; a frame has none.
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<script>addEventListener('message', e => document.body.innerHTML = "
        "'<pre>' + JSON.stringify(e.data) + '</pre>');</script>"
        f'<body><iframe src="{path.as_uri()}" style="width: {width}px; height: 800px"></iframe>'
    )
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         "--virtual-time-budget=10000", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    found = json.loads(re.search(r"<pre>(\{.*\})</pre>", done.stdout)[1])
    assert found["overflow"] <= 0 and width - 20 <= found["width"] <= width
    assert found["tables"] == 0 and found["narrowest"] >= 20
    light = int(re.search(r"\d+", found["text"])[0])
    assert light > 200 if dark else light < 60  # the charts' text follows the colour scheme
    # Scatter plots by kind of box, two curves and the diagonal, headroom, bars.
    kinds = [len(set(detector["dots"]["kind"])) for detector in content["detectors"]]
    assert found["drawn"] == [*kinds, 3, 2, 2] and kinds[0] > 0
    assert len(found["legend"]) == kinds[0] and min(found["legend"]) >= 8
    assert found["pictures"] == sum(1 for _ in re.finditer("<image data-image", path.read_text()))

    def numbers(cells):
        return np.array([cell for cell in cells if cell.isdigit()], int).reshape(2, 5)

    first = content["detectors"][0]
    dots = {key: np.array(values) for key, values in first["dots"].items()}
    assert found["all"][0] == len(dots["box"])
    assert numbers(found["all"][1])[0, 0] == sum(row[4] for row in first["counts"])
    above = dots["score"] >= 0.5
    assert found["above"][0] == above.sum() and 0 < above.sum() < len(above)
    assert found["above"][2] == "0.50"
    table = np.array(first["counts"])
    kinds = [table[(table[:, 2] == k) & (table[:, 3] >= 25), 4].sum() for k in range(4)]
    assert numbers(found["above"][1])[0].tolist() == [sum(kinds), *kinds]
    assert found["large"][0] == (above & (dots["size"] == 2)).sum() < above.sum()
    assert found["of_class"][0] == (dots["label"] == 1).sum()
    assert numbers(found["of_class"][1])[0, 0] == table[table[:, 0] == 1, 4].sum()
    assert found["of_class"][2] > 0 and found["of_class"][3] == "1"
    assert found["clicked"] == [2, 1]  # the image under both detectors, its box marked
