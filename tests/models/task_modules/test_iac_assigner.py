"""IACAssigner: MaxIoUAssigner at an infinite threshold, equations 4 and 5 by hand, the guards."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import ATSSAssigner, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from other_device import place

import misalign_det  # noqa: F401
from misalign_det.models.task_modules.iac_assigner import iou_classification_score

COMMON = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)


def make(**kwargs):
    return TASK_UTILS.build(dict(type="IACAssigner", **{**COMMON, **kwargs}))


def boxes(num, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * 80
    return torch.cat([corner, corner + torch.rand(num, 2, generator=generator) * 60], dim=1)


def instances(bboxes, labels=None):
    bboxes = torch.as_tensor(bboxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(bboxes)) if labels is None else torch.as_tensor(labels)
    return InstanceData(bboxes=bboxes, labels=labels.long())


def predictions(priors, scores=None):
    priors = torch.as_tensor(priors, dtype=torch.float32).reshape(-1, 4)
    pred = InstanceData(priors=priors)
    if scores is not None:
        pred.scores = torch.as_tensor(scores, dtype=torch.float32)
    return pred


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 12),
    st.integers(0, 3),
    st.integers(0, 1000),
    st.sampled_from([-1, 0.3]),
    st.booleans(),
    st.booleans(),
)
def test_infinite_threshold_is_max_iou_assigner(
    num_priors, num_gts, num_ignored, seed, iof, wrt, low
):
    """Random and adversarial: no anchors, no GT, identical boxes, boxes without area, ignored."""
    priors, gts = boxes(num_priors, seed), boxes(num_gts, seed + 1)
    priors[::5] = priors[:1].clone()
    gts[::4] = priors[0] if num_priors else gts[:1].clone()
    gts[1::4, 2:] = gts[1::4, :2].clone()
    options = dict(
        COMMON, ignore_iof_thr=iof, ignore_wrt_candidates=wrt, match_low_quality=low
    )
    gt, ignored = instances(gts), instances(boxes(num_ignored, seed + 2))
    expected = MaxIoUAssigner(**options).assign(predictions(priors), gt, ignored)
    for pred in (predictions(priors), predictions(priors, torch.rand(num_priors, 1))):
        mine = make(score_threshold=math.inf, **options).assign(pred, gt, ignored)
        assert torch.equal(mine.gt_inds, expected.gt_inds)
        assert torch.equal(mine.labels, expected.labels)
        assert torch.equal(mine.max_overlaps, expected.max_overlaps)


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


# One GT; anchors of IoU 1, 0.25 (inside it), 0.45 (ignored by MaxIoU) and 0.
GT = [[0, 0, 20, 20]]
ANCHORS = [[0, 0, 20, 20], [0, 0, 10, 10], [0, 0, 20, 9], [50, 50, 60, 60]]


@pytest.mark.parametrize(
    "scores, options, expected",
    [
        # The classifier is sure of all: those over min_iou become positive, others stay.
        ([0.9, 0.9, 0.9, 0.9], dict(), [1, 0, 1, 0]),
        ([0.9, 0.9, 0.9, 0.9], dict(min_iou=0.2), [1, 1, 1, 0]),
        ([0.9, 0.9, 0.9, 0.9], dict(min_iou=0.0, score_threshold=0.4), [1, 1, 1, 1]),
        # It is not: 0.5 * 0.1 + 0.5 < 0.8.
        ([0.1, 0.1, 0.1, 0.1], dict(min_iou=0.2, score_threshold=0.8), [1, 0, -1, 0]),
        # The probability alone, and the share of the area alone.
        ([0.1, 0.9, 0.7, 0.1], dict(score_alpha=1, min_iou=0.2, score_threshold=0.8), [1, 1, -1, 0]),
        ([0.0, 0.0, 0.0, 0.9], dict(score_alpha=0, min_iou=0.2, score_threshold=0.8), [1, 1, 1, 0]),
        # At most one such positive a GT.
        ([0.1, 0.8, 0.9, 0.9], dict(min_iou=0.2, score_topk=1), [1, 0, 1, 0]),
    ],
)
def test_labels_by_hand(scores, options, expected):
    result = make(**options).assign(predictions(ANCHORS, [[0.0, s] for s in scores]),
                                    instances(GT, [1]))  # fmt: skip
    assert result.gt_inds.tolist() == expected
    assert result.labels.tolist() == [1 if index > 0 else -1 for index in expected]


@pytest.mark.parametrize(
    "anchor, probability, positive",
    [
        # 12 x 10 of 20 x 20 is an IoU of 0.3, from which on pairs are looked at.
        ([0, 0, 12, 10], 1.0, True),
        ([0, 0, 11.9, 10], 1.0, False),
        # Wholly inside and p = 0: exactly 0.5, the threshold.
        ([0.1, 0.3, 12.7, 17.9], 0.0, True),
        # 12 of 20 px in common: 0.6 / 2 + p / 2.
        ([8, 0, 28, 20], 0.41, True),
        ([8, 0, 28, 20], 0.39, False),
    ],
)
def test_defaults(anchor, probability, positive):
    pred = predictions([anchor], [[probability]])
    max_iou = make(pos_iou_thr=0.9, neg_iou_thr=0.9, match_low_quality=False)
    assert max_iou.assign(pred, instances(GT)).gt_inds.tolist() == [int(positive)]
    atss = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=1))
    assert atss.assign(pred, [1], instances(GT)).gt_inds.tolist() == [int(positive)]


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


def test_exactly_at_the_threshold_wherever_the_anchor_lies():
    """The intersection once came from the IoU, whose rounding cost one anchor in five."""
    generator = torch.Generator().manual_seed(0)
    gts = boxes(300, 5)
    share = torch.rand(300, 2, 2, generator=generator).mul(0.1)
    size = gts[:, 2:] - gts[:, :2]
    priors = torch.cat([gts[:, :2] + share[:, 0] * size, gts[:, 2:] - share[:, 1] * size], dim=1)
    options = dict(pos_iou_thr=1.0, neg_iou_thr=0.3, match_low_quality=False)
    for prior, gt in zip(priors, gts):
        result = make(**options).assign(predictions([prior.tolist()], [[0.0]]),
                                        instances([gt.tolist()]))  # fmt: skip
        assert result.gt_inds.tolist() == [1]


def test_the_gt_of_largest_score_wins():
    gts = instances([[0, 0, 20, 20], [0, 0, 18, 9]], [0, 1])
    anchor = [[0, 0, 20, 9.5]]
    options = dict(pos_iou_thr=0.95, neg_iou_thr=0.3, match_low_quality=False)
    for scores, expected in [([0.9, 0.7], 1), ([0.7, 0.95], 2)]:
        result = make(**options).assign(predictions(anchor, [scores]), gts)
        assert result.gt_inds.tolist() == [expected]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 1000), st.integers(1, 3))
@example(41, 5, 331, 2)  # equal scores
def test_against_a_plain_loop(num_priors, num_gts, seed, topk):
    """Probabilities as a table, and as a function of the few pairs that are looked at."""
    torch.manual_seed(seed)
    priors, gts = boxes(num_priors, seed), boxes(num_gts, seed + 1)
    scores = torch.rand(num_priors, 3)
    gt = instances(gts, torch.randint(0, 3, (num_gts,)))
    plain = MaxIoUAssigner(**COMMON).assign(predictions(priors), gt)
    wanted = {}
    for g in range(num_gts):
        found = []
        for p in range(num_priors):
            a, b = priors[p].double(), gts[g].double()
            inter = (torch.min(a[2:], b[2:]) - torch.max(a[:2], b[:2])).clamp(min=0).prod()
            areas = [(box[2:] - box[:2]).prod() for box in (a, b)]
            score = 0.5 * scores[p, gt.labels[g]] + 0.5 * inter / min(areas)
            if inter / (sum(areas) - inter) >= 0.2 and score >= 0.45:
                found.append((score.item(), p))
        for score, p in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:topk]:
            # Of equal scores the first GT's: a prior inside two GTs of one class has such.
            wanted[p] = max(wanted.get(p, (0, 0)), (score, -g - 1))
    expected = [
        -wanted[p][1] if held <= 0 and p in wanted else held
        for p, held in enumerate(plain.gt_inds.tolist())
    ]
    assigner = make(min_iou=0.2, score_threshold=0.45, score_topk=topk)
    assert assigner.assign(predictions(priors, scores), gt).gt_inds.tolist() == expected
    assigner.scores = lambda rows, labels: scores[rows, labels]
    assert assigner.assign(predictions(priors), gt).gt_inds.tolist() == expected


def test_ignored_regions_stay_ignored():
    ignored = instances([[0, 0, 20, 20]])
    pred = predictions(ANCHORS, [[1.0]] * 4)
    result = make(ignore_iof_thr=0.5, min_iou=0.0, score_threshold=0.1).assign(
        pred, instances([[0, 0, 20, 20]]), ignored
    )
    plain = MaxIoUAssigner(**COMMON, ignore_iof_thr=0.5).assign(
        predictions(ANCHORS), instances([[0, 0, 20, 20]]), ignored
    )
    assert torch.equal(result.gt_inds[:3], plain.gt_inds[:3])


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
