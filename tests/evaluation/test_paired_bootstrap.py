"""The bootstrap of AP against pycocotools on copied images, and cases with a known answer."""

import contextlib
import io
import itertools
import json
import pickle

import numpy as np
import pytest
from helpers.tiny_detectors import tool
from mmdet.datasets.api_wrappers import COCO, COCOeval

from misalign_det.errors import InputError
from misalign_det.evaluation.paired_bootstrap import (
    ResampledAP,
    _ap,
    _evaluate,
    ap_difference,
    coco_figures,
)

CLASSES = ("a", "b")


def annotations(images=6, objects=4, seed=0):
    """Squares of two classes on a grid: ``(image, xyxy, class)`` each."""
    rng = np.random.default_rng(seed)
    return [
        (image, np.array([x, y, x + size, y + size]), int(label))
        for image in range(images)
        for x, y, size, label in zip(
            rng.integers(0, 100, objects), rng.integers(0, 100, objects),
            rng.integers(20, 60, objects), rng.integers(0, 2, objects))
    ]  # fmt: skip


def coco_of(objects, images):
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i, width=200, height=200) for i in range(images)],
        categories=[dict(id=7, name="a"), dict(id=3, name="b")],
        annotations=[
            dict(id=n + 1, image_id=image, category_id=(7, 3)[label], iscrowd=0,
                 area=float((box[2] - box[0]) ** 2),
                 bbox=[float(v) for v in (*box[:2], *(box[2:] - box[:2]))])
            for n, (image, box, label) in enumerate(objects)
        ],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def detections(objects, images, shift=0.0, seed=1):
    """Every object found, some pixels off, with a random score."""
    rng = np.random.default_rng(seed)
    found = []
    for image in range(images):
        own = [(box, label) for i, box, label in objects if i == image]
        boxes = np.array([box + rng.normal(0, 1, 4) * shift for box, _ in own]).reshape(-1, 4)
        labels = np.array([label for _, label in own], dtype=int)
        part = dict(bboxes=boxes, scores=rng.random(len(own)), labels=labels)
        found.append(dict(img_id=image, pred_instances=part))
    return found


def plain_ap(coco, found):
    """COCO's figure over all classes, by its own loop."""
    rows = [
        dict(image_id=s["img_id"], category_id=(7, 3)[label], score=float(score),
             bbox=[float(v) for v in (*box[:2], *(box[2:] - box[:2]))])
        for s in found
        for box, score, label in zip(*(s["pred_instances"][k] for k in
                                       ("bboxes", "scores", "labels")))
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize("drawn", [[0, 1, 2, 3, 4, 5], [3, 3, 0, 5, 5, 5], [2] * 6])
def test_a_draw_is_coco_on_copied_images(drawn):
    objects = annotations()
    found = detections(objects, 6, shift=3.0)
    evaluation = _evaluate(coco_of(objects, 6), found, np.array([7, 3]))
    copies = [
        (new, box, label)
        for new, old in enumerate(drawn)
        for image, box, label in objects
        if image == old
    ]
    moved = [dict(found[old], img_id=new) for new, old in enumerate(drawn)]
    expected = plain_ap(coco_of(copies, 6), moved)
    assert 0.1 < expected < 0.95
    assert _ap(evaluation, np.array(drawn)) == pytest.approx(expected, abs=1e-12)
    assert _ap(evaluation, np.arange(6)) == pytest.approx(plain_ap(coco_of(objects, 6), found))


def test_better_boxes_everywhere_exclude_zero():
    objects = annotations(images=30)
    coco = coco_of(objects, 30)
    poor, good = (detections(objects, 30, shift) for shift in (5.0, 1.0))
    sure = ap_difference(coco, [poor], [good], CLASSES, resamples=60)
    assert 0 < sure.low <= sure.gain <= sure.high
    same = ap_difference(coco, [poor], [poor], CLASSES, resamples=20)
    assert same.low == same.gain == same.high == 0


def test_detectors_that_differ_by_chance_are_seldom_told_apart():
    """Nineteen of twenty by the interval's level; images are few, so some more may fail."""
    objects = annotations(images=30)
    coco = coco_of(objects, 30)
    pairs = [[detections(objects, 30, 5.0, seed=2 * n + side) for side in (0, 1)]
             for n in range(16)]  # fmt: skip
    found = [ap_difference(coco, [a], [b], CLASSES, resamples=40) for a, b in pairs]
    assert sum(one.low <= 0 <= one.high for one in found) >= 12


def test_the_interval_is_the_spread_over_all_draws():
    """Two images make four draws, here with gains 1, 0.5, 0.5 and 0: all counted by hand."""
    objects = [(0, np.array([0, 0, 50, 50]), 0), (1, np.array([0, 0, 50, 50]), 0)]
    coco = coco_of(objects, 2)
    empty = dict(bboxes=np.empty((0, 4)), scores=np.empty(0), labels=np.empty(0))
    nothing = [dict(img_id=i, pred_instances=empty) for i in range(2)]
    one = [detections(objects, 2)[0], nothing[1]]
    evaluation = _evaluate(coco, one, np.array([7, 3]))
    gains = [_ap(evaluation, np.array(d)) for d in itertools.product(range(2), repeat=2)]
    # A recall of one half: 51 of COCO's 101 points.
    np.testing.assert_allclose(gains, [1, 51 / 101, 51 / 101, 0])
    found = ap_difference(coco, [nothing], [one], CLASSES, resamples=400)
    assert (found.first, found.low, found.high) == (0, 0, 1)
    assert found.second == pytest.approx(51 / 101)


def test_draws_without_an_object_do_not_count():
    """One of two images has an object: a quarter of the draws have none, and no AP."""
    objects = [(0, np.array([0, 0, 50, 50]), 0)]
    coco = coco_of(objects, 2)
    found = ap_difference(coco, [[]], [detections(objects, 2)], CLASSES, resamples=40)
    assert found.first == 0
    assert [found.second, found.low, found.high] == pytest.approx([1, 1, 1])
    with pytest.raises(InputError, match="no object of these classes"):
        ap_difference(coco, [[]], [[]], ("b",))


def test_confidence_and_seed():
    objects = annotations(images=12)
    coco = coco_of(objects, 12)
    pair = [[detections(objects, 12, shift)] for shift in (4.0, 3.0)]
    wide, same, narrow, other = (
        ap_difference(coco, *pair, CLASSES, 60, confidence, seed)
        for confidence, seed in ((0.95, 0), (0.95, 0), (0.5, 0), (0.95, 1))
    )
    assert wide == same != other
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide.images == 12


def test_figures_are_cocos():
    objects = annotations()
    coco = coco_of(objects, 6)
    found = detections(objects, 6, shift=3.0)
    figures = coco_figures(coco, found, CLASSES)
    assert figures["AP"] == pytest.approx(plain_ap(coco, found), abs=1e-12)
    # Boxes of IoU 0.7 count at 0.5 and not at 0.75.
    square = coco_of([(0, np.array([0, 0, 100, 100]), 0)], 1)
    part = dict(bboxes=np.array([[0, 0, 100, 71.0]]), scores=np.ones(1), labels=np.zeros(1))
    figures = coco_figures(square, [dict(img_id=0, pred_instances=part)], CLASSES)
    assert figures == pytest.approx(dict(AP=0.5, AP50=1, AP75=0))
    part = dict(part, bboxes=np.array([[0, 0, 100, 52.0]]))
    figures = coco_figures(square, [dict(img_id=0, pred_instances=part)], CLASSES)
    assert figures == pytest.approx(dict(AP=0.1, AP50=1, AP75=0))
    assert np.isnan(coco_figures(square, [], ("b",))["AP"])
    empty = dict(bboxes=np.empty((0, 4)), scores=np.empty(0), labels=np.empty(0))
    with pytest.raises(InputError, match="no image 'x'"):
        coco_figures(square, [dict(img_id="x", pred_instances=empty)], CLASSES)
    crowded = [dict(img_id=0, pred_instances=dict(
        bboxes=np.array([[500, 0, 510, 10.0]] * 100 + [[0, 0, 100, 100.0]]),
        scores=np.linspace(1, 0.1, 101), labels=np.zeros(101)))]  # fmt: skip
    assert coco_figures(square, crowded, CLASSES)["AP"] == 0  # 100 boxes an image
    assert coco_figures(square, crowded, CLASSES, max_dets=101)["AP"] > 0


def test_seeds_are_averaged():
    objects = annotations()
    coco = coco_of(objects, 6)
    a, b = (detections(objects, 6, shift) for shift in (2.0, 6.0))
    both = ap_difference(coco, [a, b], [a], CLASSES, resamples=5)
    single = [ap_difference(coco, [x], [a], CLASSES, resamples=5).first for x in (a, b)]
    assert both.first == pytest.approx(np.mean(single))


def test_trainings_are_drawn_with_replacement():
    """Of trainings at 0 and 1 the mean of two draws is 0, 0.5 or 1, with the binomial shares."""
    aps = ResampledAP(np.array([0.0, 1.0]), np.repeat([[0.0], [1.0]], 4000, axis=1))
    means = aps.with_seeds(0)
    assert means.shape == (4000,) and aps.mean == 0.5
    values, counts = np.unique(means, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)
    assert np.array_equal(means, aps.with_seeds(0))
    assert not np.array_equal(means, aps.with_seeds(1))


def test_no_detections_at_all_are_an_ap_of_zero():
    objects = annotations()
    found = ap_difference(coco_of(objects, 6), [[]], [detections(objects, 6)], CLASSES, 5)
    assert found.first == 0 and found.second == pytest.approx(1)


def test_wrong_files_are_named():
    objects = annotations()
    found = detections(objects, 6)
    with pytest.raises(InputError, match="no image 5"):
        ap_difference(coco_of(objects[:20], 5), [found], [found], CLASSES)
    with pytest.raises(InputError, match="label 1, but only 1 classes"):
        ap_difference(coco_of(objects, 6), [found], [found], CLASSES[:1])
    with pytest.raises(InputError, match="no images"):
        ap_difference(coco_of([], 0), [[]], [[]], CLASSES)


def test_tool(tmp_path, capsys):
    objects = annotations(images=12)
    (tmp_path / "a.json").write_text(json.dumps(coco_of(objects, 12).dataset))
    names = [str(tmp_path / f"{name}.pkl") for name in ("poor", "good", "best")]
    for name, shift in zip(names, (6.0, 1.0, 0.0)):
        with open(name, "wb") as file:
            pickle.dump(detections(objects, 12, shift), file)
    compare = tool("analysis", "compare_ap").main
    common = ["--ann-file", str(tmp_path / "a.json"), "--resamples", "30"]
    out = tmp_path / "r.json"
    compare([names[0], names[2], *common, "--out", str(out)])
    text = capsys.readouterr().out
    assert "-> 100.0:" in text and "resamples of the 12 images" in text and "contains 0" not in text
    figures = json.loads(out.read_text())
    assert figures["second"] == pytest.approx(1) and figures["low"] > 0
    compare([names[0], names[1], "--with", names[1], names[0], *common])
    assert "+0.0 AP (+0.0 to +0.0" in capsys.readouterr().out.replace("-0.0", "+0.0")
    with pytest.raises(SystemExit):
        compare([*names, *common])
    with pytest.raises(SystemExit, match="there is no file"):
        compare([names[0], "nothing.pkl", *common])
