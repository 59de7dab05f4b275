"""Choice of levels, fitness and misalignment by hand."""

import math

import pytest
import torch
<<<<<<< HEAD
=======
from helpers.assignment_scenes import crowd, same_edges
from helpers.paths import MMDET_CONFIGS
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.structures import InstanceData
>>>>>>> deac489 (Tests take the folders of the repository and of mmdet's configs from helpers/paths.py)

import misalign_det  # noqa: F401
from misalign_det.models.task_modules.assigners.candidates import CandidatePairs
from misalign_det.models.task_modules.assigners.spatial_alignment import (
    MAX_LEVELS,
    alignment_cost,
    candidates_per_level,
    fitness,
    gather_levels,
    level_of_priors,
    select_levels,
    within_regress_range,
)

INF = math.inf


def test_levels_from_strides():
    assert level_of_priors(torch.tensor([8.0, 8, 16, 32, 32])).tolist() == [0, 0, 1, 2, 2]


def test_candidates_per_level_by_hand():
    # One GT, three levels of 2, 2 and 1 locations; losses 3, 1 | nan, 2 | 5; the two best of each.
    pairs = CandidatePairs(torch.arange(5), torch.zeros(5, dtype=torch.long), torch.tensor([5]))
    losses = torch.tensor([3.0, 1.0, math.nan, 2.0, 5.0])
    top = candidates_per_level(pairs, losses, torch.tensor([0, 0, 1, 1, 2]), topk=2)
    assert top.losses[0, :4].tolist() == [[1, 3], [2, INF], [5, INF], [INF, INF]]
    assert top.prior_inds[top.losses.isfinite()].tolist() == [1, 0, 3, 4]
    # Means 2, 2, 5: a tie goes to the finer level.
    chosen = select_levels(top.losses, num_levels=2)
    assert chosen.tolist() == [[0, 1]]
    joined = gather_levels(top, chosen)
    assert joined.losses.tolist() == [[1, 3, 2, INF]]
    assert joined.valid.tolist() == [[True, True, True, False]]


def test_select_levels_takes_the_least_mean_and_leaves_empty_levels_to_the_end():
    losses = torch.tensor([[[4.0, 6.0], [1.0, 2.0], [INF, INF], [3.0, INF]]])
    assert select_levels(losses, 2).tolist() == [[1, 3]]
    assert select_levels(losses, 4).tolist() == [[1, 3, 0, 2]]


def test_cost_by_hand():
    # S_f = 3, S_m = sigmoid(1); equal losses: sqrt(2 * sigmoid(0)) = 1.
    cost = alignment_cost(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0]))
    expected = [math.sqrt(3 / (1 + math.exp(-1))), 1.0]
    assert cost.tolist() == pytest.approx(expected)


def test_misalignment_raises_the_cost_at_equal_fitness():
    cost = alignment_cost(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1.0, 1.5, 2.0]))
    assert cost[0] < cost[1] < cost[2]


def test_softmax_fitness_by_hand():
    cls_loss = torch.tensor([[0.0, math.log(3.0), 99.0]])
    reg_loss = torch.tensor([[math.log(4.0), 0.0, 99.0]])
    valid = torch.tensor([[True, True, False]])
    cls_term, reg_term = fitness(cls_loss, reg_loss, valid, "softmax")
    torch.testing.assert_close(cls_term, torch.tensor([[0.25, 0.75, 0.0]]))
    torch.testing.assert_close(reg_term, torch.tensor([[0.8, 0.2, 0.0]]))
    assert not torch.cat(fitness(cls_loss, reg_loss, valid & False, "softmax")).any()


def test_regress_range_by_hand():
    # From (10, 10) the box reaches 10, 10, 90, 20: the longest is 90, the second range's.
    point, box = torch.tensor([[10.0, 10.0]]), torch.tensor([[0.0, 0.0, 100.0, 30.0]])
    ranges = torch.tensor([[-1.0, 64.0], [64.0, 128.0]])
    for level, inside in [(0, False), (1, True)]:
        assert within_regress_range(point, box, torch.tensor([level]), ranges).item() == inside


<<<<<<< HEAD
=======
def test_positives_by_hand():
    """One level and a box of four locations, of which two fit and agree; the mixture splits."""
    points, strides, logits, bboxes = predictions()
    logits[:] = -8.0
    logits[0, [0, 9], 1] = 8.0  # both losses near 0
    bboxes[0, [0, 9]] = torch.tensor([0.0, 0, 16, 16])
    bboxes[0, [1, 8]] = torch.tensor([14.0, 14, 40, 40])
    gts = BatchGroundTruth.from_instances([ground_truth([(0, 0, 16, 16)], [1])])
    edges = make(num_levels=1).assign_batch(points, strides, logits, bboxes, gts)
    assert sorted(edges.nonzero()[0].tolist()) == [0, 9]


def test_contested_locations_go_to_the_least_cost():
    edges, _ = assign([(0, 0, 60, 60), (4, 4, 64, 64), (2, 2, 62, 62)])
    priors, gt_inds, weights = edges.nonzero()
    assert len(priors.unique()) + int(edges.rescued.sum()) >= len(priors)
    assert (weights == 1).all()
    cost = {}
    for g in range(3):
        for k in range(edges.losses.shape[1]):
            if edges.losses[g, k] <= edges.thresholds[g]:
                cost.setdefault(edges.prior_inds[g, k].item(), {})[g] = edges.losses[g, k].item()
    ambiguous = 0
    for prior, gt in zip(priors.tolist(), gt_inds.tolist()):
        if gt in cost[prior] and not edges.rescued[gt].any():
            assert cost[prior][gt] == min(cost[prior].values())
            ambiguous += len(cost[prior]) > 1
    assert ambiguous


def test_candidates_come_from_two_levels_of_nine():
    edges, _ = assign([(0, 0, 64, 64)])
    _, strides = pyramid()
    used = strides[edges.prior_inds[0][edges.losses[0].isfinite()]]
    assert edges.losses.shape == (1, 18)
    assert len(used.unique()) <= 2 and all((used == s).sum() <= 9 for s in used.unique())


def test_cost_is_ranked_in_ascending_order():
    edges, _ = assign([(0, 0, 64, 64), (3, 3, 30, 40)])
    finite = edges.losses.nan_to_num(posinf=1e9)
    assert (finite[:, 1:] >= finite[:, :-1]).all()


def test_regress_ranges_decide_the_level():
    edges, _ = assign(
        [(0, 0, 20, 20)],
        level_mode="regress_range",
        regress_ranges=((-1, 24), (24, 48), (48, 1e8)),
    )
    _, strides = pyramid()
    assert (strides[edges.prior_inds[0][edges.losses[0].isfinite()]] == 8).all()


boxes_strategy = st.lists(
    st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(0.5, 60)] * 2), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(boxes_strategy, st.integers(0, 5), st.sampled_from(["sum", "softmax"]))
def test_every_gt_with_a_candidate_has_a_positive(boxes, seed, fitness_mode):
    boxes = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    edges, gts = assign(boxes, seed=seed, fitness=fitness_mode)
    points, _ = pyramid()
    inside = (points[None] > gts.bboxes[:, None, :2]) & (points[None] < gts.bboxes[:, None, 2:])
    assert torch.equal((edges.weights > 0).any(dim=1), inside.all(dim=-1).any(dim=1))


def test_one_candidate_equal_losses_and_non_finite_predictions():
    points, strides, logits, bboxes = predictions()
    logits[:], bboxes[:] = -4.0, torch.tensor([10.0, 10, 50, 50])
    logits[0, ::2], bboxes[0, 1::5] = math.nan, INF
    gts = BatchGroundTruth.from_instances([ground_truth([(3, 3, 6, 6), (10, 10, 50, 50)], [0, 1])])
    priors, gt_inds, _ = make().assign_batch(points, strides, logits, bboxes, gts).nonzero()
    # The first GT holds location 0 alone, which is NaN; all of the second's are equal.
    assert (gt_inds == 1).all() and len(priors) > 1
    assert (priors % 2 == 1).all() and (priors % 5 != 1).all()


def test_no_ground_truth():
    edges, _ = assign([])
    assert len(edges.nonzero()[0]) == 0 and not edges.ignored.any()


def test_scikit_learn_backend_agrees():
    boxes = [(0, 0, 60, 60), (10, 4, 64, 50), (2, 30, 30, 62)]
    batched, _ = assign(boxes)
    reference, _ = assign(boxes, mixture_backend="sklearn")
    assert torch.equal(batched.weights, reference.weights)


def test_batch_equals_image_by_image():
    points, strides, logits, bboxes = predictions(num_images=2)
    gts = [
        ground_truth([(0, 0, 40, 40), (20, 20, 60, 60)], [0, 1]),
        ground_truth([(5, 5, 60, 30)], [2]),
    ]
    batch = BatchGroundTruth.from_instances(gts)
    together = make().assign_batch(points, strides, logits, bboxes, batch).nonzero()[0]
    single = [
        make()
        .assign_batch(
            points, strides, logits[i : i + 1], bboxes[i : i + 1],
            BatchGroundTruth.from_instances(gts[i : i + 1]),
        )
        .nonzero()[0]
        + i * len(points)
        for i in range(2)
    ]  # fmt: skip
    assert torch.equal(together, torch.cat(single))


def test_mmdets_interface():
    points, strides, logits, bboxes = predictions()
    priors = torch.cat([points, strides[:, None].expand(-1, 2)], dim=1)
    pred = InstanceData(priors=priors, scores=logits[0], bboxes=bboxes[0])
    gt = ground_truth([(0, 0, 40, 40), (20, 20, 60, 60)], [0, 1])
    result = make().assign(pred, gt)
    assert sorted(result.gt_inds.unique().tolist()) == [0, 1, 2]
    pred.priors = points
    with pytest.raises(ValueError, match="strides"):
        make().assign(pred, gt)


@pytest.mark.slow
def test_rtmdet_trains_with_it():
    folder = MMDET_CONFIGS / "rtmdet"
    cfg = Config.fromfile(folder / "rtmdet_tiny_8xb32-300e_coco.py").model
    cfg.backbone.init_cfg = None
    cfg.data_preprocessor.batch_augments = None
    cfg.train_cfg.assigner = dict(type="SpatialAlignAssigner", score_format="logits")
    model = MODELS.build(cfg)
    packed = demo_mm_inputs(2, image_shapes=[(3, 128, 128)] * 2, num_items=[3, 0], num_classes=80)
    losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
    total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)
    assert total.isfinite()


@pytest.mark.parametrize(
    "kwargs, named",
    [
        (dict(topk=0), "topk"),
        (dict(num_levels=0), "num_levels"),
        (dict(level_mode="best"), "level_mode"),
        (dict(fitness="mean"), "fitness"),
        (dict(separation="peak"), "separation"),
        (dict(cost_scale=0), "cost_scale"),
        (dict(prior_format="box"), "prior_format"),
    ],
)
def test_bad_arguments_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        make(**kwargs)


PUBLISHED = dict(
    topk=9, num_levels=2, level_mode="loss", fitness="sum", cost_scale=10.0,
    separation="density_peak", loss_bbox=dict(type="mmdet.GIoULoss"), precisions_init=1.0,
    per_gt_reweight=0.0, focal_alpha=0.25, focal_gamma=2.0,
)  # fmt: skip


def test_defaults_are_the_published_ones():
    assert same_edges(make().assign_batch(*crowd()), make(**PUBLISHED).assign_batch(*crowd()))


@pytest.mark.parametrize(
    "other",
    [
        dict(topk=8), dict(topk=10), dict(num_levels=1), dict(level_mode="regress_range"),
        dict(fitness="softmax"), dict(cost_scale=1.0), dict(cost_scale=11.0),
        dict(separation="component"), dict(per_gt_reweight=0.1),
        dict(loss_bbox=dict(type="mmdet.IoULoss")), dict(focal_alpha=0.3), dict(focal_gamma=1.5),
        dict(precisions_init=2.0), dict(precisions_init="sample"),
    ],
    ids=str,
)  # fmt: skip
def test_every_argument_is_read(other):
    assert not same_edges(make().assign_batch(*crowd()), make(**other).assign_batch(*crowd()))


def test_ranges_are_fcoss():
    assert make().regress_ranges == ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))


def test_cost_and_means_of_one_edge_by_hand():
    """In the unit of the cost, whatever the mixture sees."""
    points, strides, logits, bboxes = predictions()
    logits[:] = 0.0
    bboxes[0, 0] = torch.tensor([0.0, 0, 8, 4])  # GIoU 1/2
    gts = BatchGroundTruth.from_instances([ground_truth([(0, 0, 8, 8)], [2])])
    cls_loss, reg_loss = (2 * 0.75 + 0.25) * 0.25 * math.log(2), 0.5
    misaligned = 1 / (1 + math.exp(-abs(cls_loss - reg_loss)))
    expected = math.sqrt((cls_loss + reg_loss) * misaligned)
    for scale in (10.0, 3.0):
        edges = make(cost_scale=scale).assign_batch(points, strides, logits, bboxes, gts)
        assert edges.losses[0, 0].item() == pytest.approx(expected, rel=1e-6)
        assert edges.thresholds[0].item() == pytest.approx(expected, rel=1e-6)
        assert edges.means[0].tolist() == pytest.approx([expected] * 2, rel=1e-6)


>>>>>>> deac489 (Tests take the folders of the repository and of mmdet's configs from helpers/paths.py)
def test_more_levels_than_are_told_apart_count_as_the_last():
    strides = torch.arange(1.0, MAX_LEVELS + 5)
    levels = level_of_priors(strides)
    assert levels[:MAX_LEVELS].tolist() == list(range(MAX_LEVELS))
    assert (levels[MAX_LEVELS:] == MAX_LEVELS - 1).all()
    assert MAX_LEVELS == 16
    # A stride that comes back is a level of its own: what counts is that it changes.
    assert level_of_priors(torch.tensor([8.0, 16, 8])).tolist() == [0, 1, 2]


def test_both_bounds_of_a_range_are_in_it():
    point, box = torch.tensor([[64.0, 10.0]]), torch.tensor([[0.0, 0.0, 100.0, 30.0]])  # 64
    for low, high, inside in [(-1, 64, True), (64, 128, True), (65, 128, False), (-1, 63, False)]:
        ranges = torch.tensor([[float(low), float(high)]])
        assert within_regress_range(point, box, torch.tensor([0]), ranges).item() == inside
    # Each of the four distances can be the longest.
    box = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    for x, y in [(90.0, 50.0), (50.0, 90.0), (10.0, 50.0), (50.0, 10.0)]:
        ranges = torch.tensor([[90.0, 90.0]])
        point = torch.tensor([[x, y]])
        assert within_regress_range(point, box, torch.tensor([0]), ranges).item()


def test_a_cost_below_zero_by_rounding_is_zero():
    assert alignment_cost(torch.tensor([-1e-8]), torch.tensor([0.0])).tolist() == [0]


def test_what_is_not_valid_is_not_read():
    losses = torch.tensor([[1.0, math.nan, INF]])
    valid = torch.tensor([[True, False, False]])
    assert [part.tolist() for part in fitness(losses, losses, valid)] == [[[1, 0, 0]]] * 2
    assert [p.tolist() for p in fitness(losses, losses, valid, "softmax")] == [[[1, 0, 0]]] * 2
    with pytest.raises(ValueError, match="fitness"):
        fitness(losses, losses, valid, "mean")


def test_an_empty_level_is_not_chosen_before_one_with_a_candidate():
    losses = torch.tensor([[[INF, INF], [INF, INF], [9.0, INF]]])
    assert select_levels(losses, 1).tolist() == [[2]]
