"""FCOS without centerness: the losses and scores of mmdet's head less all that centerness does."""

import pytest
import torch
from helpers.dense_head_cases import CROWD, METAS, ONE, STRIDES, features, instances, make_head
from mmdet.models.dense_heads import FCOSHead
from mmdet.structures.bbox import bbox_overlaps

KIND = "FCOSHeadWithoutCenterness"


def head_and_outputs(**options):
    torch.manual_seed(0)
    head = make_head(KIND, assigner=False, **options)
    return head, head(features(1))


def test_losses_by_mmdets_targets():
    """Every positive weighs the same: its IoU loss is averaged, its centerness not looked at."""
    head, outs = head_and_outputs()
    losses = head.loss_by_feat(*outs, [ONE], METAS[:1])
    assert set(losses) == {"loss_cls", "loss_bbox"}
    sizes = [level.shape[-2:] for level in outs[0]]
    points = head.prior_generator.grid_priors(sizes, device="cpu")
    labels, distances = map(torch.cat, head.get_targets(points, [ONE]))
    positive, points = labels < 3, torch.cat(points)
    predicted = torch.cat([level[0].flatten(1).T for level in outs[1]])
    boxes, targets = (
        head.bbox_coder.decode(points[positive], rows[positive]) for rows in (predicted, distances)
    )
    iou = bbox_overlaps(boxes, targets, is_aligned=True)
    torch.testing.assert_close(losses["loss_bbox"], -iou.log().mean(), rtol=1e-4, atol=1e-5)
    centerness = FCOSHead.centerness_target(head, distances[positive])
    weighted = (-iou.log() * centerness).sum() / centerness.sum()
    assert (losses["loss_bbox"] - weighted).abs() > 1e-4
    logits = torch.cat([level[0].flatten(1).T for level in outs[0]])
    expected = head.loss_cls(logits, labels, avg_factor=positive.sum())
    torch.testing.assert_close(losses["loss_cls"], expected)


def test_the_class_loss_has_no_other_gradient():
    """What stands in for centerness hands none to the class logits."""
    head, outs = head_and_outputs()
    loss = head.loss_by_feat(*outs, [ONE], METAS[:1])["loss_bbox"]
    gradients = torch.autograd.grad(loss, outs[0], allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_no_parameters_of_centerness():
    head, outs = head_and_outputs()
    assert not any("centerness" in name for name in head.state_dict()) and len(outs) == 2
    with pytest.raises(AttributeError):
        _ = head.conv_centerness.weight


def test_the_score_is_the_class_probability():
    head, _ = head_and_outputs(num_classes=1)
    outs = head.eval()(features(1))
    (found,) = head.predict_by_feat(*outs, batch_img_metas=METAS[:1])
    best = max(level.sigmoid().max() for level in outs[0])
    torch.testing.assert_close(found.scores.max(), best)


@pytest.mark.parametrize("norm_on_bbox", [False, True])
@pytest.mark.parametrize("gts", [[CROWD, instances()], [instances(), instances()]])
def test_every_parameter_has_a_gradient(norm_on_bbox, gts):
    head = make_head(KIND, assigner=False, norm_on_bbox=norm_on_bbox, center_sampling=True)
    losses = head.loss_by_feat(*head(features()), gts, METAS)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert len(head.scales) == len(STRIDES)
