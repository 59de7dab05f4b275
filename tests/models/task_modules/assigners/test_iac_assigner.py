"""IACAssigner: MaxIoUAssigner at an infinite threshold, equation 5 by hand, the guards."""

import math

import pytest
import torch
from helpers.iac_cases import ANCHORS, COMMON, GT, boxes, instances, make, predictions
from helpers.other_device import place
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.registry import TASK_UTILS


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 12),
    st.integers(0, 3),
    st.integers(0, 1000),
    st.sampled_from([-1, 0.3]),
    st.booleans(),
    st.booleans(),
)
def test_infinite_threshold_is_max_iou_assigner(
    num_priors, num_gts, num_ignored, seed, iof, wrt, low
):
    """Random and adversarial: no anchors, no GT, identical boxes, boxes without area, ignored."""
    priors, gts = boxes(num_priors, seed), boxes(num_gts, seed + 1)
    priors[::5] = priors[:1].clone()
    gts[::4] = priors[0] if num_priors else gts[:1].clone()
    gts[1::4, 2:] = gts[1::4, :2].clone()
    options = dict(COMMON, ignore_iof_thr=iof, ignore_wrt_candidates=wrt, match_low_quality=low)
    gt, ignored = instances(gts), instances(boxes(num_ignored, seed + 2))
    expected = MaxIoUAssigner(**options).assign(predictions(priors), gt, ignored)
    for pred in (predictions(priors), predictions(priors, torch.rand(num_priors, 1))):
        mine = make(score_threshold=math.inf, **options).assign(pred, gt, ignored)
        assert torch.equal(mine.gt_inds, expected.gt_inds)
        assert torch.equal(mine.labels, expected.labels)
        assert torch.equal(mine.max_overlaps, expected.max_overlaps)


@pytest.mark.parametrize(
    "scores, options, expected",
    [
        # The classifier is sure of all: those over min_iou become positive, others stay.
        ([0.9, 0.9, 0.9, 0.9], dict(), [1, 0, 1, 0]),
        ([0.9, 0.9, 0.9, 0.9], dict(min_iou=0.2), [1, 1, 1, 0]),
        ([0.9, 0.9, 0.9, 0.9], dict(min_iou=0.0, score_threshold=0.4), [1, 1, 1, 1]),
        # It is not: 0.5 * 0.1 + 0.5 < 0.8.
        ([0.1, 0.1, 0.1, 0.1], dict(min_iou=0.2, score_threshold=0.8), [1, 0, -1, 0]),
        # The probability alone, and the share of the area alone.
        ([0.1, 0.9, 0.7, 0], dict(score_alpha=1, min_iou=0.2, score_threshold=0.8), [1, 1, -1, 0]),
        ([0, 0, 0, 0.9], dict(score_alpha=0, min_iou=0.2, score_threshold=0.8), [1, 1, 1, 0]),
        # At most one such positive per GT.
        ([0.1, 0.8, 0.9, 0.9], dict(min_iou=0.2, score_topk=1), [1, 0, 1, 0]),
    ],
)
def test_labels_by_hand(scores, options, expected):
    result = make(**options).assign(predictions(ANCHORS, [[0.0, s] for s in scores]),
                                    instances(GT, [1]))  # fmt: skip
    assert result.gt_inds.tolist() == expected
    assert result.labels.tolist() == [1 if index > 0 else -1 for index in expected]


@pytest.mark.parametrize(
    "anchor, probability, positive",
    [
        # 12 x 10 of 20 x 20 is an IoU of 0.3, from which on pairs are scored.
        ([0, 0, 12, 10], 1.0, True),
        ([0, 0, 11.9, 10], 1.0, False),
        # Wholly inside and p = 0: exactly 0.5, the threshold.
        ([0.1, 0.3, 12.7, 17.9], 0.0, True),
        # 12 of 20 px in common: 0.6 / 2 + p / 2.
        ([8, 0, 28, 20], 0.41, True),
        ([8, 0, 28, 20], 0.39, False),
    ],
)
def test_defaults(anchor, probability, positive):
    pred = predictions([anchor], [[probability]])
    max_iou = make(pos_iou_thr=0.9, neg_iou_thr=0.9, match_low_quality=False)
    assert max_iou.assign(pred, instances(GT)).gt_inds.tolist() == [int(positive)]
    atss = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1))
    assert atss.assign(pred, [1], instances(GT)).gt_inds.tolist() == [int(positive)]


def test_exactly_at_the_threshold_wherever_the_anchor_lies():
    """The intersection once came from the IoU, whose rounding cost one anchor in five."""
    generator = torch.Generator().manual_seed(0)
    gts = boxes(300, 5)
    share = torch.rand(300, 2, 2, generator=generator).mul(0.1)
    size = gts[:, 2:] - gts[:, :2]
    priors = torch.cat([gts[:, :2] + share[:, 0] * size, gts[:, 2:] - share[:, 1] * size], dim=1)
    options = dict(pos_iou_thr=1.0, neg_iou_thr=0.3, match_low_quality=False)
    for prior, gt in zip(priors, gts):
        result = make(**options).assign(predictions([prior.tolist()], [[0.0]]),
                                        instances([gt.tolist()]))  # fmt: skip
        assert result.gt_inds.tolist() == [1]


def test_the_gt_of_largest_score_wins():
    gts = instances([[0, 0, 20, 20], [0, 0, 18, 9]], [0, 1])
    anchor = [[0, 0, 20, 9.5]]
    options = dict(pos_iou_thr=0.95, neg_iou_thr=0.3, match_low_quality=False)
    for scores, expected in [([0.9, 0.7], 1), ([0.7, 0.95], 2)]:
        result = make(**options).assign(predictions(anchor, [scores]), gts)
        assert result.gt_inds.tolist() == [expected]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 1000), st.integers(1, 3))
@example(41, 5, 331, 2)  # equal scores
def test_against_a_plain_loop(num_priors, num_gts, seed, topk):
    """Probabilities as a table, and as a function of the few pairs that are scored."""
    torch.manual_seed(seed)
    priors, gts = boxes(num_priors, seed), boxes(num_gts, seed + 1)
    scores = torch.rand(num_priors, 3)
    gt = instances(gts, torch.randint(0, 3, (num_gts,)))
    plain = MaxIoUAssigner(**COMMON).assign(predictions(priors), gt)
    best = {}
    for g in range(num_gts):
        found = []
        for p in range(num_priors):
            a, b = priors[p].double(), gts[g].double()
            inter = (torch.min(a[2:], b[2:]) - torch.max(a[:2], b[:2])).clamp(min=0).prod()
            areas = [(box[2:] - box[:2]).prod() for box in (a, b)]
            score = 0.5 * scores[p, gt.labels[g]] + 0.5 * inter / min(areas)
            if inter / (sum(areas) - inter) >= 0.2 and score >= 0.45:
                found.append((score.item(), p))
        for score, p in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:topk]:
            # Of equal scores the first GT's: a prior inside two GTs of one class has such.
            best[p] = max(best.get(p, (0, 0)), (score, -g - 1))
    expected = [
        -best[p][1] if held <= 0 and p in best else held
        for p, held in enumerate(plain.gt_inds.tolist())
    ]
    assigner = make(min_iou=0.2, score_threshold=0.45, score_topk=topk)
    result = assigner.assign(predictions(priors, scores), gt)
    assert result.gt_inds.tolist() == expected
    assert result.labels.tolist() == [gt.labels[g - 1] if g > 0 else -1 for g in expected]
    assigner.scores = lambda rows, labels: scores[rows, labels]
    assert assigner.assign(predictions(priors), gt).gt_inds.tolist() == expected


def test_ignored_regions_stay_ignored():
    ignored = instances([[0, 0, 20, 20]])
    pred = predictions(ANCHORS, [[1.0]] * 4)
    result = make(ignore_iof_thr=0.5, min_iou=0.0, score_threshold=0.1).assign(
        pred, instances([[0, 0, 20, 20]]), ignored
    )
    plain = MaxIoUAssigner(**COMMON, ignore_iof_thr=0.5).assign(
        predictions(ANCHORS), instances([[0, 0, 20, 20]]), ignored
    )
    assert torch.equal(result.gt_inds[:3], plain.gt_inds[:3])


def test_many_gts_are_assigned_on_the_cpu():
    """With gpu_assign_thr mmdet brings the boxes over; the probabilities stay on the GPU."""
    generator = torch.manual_seed(0)
    pred, gts = predictions(boxes(40, 0), torch.rand(40, 3, generator=generator)), boxes(5, 1)
    gts = instances(gts, [0, 1, 2, 1, 0])
    options = dict(min_iou=0.1, score_threshold=0.3)
    expected = make(**options).assign(pred, gts)
    for each, names in ((pred, ("priors", "scores")), (gts, ("bboxes", "labels"))):
        for name in names:
            each[name] = place(each[name], "cuda:0")
    result = make(gpu_assign_thr=1, **options).assign(pred, gts)
    assert result.gt_inds.device == torch.device("cuda:0")
    assert result.gt_inds.tolist() == expected.gt_inds.tolist()
