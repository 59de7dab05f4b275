"""IACATSSAssigner beside mmdet's ATSSAssigner."""

import math

import pytest
import torch
from helpers.iac_cases import GT, boxes, instances, predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import ATSSAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData


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


def test_atss_centre_lies_a_hundredth_of_a_pixel_inside():
    """As mmdet's own positives; from there on along each axis and to each side."""
    for step, expected in ((0.009, 0), (0.011, 1)):
        for dx, dy in ((step, 10), (20 - step, 10), (10, step), (10, 20 - step)):
            anchor = [dx - 10, dy - 10, dx + 10, dy + 10]
            pred = predictions([GT[0], anchor], [[1.0], [1.0]])
            ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1))
            assert ours.assign(pred, [2], instances(GT)).gt_inds[1] == expected


def test_atss_overlap_of_a_gained_anchor_is_its_iou():
    pred = predictions([GT[0], [0, 0, 20, 10], [0, 0, 20, 4]], [[1.0], [1.0], [1.0]])
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1))
    result = ours.assign(pred, [3], instances([[100, 100, 120, 120], *GT]))
    assert result.gt_inds.tolist()[1:] == [2, 0]
    assert result.max_overlaps[1] == 0.5 and result.max_overlaps[2] != 0.2


def test_atss_with_ddods_cost_reads_logits():
    """With alpha mmdet takes pred_instances.scores for logits, and needs boxes."""
    pred = predictions([GT[0], [8, 0, 28, 20]], [[0.0], [-0.45]])  # 0.6 / 2 + 0.389 / 2
    pred.bboxes = pred.priors
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1, alpha=0.8))
    assert ours.assign(pred, [2], instances(GT)).gt_inds[1] == 0
    pred.scores[1] = -0.35  # 0.6 / 2 + 0.413 / 2
    assert ours.assign(pred, [2], instances(GT)).gt_inds[1] == 1


def test_heads_that_call_as_for_the_other_assigner_are_told():
    iac = TASK_UTILS.build(
        dict(type="IACAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
    )
    atss = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=3))
    priors, gts = InstanceData(priors=torch.zeros(4, 4)), InstanceData(bboxes=torch.zeros(0, 4))
    for call in (
        lambda: iac.assign(priors, [4], gts, None),
        lambda: atss.assign(priors, gts, None),
    ):
        with pytest.raises(TypeError, match="IACAssigner goes with DCRetinaHead, IACATSSAssigner"):
            call()
