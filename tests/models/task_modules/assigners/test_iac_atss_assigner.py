"""IACATSSAssigner beside mmdet's ATSSAssigner, and what it has in common with IACAssigner."""

import math

import pytest
import torch
from helpers.iac_cases import ANCHORS, COMMON, GT, boxes, instances, predictions
from helpers.other_device import place
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import ATSSAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData


@pytest.mark.parametrize("kind", ["IACAssigner", "IACATSSAssigner"])
def test_nine_positives_a_gt_by_default(kind):
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
                        dict(min_iou=1.01), dict(score_topk=0)):  # fmt: skip
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


def on_atss(num_priors, num_gts, num_ignored, seed, own, **options):
    """ATSSAssigner's decision and IACATSSAssigner's on one random image, and its instances."""
    levels = [num_priors // 2, num_priors - num_priors // 2]
    gt, ignored = instances(boxes(num_gts, seed + 1)), instances(boxes(num_ignored, seed + 2))
    pred = predictions(boxes(num_priors, seed), torch.rand(num_priors, 1))
    plain = ATSSAssigner(**options).assign(predictions(pred.priors), levels, gt, ignored)
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", **own, **options))
    return plain, ours.assign(pred, levels, gt, ignored), pred, gt


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 8), st.integers(0, 3), st.integers(0, 1000))
def test_infinite_threshold_is_atss(num_priors, num_gts, num_ignored, seed):
    expected, mine, _, _ = on_atss(
        num_priors, num_gts, num_ignored, seed, dict(score_threshold=math.inf), topk=3,
        ignore_iof_thr=0.3,
    )  # fmt: skip
    assert torch.equal(mine.gt_inds, expected.gt_inds)
    assert torch.equal(mine.labels, expected.labels)
    assert torch.equal(mine.max_overlaps, expected.max_overlaps)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 3), st.integers(0, 1000))
def test_what_atss_gains(num_priors, num_gts, num_ignored, seed):
    """ATSS's positives stay; the new ones pass every guard and lie outside ignored regions."""
    before, after, pred, gt = on_atss(
        num_priors, num_gts, num_ignored, seed,
        dict(score_threshold=0.5, min_iou=0.2, score_topk=2), topk=1, ignore_iof_thr=0.5,
    )  # fmt: skip
    held = before.gt_inds != 0
    assert torch.equal(after.gt_inds[held], before.gt_inds[held])
    gained = (~held & (after.gt_inds > 0)).nonzero().squeeze(1)
    for i in gained.tolist():
        anchor, box = pred.priors[i], gt.bboxes[after.gt_inds[i] - 1]
        center = (anchor[:2] + anchor[2:]) / 2
        assert (center > box[:2]).all() and (center < box[2:]).all()
        size = (torch.min(anchor[2:], box[2:]) - torch.max(anchor[:2], box[:2])).clamp(min=0)
        areas = [(b[2:] - b[:2]).prod() for b in (anchor, box)]
        iou = size.prod() / (areas[0] + areas[1] - size.prod())
        assert iou >= 0.2 - 1e-5 and iou == pytest.approx(after.max_overlaps[i].item(), abs=1e-5)
        score = 0.5 * pred.scores[i, 0] + 0.5 * size.prod() / min(areas)
        assert score >= 0.5 - 1e-5
    counts = (after.gt_inds[gained]).bincount(minlength=1)
    assert (counts <= 2).all()


def test_atss_by_hand():
    """Anchors over a GT of 20 x 20: itself, one inside it, one whose centre lies outside."""
    anchors = [[0, 0, 20, 20], [2, 2, 18, 18], [11, 0, 31, 20]]
    pred = predictions(anchors, [[0.9], [0.9], [0.99]])
    plain = ATSSAssigner(topk=3).assign(predictions(anchors), [3], instances(GT))
    assert plain.gt_inds.tolist() == [1, 0, 0]
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=3, score_threshold=0.5, min_iou=0.2))
    assert ours.assign(pred, [3], instances(GT)).gt_inds.tolist() == [1, 1, 0]


def test_atss_centre_lies_a_hundredth_of_a_pixel_inside():
    """As mmdet's own positives; from there on along each axis and to each side."""
    for step, expected in ((0.009, 0), (0.011, 1)):
        for dx, dy in ((step, 10), (20 - step, 10), (10, step), (10, 20 - step)):
            anchor = [dx - 10, dy - 10, dx + 10, dy + 10]
            pred = predictions([GT[0], anchor], [[1.0], [1.0]])
            ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1))
            assert ours.assign(pred, [2], instances(GT)).gt_inds[1] == expected


def test_atss_overlap_of_a_gained_anchor_is_its_iou():
    pred = predictions([GT[0], [0, 0, 20, 10], [0, 0, 20, 4]], [[1.0], [1.0], [1.0]])
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1))
    result = ours.assign(pred, [3], instances([[100, 100, 120, 120], *GT]))
    assert result.gt_inds.tolist()[1:] == [2, 0]
    assert result.max_overlaps[1] == 0.5 and result.max_overlaps[2] != 0.2


def test_atss_with_ddods_cost_reads_logits():
    """With alpha mmdet takes pred_instances.scores for logits, and wants boxes."""
    pred = predictions([GT[0], [8, 0, 28, 20]], [[0.0], [-0.45]])  # 0.6 / 2 + 0.389 / 2
    pred.bboxes = pred.priors
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1, alpha=0.8))
    assert ours.assign(pred, [2], instances(GT)).gt_inds[1] == 0
    pred.scores[1] = -0.35  # 0.6 / 2 + 0.413 / 2
    assert ours.assign(pred, [2], instances(GT)).gt_inds[1] == 1
