"""What the report says in words, and its figures' intervals."""

from types import SimpleNamespace

import numpy as np
import pytest

from misalign_det.analysis.report.resampling import Resampled, Resampling
from misalign_det.analysis.report.verdict import differences, one_line, same_images, verdict
from misalign_det.evaluation.coco_ap import index_annotations
from misalign_det.evaluation.score_alignment import ScoreAlignment


def around(value, spread):
    return Resampled(value, value + np.linspace(-spread, spread, 41))


def measured(**parts):
    figures = dict(
        AP=around(0.5, 0.02), AP_by_iou=around(0.6, 0.02), headroom=around(0.1, 0.02),
        explained=around(0.52, 0.02), laece=around(0.12, 0.01), overconfidence=around(-0.2, 0.01),
        regret=around(0.03, 0.01), balanced=around(0.0, 0.002), gap=around(1.5, 0.2),
    )  # fmt: skip
    figures |= {"headroom/cat": around(0.15, 0.01), "headroom/dog": around(0.05, 0.01)}
    return SimpleNamespace(
        resampled={**figures, **parts}, classes=("cat", "dog"), detections=range(9),
        gaps=[dict(other_level=0.25)], images=[],
    )  # fmt: skip


def test_each_statement_has_its_figure_and_interval():
    said = {statement.text: statement.figure for statement in verdict(measured())}
    assert said["Scores explain half of the ranking."] == "52 % (50 to 54)"
    assert said["Ranked by their fit, the same boxes would have 60.0 AP in place of 50.0."] == (
        "headroom 10.0 AP (8.1 to 11.9)"
    )
    assert said["Aligned training may gain most on cat."] == (
        "headroom of cat 15.0 AP (14.0 to 16.0), of dog 5.0 AP (4.0 to 6.0)"
    )
    assert said["CLBalancedNMS would gain nothing."] == "+0.0 AP (-0.2 to +0.2)"
    assert said["Scores are 0.20 too low on average."] == "calibration error 0.120 (0.111 to 0.130)"
    assert "NMS regret 3.0 AP (2.0 to 4.0)" in said.values()
    assert "median gap 1.50 strides (1.31 to 1.69)" in said.values()
    assert any("25\u00a0% of the objects on different levels" in text for text in said)
    assert one_line(measured()).startswith(
        "AP 50.0 (48.1 to 51.9). Scores explain half of the ranking: 52 % (50 to 54). Ranked by"
    )


@pytest.mark.parametrize(
    ("gain", "spread", "text"),
    [
        (0.02, 0.01, "CLBalancedNMS would gain."),
        (0.003, 0.002, "CLBalancedNMS would gain a little."),
        (-0.02, 0.01, "CLBalancedNMS would lose."),
        (0.001, 0.03, "Whether CLBalancedNMS would gain, these images do not show."),
        (-0.02, 0.03, "Whether CLBalancedNMS would gain, these images do not show."),
    ],
)
def test_nms_gains_only_what_the_interval_shows(gain, spread, text):
    assert text in [s.text for s in verdict(measured(balanced=around(gain, spread)))]


@pytest.mark.parametrize(
    ("share", "word"), [(0.02, "hardly any"), (0.26, "a quarter"), (0.97, "nearly all")]
)
def test_shares_in_words(share, word):
    assert verdict(measured(explained=around(share, 0.01)))[0].text == (
        f"Scores explain {word} of the ranking."
    )


def test_scores_that_rank_the_wrong_way_round_explain_nothing():
    statement = verdict(measured(explained=around(-0.81, 0.05)))[0]
    assert statement.text.startswith("Scores rank the boxes the wrong way round")
    assert statement.figure == "-81 % (-86 to -76)"
    assert "wrong way round" in verdict(measured(explained=Resampled(-0.81)))[0].text
    # Which way round it is, is not clear.
    assert verdict(measured(explained=around(-0.02, 0.1)))[0].text == (
        "Scores explain hardly any of the ranking."
    )
    wrong, weak = (measured(explained=around(value, 0.05)) for value in (-0.81, 0.25))
    (row,) = (row for row in differences(wrong, weak) if row.label == "ranking explained, %")
    assert (row.gain, row.says) == ("+106", "better")


def test_a_class_is_named_alone_only_if_it_is_clearly_the_first():
    tie = measured(**{"headroom/dog": Resampled(0.14, np.linspace(0.1, 0.2, 41))})
    assert "Aligned training may gain most on cat or dog." in [s.text for s in verdict(tie)]


def test_nothing_to_say():
    nothing = measured()
    nothing.detections = []
    (statement,) = verdict(nothing)
    assert "found nothing" in statement.text
    assert one_line(nothing).endswith("found nothing. Check its score threshold.")
    nan = Resampled(float("nan"))
    unknown = measured(**dict.fromkeys(measured().resampled, nan))
    assert verdict(unknown) == [] and differences(unknown, unknown) == []


def test_differences_are_paired():
    """Both vary far more from resample to resample than their difference does."""
    first, second = measured(AP=around(0.5, 0.2)), measured(AP=around(0.53, 0.21))
    row = differences(first, second)[0]
    assert (row.label, row.first, row.second, row.gain) == ("AP", "50.0", "53.0", "+3.0")
    assert row.interval == "+2.1 to +4.0" and row.says == "better"
    by_label = {
        row.label: row.says for row in differences(first, measured(laece=around(0.2, 0.01)))
    }
    assert by_label["calibration error"] == "worse" and by_label["AP by IoU"] == "not clear"
    plain = differences(measured(AP=Resampled(0.5)), measured(AP=Resampled(0.6)))[0]
    assert plain.gain == "+10.0" and plain.interval == plain.says == ""


def test_the_same_images_are_those_with_the_same_objects():
    def split(*boxes):
        images = [SimpleNamespace(path="a.jpg", gt_bboxes=np.array(box)) for box in boxes]
        return SimpleNamespace(images=images)

    one, other = split([[0, 0, 1, 1]]), split([[0, 0, 1, 2]])
    assert same_images([one, one]) and same_images([one])
    assert not same_images([one, other]) and not same_images([one, split()])


def scene(count=30, sign=1):
    """Images with two objects each; the boxes fit the better the higher their score.

    With sign=-1, the better the lower it is.
    """
    rng = np.random.default_rng(0)
    images = [dict(id=f"i{i}", width=99, height=99) for i in range(count)]
    objects = [
        dict(id=2 * i + k, image_id=f"i{i}", category_id=k, bbox=[40 * k, 0, 30, 30], area=900)
        for i in range(count)
        for k in (0, 1)
    ]
    categories = [dict(id=0, name="cat"), dict(id=1, name="dog")]
    coco = index_annotations(dict(images=images, categories=categories, annotations=objects))
    alignment = ScoreAlignment(coco, ("cat", "dog"))
    for i in range(count):
        fit = rng.uniform(0.55, 1, 2)
        boxes = np.array([[40 * k, 0, 40 * k + 30, 30 * fit[k]] for k in (0, 1)])
        scores = np.clip((0.5 - sign / 2 + sign * fit) + rng.normal(0, 0.1, 2), 0, 1)
        alignment.update(f"i{i}", dict(bboxes=boxes, scores=scores, labels=np.array([0, 1])))
    return coco, alignment.compute()


def test_resampled_figures_are_those_of_the_whole_split():
    coco, result = scene()
    found = Resampling(coco, ("cat", "dog"), resamples=40).alignment(result)
    for key in ("AP", "AP_by_iou", "headroom", "laece"):
        assert found[key].value == pytest.approx(result.overall[key]), key
        low, high = found[key].interval()
        assert low < result.overall[key] < high or key == "laece"
    assert found["explained"].value == pytest.approx(result.overall["spearman"] ** 2)
    assert found["headroom/dog"].value == pytest.approx(result.per_class["dog"]["headroom"])
    scores = result.detections.scores - result.detections.matched_overlaps
    assert found["overconfidence"].value == pytest.approx(scores.mean())
    again = Resampling(coco, ("cat", "dog"), resamples=40).alignment(result)["AP"]
    assert (found["AP"].draws == again.draws).all()
    assert (found["AP_by_iou"] - found["AP"]).draws == pytest.approx(found["headroom"].draws)


def test_a_negative_correlation_explains_less_than_nothing():
    coco, result = scene(sign=-1)
    found = Resampling(coco, ("cat", "dog"), resamples=40).alignment(result)["explained"]
    assert result.overall["spearman"] < -0.5 and found.interval()[1] < 0
    assert found.value == pytest.approx(-(result.overall["spearman"] ** 2))


def test_ap_by_iou_is_of_the_boxes_that_count():
    """Of 150 boxes in an image, the 50 of the lowest score fit best and do not count."""
    objects = [dict(id=i, image_id=1, category_id=0, bbox=[20 * i, 0, 10, 10], area=100)
               for i in range(150)]  # fmt: skip
    coco = index_annotations(dict(images=[dict(id=1)], categories=[dict(id=0, name="cat")],
                                  annotations=objects))  # fmt: skip
    alignment = ScoreAlignment(coco, ("cat",))
    boxes = [[20 * i, 0, 20 * i + 10, 6 if i < 100 else 10] for i in range(150)]
    alignment.update(1, dict(bboxes=np.array(boxes, float), scores=np.linspace(1, 0.1, 150),
                             labels=np.zeros(150, int)))  # fmt: skip
    result = alignment.compute()
    found = Resampling(coco, ("cat",), resamples=0).alignment(result)
    assert found["AP_by_iou"].value == found["AP"].value == found_ap(result)
    assert result.overall["AP"] > 0.1


def test_each_resample_has_the_boxes_of_its_images():
    coco, result = scene(6)
    resampling = Resampling(coco, ("cat", "dog"), resamples=25, seed=3)
    values = {f"i{i}": np.array([i, i]) for i in range(6)}
    rng = np.random.default_rng(3)
    expected = [np.median(rng.integers(6, size=6)) for _ in range(25)]
    found = resampling.median(values)
    assert found.draws.tolist() == expected and found.value == 2.5
    none = Resampling(coco, ("cat", "dog"), resamples=0).alignment(result)["AP"]
    assert none.value == found_ap(result) and np.isnan(none.interval()).all()


def found_ap(result):
    return pytest.approx(result.overall["AP"])
