"""JLAAssigner: stages of training, mmdet's assigner interface, and RTMDet's and YOLOX's heads."""

import math

import pytest
import torch
from helpers.assignment_scenes import crowd, same_assignment
from mmdet.registry import TASK_UTILS
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401

INF = math.inf


def make(**kwargs):
    return TASK_UTILS.build(dict(type="JLAAssigner", **kwargs))


def predictions(seed=0, num=100, num_classes=3, priors_dim=2):
    torch.manual_seed(seed)
    ys, xs = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    points = (torch.stack([xs, ys], dim=-1).reshape(-1, 2) + 0.5) * 8
    bboxes = torch.cat([points - torch.rand(num, 2) * 20, points + torch.rand(num, 2) * 20], 1)
    priors = torch.cat([points, torch.full((num, 2), 8.0)], 1)[:, :priors_dim]
    return InstanceData(priors=priors, bboxes=bboxes, scores=torch.randn(num, num_classes))


def ground_truth(boxes, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )


@pytest.fixture
def runner_at():
    """Set the counters that a runner keeps in its message hub, a new one in every test."""
    hub = MessageHub.get_current_instance()

    def at(iteration, total):
        hub.update_info("iter", iteration)
        hub.update_info("max_iters", total)

    return at


def test_stage_switches_after_a_third_of_training(runner_at):
    assigner = make()
    for iteration, mode in [(0, "soft"), (29, "soft"), (30, "argmin"), (89, "argmin")]:
        runner_at(iteration, 90)
        assert assigner.ambiguous_mode() == mode
    assert make(weighted_until=0).ambiguous_mode() == "argmin"
    assert make(weighted_until=1).ambiguous_mode() == "soft"
    runner_at(0, 90)
    assert make(theta=0.49).ambiguous_mode() == "argmin"  # section 4.3.2
    assert make(theta=0.5).ambiguous_mode() == "soft"
    assert make(ambiguous="ignore").ambiguous_mode() == "ignore"


def test_positives_by_hand():
    """Four locations in the box: two fit it well, two badly; the mixture splits them."""
    pred = predictions()
    pred.scores[:] = -4.0
    gt = ground_truth([(0, 0, 16, 16)], [2])
    pred.bboxes[[0, 11]] = torch.tensor([0.0, 0, 16, 16])  # IoU 1
    pred.bboxes[[1, 10]] = torch.tensor([14.0, 14, 40, 40])  # IoU 0.004
    result = make().assign(pred, gt)
    assert result.gt_inds.nonzero().flatten().tolist() == [0, 11]
    assert result.labels[[0, 11, 1]].tolist() == [2, 2, -1]
    torch.testing.assert_close(result.max_overlaps[[0, 11, 1]], torch.tensor([1.0, 1.0, 0.0]))


def test_topk_one_is_the_least_joint_loss():
    pred, gt = predictions(), ground_truth([(8, 8, 60, 60)], [1])
    result = make(topk=1).assign(pred, gt)
    assigned = make(topk=100).assign(pred, gt).batch_assign_result
    assert result.gt_inds.nonzero().flatten().tolist() == [assigned.prior_inds[0, 0].item()]


@pytest.mark.parametrize("gt", [ground_truth([], []), ground_truth([(1, 1, 2, 2)], [0])])
def test_nothing_to_assign(gt):
    result = make().assign(predictions(), gt)
    assert not result.gt_inds.any() and (result.labels == -1).all()
    assert result.num_gts == len(gt)


def test_non_finite_predictions_are_never_positive_and_never_raise():
    pred, gt = predictions(), ground_truth([(8, 8, 60, 60), (20, 20, 70, 70)], [1, 2])
    pred.scores[::3], pred.bboxes[1::3] = math.nan, math.inf
    result = make().assign(pred, gt)
    positive = result.gt_inds.nonzero().flatten()
    assert len(positive) and (positive % 3 == 2).all()


def test_probabilities_and_logits_agree():
    pred, gt = predictions(), ground_truth([(8, 8, 60, 60), (20, 20, 70, 70)], [1, 2])
    from_logits = make().assign(pred, gt).gt_inds
    pred.scores = pred.scores.sigmoid()
    assert torch.equal(make(score_format="probs").assign(pred, gt).gt_inds, from_logits)


def test_anchors_count_by_their_centre():
    pred, gt = predictions(), ground_truth([(8, 8, 60, 60)], [1])
    expected = make().assign(pred, gt).gt_inds
    pred.priors = torch.cat([pred.priors - 12, pred.priors + 12], dim=1)
    assert torch.equal(make(prior_format="box").assign(pred, gt).gt_inds, expected)
    with pytest.raises(ValueError, match="center_radius"):
        make(prior_format="box", center_radius=1.5).assign(pred, gt)


def test_batch_equals_image_by_image():
    assigner, gts = make(), []
    preds = [predictions(seed) for seed in range(3)]
    gts = [
        ground_truth([(8, 8, 60, 60), (20, 20, 70, 70)], [1, 2]),
        ground_truth([], []),
        ground_truth([(0, 0, 30, 70)], [0]),
    ]
    from misalign_det.models.task_modules.assigners.ambiguity import one_gt_per_location
    from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth

    batch = BatchGroundTruth.from_instances(gts)
    assigned = assigner.assign_batch(
        preds[0].priors,
        None,
        torch.stack([pred.scores for pred in preds]),
        torch.stack([pred.bboxes for pred in preds]),
        batch,
    )
    together = one_gt_per_location(assigned, batch, 100).view(3, 100)
    for i in range(3):
        assert torch.equal(together[i], assigner.assign(preds[i], gts[i]).gt_inds)


def test_500_ground_truths():
    torch.manual_seed(0)
    boxes = torch.rand(500, 4) * 60
    boxes[:, 2:] += boxes[:, :2] + 5
    result = make().assign(predictions(), ground_truth(boxes.tolist(), [0] * 500))
    assert result.gt_inds.max() <= 500 and (result.gt_inds > 0).any()


def test_autocast_changes_no_label():
    pred, gt = predictions(), ground_truth([(8, 8, 60, 60), (20, 20, 70, 70)], [1, 2])
    expected = make().assign(pred, gt).gt_inds
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(make().assign(pred, gt).gt_inds, expected)


@pytest.mark.parametrize(
    "kwargs, named",
    [
        (dict(topk=0), "topk"),
        (dict(topk=2.5), "topk"),
        (dict(theta=1.5), "theta"),
        (dict(theta=float("nan")), "theta"),
        (dict(ambiguous="hard"), "ambiguous"),
        (dict(separation="peak"), "separation"),
        (dict(weighted_until=1.5), "weighted_until"),
        (dict(score_format="prob"), "score_format"),
        (dict(prior_format="anchor"), "prior_format"),
    ],
)
def test_bad_arguments_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        make(**kwargs)


PAPER = dict(
    topk=35, alpha=1.0, theta=0.6, ambiguous="soft", weighted_until=1 / 3, center_radius=None,
    separation="component", loss_bbox=dict(type="mmdet.IoULoss"), precisions_init=1.0,
    mixture_backend="batched", per_gt_reweight=0.0, focal_alpha=0.25, focal_gamma=2.0,
)  # fmt: skip


def test_defaults_are_the_papers():
    assert same_assignment(make().assign_batch(*crowd()), make(**PAPER).assign_batch(*crowd()))


@pytest.mark.parametrize(
    "other",
    [
        dict(topk=34), dict(alpha=1.1), dict(ambiguous="ignore"),
        dict(ambiguous="argmin"), dict(weighted_until=0), dict(center_radius=1.5),
        dict(separation="density_peak"), dict(per_gt_reweight=0.1),
        dict(loss_bbox=dict(type="mmdet.GIoULoss")), dict(precisions_init=2.0),
        dict(precisions_init="sample"), dict(focal_alpha=0.3), dict(focal_gamma=1.5),
    ],
    ids=str,
)  # fmt: skip
def test_every_argument_is_read(other):
    assert not same_assignment(make().assign_batch(*crowd()), make(**other).assign_batch(*crowd()))


def test_theta_decides_which_locations_are_ignored():
    """Of two GTs, as of most, 'soft' keeps the larger weight whatever theta is."""
    default, sixty, seventy = (
        make(ambiguous="ignore", **kwargs).assign_batch(*crowd())
        for kwargs in ({}, dict(theta=0.6), dict(theta=0.65))
    )
    assert same_assignment(default, sixty) and not same_assignment(sixty, seventy)
    assert sixty.ignored.sum() < seventy.ignored.sum()


def test_joint_loss_of_a_pair_by_hand():
    """Focal loss at logit 0 for three classes, and -log IoU, times alpha."""
    pred, gt = predictions(), ground_truth([(0, 0, 8, 8)], [2])
    pred.scores[:] = 0.0
    pred.bboxes[0] = torch.tensor([0.0, 0, 8, 4])  # IoU 1/2
    log2 = math.log(2)
    for alpha in (1.0, 3.0):
        assigned = make(alpha=alpha).assign(pred, gt).batch_assign_result
        # Two other classes as negatives, the own one as a positive.
        expected = (2 * 0.75 + 0.25) * 0.25 * log2 + alpha * log2
        assert assigned.losses[0, 0].item() == pytest.approx(expected, rel=1e-6)
        assert assigned.thresholds.item() == pytest.approx(expected, rel=1e-6)
        # One candidate: both components are at its loss.
        assert assigned.means[0].tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_thirty_five_candidates():
    """Over all levels, those of least joint loss."""
    assigned = make().assign(predictions(), ground_truth([(0, 0, 80, 80)], [0])).batch_assign_result
    assert assigned.losses.shape == (1, 35) and assigned.losses.isfinite().all()
    every = make(topk=100).assign(predictions(), ground_truth([(0, 0, 80, 80)], [0]))
    assert torch.equal(assigned.losses, every.batch_assign_result.losses[:, :35])


def test_bounds_of_arguments():
    for kwargs in (
        dict(weighted_until=-0.1), dict(per_gt_reweight=-0.1), dict(per_gt_reweight=1.1),
        dict(focal_alpha=-0.1), dict(focal_alpha=1.1), dict(focal_gamma=-1), dict(alpha=-1),
        dict(alpha=math.nan), dict(center_radius=0), dict(mixture_backend="numpy"),
        dict(precisions_init=0), dict(precisions_init=INF), dict(precisions_init="auto"),
        dict(center_radius=1.5, prior_format="box"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            make(**kwargs)
    for kwargs in (
        dict(topk=1), dict(weighted_until=1), dict(per_gt_reweight=1), dict(per_gt_reweight=0),
        dict(focal_alpha=0), dict(focal_alpha=1), dict(focal_gamma=0), dict(alpha=0),
    ):  # fmt: skip
        make(**kwargs)
