"""Base class of the assigners: both interfaces, precision, what they refuse."""

import copy
from dataclasses import fields

import pytest
import torch
from helpers.assignment_scenes import Scene, crowd
from helpers.dense_head_cases import CROWD, ONE, losses_of, make_head
from mmdet.models.losses import GIoULoss, IoULoss
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import DefaultScope, Registry
from mmengine.structures import InstanceData
from torch import nn

from misalign_det.models.task_modules.assigners import ambiguity
from misalign_det.models.task_modules.assigners.ambiguity import resolve_ambiguity
from misalign_det.models.task_modules.assigners.batch_assigner import BatchAssigner
from misalign_det.models.task_modules.assigners.candidates import (
    BatchGroundTruth,
    TopCandidates,
    build_candidate_pairs,
    select_top_candidates,
)
from misalign_det.models.task_modules.assigners.joint_loss import joint_loss

BOTH = ["JLAAssigner", "SpatialAlignAssigner"]


@TASK_UTILS.register_module()
class TopKAssigner(BatchAssigner):  # the example of misalign_det/README.md
    def __init__(self, *, topk=9, **kwargs):
        super().__init__(**kwargs)
        self.topk = topk

    def _assign_batch(self, points, strides, logits, bboxes, gts):
        pairs = build_candidate_pairs(points, gts)
        losses = joint_loss(*self._pair_losses(pairs, logits, bboxes, gts))
        candidates = select_top_candidates(pairs, losses, self.topk)
        return resolve_ambiguity(candidates, None, len(logits), mode="argmin")


def make(kind="JLAAssigner", **kwargs):
    return TASK_UTILS.build(dict(type=kind, **kwargs))


def objects(*boxes, label=0):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.full((len(boxes),), label),
    )


def predictions(points=((4.0, 4), (12, 4), (20, 4)), num_classes=2):
    """Some locations of stride 8 that all predict the same."""
    points = torch.tensor(points).reshape(-1, 2)
    return InstanceData(
        priors=torch.cat([points, torch.full_like(points, 8.0)], dim=1),
        scores=torch.zeros(len(points), num_classes),
        bboxes=torch.tensor([0.0, 0, 24, 8]).expand(len(points), 4),
    )


def test_an_assigner_without_a_mixture_trains_a_head():
    head = make_head("LossAwareFCOSHead", assigner=dict(type="TopKAssigner", topk=5))
    assert type(head.assigner) is TopKAssigner and type(head.assigner.loss_bbox) is IoULoss
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    seen, assign_batch = [], head.assigner.assign_batch
    head.assigner.assign_batch = lambda *args: seen.append(assign_batch(*args)) or seen[-1]
    totals = []
    for _ in range(2):
        losses, _ = losses_of(head, [ONE, CROWD])
        totals.append(sum(losses.values()))
        optimizer.zero_grad()
        totals[-1].backward()
        optimizer.step()
    assert totals[1] < totals[0]
    assert seen[0].weights[0].tolist() == [1] * 5  # alone in its image
    assert ((seen[0].weights > 0).sum(dim=1) > 0).all() and seen[0].weights.shape == (16, 5)


def test_it_also_serves_heads_of_mmdet():
    found = make("TopKAssigner", topk=2).assign(predictions(), objects((0, 0, 14, 8), label=1))
    assert found.gt_inds.tolist() == [1, 1, 0] and found.labels.tolist() == [1, 1, -1]


@pytest.mark.parametrize("num_gts", [0, 5])
@pytest.mark.parametrize("per_gt_reweight", [0.0, 1.0])
@pytest.mark.parametrize("assigner", BOTH)
def test_autograd_can_use_what_inference_mode_made(assigner, per_gt_reweight, num_gts):
    scene = Scene(0, num_gts, 3)
    gts = BatchGroundTruth.from_instances([InstanceData(bboxes=scene.gts, labels=scene.labels)])
    logits = scene.logits[None].requires_grad_()
    assigned = make(assigner, per_gt_reweight=per_gt_reweight).assign_batch(
        scene.points, scene.strides, logits, scene.bboxes[None], gts
    )
    for field in fields(assigned):
        part = getattr(assigned, field.name)
        assert not part.is_inference() and not part.requires_grad, field.name
    # Autograd keeps the indices and the weights for the backward pass.
    (logits[0, assigned.prior_inds].sigmoid().sum(-1) * assigned.weights).sum().backward()
    assert (logits.grad.abs().sum() > 0) == (num_gts > 0)
    assigned.weights *= 2  # a head may change what it was given


@pytest.mark.parametrize("kind", BOTH)
def test_losses_run_in_float32_without_autocast_and_without_gradient(kind):
    assigner, seen = make(kind), []
    loss_bbox = assigner.loss_bbox

    def watched(pred, target, **kwargs):
        product = torch.ones(1, 1) @ torch.ones(1, 1)  # of the type that autocast says
        seen.append((pred.dtype, product.dtype, torch.is_grad_enabled()))
        return loss_bbox(pred, target, **kwargs)

    assigner.loss_bbox = watched
    points, strides, logits, bboxes, gts = crowd()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assigner.assign_batch(points, strides, logits.bfloat16(), bboxes.bfloat16(), gts)
    assert seen == [(torch.float32, torch.float32, False)]


def test_locations_are_compared_in_float32():
    """As the boxes are: this location is on the border of one."""
    gts = BatchGroundTruth.from_instances([objects((16, 0, 32, 32))])
    points = torch.tensor([[16.0 + 1e-9, 8.0]], dtype=torch.float64)
    assigned = make().assign_batch(points, None, torch.zeros(1, 1, 1), torch.ones(1, 1, 4), gts)
    assert len(assigned.nonzero()[0]) == 0


def test_strides_of_half_precision_reach_as_far():
    # 2.3 strides of 128 are 294.4, in half precision 294.5.
    gts = BatchGroundTruth.from_instances([objects((0, 0, 1000, 1000))])
    points = torch.tensor([[500 + 294.45, 500.0]])
    strides = torch.tensor([128.0]).half()
    assigned = make(center_radius=2.3).assign_batch(
        points, strides, torch.zeros(1, 1, 1), torch.ones(1, 1, 4), gts
    )
    assert len(assigned.nonzero()[0]) == 0


@pytest.mark.parametrize("kind", BOTH)
def test_box_classes_and_other_types(kind):
    pred, gt = predictions(), objects((0, 0, 24, 8), (0, 0, 14, 8))
    expected = make(kind).assign(pred, gt)
    assert expected.gt_inds.tolist().count(0) < 3 and expected.labels.dtype == torch.long
    for change in (torch.Tensor.half, torch.Tensor.double, HorizontalBoxes):
        pred.bboxes = change(predictions().bboxes)
        gt.bboxes = change(objects((0, 0, 24, 8), (0, 0, 14, 8)).bboxes)
        if change is not HorizontalBoxes:
            pred.priors, pred.scores = change(predictions().priors), change(predictions().scores)
        gt.labels = torch.zeros(2)
        found = make(kind).assign(pred, gt)
        assert torch.equal(found.gt_inds, expected.gt_inds)
        assert torch.equal(found.max_overlaps, expected.max_overlaps)
        assert found.labels.tolist() == expected.labels.tolist()


def test_anchors_may_be_boxes_of_half_precision():
    """The sum of their corners does not fit: 1000.5 + 1023.5 would round to the border."""
    anchors = torch.tensor([[1000.5, 0, 1023.5, 8], [0, 0, 8, 8]])
    gt = objects((1011.9, 0, 1012.1, 8))
    pred = InstanceData(priors=HorizontalBoxes(anchors), scores=torch.zeros(2, 1),
                        bboxes=HorizontalBoxes(anchors))  # fmt: skip
    assert make(prior_format="box").assign(pred, gt).gt_inds.tolist() == [1, 0]
    pred.priors = torch.tensor([[1025.0, 0, 1026, 8], [0, 0, 8, 8]]).half()  # centre 1025.5
    gt = objects((1025.2, 0, 1025.8, 8))
    assert make(prior_format="box").assign(pred, gt).gt_inds.tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.half])
def test_probabilities_of_zero_and_one_are_still_finite(dtype):
    pred, gt = predictions([(4.0, 4)]), objects((0, 0, 24, 8))
    pred.scores = torch.tensor([[0.0, 1.0]], dtype=dtype)  # of the own and of the other class
    assert make().assign(pred, gt).gt_inds.tolist() == [1]  # as logits
    found = make(score_format="probs").assign(pred, gt)
    assert found.gt_inds.tolist() == [1]
    # Focal loss at probabilities of 1e-6 and 1 - 1e-6.
    logarithm = 6 * torch.tensor(10.0).log().item()
    assert found.batch_assign_result.losses[0, 0].item() == pytest.approx(logarithm, rel=2e-3)


def test_an_infinite_logit_is_a_certain_class():
    pred, gt = predictions([(4.0, 4), (12, 4)]), objects((0, 0, 24, 8))
    pred.scores = torch.tensor([[float("inf"), -float("inf")], [-4.0, 4.0]])
    found = make().assign(pred, gt).batch_assign_result
    assert found.losses[0, 0] == 0 and found.prior_inds[0, 0] == 0


@pytest.mark.parametrize("by_image, per_gt_reweight", [(True, 0.0), (False, 0.0), (False, 1.0)])
@pytest.mark.parametrize("boxes, num_points", [(0, 3), (2, 3), (2, 0), (0, 0)])
@pytest.mark.parametrize("kind", BOTH)
def test_one_reduction_per_batch_and_none_per_image(
    kind, boxes, num_points, per_gt_reweight, by_image, monkeypatch
):
    """With objects and locations and without, as many as on the other processes."""
    calls = []
    monkeypatch.setattr(ambiguity, "reduce_mean", lambda sums: calls.append(len(sums)) or sums)
    pred, gt = predictions()[:num_points], objects((0, 0, 24, 8), (0, 0, 9, 8))[:boxes]
    assigner = make(kind, per_gt_reweight=per_gt_reweight)
    if by_image:
        result = assigner.assign(pred, gt)
        assert result.num_gts == boxes and len(result.gt_inds) == num_points
        assert (result.gt_inds > 0).any() == (boxes > 0 and num_points > 0)
        assert ((result.labels >= 0) == (result.gt_inds > 0)).all()
        assigned = result.batch_assign_result
    else:
        priors = pred.priors
        assigned = assigner.assign_batch(
            priors[:, :2], priors[:, 2], pred.scores[None], pred.bboxes[None],
            BatchGroundTruth.from_instances([gt]),
        )  # fmt: skip
    assert len(assigned.weights) == boxes and assigned.ignored.shape == (num_points,)
    assert assigned.thresholds.shape == (boxes,) and assigned.means.shape == (boxes, 2)
    assert calls == ([2] if per_gt_reweight else [])


def test_a_batch_without_locations_has_several_images():
    gts = BatchGroundTruth.from_instances([objects((0, 0, 9, 9)), objects()])
    for kind, kwargs in [(BOTH[0], dict(center_radius=1.5)),
                         (BOTH[1], dict(level_mode="regress_range"))]:  # fmt: skip
        assigned = make(kind, **kwargs).assign_batch(
            torch.zeros(0, 2), torch.zeros(0), torch.zeros(2, 0, 3), torch.zeros(2, 0, 4), gts
        )
        assert len(assigned.nonzero()[0]) == 0 and assigned.ignored.shape == (0,)


def test_per_gt_reweight_evens_out_the_objects():
    # Two locations against one, of equal losses: 3 in all.
    pred, gt = predictions(), objects((0, 0, 14, 8), (16, 0, 24, 8))
    priors, gts = pred.priors, BatchGroundTruth.from_instances([gt])

    def totals(**kwargs):
        assigned = make(**kwargs).assign_batch(
            priors[:, :2], priors[:, 2], pred.scores[None], pred.bboxes[None], gts
        )
        return assigned.weights.sum(dim=1)

    plain, even, half = totals(), totals(per_gt_reweight=1.0), totals(per_gt_reweight=0.5)
    assert plain.tolist() == [2, 1] and even.tolist() == pytest.approx([1.5, 1.5])
    assert half[0] / half[1] == pytest.approx(2**0.5)


@pytest.mark.parametrize("kind", BOTH)
def test_mmdet_s_heads_read_no_weights(kind):
    with pytest.raises(ValueError, match="Leave it out, or use LossAwareFCOSHead"):
        make(kind, per_gt_reweight=0.5).assign(predictions(), objects((0, 0, 24, 8)))


@pytest.mark.parametrize("scale, low", [(1.0, 4), (10.0, 5)])
def test_the_mixture_sees_scaled_costs_and_answers_in_their_unit(scale, low):
    losses = torch.tensor([[0.0, 0.1, 0.2, 0.2, 0.3, 0.5]])
    candidates = TopCandidates(losses, losses.long(), losses.isfinite(), losses.long())
    thresholds, means = make()._split_by_mixture(candidates, scale)
    assert thresholds.item() == losses[0, low - 1]
    assert (means > 0).all() and (means < 0.51).all() and means[0, 0] < means[0, 1]


def test_arguments_reach_the_mixture(monkeypatch):
    from misalign_det.models.task_modules.assigners import batch_assigner

    fit, seen = batch_assigner.fit_mixture, []
    monkeypatch.setattr(
        batch_assigner, "fit_mixture", lambda *args: seen.append(args[2:]) or fit(*args)
    )
    gt = objects((0, 0, 24, 8))
    make().assign(predictions(), gt)
    make(precisions_init="sample", mixture_backend="sklearn").assign(predictions(), gt)
    assert seen == [(1.0, "batched"), ("sample", "sklearn")]


@pytest.fixture
def elsewhere():
    """Another package's scope, with an IoULoss of its own that returns a tuple."""
    root = MODELS.parent
    registry = Registry("model", parent=root, scope="elsewhere")

    @registry.register_module(name=["IoULoss", "GIoULoss"])
    class OtherLoss(nn.Module):
        def forward(self, pred, target, **kwargs):
            return pred.sum(), target.sum()

    with DefaultScope.overwrite_default_scope("elsewhere"):
        assert type(MODELS.build(dict(type="IoULoss"))) is OtherLoss
        yield
    del root._children["elsewhere"]


@pytest.mark.parametrize("kind, loss", list(zip(BOTH, [IoULoss, GIoULoss])))
def test_default_losses_are_mmdets_under_another_scope(kind, loss, elsewhere):
    assigner = TASK_UTILS.build(dict(type=f"mmdet.{kind}"))
    assert type(assigner.loss_bbox) is loss
    with pytest.raises(ValueError, match="loss_bbox.*OtherLoss returns a tuple"):
        TASK_UTILS.build(dict(type=f"mmdet.{kind}", loss_bbox=dict(type="IoULoss")))


class MeanLoss(nn.Module):
    def forward(self, pred, target, reduction_override=None):
        return (pred - target).abs().mean()


class NoOverride(nn.Module):
    def forward(self, pred, target):
        return (pred - target).abs().sum(dim=1)


@pytest.mark.parametrize(
    "loss, message",
    [
        (MeanLoss, r"MeanLoss returns shape \(\)"),
        (NoOverride, "NoOverride raises TypeError.*reduction_override"),
        ("mmdet.L1Loss", r"L1Loss returns shape \(2, 4\)"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_a_box_loss_that_cannot_rank_is_named_when_it_is_built(kind, loss, message):
    with pytest.raises(ValueError, match=f"loss_bbox.*{message}"):
        make(kind, loss_bbox=dict(type=loss))


@pytest.mark.parametrize(
    "loss", [GIoULoss, "mmdet.DIoULoss", "mmdet.CIoULoss", "mmdet.EIoULoss"], ids=str
)
def test_mmdets_box_losses_rank(loss):
    found = make(loss_bbox=dict(type=loss)).assign(predictions(), objects((0, 0, 23, 8)))
    assert found.gt_inds.tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", BOTH)
def test_a_compiled_step_leaves_assignment_alone(kind):
    """Traced, the mixture's NumPy fails; compiled, the rest of the step still is."""
    assigner, gt = make(kind), objects((0, 0, 24, 8), (0, 0, 14, 8))
    pred, graphs = predictions(), []
    priors = pred.priors

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    @torch.compile(backend=backend)
    def step(logits):
        gts = BatchGroundTruth.from_instances([gt])
        assigned = assigner.assign_batch(
            priors[:, :2], priors[:, 2], (logits * 2).detach()[None], pred.bboxes[None], gts
        )
        result = assigner.assign(pred, gt)
        return (logits.sigmoid()[assigned.prior_inds].sum(-1) * assigned.weights).sum(), result

    logits = pred.scores.clone().requires_grad_()
    for _ in range(2):
        total, result = step(logits)
    total.backward()
    assert graphs and logits.grad.abs().sum() > 0
    assert torch.equal(result.gt_inds, assigner.assign(pred, gt).gt_inds)


def test_an_assigner_can_be_copied():
    """The copy assigns with its own values."""
    assigner = make()
    other = copy.deepcopy(assigner)
    other.topk = 1
    gt = objects((0, 0, 24, 8))
    assert other.assign(predictions(), gt).batch_assign_result.losses.shape == (1, 1)
    assert assigner.assign(predictions(), gt).batch_assign_result.losses.shape == (1, 35)


def test_the_result_of_mmdets_interface():
    pred, gt = predictions(), objects((0, 0, 14, 8), label=1)
    result = make().assign(pred, gt, None)
    assert result.num_gts == 1 and result.gt_inds.tolist() == [1, 1, 0]
    assert result.labels.tolist() == [1, 1, -1]
    # IoU of the predicted box of 24 pixels with the GT of 14.
    assert result.max_overlaps.tolist() == pytest.approx([14 / 24, 14 / 24, 0])


@pytest.mark.parametrize("kind", BOTH)
def test_a_head_that_calls_in_another_way_is_told_so(kind):
    assigner, pred, gts = make(kind), predictions(), objects((0, 0, 24, 8))
    only = lambda *names: InstanceData(**{name: pred[name] for name in names})  # noqa: E731
    calls = [
        lambda: assigner.assign(pred, [3], gts, None),  # ATSS
        lambda: assigner.assign(pred, [3], gts),
        lambda: assigner.assign(only("priors", "scores"), gts),
        lambda: assigner.assign(only("priors", "bboxes"), gts),
        lambda: assigner.assign(pred, gts, None, 1.0, 6.0),  # TOOD
        lambda: assigner.assign(InstanceData(priors=pred.priors), gts, None),  # RetinaNet
        lambda: assigner.assign(  # GFL
            pred_instances=InstanceData(priors=pred.priors), num_level_priors=[3], gt_instances=gts
        ),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=f"{kind} cannot be the assigner of this head") as found:
            call()
        assert "another head derived from LossAwareFCOSHead" in str(found.value)
    assert assigner.assign(pred, gts, None, img_meta={}).num_gts == 1
