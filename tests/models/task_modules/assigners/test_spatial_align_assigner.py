"""SpatialAlignAssigner: positives and ambiguous locations, by hand and as properties."""

import math
from pathlib import Path

import mmdet
import pytest
import torch
from helpers.assignment_scenes import crowd, same_assignment
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401
from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth
from misalign_det.models.task_modules.assigners.fitness_misalignment import (
    MAX_LEVELS,
)

INF = math.inf


def make(**kwargs):
    return TASK_UTILS.build(dict(type="SpatialAlignAssigner", **kwargs))


def ground_truth(boxes, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )


def pyramid(size=64, strides=(8, 16, 32)):
    """Locations of a square image, ``(P, 2)``, and their strides, ``(P,)``."""
    points, all_strides = [], []
    for stride in strides:
        axis = (torch.arange(size // stride) + 0.5) * stride
        ys, xs = torch.meshgrid(axis, axis, indexing="ij")
        points.append(torch.stack([xs, ys], dim=-1).view(-1, 2))
        all_strides.append(torch.full((len(points[-1]),), float(stride)))
    return torch.cat(points), torch.cat(all_strides)


def predictions(seed=0, num_classes=3, num_images=1):
    generator = torch.Generator().manual_seed(seed)
    points, strides = pyramid()
    reach = torch.rand(num_images, len(points), 4, generator=generator) * 30 + 1
    bboxes = torch.cat([points - reach[..., :2], points + reach[..., 2:]], dim=-1)
    logits = torch.randn(num_images, len(points), num_classes, generator=generator)
    return points, strides, logits, bboxes


def assign(boxes, labels=None, seed=0, **kwargs):
    points, strides, logits, bboxes = predictions(seed)
    gts = BatchGroundTruth.from_instances([ground_truth(boxes, labels or [0] * len(boxes))])
    return make(**kwargs).assign_batch(points, strides, logits, bboxes, gts), gts


def test_positives_by_hand():
    """One level and a box of four locations, of which two fit and agree; the mixture splits."""
    points, strides, logits, bboxes = predictions()
    logits[:] = -8.0
    logits[0, [0, 9], 1] = 8.0  # both losses near 0
    bboxes[0, [0, 9]] = torch.tensor([0.0, 0, 16, 16])
    bboxes[0, [1, 8]] = torch.tensor([14.0, 14, 40, 40])
    gts = BatchGroundTruth.from_instances([ground_truth([(0, 0, 16, 16)], [1])])
    assigned = make(num_levels=1).assign_batch(points, strides, logits, bboxes, gts)
    assert sorted(assigned.nonzero()[0].tolist()) == [0, 9]


def test_ambiguous_locations_go_to_the_least_cost():
    assigned, _ = assign([(0, 0, 60, 60), (4, 4, 64, 64), (2, 2, 62, 62)])
    priors, gt_inds, weights = assigned.nonzero()
    assert len(priors.unique()) + int(assigned.rescued.sum()) >= len(priors)
    assert (weights == 1).all()
    cost = {}
    for g in range(3):
        for k in range(assigned.losses.shape[1]):
            if assigned.losses[g, k] <= assigned.thresholds[g]:
                cost.setdefault(assigned.prior_inds[g, k].item(), {})[g] = assigned.losses[
                    g, k
                ].item()
    ambiguous = 0
    for prior, gt in zip(priors.tolist(), gt_inds.tolist()):
        if gt in cost[prior] and not assigned.rescued[gt].any():
            assert cost[prior][gt] == min(cost[prior].values())
            ambiguous += len(cost[prior]) > 1
    assert ambiguous


def test_candidates_come_from_two_levels_of_nine():
    assigned, _ = assign([(0, 0, 64, 64)])
    _, strides = pyramid()
    used = strides[assigned.prior_inds[0][assigned.losses[0].isfinite()]]
    assert assigned.losses.shape == (1, 18)
    assert len(used.unique()) <= 2 and all((used == s).sum() <= 9 for s in used.unique())


def test_cost_is_ranked_in_ascending_order():
    assigned, _ = assign([(0, 0, 64, 64), (3, 3, 30, 40)])
    finite = assigned.losses.nan_to_num(posinf=1e9)
    assert (finite[:, 1:] >= finite[:, :-1]).all()


def test_regress_ranges_decide_the_level():
    assigned, _ = assign(
        [(0, 0, 20, 20)],
        level_mode="regress_range",
        regress_ranges=((-1, 24), (24, 48), (48, 1e8)),
    )
    _, strides = pyramid()
    assert (strides[assigned.prior_inds[0][assigned.losses[0].isfinite()]] == 8).all()


boxes_strategy = st.lists(
    st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(0.5, 60)] * 2), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(boxes_strategy, st.integers(0, 5), st.sampled_from(["sum", "softmax"]))
def test_every_gt_with_a_candidate_has_a_positive(boxes, seed, fitness_mode):
    boxes = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    assigned, gts = assign(boxes, seed=seed, fitness=fitness_mode)
    points, _ = pyramid()
    inside = (points[None] > gts.bboxes[:, None, :2]) & (points[None] < gts.bboxes[:, None, 2:])
    assert torch.equal((assigned.weights > 0).any(dim=1), inside.all(dim=-1).any(dim=1))


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
    assigned, _ = assign([])
    assert len(assigned.nonzero()[0]) == 0 and not assigned.ignored.any()


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
    folder = Path(mmdet.__file__).parent / ".mim/configs/rtmdet"
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
        (dict(topk=2.5), "topk"),
        (dict(regress_ranges=()), "regress_ranges"),
        (dict(regress_ranges=((0, 64, 128),)), "regress_ranges"),
        (dict(regress_ranges=((64, 0),)), "regress_ranges"),
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
    assert same_assignment(make().assign_batch(*crowd()), make(**PUBLISHED).assign_batch(*crowd()))


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
    assert not same_assignment(make().assign_batch(*crowd()), make(**other).assign_batch(*crowd()))


def test_ranges_are_fcoss():
    assert make().regress_ranges == ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))


def test_cost_and_means_of_one_candidate_by_hand():
    """In the unit of the cost, whatever the mixture sees."""
    points, strides, logits, bboxes = predictions()
    logits[:] = 0.0
    bboxes[0, 0] = torch.tensor([0.0, 0, 8, 4])  # GIoU 1/2
    gts = BatchGroundTruth.from_instances([ground_truth([(0, 0, 8, 8)], [2])])
    cls_loss, reg_loss = (2 * 0.75 + 0.25) * 0.25 * math.log(2), 0.5
    misaligned = 1 / (1 + math.exp(-abs(cls_loss - reg_loss)))
    expected = math.sqrt((cls_loss + reg_loss) * misaligned)
    for scale in (10.0, 3.0):
        assigned = make(cost_scale=scale).assign_batch(points, strides, logits, bboxes, gts)
        assert assigned.losses[0, 0].item() == pytest.approx(expected, rel=1e-6)
        assert assigned.thresholds[0].item() == pytest.approx(expected, rel=1e-6)
        assert assigned.means[0].tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_levels_beyond_the_ranges_have_the_last_one():
    ranges = ((-1, 20), (20, 1e8))  # for three levels
    assigned, _ = assign([(0, 0, 64, 64)], level_mode="regress_range", regress_ranges=ranges)
    _, strides = pyramid()
    used = strides[assigned.prior_inds[0][assigned.losses[0].isfinite()]]
    assert set(used.tolist()) == {16, 32}


def test_the_coarsest_of_few_levels_has_all_larger_objects():
    """As in FCOS, whose last range has no end: three levels here, five ranges."""
    points, strides, logits, bboxes = predictions()
    gts = BatchGroundTruth.from_instances(
        [ground_truth([(-500, -500, 564, 564), (0, 0, 60, 60)], [0, 1])]
    )
    assigned = make(level_mode="regress_range").assign_batch(points, strides, logits, bboxes, gts)
    assert assigned.losses.isfinite().any(dim=1).all()
    used = [strides[p[f.isfinite()]] for p, f in zip(assigned.prior_inds, assigned.losses)]
    assert (used[0] == 32).all() and (used[1] == 8).all()
    empty = BatchGroundTruth.from_instances([ground_truth([], [])])
    none = make(level_mode="regress_range").assign_batch(
        points[:0], strides[:0], logits[:, :0], bboxes[:, :0], empty
    )
    assert len(none.nonzero()[0]) == 0


def test_bounds_of_arguments():
    make(topk=1, num_levels=1)
    make(num_levels=MAX_LEVELS)
    for kwargs in (dict(num_levels=MAX_LEVELS + 1), dict(cost_scale=-1)):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            make(**kwargs)
