"""NMS regret by hand and as a property."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401
from misalign_det.analysis.dense_outputs import read_outputs
from misalign_det.analysis.nms_regret import (
    NMSRegret,
    SuppressionOutcome,
    balanced_nms,
    boxes_before_nms,
    nms_name,
    nms_threshold,
    summarise_regret,
    suppression_outcome,
)
from misalign_det.errors import InputError
from misalign_det.evaluation.coco_ap import index_annotations

NMS = dict(type="nms", iou_threshold=0.5)
GT = np.array([[0, 0, 10, 10], [40, 0, 50, 10]], float)
LABELS = np.array([0, 1])
# Two boxes on the first object, the worse one with the higher score; one on the second; one of the
# wrong class on it; one on nothing.
BOXES = torch.tensor(
    [[0, 0, 10, 7], [0, 0, 10, 10], [40, 0, 50, 9], [40, 0, 50, 10], [80, 0, 90, 10]]
).float()
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
CLASSES = torch.tensor([0, 0, 1, 0, 1])


def outcome(nms=NMS, **kwargs):
    return suppression_outcome(BOXES, SCORES, CLASSES, GT, LABELS, nms, **kwargs)


def test_by_hand():
    found = outcome()
    assert found.bboxes[0].tolist() == [0, 0, 10, 7]
    assert found.best_bboxes[0].tolist() == [0, 0, 10, 10]
    np.testing.assert_allclose(found.iou, [0.7, 0.9, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found.best_iou, [1, 0.9, np.nan, np.nan], rtol=1e-6)
    assert found.best_bboxes[2:].tolist() == found.bboxes[2:].tolist()
    figures = summarise_regret(found)
    assert figures["boxes"] == 2 and figures["lost"] == 1
    assert figures["iou_lost"] == pytest.approx(0.15)


def test_max_per_img_and_nothing():
    assert len(outcome(max_per_img=1).scores) == 1
    none = suppression_outcome(BOXES[:0], SCORES[:0], CLASSES[:0], GT, LABELS, NMS)
    assert summarise_regret(none)["boxes"] == 0 and np.isnan(summarise_regret(none)["iou_lost"])
    alone = suppression_outcome(BOXES, SCORES, CLASSES, GT[:0], LABELS[:0], NMS)
    assert summarise_regret(alone)["boxes"] == 0 and len(alone.scores) == 4
    both = SuppressionOutcome.join([none, outcome(), alone])
    assert len(both.scores) == 8 and summarise_regret(both) == summarise_regret(outcome())


def one(boxes, scores, labels, gt, gt_label=0, nms=NMS, **kwargs):
    return suppression_outcome(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), torch.tensor(labels),
        np.array([gt], float), np.array([gt_label]), nms, **kwargs
    )  # fmt: skip


def summary(iou, best):
    nothing = np.zeros((1, 4)), np.zeros(1), np.zeros(1), np.zeros((1, 4))
    return summarise_regret(SuppressionOutcome(*nothing, np.array([iou]), np.array([best])))


@pytest.mark.parametrize(
    "iou, best, lost",
    [
        (0.45, 0.52, 1),  # 0.5 is the first threshold
        (0.4, 0.5, 1),  # and reached at 0.5 itself
        (0.5, 0.54, 0),
        (0.5, 0.56, 1),
        (0.94, 0.95, 1),  # the last
        (0.95, 1.0, 0),
    ],
)
def test_a_loss_crosses_one_of_cocos_thresholds(iou, best, lost):
    assert summary(iou, best)["lost"] == lost
    assert summary(iou, best)["iou_lost"] == pytest.approx(best - iou)


def test_least_iou_with_an_object():
    at = one([[0, 0, 10, 1]], [0.9], [0], [0, 0, 10, 10])  # IoU 0.1
    assert at.iou == pytest.approx(0.1)
    below = one([[0, 0, 10, 1]], [0.9], [0], [0, 0, 10, 10], min_iou=0.11)
    assert np.isnan(below.iou).all()


def test_a_box_about_nothing_stands_for_itself():
    """It suppressed one that overlaps an object; that is no loss of its own."""
    boxes = [[9.5, 0, 19.5, 10], [5, 0, 15, 10]]
    found = one(boxes, [0.9, 0.8], [0, 0], [0, 0, 10, 10], nms=dict(NMS, iou_threshold=0.05))
    assert np.isnan(found.iou).all() and found.best_bboxes.tolist() == [boxes[0]]


@pytest.mark.parametrize("shift", [0, -1, -11])  # classes that are moved apart too little meet
def test_clusters_are_of_one_class(shift):
    """The third box suppresses none of another class, and is suppressed by the second alone."""
    boxes = [[0, 0, 10, 10], [4 + shift, shift, 14 + shift, 10 + shift],
             [2 + shift, shift, 12 + shift, 10 + shift]]  # fmt: skip
    found = one(boxes, [0.9, 0.6, 0.5], [0, 1, 1], boxes[2], 1)
    assert found.bboxes.tolist() == boxes[:2]
    assert found.iou[1] == pytest.approx(2 / 3) and found.best_iou[1] == pytest.approx(1)
    if shift == 0:  # where classes suppress one another, the first box has suppressed it
        agnostic = one(boxes, [0.9, 0.6, 0.5], [0, 1, 1], boxes[2], 1,
                       nms=dict(NMS, class_agnostic=True))  # fmt: skip
        assert agnostic.bboxes.tolist() == boxes[:2]
        assert agnostic.best_iou[1] == pytest.approx(2 / 3)


def test_boxes_that_are_not_finite_are_left_out():
    boxes = [[0, 0, 10, 10], [0, 0, float("inf"), 10], [0, 0, 10, 9]]
    nms = dict(type="CLBalancedNMS", iou_threshold=0.5)
    found = one(boxes, [0.9, 0.95, float("nan")], [0, 0, 0], [0, 0, 10, 10], nms=nms)
    assert found.bboxes.tolist() == [boxes[0]] and found.iou.tolist() == [1]


def test_a_box_of_another_class_fits_no_object():
    found = one([[0, 0, 10, 10]], [0.9], [1], [0, 0, 10, 10], 0)
    assert np.isnan(found.iou).all()


def test_kept_boxes_by_default_and_without_a_limit():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(120)]
    scores = np.linspace(0.9, 0.1, 120).tolist()
    for limit, expected in (({}, 100), (dict(max_per_img=None), 120), (dict(max_per_img=3), 3)):
        found = one(boxes, scores, [0] * 120, [0, 0, 10, 10], **limit)
        assert len(found.scores) == len(found.best_iou) == expected


def test_thresholds_of_any_suppression():
    assert nms_threshold(dict(type="nms", iou_threshold=0.65)) == 0.65
    assert nms_threshold(dict(iou_thr=0.6)) == 0.6
    assert nms_threshold(dict(type="soft_nms")) == 0.3  # mmcv's default
    for nms in (dict(type="nms"), dict(type="unknown"), dict()):
        with pytest.raises(InputError, match="no iou_threshold"):
            nms_threshold(nms)
    assert [nms_name(n) for n in (dict(), dict(type="soft_nms"), dict(type=batched_nms))] == [
        "nms", "soft_nms", "batched_nms"]  # fmt: skip
    # An older name of the key goes through to the outcome.
    old = one([[0, 0, 10, 7], [0, 0, 10, 10]], [0.9, 0.8], [0, 0], GT[0], nms=dict(iou_thr=0.5))
    assert old.best_iou == pytest.approx(1) and len(old.scores) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 500), st.sampled_from([0.0, 1.0]))
def test_the_best_of_a_cluster_is_never_worse(num, seed, gamma):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 5 + torch.rand(num, 2, generator=generator) * 20], 1)
    scores = torch.rand(num, generator=generator)
    classes = torch.randint(0, 2, (num,), generator=generator)
    nms = dict(type="CLBalancedNMS", iou_threshold=0.4, gamma=gamma)
    found = suppression_outcome(boxes, scores, classes, GT, LABELS, nms)
    about = ~np.isnan(found.iou)
    assert (found.best_iou[about] >= found.iou[about] - 1e-12).all()
    dets, keep = batched_nms(boxes, scores, classes, dict(nms))
    np.testing.assert_allclose(found.bboxes, boxes[keep].numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.scores, dets[:, 4].numpy(), rtol=1e-6)


@pytest.mark.parametrize("voting", [True, False])
def test_boxes_before_nms_are_not_voted(voting):
    """PAA asks its attribute whether to vote, not the config."""
    anchors = dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
                   strides=[16, 32])  # fmt: skip
    torch.manual_seed(0)
    head = MODELS.build(dict(
        type="PAAHead", num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1,
        norm_cfg=None, anchor_generator=anchors, score_voting=voting,
        test_cfg=ConfigDict(nms_pre=1000, min_bbox_size=0, score_thr=0.0, max_per_img=5,
                            nms=dict(type="nms", iou_threshold=0.6)))).eval()  # fmt: skip
    with torch.no_grad():
        outs = head([torch.randn(1, 8, size, size) for size in (8, 4)])
        metas = [dict(img_shape=(128, 128), scale_factor=(1.0, 1.0))]
        (found,) = boxes_before_nms(head, outs, metas)
        own = read_outputs(head, *outs[:2]).bboxes.clamp(0, 128)
    assert torch.cdist(found.bboxes.double(), own.double()).min(dim=1).values.max() < 1e-3
    assert len(found) == 2 * len(own) and head.with_score_voting is voting


def test_clbalanced_nms_keeps_the_other_options():
    own = dict(type="soft_nms", iou_thr=0.4, sigma=0.5, class_agnostic=True, split_thr=9, max_num=3)
    assert balanced_nms(own, gamma=2) == dict(
        type="CLBalancedNMS", iou_threshold=0.4, gamma=2, class_agnostic=True, split_thr=9,
        max_num=3)  # fmt: skip
    assert balanced_nms(NMS) == dict(type="CLBalancedNMS", iou_threshold=0.5)
    apart = [torch.tensor(part) for part in ([[0.0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8], [0, 1])]
    kept = [len(batched_nms(*apart, balanced_nms(dict(NMS, class_agnostic=one)))[1])
            for one in (True, False)]  # fmt: skip
    assert kept == [1, 2]


def test_the_accumulator_over_two_images():
    """In both images the kept box of the first GT fits by 0.7 where 1.0 was possible."""
    boxes = [(0, 0, 10, 10), (40, 0, 10, 10)]
    coco = index_annotations(dict(
        images=[dict(id=i) for i in "ab"],
        categories=[dict(id=5, name="cat"), dict(id=3, name="dog"), dict(id=4, name="emu")],
        annotations=[dict(id=i, image_id="ab"[i // 2], category_id=(5, 3)[i % 2],
                          bbox=list(boxes[i % 2])) for i in range(4)]))  # fmt: skip
    candidates = InstanceData(bboxes=BOXES, scores=SCORES, labels=CLASSES)
    gts = InstanceData(bboxes=torch.from_numpy(GT).float(), labels=torch.from_numpy(LABELS))
    regret = NMSRegret(NMS, coco, ("cat", "dog", "emu"))
    parts = [regret.update(name, candidates, gts) for name in "ab"]
    row = regret.compute()
    assert row["nms"] is NMS and row["name"] == "nms"
    whole = SuppressionOutcome.join(parts)
    assert {k: row[k] for k in ("boxes", "lost", "iou_lost")} == summarise_regret(whole)
    # Cats: IoU 0.7 counts at 5 of 10 thresholds. Dogs: 0.9 at 9. No emu, no AP.
    assert row["AP"] == pytest.approx((0.5 + 0.9) / 2)
    assert row["AP_oracle"] == pytest.approx((1 + 0.9) / 2)
    assert len(NMSRegret(NMS, coco, "cat", max_per_img=1).update("a", candidates, gts).scores) == 1
    with pytest.raises(InputError, match="no category 'gnu'"):
        NMSRegret(NMS, coco, ("gnu",))
