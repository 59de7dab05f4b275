"""CLBalancedNMS: mmcv's NMS at gamma 0, equations 6 and 7 by hand, edge cases, its two entries."""

import inspect
import math

import pytest
import torch
from helpers.nms_scenes import random_boxes, without_ties
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps

from misalign_det.models.post_processing import CLBalancedNMS, cl_balanced_nms

OURS = dict(type="CLBalancedNMS", iou_threshold=0.6)


@pytest.mark.parametrize(
    "num, class_agnostic",
    # batched_nms itself needs a box to tell classes apart
    [(0, True), *[(num, flag) for num in (1, 2, 57, 900) for flag in (False, True)]],
)
@pytest.mark.parametrize("options", [{}, dict(max_num=7), dict(split_thr=50)], ids=str)
def test_gamma_zero_is_mmcvs_batched_nms_bit_for_bit(num, class_agnostic, options):
    boxes, scores, labels = random_boxes(num)
    common = dict(iou_threshold=0.5, **options)
    expected = batched_nms(boxes, scores, labels, dict(type="nms", **common), class_agnostic)
    ours = dict(type="CLBalancedNMS", gamma=0, **common)
    for mine, theirs in zip(batched_nms(boxes, scores, labels, ours, class_agnostic), expected):
        assert torch.equal(mine, theirs)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 120), st.integers(0, 1000), st.floats(0.05, 1.0))
def test_the_general_path_at_gamma_zero_equals_mmcvs_nms(num, seed, threshold):
    """The selection score is then the score itself, so nothing may change."""
    boxes, scores, _ = random_boxes(num, seed)
    scores = without_ties(scores)
    expected = nms(boxes, scores, threshold)
    mine = cl_balanced_nms(boxes, scores, threshold, gamma=0, output_score="selection")
    for ours, theirs in zip(mine, expected):
        assert torch.equal(ours, theirs)


def loop_reference(boxes, scores, threshold, gamma, sigma):
    """Greedy NMS and equations 6 and 7, one box at a time in float64."""
    boxes, scores = boxes.double(), scores.double()
    left, chosen = scores.argsort(descending=True, stable=True).tolist(), []
    while left:
        first = left[0]
        iou = bbox_overlaps(boxes[first : first + 1], boxes[left])[0]
        cluster = [i for i, overlap in zip(left, iou) if i == first or overlap > threshold]
        left = [i for i in left if i not in cluster]
        centre = torch.stack([(boxes[i, :2] + boxes[i, 2:]) / 2 for i in cluster])
        weight = torch.tensor([math.exp(scores[i]) for i in cluster], dtype=torch.float64)
        middle = (centre * weight[:, None]).sum(dim=0) / weight.sum()
        diagonal = (boxes[first, 2:] - boxes[first, :2]).norm()
        score = [
            scores[i] + gamma * math.exp(-(((c - middle).norm() / diagonal / sigma) ** 2))
            for i, c in zip(cluster, centre)
        ]
        chosen.append(cluster[max(range(len(cluster)), key=lambda k: score[k])])
    return chosen


@pytest.mark.parametrize("gamma, sigma", [(0.3, 0.1), (1.0, 0.05), (0.05, 1.0)])
@pytest.mark.parametrize("seed", range(5))
def test_equals_a_plain_loop(gamma, sigma, seed):
    boxes, _, _ = random_boxes(150, seed)
    scores = torch.rand(150, generator=torch.Generator().manual_seed(seed))  # no ties
    _, keep = cl_balanced_nms(boxes, scores, 0.5, gamma=gamma, sigma=sigma)
    assert sorted(keep.tolist()) == sorted(loop_reference(boxes, scores, 0.5, gamma, sigma))


# A cluster of three boxes: the best score lies 4 px right of the other two.
THREE = torch.tensor([[4.0, 0, 44, 40], [0.0, 0, 40, 40], [0.0, 0, 40, 40]])
SCORES = torch.tensor([0.9, 0.8, 0.7])


def test_the_box_closest_to_the_centre_is_kept():
    for gamma, kept in [(0.0, 0), (0.3, 0), (2.0, 1)]:
        dets, keep = cl_balanced_nms(THREE, SCORES, 0.5, gamma=gamma, sigma=0.05)
        assert keep.tolist() == [kept]
        torch.testing.assert_close(dets[0, 4], SCORES[kept])


def test_centre_and_selection_score_by_hand():
    # Centres at x = 24, 20, 20; softmax weights e^0.9, e^0.8, e^0.7; diagonal 40 sqrt(2).
    weights = [math.exp(s) for s in (0.9, 0.8, 0.7)]
    middle = 20 + 4 * weights[0] / sum(weights)
    closeness = math.exp(-(((middle - 20) / (0.05 * 40 * math.sqrt(2))) ** 2))
    dets, keep = cl_balanced_nms(
        THREE, SCORES, 0.5, gamma=2.0, sigma=0.05, output_score="selection"
    )
    assert keep.tolist() == [1]
    assert dets[0, 4].item() == pytest.approx(0.8 + 2 * closeness, rel=1e-5)


def relative_distances():
    """Of the three centres (x = 24, 20, 20) from eq. 6's, in diagonals of 40 x 40."""
    weights = [math.exp(s) for s in (0.9, 0.8, 0.7)]
    middle = 20 + 4 * weights[0] / sum(weights)
    return [abs(x - middle) / (40 * math.sqrt(2)) for x in (24, 20, 20)]


def test_defaults_by_hand():
    """gamma 0.3, sigma 0.05 and the gaussian; the box that is kept shows its own score."""
    selection = [s + 0.3 * math.exp(-((d / 0.05) ** 2))
                 for s, d in zip((0.9, 0.8, 0.7), relative_distances())]  # fmt: skip
    dets, keep = cl_balanced_nms(THREE, SCORES, 0.5, output_score="selection")
    assert keep.tolist() == [0] and max(selection) == selection[0]
    assert dets[0, 4].item() == pytest.approx(selection[0], rel=1e-5)
    dets, keep = cl_balanced_nms(THREE, torch.tensor([0.81, 0.8, 0.79]), 0.5)
    assert keep.tolist() == [1] and dets[0, 4].item() == pytest.approx(0.8)


@pytest.mark.parametrize("closeness, sign", [("linear", -1), ("literal", 1)])
def test_selection_scores_of_linear_and_literal_closeness(closeness, sign):
    selection = [s + 5 * ((sign < 0) + sign * d)
                 for s, d in zip((0.9, 0.8, 0.7), relative_distances())]  # fmt: skip
    dets, _ = cl_balanced_nms(
        THREE, SCORES, 0.5, gamma=5.0, closeness=closeness, output_score="selection"
    )
    assert dets[0, 4].item() == pytest.approx(max(selection), rel=1e-5)


@pytest.mark.parametrize("gamma", [0, 0.3])
def test_a_score_at_the_threshold_is_out(gamma):
    """As in mmcv's nms."""
    apart = torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]])
    scores = torch.tensor([0.25, 0.5, 0.251])
    for threshold, kept in ((0.25, [1, 2]), (0.2, [1, 2, 0]), (0.5, [])):
        found = cl_balanced_nms(apart, scores, 0.5, score_threshold=threshold, gamma=gamma)[1]
        assert found.tolist() == kept
        assert nms(apart, scores, 0.5, score_threshold=threshold)[1].tolist() == kept


def test_an_offset_of_a_pixel_joins_boxes():
    pair = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])  # 4 of 14 px, or 5 of 15 with the offset
    scores = torch.tensor([0.9, 0.8])
    for offset, kept in ((0, [0, 1]), (1, [0])):
        assert cl_balanced_nms(pair, scores, 0.3, offset)[1].tolist() == kept
    assert cl_balanced_nms(pair, scores, 0.3)[1].tolist() == [0, 1]


def test_half_precision_and_large_coordinates():
    dets, keep = cl_balanced_nms(THREE.half(), SCORES.half(), 0.5)
    assert dets.dtype == torch.float16 and keep.tolist() == [0]
    far = torch.tensor([[0.0, 0, 1e19, 1e19], [1e18, 0, 1e19, 1e19]])  # squares overflow
    assert len(cl_balanced_nms(far, torch.tensor([0.5, 0.4]), 0.5)[1]) >= 1


@pytest.mark.parametrize("mode, value", [("own", 0.8), ("best", 0.9)])
def test_output_scores(mode, value):
    dets, _ = cl_balanced_nms(THREE, SCORES, 0.5, gamma=2.0, sigma=0.05, output_score=mode)
    assert dets[0, 4].item() == pytest.approx(value)


@pytest.mark.parametrize("closeness, kept", [("linear", 1), ("literal", 0)])
def test_linear_and_literal_closeness_keep_other_boxes(closeness, kept):
    _, keep = cl_balanced_nms(THREE, SCORES, 0.5, gamma=20.0, closeness=closeness)
    assert keep.tolist() == [kept]


def test_output_is_sorted_and_max_num_cuts_after_sorting():
    boxes, scores, _ = random_boxes(300)
    dets, keep = cl_balanced_nms(boxes, scores, 0.5, gamma=1.0, sigma=0.05)
    assert (dets[1:, 4] <= dets[:-1, 4]).all() and len(keep.unique()) == len(keep)
    few, kept = cl_balanced_nms(boxes, scores, 0.5, gamma=1.0, sigma=0.05, max_num=5)
    assert torch.equal(few, dets[:5]) and torch.equal(kept, keep[:5])


def test_score_threshold_leaves_boxes_out_of_the_clusters():
    low = torch.tensor([0.9, 0.05, 0.05])
    _, keep = cl_balanced_nms(THREE, low, 0.5, score_threshold=0.1, gamma=9.0, sigma=0.05)
    assert keep.tolist() == [0]


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_edge_cases(gamma):
    empty = cl_balanced_nms(torch.zeros(0, 4), torch.zeros(0), 0.5, gamma=gamma)
    assert empty[0].shape == (0, 5) and empty[1].shape == (0,)
    one = cl_balanced_nms(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([0.5]), 0.5, gamma=gamma)
    assert one[1].tolist() == [0]
    same = torch.tensor([[3.0, 3, 9, 9]]).repeat(50, 1)
    assert len(cl_balanced_nms(same, torch.full((50,), 0.5), 0.5, gamma=gamma)[1]) == 1
    flat = torch.tensor([[3.0, 3, 3, 3]]).repeat(3, 1)  # no area: nothing overlaps anything
    assert len(cl_balanced_nms(flat, torch.rand(3), 0.5, gamma=gamma)[1]) == len(
        nms(flat, torch.rand(3), 0.5)[1]
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_broken_input_is_named(value, where):
    boxes, scores, labels = random_boxes(5)
    (boxes if where == "boxes" else scores)[2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        batched_nms(boxes, scores, labels, dict(OURS))


def test_boxes_that_require_a_gradient():
    boxes, scores, _ = random_boxes(20)
    boxes.requires_grad_()
    dets, _ = cl_balanced_nms(boxes, scores, 0.5)
    dets[:, :4].sum().backward()
    assert boxes.grad.sum() == 4 * len(dets)


def test_rotated_boxes_are_refused():
    with pytest.raises(ValueError, match="nms_rotated"):
        batched_nms(torch.rand(4, 5), torch.rand(4), torch.zeros(4), dict(OURS))


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(gamma=-1), "gamma"),
        (dict(sigma=0), "sigma"),
        (dict(sigma=-0.1), "sigma"),
        (dict(iou_threshold=0), "iou_threshold"),
        (dict(iou_threshold=1.01), "iou_threshold"),
        (dict(closeness="near"), "closeness"),
        (dict(output_score="mean"), "output_score"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        cl_balanced_nms(THREE, SCORES, **{"iou_threshold": 0.5, **options})


@pytest.mark.slow
def test_100_000_boxes():
    boxes, scores, labels = random_boxes(100_000, classes=80, objects=9_000, size=3000.0)
    scores = without_ties(scores)
    dets, keep = batched_nms(boxes, scores, labels, dict(OURS))
    plain, _ = batched_nms(boxes, scores, labels, dict(type="nms", iou_threshold=0.6))
    assert len(keep) == len(plain) and dets.isfinite().all()


def test_of_equal_scores_the_first_one_counts():
    """With more boxes than in the cases above, so that both algorithms of the clusters run."""
    boxes, scores, _ = random_boxes(3000, classes=1, objects=600, size=2000.0)
    _, expected = nms(boxes, without_ties(scores), 0.5)
    dets, keep = cl_balanced_nms(boxes, scores, 0.5, gamma=0, output_score="selection")
    assert torch.equal(keep, expected) and torch.equal(dets[:, 4], scores[keep])


def test_of_equal_output_scores_the_cluster_of_the_better_box_comes_first():
    """Two clusters; of the first one its second box is kept, which scores as the other cluster."""
    apart = torch.tensor([[100.0, 0, 140, 40]])
    boxes = torch.cat([THREE, apart])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.8])
    _, keep = cl_balanced_nms(boxes[[0, 3, 1, 2]], scores[[0, 3, 1, 2]], 0.5, gamma=2.0)
    assert keep.tolist() == [2, 1]


OPTIONS = [
    {},
    dict(gamma=0),
    dict(gamma=2.0, sigma=0.3, closeness="linear", output_score="best"),
    dict(offset=1, score_threshold=0.1, max_num=9, output_score="selection"),
]


def equal(found, expected):
    return all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected))


class TestTwoEntries:
    """By name in mmcv's ``batched_nms``, and built from the registry."""

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    @pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
    def test_both_give_the_same(self, options, device):
        boxes, scores = (part.to(device) for part in random_boxes(90)[:2])
        labels = torch.arange(90).to(device) % 3
        cfg = dict(OURS, **options)
        expected = batched_nms(boxes, scores, labels, dict(cfg))
        built = TASK_UTILS.build(dict(cfg))
        assert type(built) is CLBalancedNMS
        assert len(expected[1]) > 5 and equal(built(boxes, scores, labels), expected)
        one_class = batched_nms(boxes, scores, labels, dict(cfg), class_agnostic=True)
        assert equal(built(boxes, scores), one_class)
        assert not torch.equal(one_class[1], expected[1])
        assert equal(cl_balanced_nms(boxes, scores, **{**options, "iou_threshold": 0.6}), one_class)

    def test_every_option_reaches_the_other_entry(self):
        """Defaults too: a built object without options is the function without options."""
        names = list(inspect.signature(cl_balanced_nms).parameters.values())
        assert names[2:] == list(inspect.signature(CLBalancedNMS).parameters.values())
        options = dict(
            iou_threshold=0.4, offset=1, score_threshold=0.2, max_num=3, gamma=0.7, sigma=0.2,
            closeness="linear", output_score="best",
        )  # fmt: skip
        assert vars(CLBalancedNMS(**options)) == options

    def test_max_num_counts_over_all_classes(self):
        boxes, scores, labels = random_boxes(200)
        dets, keep = CLBalancedNMS(0.6, max_num=4)(boxes, scores, labels)
        assert len(dets) == len(keep) == 4

    def test_the_function_as_the_type_of_a_pure_python_config(self):
        boxes, scores, labels = random_boxes(90)
        expected = batched_nms(boxes, scores, labels, dict(OURS))
        assert equal(batched_nms(boxes, scores, labels, dict(OURS, type=cl_balanced_nms)), expected)

    def test_no_boxes_with_labels(self):
        dets, keep = CLBalancedNMS(0.6)(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0))
        assert dets.shape == (0, 5) and keep.shape == (0,)

    def test_a_bad_option_is_named_when_it_is_built(self):
        with pytest.raises(ValueError, match="gamma must be at least 0"):
            TASK_UTILS.build(dict(OURS, gamma=-1))
