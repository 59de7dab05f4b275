"""What the assigners over edges share."""

from dataclasses import fields

import pytest
from assignment_scenes import Scene
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.candidate_edges import BatchGroundTruth


@pytest.mark.parametrize("num_gts", [0, 5])
@pytest.mark.parametrize("gt_balance", [0.0, 1.0])
@pytest.mark.parametrize("assigner", ["JLAAssigner", "SpatialAlignAssigner"])
def test_autograd_can_use_what_inference_mode_made(assigner, gt_balance, num_gts):
    scene = Scene(0, num_gts, 3)
    gts = BatchGroundTruth.from_instances([InstanceData(bboxes=scene.gts, labels=scene.labels)])
    logits = scene.logits[None].requires_grad_()
    edges = TASK_UTILS.build(dict(type=assigner, gt_balance=gt_balance)).assign_batch(
        scene.points, scene.strides, logits, scene.bboxes[None], gts
    )
    for field in fields(edges):
        part = getattr(edges, field.name)
        assert not part.is_inference() and not part.requires_grad, field.name
    # Autograd keeps the indices and the weights for the backward pass.
    (logits[0, edges.prior_inds].sigmoid().sum(-1) * edges.weights).sum().backward()
    assert (logits.grad.abs().sum() > 0) == (num_gts > 0)
    edges.weights *= 2  # a head may change what it was given
