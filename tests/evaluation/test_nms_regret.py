"""What suppression threw away, by hand and as a property."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms

import misalign_det  # noqa: F401
from misalign_det.evaluation.nms_regret import (
    SuppressionOutcome,
    summarise_regret,
    suppression_outcome,
)

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
