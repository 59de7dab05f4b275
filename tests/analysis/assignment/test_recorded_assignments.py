"""What is read of an assigner's call, whoever makes it."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.prior_generators import AnchorGenerator, MlvlPointGenerator
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401
from misalign_det.analysis.assignment.recorded_assignments import _locations, recorded_assignments

POINTS = torch.tensor([[4.0, 4, 8, 8], [12, 4, 8, 8], [8, 8, 16, 16]])
GTS = InstanceData(
    bboxes=torch.tensor([[0.0, 0, 9, 9], [5, 0, 16, 9]]), labels=torch.tensor([1, 0])
)


class Assigner:
    """Gives the first prior to the second object, the third to the first."""

    def assign(self, pred_instances, *args, **kwargs):
        gt_inds = torch.tensor([2, 0, 1])
        return AssignResult(2, gt_inds, torch.zeros(3), torch.zeros(3, dtype=torch.long))


def head(**generator):
    return SimpleNamespace(
        assigner=Assigner(),
        loss_by_feat=lambda *outs, **truth: {},
        prior_generator=SimpleNamespace(**generator),
    )


def record(call, owner=None):
    owner = owner or head()
    with recorded_assignments(owner) as images:
        call(owner.assigner)
    assert "assign" not in vars(owner.assigner)  # as it was
    return images


@pytest.mark.parametrize(
    "call",
    [
        lambda a, pred: a.assign(pred, GTS),  # MaxIoUAssigner
        lambda a, pred: a.assign(pred, [2, 1], GTS),  # ATSSAssigner
        lambda a, pred: a.assign(pred, gt_instances=GTS, img_meta={}),
        lambda a, pred: a.assign(pred_instances=pred, gt_instances=GTS),
    ],
)
def test_positives_of_every_way_to_call(call):
    (image,) = record(lambda a: call(a, InstanceData(priors=POINTS)))
    assert image.pairs() == {(0, 1), (2, 0)}
    assert image.points.tolist() == [[4, 4], [12, 4], [8, 8]]
    assert image.strides.tolist() == [8, 8, 16]
    assert image.gt_labels.tolist() == [1, 0] and image.gt_bboxes is GTS.bboxes
    assert image.scores is None and image.bboxes is None and image.thresholds is None


def test_several_calls_are_several_images():
    def twice(assigner):
        assert isinstance(assigner.assign(InstanceData(priors=POINTS), GTS), AssignResult)
        assigner.assign(InstanceData(priors=POINTS), GTS)

    assert len(record(twice)) == 2


@pytest.mark.parametrize(
    "scores, expected",
    [
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),  # probabilities stay
        ([0.0, 0.5, 1.5], [0.5, 0.6225, 0.8176]),  # logits do not
        ([-0.5, 0.5, 0.9], [0.3775, 0.6225, 0.7109]),
    ],
)
def test_scores_are_probabilities(scores, expected):
    pred = InstanceData(priors=POINTS, scores=torch.tensor(scores)[:, None], bboxes=POINTS)
    (image,) = record(lambda a: a.assign(pred, GTS))
    assert image.scores[:, 0].tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(image.bboxes, POINTS)


def test_box_types():
    gts = InstanceData(bboxes=HorizontalBoxes(GTS.bboxes), labels=GTS.labels)
    (image,) = record(lambda a: a.assign(InstanceData(priors=POINTS), gts))
    assert type(image.gt_bboxes) is torch.Tensor


def test_an_error_leaves_no_trace():
    owner = head()
    with pytest.raises(ZeroDivisionError):
        with recorded_assignments(owner):
            raise ZeroDivisionError
    assert "assign" not in vars(owner.assigner)


def test_locations_of_points():
    points = MlvlPointGenerator([8, 16]).grid_priors(
        [(2, 2), (1, 1)], device="cpu", with_stride=True)  # fmt: skip
    centres, strides = _locations(head(), torch.cat(points))
    assert strides.tolist() == [8, 8, 8, 8, 16] and centres.tolist() == torch.cat(points)[
        :, :2].tolist()  # fmt: skip
    # Without strides each location is a unit of its own.
    assert _locations(head(), POINTS[:, :2])[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("base, scales", [(4, 3), (8, 1)])
def test_locations_of_anchors(base, scales):
    generator = AnchorGenerator(
        [8, 16, 32], [0.5, 1.0, 2.0], octave_base_scale=base, scales_per_octave=scales)  # fmt: skip
    priors = torch.cat(generator.grid_priors([(2, 2), (1, 1), (1, 1)], device="cpu"))
    centres, strides = _locations(SimpleNamespace(prior_generator=generator), priors)
    each = 3 * scales
    assert strides.tolist() == [8] * 4 * each + [16] * each + [32] * each
    far = torch.cat(generator.grid_priors([(1, 400), (1, 200), (1, 100)], device="cpu"))
    strides = _locations(SimpleNamespace(prior_generator=generator), far)[1]  # sides are rounded
    assert strides.tolist() == [8] * 400 * each + [16] * 200 * each + [32] * 100 * each
    assert centres[each].tolist() == pytest.approx([8, 0], abs=1e-4)
    assert centres[2 * each].tolist() == pytest.approx([0, 8], abs=1e-4)
