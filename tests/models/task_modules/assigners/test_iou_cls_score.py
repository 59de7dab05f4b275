"""The IAC score by hand, and what holds for both assigners that add positives by it."""

import math

import pytest
import torch
from helpers.iac_cases import ANCHORS, COMMON, GT, boxes, instances, predictions
from helpers.other_device import place
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.assigners.iou_cls_score import iou_classification_score


def score(prior, gt, probability=0.0, alpha=0.0):
    pair = (torch.as_tensor(box, dtype=torch.float32).reshape(-1, 4) for box in (prior, gt))
    return iou_classification_score(*pair, torch.tensor([probability]), alpha)


def test_score_by_hand():
    # An anchor of 10 x 10 wholly inside a GT of 20 x 20, and the other way round.
    small, large = [5.0, 5, 15, 15], [0.0, 0, 20, 20]
    for pair in ((small, large), (large, small)):
        assert score(*pair, 0.6, 0.25).item() == pytest.approx(0.25 * 0.6 + 0.75)
    # 20 x 20 both, 12 x 15 in common; nothing in common along x alone, along both.
    assert score([8.0, 5, 28, 25], large).item() == pytest.approx(180 / 400)
    assert score([21.0, 0, 40, 20], large) == score([21.0, 21, 40, 40], large) == 0
    assert score([8.0, 5, 28, 25], large, 0.7, 1.0).item() == pytest.approx(0.7)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e4]))
def test_an_anchor_inside_scores_exactly_one(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(64, 4, 2, generator=generator).sort(dim=1).values * scale
    inner, outer = corners[:, 1:3].flatten(1), corners[:, ::3].flatten(1)
    inner[::4, :2], inner[1::4, 2:] = outer[::4, :2], outer[1::4, 2:]
    for pair in ((inner, outer), (outer, inner), (inner, inner)):
        assert (iou_classification_score(*pair, torch.zeros(64), 0.0) == 1).all()
    moved = inner + scale / 7
    assert (iou_classification_score(moved, outer, torch.zeros(64), 0.0) <= 1).all()


def test_boxes_without_area_have_no_share():
    point, line, box = [5.0, 5, 5, 5], [5.0, 0, 5, 9], [0.0, 0, 20, 20]
    for pair in ((point, box), (box, line), (point, point), ([9.0, 9, 1, 1], box)):
        assert score(*pair).item() == 0


@pytest.mark.parametrize("kind", ["IACAssigner", "IACATSSAssigner"])
def test_nine_positives_per_gt_by_default(kind):
    """Eleven anchors in the GT, more probable from one to the next; mmdet takes none of them."""
    priors = [[1, 1, 18, 18 + i / 10] for i in range(11)]
    pred = predictions(priors, torch.arange(11)[:, None] / 20)
    options = dict(COMMON, pos_iou_thr=0.99, match_low_quality=False)
    options = options if kind == "IACAssigner" else dict(topk=1)
    assigner = TASK_UTILS.build(dict(type=kind, **options))
    levels = [] if kind == "IACAssigner" else [[11]]
    found = assigner.assign(pred, *levels, instances(GT)).gt_inds
    assert (found[2:] == 1).all() and (found[:2] < 1).all()


@pytest.mark.parametrize("kind", ["IACAssigner", "IACATSSAssigner"])
class TestBothAssigners:
    """What does not depend on whose rule the positives are added to."""

    def run(self, kind, pred, gts, ignored=None, assigner=None, **options):
        common = COMMON if kind == "IACAssigner" else dict(topk=2)
        assigner = assigner or TASK_UTILS.build(dict(type=kind, **{**common, **options}))
        levels = [] if kind == "IACAssigner" else [[len(pred.priors)]]
        return assigner.assign(pred, *levels, gts, ignored)

    def test_missing_probabilities_and_bad_arguments_are_named(self, kind):
        with pytest.raises(ValueError, match=f"{kind} needs.*DCATSSHead"):
            self.run(kind, predictions(ANCHORS), instances(GT))
        for options in (dict(score_alpha=1.01), dict(score_alpha=-0.01), dict(min_iou=-0.01),
                        dict(min_iou=1.01), dict(score_topk=0),
                        dict(score_topk=2.5)):  # fmt: skip
            with pytest.raises(ValueError, match=next(iter(options))):
                self.run(kind, None, None, **options)
        for options in (dict(score_alpha=0, min_iou=0), dict(score_alpha=1, min_iou=1)):
            pred = predictions(ANCHORS, torch.zeros(4, 1))
            assert self.run(kind, pred, instances(GT), score_topk=1, **options).num_gts == 1

    @pytest.mark.parametrize("boxtype", [torch.Tensor, HorizontalBoxes])
    @pytest.mark.parametrize("num_priors, num_gts", [(0, 0), (0, 2), (4, 0)])
    def test_nothing_to_assign(self, kind, boxtype, num_priors, num_gts):
        pred = predictions(ANCHORS[:num_priors], torch.zeros(num_priors, 3))
        gts, ignored = instances((GT * 2)[:num_gts]), instances(GT)
        for each, name in ((pred, "priors"), (gts, "bboxes"), (ignored, "bboxes")):
            if boxtype is HorizontalBoxes:
                each[name] = boxtype(each[name])
        result = self.run(kind, pred, gts, ignored, ignore_iof_thr=0.5, score_threshold=0.0)
        assert result.gt_inds.shape == result.labels.shape == (num_priors,)
        assert (result.gt_inds <= 0).all() and result.num_gts == num_gts

    @pytest.mark.parametrize("where", ["gts", "priors", "ignored", "all"])
    def test_mmdets_box_classes(self, kind, where):
        def sample(typed):
            pred = predictions(boxes(40, 0), torch.rand(40, 1, generator=torch.manual_seed(0)))
            gts, ignored = instances(boxes(5, 1)), instances(boxes(2, 2))
            for each, name, key in (
                (pred, "priors", "priors"), (gts, "bboxes", "gts"), (ignored, "bboxes", "ignored")
            ):  # fmt: skip
                if typed and where in (key, "all"):
                    each[name] = HorizontalBoxes(each[name])
            return pred, gts, ignored

        mine, plain = (
            self.run(kind, *sample(typed), ignore_iof_thr=0.5, min_iou=0.2, score_threshold=0.3)
            for typed in (True, False)
        )
        assert torch.equal(mine.gt_inds, plain.gt_inds) and (mine.gt_inds > 0).any()
        assert torch.equal(mine.max_overlaps, plain.max_overlaps)

    def test_scores_are_those_of_one_image(self, kind):
        assigner = TASK_UTILS.build(dict(
            type=kind, **(COMMON if kind == "IACAssigner" else dict(topk=2))))  # fmt: skip
        assert assigner.scores is None
        assigner.scores = torch.ones(4, 1)
        self.run(kind, predictions(ANCHORS), instances(GT), assigner=assigner)
        assert assigner.scores is None
        with pytest.raises(ValueError, match="needs class probabilities"):
            self.run(kind, predictions(ANCHORS), instances(GT), assigner=assigner)

        def fail(prior_inds, labels):
            raise KeyError

        assigner.scores = fail
        with pytest.raises(KeyError):
            self.run(kind, predictions(ANCHORS), instances(GT), assigner=assigner)
        assert assigner.scores is None and getattr(assigner, "_instances", None) is None

    def test_given_scores_come_before_those_of_the_head(self, kind):
        pred = predictions([[0, 0, 20, 20], [2, 2, 18, 17]], [[0.0], [0.0]])
        assigner = TASK_UTILS.build(dict(
            type=kind, score_threshold=0.6, **(
                dict(COMMON, pos_iou_thr=0.9) if kind == "IACAssigner" else dict(topk=1))
        ))  # fmt: skip
        assigner.scores = torch.ones(2, 1)
        assert self.run(kind, pred, instances(GT), assigner=assigner).gt_inds[1] <= 0
        assigner.scores = torch.ones(2, 1)
        assert self.run(kind, predictions(pred.priors), instances(GT),
                        assigner=assigner).gt_inds[1] == 1  # fmt: skip

    def test_labels_as_floats_and_scores_in_half_precision(self, kind):
        pred = predictions(boxes(40, 0), torch.rand(40, 3, generator=torch.manual_seed(0)))
        gts = instances(boxes(5, 1), [0, 1, 2, 1, 0])
        plain = self.run(kind, pred, gts, min_iou=0.1, score_threshold=0.3)
        pred.scores, gts.labels = pred.scores.double(), gts.labels.float()
        mine = self.run(kind, pred, gts, min_iou=0.1, score_threshold=0.3)
        assert mine.labels.dtype == torch.long and torch.equal(mine.labels, plain.labels)
        pred.scores = torch.zeros_like(pred.scores).half()
        assert self.run(kind, pred, gts).gt_inds.shape == (40,)

    def test_probabilities_on_another_device(self, kind):
        """As with gpu_assign_thr: the boxes come to the CPU, the scores stay where they are."""
        pred = predictions(boxes(40, 0), torch.rand(40, 3, generator=torch.manual_seed(0)))
        gts = instances(boxes(5, 1), [0, 1, 2, 1, 0])
        options = dict(min_iou=0.1, score_threshold=0.3)
        expected = self.run(kind, pred, gts, **options)
        table, pred.priors = pred.scores, place(pred.priors, "cpu")
        gts.bboxes, gts.labels = place(gts.bboxes, "cpu"), place(gts.labels, "cpu")

        def look_up(prior_inds, labels):
            assert prior_inds.device == labels.device == torch.device("cpu")
            return place(table[prior_inds, labels], "cuda:0")

        for scores in (place(table, "cuda:0"), look_up):
            common = dict(COMMON, gpu_assign_thr=1) if kind == "IACAssigner" else dict(topk=2)
            assigner = TASK_UTILS.build(dict(type=kind, **common, **options))
            assigner.scores = scores
            found = self.run(kind, InstanceData(priors=pred.priors), gts, assigner=assigner)
            assert torch.equal(found.gt_inds, expected.gt_inds)

    def test_an_infinite_threshold_needs_no_probabilities(self, kind):
        result = self.run(kind, predictions(ANCHORS), instances(GT), score_threshold=math.inf)
        assert result.num_gts == 1

    def test_scores_that_are_not_numbers_make_no_positive(self, kind):
        pred = predictions([[0, 0, 20, 20], [2, 2, 18, 17]], [[math.nan], [math.nan]])
        options = dict(topk=1) if kind == "IACATSSAssigner" else dict(pos_iou_thr=0.9)
        assert self.run(kind, pred, instances(GT), **options).gt_inds[1] <= 0
