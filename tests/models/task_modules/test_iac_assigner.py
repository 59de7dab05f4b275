"""IACAssigner: MaxIoUAssigner at an infinite threshold, equations 4 and 5 by hand, the guards."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import ATSSAssigner, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401
from misalign_det.models.task_modules.iac_assigner import iou_classification_score

COMMON = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)


def make(**kwargs):
    return TASK_UTILS.build(dict(type="IACAssigner", **{**COMMON, **kwargs}))


def boxes(num, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * 80
    return torch.cat([corner, corner + torch.rand(num, 2, generator=generator) * 60], dim=1)


def instances(bboxes, labels=None):
    bboxes = torch.as_tensor(bboxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(bboxes)) if labels is None else torch.as_tensor(labels)
    return InstanceData(bboxes=bboxes, labels=labels.long())


def predictions(priors, scores=None):
    priors = torch.as_tensor(priors, dtype=torch.float32).reshape(-1, 4)
    pred = InstanceData(priors=priors)
    if scores is not None:
        pred.scores = torch.as_tensor(scores, dtype=torch.float32)
    return pred


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
    options = dict(
        COMMON, ignore_iof_thr=iof, ignore_wrt_candidates=wrt, match_low_quality=low
    )
    gt, ignored = instances(gts), instances(boxes(num_ignored, seed + 2))
    expected = MaxIoUAssigner(**options).assign(predictions(priors), gt, ignored)
    for pred in (predictions(priors), predictions(priors, torch.rand(num_priors, 1))):
        mine = make(score_threshold=math.inf, **options).assign(pred, gt, ignored)
        assert torch.equal(mine.gt_inds, expected.gt_inds)
        assert torch.equal(mine.labels, expected.labels)
        assert torch.equal(mine.max_overlaps, expected.max_overlaps)


def test_score_by_hand():
    # An anchor of 10 x 10 wholly inside a GT of 20 x 20: IoU 1/4, intersection over smaller 1.
    score = iou_classification_score(
        torch.tensor([[0.25]]),
        torch.tensor([100.0]),
        torch.tensor([400.0]),
        torch.tensor([[0.6]]),
        alpha=0.25,
    )
    assert score.item() == pytest.approx(0.25 * 0.6 + 0.75)


# One GT; anchors of IoU 1, 0.25 (inside it), 0.45 (ignored by MaxIoU) and 0.
GT = [[0, 0, 20, 20]]
ANCHORS = [[0, 0, 20, 20], [0, 0, 10, 10], [0, 0, 20, 9], [50, 50, 60, 60]]


@pytest.mark.parametrize(
    "scores, options, expected",
    [
        # The classifier is sure of all: those over min_iou become positive, others stay.
        ([0.9, 0.9, 0.9, 0.9], dict(), [1, 0, 1, 0]),
        ([0.9, 0.9, 0.9, 0.9], dict(min_iou=0.2), [1, 1, 1, 0]),
        ([0.9, 0.9, 0.9, 0.9], dict(min_iou=0.0, score_threshold=0.4), [1, 1, 1, 1]),
        # It is not: 0.5 * 0.1 + 0.5 < 0.8.
        ([0.1, 0.1, 0.1, 0.1], dict(min_iou=0.2, score_threshold=0.8), [1, 0, -1, 0]),
        # At most one such positive a GT.
        ([0.1, 0.8, 0.9, 0.9], dict(min_iou=0.2, score_topk=1), [1, 0, 1, 0]),
    ],
)
def test_labels_by_hand(scores, options, expected):
    result = make(**options).assign(predictions(ANCHORS, [[0.0, s] for s in scores]),
                                    instances(GT, [1]))  # fmt: skip
    assert result.gt_inds.tolist() == expected
    assert result.labels.tolist() == [1 if index > 0 else -1 for index in expected]


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
    """Probabilities as a table, and as a function of the few pairs that are looked at."""
    torch.manual_seed(seed)
    priors, gts = boxes(num_priors, seed), boxes(num_gts, seed + 1)
    scores = torch.rand(num_priors, 3)
    gt = instances(gts, torch.randint(0, 3, (num_gts,)))
    plain = MaxIoUAssigner(**COMMON).assign(predictions(priors), gt)
    wanted = {}
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
            wanted[p] = max(wanted.get(p, (0, 0)), (score, -g - 1))
    expected = [
        -wanted[p][1] if held <= 0 and p in wanted else held
        for p, held in enumerate(plain.gt_inds.tolist())
    ]
    assigner = make(min_iou=0.2, score_threshold=0.45, score_topk=topk)
    assert assigner.assign(predictions(priors, scores), gt).gt_inds.tolist() == expected
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


def test_missing_probabilities_and_bad_arguments_are_named():
    with pytest.raises(ValueError, match="DCATSSHead"):
        make().assign(predictions(ANCHORS), instances(GT))
    for options in (dict(score_alpha=2), dict(min_iou=-0.1), dict(score_topk=0)):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(**options)


def on_atss(num_priors, num_gts, num_ignored, seed, own, **options):
    """ATSSAssigner's decision and IACATSSAssigner's on one random image, and its instances."""
    levels = [num_priors // 2, num_priors - num_priors // 2]
    gt, ignored = instances(boxes(num_gts, seed + 1)), instances(boxes(num_ignored, seed + 2))
    pred = predictions(boxes(num_priors, seed), torch.rand(num_priors, 1))
    plain = ATSSAssigner(**options).assign(predictions(pred.priors), levels, gt, ignored)
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", **own, **options))
    return plain, ours.assign(pred, levels, gt, ignored), pred, gt


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 8), st.integers(0, 3), st.integers(0, 1000))
def test_infinite_threshold_is_atss(num_priors, num_gts, num_ignored, seed):
    expected, mine, _, _ = on_atss(
        num_priors, num_gts, num_ignored, seed, dict(score_threshold=math.inf), topk=3,
        ignore_iof_thr=0.3,
    )  # fmt: skip
    assert torch.equal(mine.gt_inds, expected.gt_inds)
    assert torch.equal(mine.labels, expected.labels)
    assert torch.equal(mine.max_overlaps, expected.max_overlaps)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 3), st.integers(0, 1000))
def test_what_atss_gains(num_priors, num_gts, num_ignored, seed):
    """ATSS's positives stay; the new ones pass every guard and lie outside ignored regions."""
    before, after, pred, gt = on_atss(
        num_priors, num_gts, num_ignored, seed,
        dict(score_threshold=0.5, min_iou=0.2, score_topk=2), topk=1, ignore_iof_thr=0.5,
    )  # fmt: skip
    held = before.gt_inds != 0
    assert torch.equal(after.gt_inds[held], before.gt_inds[held])
    gained = (~held & (after.gt_inds > 0)).nonzero().squeeze(1)
    for i in gained.tolist():
        anchor, box = pred.priors[i], gt.bboxes[after.gt_inds[i] - 1]
        center = (anchor[:2] + anchor[2:]) / 2
        assert (center > box[:2]).all() and (center < box[2:]).all()
        size = (torch.min(anchor[2:], box[2:]) - torch.max(anchor[:2], box[:2])).clamp(min=0)
        areas = [(b[2:] - b[:2]).prod() for b in (anchor, box)]
        iou = size.prod() / (areas[0] + areas[1] - size.prod())
        assert iou >= 0.2 - 1e-5 and iou == pytest.approx(after.max_overlaps[i].item(), abs=1e-5)
        score = 0.5 * pred.scores[i, 0] + 0.5 * size.prod() / min(areas)
        assert score >= 0.5 - 1e-5
    counts = (after.gt_inds[gained]).bincount(minlength=1)
    assert (counts <= 2).all()


def test_atss_by_hand():
    """Anchors over a GT of 20 x 20: itself, one inside it, one whose centre lies outside."""
    anchors = [[0, 0, 20, 20], [2, 2, 18, 18], [11, 0, 31, 20]]
    pred = predictions(anchors, [[0.9], [0.9], [0.99]])
    plain = ATSSAssigner(topk=3).assign(predictions(anchors), [3], instances(GT))
    assert plain.gt_inds.tolist() == [1, 0, 0]
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=3, score_threshold=0.5, min_iou=0.2))
    assert ours.assign(pred, [3], instances(GT)).gt_inds.tolist() == [1, 1, 0]
