"""What must hold of assigners, mixture, loss and NMS whatever the input.

`MISALIGN_DET_CASES=100000 pytest tests/test_properties.py -s` takes that many cases in all and
prints the count.
"""

import os

import pytest
import torch
from helpers import assignment_scenes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401
from misalign_det.models.losses.dc_loss import positive_rows
from misalign_det.models.post_processing import cl_balanced_nms
from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth
from misalign_det.models.task_modules.assigners.gaussian_mixture import (
    fit_mixture,
    positive_threshold,
)

TESTS = 28  # with their parameters
LONG = "MISALIGN_DET_CASES" in os.environ
CASES = -(-int(os.environ["MISALIGN_DET_CASES"]) // TESTS) if LONG else 40  # of each test
COUNTS = {}
ASSIGNERS = [
    dict(type="JLAAssigner"),
    dict(type="JLAAssigner", weighted_until=0, topk=9, per_gt_reweight=1.0),
    dict(type="JLAAssigner", ambiguous="ignore", separation="density_peak"),
    dict(type="SpatialAlignAssigner"),
    dict(type="SpatialAlignAssigner", fitness="softmax", topk=4, num_levels=1),
]
scenes = st.builds(
    lambda seed, num_gts, classes: Scene(seed, num_gts, classes),
    st.integers(0, 2**31 - 1), st.integers(1, 9), st.integers(1, 4),
)  # fmt: skip


def cases(function):
    """Many examples, counted."""
    limits = dict(deadline=None, suppress_health_check=list(HealthCheck), max_examples=CASES)
    return settings(**limits, print_blob=False)(function)


@pytest.fixture(scope="module", autouse=True)
def say_how_many():
    yield
    if LONG:
        print(f"\n{sum(COUNTS.values())} cases in {len(COUNTS)} tests")


def counted(request):
    COUNTS[request.node.name] = COUNTS.get(request.node.name, 0) + 1


class Scene(assignment_scenes.Scene):
    """With the positives that an assigner finds in it."""

    def positives(self, config, gts=None, labels=None, points=None, order=None, scale=1.0):
        """(location, GT) -> weight, over locations and GTs as they are given."""
        order = torch.arange(len(self.points)) if order is None else order
        gts, labels = (self.gts, self.labels) if gts is None else (gts, labels)
        instances = InstanceData(bboxes=gts * scale, labels=labels)
        edges = TASK_UTILS.build(config).assign_batch(
            self.points[order] * scale, self.strides[order] * scale, self.logits[order][None],
            self.bboxes[order][None] * scale, BatchGroundTruth.from_instances([instances]),
        )  # fmt: skip
        priors, gt_inds, weights = edges.nonzero()
        pairs = zip(order[priors].tolist(), gt_inds.tolist())
        return dict(zip(pairs, weights.tolist()))


def same(mine, theirs):
    assert mine.keys() == theirs.keys()
    assert list(mine.values()) == pytest.approx([theirs[k] for k in mine], rel=1e-4)


@pytest.mark.parametrize("config", ASSIGNERS, ids=str)
class TestAssigners:
    @cases
    @given(scene=scenes)
    def test_order_of_objects(self, request, config, scene):
        counted(request)
        order = torch.randperm(len(scene.gts), generator=torch.Generator().manual_seed(0))
        found = scene.positives(config, scene.gts[order], scene.labels[order])
        found = {(p, int(order[g])): w for (p, g), w in found.items()}
        same(found, scene.positives(config))

    @cases
    @given(scene=scenes)
    def test_order_of_locations(self, request, config, scene):
        counted(request)
        generator = torch.Generator().manual_seed(1)
        fine = int((scene.strides == 8).sum())  # levels stay in order, as the interface says
        order = torch.cat(
            [
                torch.randperm(fine, generator=generator),
                fine + torch.randperm(len(scene.points) - fine, generator=generator),
            ]
        )
        same(scene.positives(config, order=order), scene.positives(config))

    @cases
    @given(scene=scenes, power=st.integers(-3, 3))
    def test_scale_of_the_image(self, request, config, scene, power):
        counted(request)
        same(scene.positives(config, scale=2.0**power), scene.positives(config))

    @cases
    @given(scene=scenes)
    def test_an_object_far_away(self, request, config, scene):
        counted(request)
        far = torch.tensor([[1000.0, 1000, 1050, 1040]])
        gts, labels = torch.cat([scene.gts, far]), torch.cat([scene.labels, scene.labels[:1]])
        same(scene.positives(config, gts, labels), scene.positives(config))

    @cases
    @given(scene=scenes, logit=st.sampled_from([0.0, 50.0, -1e4, 1e4]),
           size=st.sampled_from([0.0, 1e-3, 1.0, 1e4]))  # fmt: skip
    def test_every_object_with_a_candidate_has_a_positive(
        self, request, config, scene, logit, size
    ):
        counted(request)
        scene.logits[::3] = logit
        scene.bboxes[::2] = scene.points[::2].repeat(1, 2)
        scene.bboxes[::2, 2:] += size
        found = scene.positives(config)
        assert all(0 < weight < float("inf") for weight in found.values())
        x, y = scene.points.T[:, :, None]
        left, top, right, bottom = scene.gts.T
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        assert {g for _, g in found} == set(inside.any(0).nonzero().squeeze(1).tolist())
        assert all(inside[p, g] for p, g in found)


@cases
@given(seed=st.integers(0, 2**31 - 1), num=st.integers(1, 20), width=st.integers(1, 35),
       scale=st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6]))  # fmt: skip
def test_mixture(request, seed, num, width, scale):
    """Finite; the rows independent of one another; the low component has the smaller mean."""
    counted(request)
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(num, width, generator=generator).mul(scale).sort(dim=1).values
    valid = torch.ones_like(values, dtype=torch.bool)
    fit = fit_mixture(values, valid)
    for part in (fit.means, fit.variances, fit.weights):
        assert part.isfinite().all()
    assert (fit.means[:, 0] <= fit.means[:, 1]).all()
    threshold = positive_threshold(values, fit)
    # Values that differ far less than the starting precision can tell may all fall to one side; the
    # assigners then rescue the best candidate.
    assert (threshold.isfinite() == fit.is_low.any(1)).all() and not threshold.isnan().any()
    order = torch.randperm(num, generator=generator)
    mixed = fit_mixture(values[order], valid)
    torch.testing.assert_close(mixed.means, fit.means[order])
    assert torch.equal(mixed.is_low, fit.is_low[order])


@cases
@given(seed=st.integers(0, 2**31 - 1), num=st.integers(2, 60), gamma=st.sampled_from([0.0, 0.3, 3]),
       power=st.integers(-2, 2))  # fmt: skip
def test_nms(request, seed, num, gamma, power):
    """Order of the boxes, scale and place of the image change nothing."""
    counted(request)
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 320, (num, 2), generator=generator).float() / 4
    extent = torch.randint(8, 120, (num, 2), generator=generator) / 4
    boxes = torch.cat([corner, corner + extent], 1)
    scores = (torch.randperm(num, generator=generator) + 1.0) / (num + 1)
    expected = cl_balanced_nms(boxes, scores, 0.5, gamma=gamma)[1].tolist()
    order = torch.randperm(num, generator=generator)
    keep = cl_balanced_nms(boxes[order], scores[order], 0.5, gamma=gamma)[1]
    assert order[keep].tolist() == expected
    moved = boxes * 2.0**power + 64
    assert cl_balanced_nms(moved, scores, 0.5, gamma=gamma)[1].tolist() == expected


@cases
@given(seed=st.integers(0, 2**31 - 1), num=st.integers(1, 40),
       distance=st.sampled_from(["enclosing", "gt", "raw"]))  # fmt: skip
def test_dc_loss(request, seed, num, distance):
    """Finite, the positives' total unchanged, the order of samples without effect."""
    counted(request)
    generator = torch.Generator().manual_seed(seed)
    loss = MODELS.build(dict(type="DCLoss", distance=distance, loss=dict(
        type="FocalLoss", use_sigmoid=True), use_sigmoid=True))  # fmt: skip
    logits = 4 * torch.randn(num, 3, generator=generator)
    labels = torch.randint(0, 4, (num,), generator=generator)
    corner = torch.rand(2, num, 2, generator=generator) * 50
    pred, target = torch.cat([corner, corner + 1 + torch.rand(2, num, 2, generator=generator)], -1)

    def total(order):
        with loss.unreduced():
            call = loss(logits[order], labels[order], torch.ones(num), avg_factor=1.0)
        positive = positive_rows([call], 3)
        coefficient = loss.coefficient(pred[order][positive], target[order][positive])
        return sum(loss.reduce([call], positive, coefficient))

    mine = total(torch.arange(num))
    plain = loss.loss(logits, labels, torch.ones(num), avg_factor=1.0)
    torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)
    shuffled = total(torch.randperm(num, generator=generator))
    torch.testing.assert_close(shuffled, mine, rtol=1e-4, atol=1e-5)
