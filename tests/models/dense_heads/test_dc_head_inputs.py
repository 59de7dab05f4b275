"""Which boxes the DC heads hand to DCLoss, and which probabilities to IAC's assigners."""

import math

import pytest
import torch
from helpers.dc_head_cases import (
    ANCHORS,
    FOCAL,
    HEADS,
    MAX_IOU,
    METAS,
    QUALITY,
    SCENE,
    SOFTMAX,
    STRIDES,
    features,
    instances,
    make,
    total,
    with_dc,
)
from helpers.other_device import place
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from misalign_det.models.losses import dc_loss

ANCHOR_HEADS = ["DCRetinaHead", "DCATSSHead", "DCGFLHead"]


@pytest.fixture
def seen(monkeypatch):
    """Predicted and GT boxes of the calls of eq. 1."""
    calls, coefficient = [], dc_loss.dynamic_coefficient

    def record(pred, target, *args):
        assert not pred.requires_grad
        calls.append((pred, target))
        return coefficient(pred, target, *args)

    monkeypatch.setattr(dc_loss, "dynamic_coefficient", record)
    return calls


class FixedAssigner:
    """Gives one image after another the positives that it is told, anchor -> GT."""

    needs_scores = False

    def __init__(self, *images):
        self.images = list(images)

    def assign(self, pred_instances, *args, **kwargs):
        gts = next(a for a in (*args, *kwargs.values()) if isinstance(a, InstanceData))
        self.priors = pred_instances.priors
        gt_inds = torch.zeros(len(pred_instances.priors), dtype=torch.long)
        for prior, gt in self.images.pop(0).items():
            gt_inds[prior] = gt + 1
        labels = torch.full_like(gt_inds, -1)
        labels[gt_inds > 0] = gts.labels[gt_inds[gt_inds > 0] - 1]
        return AssignResult(len(gts), gt_inds, torch.zeros(len(gt_inds)), labels)


# Level 0 has 16 x 16 anchors of 32 px, level 1 has 8 x 8 of 64 px behind them.
FINE, COARSE = 9 * 16 + 8, 16 * 16 + 5 * 8 + 4  # centred on (64, 72) and (64, 80)
PLACES = [(9, 8), (5, 4)]  # row and column on each level
GTS = [
    instances((50, 52, 82, 92), (30, 48, 100, 112), labels=[1, 0]),
    instances((48, 60, 88, 100), labels=[2]),
]
POSITIVES = [{FINE: 0, COARSE: 1}, {FINE: 0}]


def outputs(head, rows, dtype=torch.float32):
    """Class logits 0; box outputs ``rows[image][level]``, (D,), at the level's place, else 0.1."""
    maps = lambda channels, value: [  # noqa: E731
        torch.full((2, channels, 128 // s, 128 // s), value, dtype=torch.float32) for s in STRIDES
    ]
    boxes = [level.to(dtype) for level in maps(len(rows[0][0]), 0.1)]
    for i, (y, x) in enumerate(PLACES):
        for image in (0, 1):
            boxes[i][image, :, y, x] = torch.as_tensor(rows[image][i])
    outs = [maps(head.cls_out_channels, 0.0), [level.requires_grad_() for level in boxes]]
    return [*outs, maps(1, 0.0)] if type(head).__name__ in ("DCATSSHead", "DCFCOSHead") else outs


def check(seen, pred, target):
    """Boxes of level 0 (image 0, image 1) and level 1 (image 0), on both sides, in one call."""
    (found,) = seen
    for side, expected in zip(found, (pred, target)):
        torch.testing.assert_close(side, torch.tensor(expected), rtol=0, atol=2e-4)


# Deltas in a quarter of the anchor's width along x, doubling its height; half along y; none.
DELTAS = [[[0.25, 0, 0, math.log(2)], [0, 0.5, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
DECODED = [[56.0, 40, 88, 104], [48.0, 56, 80, 88], [32.0, 80, 96, 144]]
TARGETS = [[50.0, 52, 82, 92], [48.0, 60, 88, 100], [30.0, 48, 100, 112]]


@pytest.mark.parametrize("decoded", [False, True])
def test_boxes_of_retinanet(seen, decoded):
    head = with_dc("DCRetinaHead", reg_decoded_bbox=decoded)
    head.assigner = FixedAssigner(*POSITIVES)
    head.loss_by_feat(*outputs(head, DELTAS), GTS, METAS)
    check(seen, DECODED, TARGETS)


def test_boxes_of_atss(seen):
    head = with_dc("DCATSSHead")
    head.assigner = FixedAssigner(*POSITIVES)
    stds = torch.tensor(head.bbox_coder.stds)
    rows = [[(torch.tensor(row) / stds).tolist() for row in image] for image in DELTAS]
    head.loss_by_feat(*outputs(head, rows), GTS, METAS)
    check(seen, DECODED, TARGETS)


def test_deltas_in_half_precision(seen):
    """A shift of 3 stds of 0.1 of 32 px: bfloat16 knows 0.3 as 0.3008."""
    coder = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1] * 4)
    head = with_dc("DCRetinaHead", bbox_coder=coder)
    head.assigner = FixedAssigner(*POSITIVES)
    outs = outputs(head, [[[3, 0, 0, 0], [0, 3, 0, 0]]] * 2, torch.bfloat16)
    head.loss_by_feat(*outs, GTS, METAS)
    pred = [[57.6, 56, 89.6, 88], [57.6, 56, 89.6, 88], [32, 67.2, 96, 131.2]]
    check(seen, pred, TARGETS)


def test_boxes_of_gfl(seen):
    """Distances are the means of distributions over 0 to 7 strides."""
    head = with_dc("DCGFLHead")
    head.assigner = FixedAssigner(*POSITIVES)
    peaked = lambda *strides: [50.0 * (k == s) for s in strides for k in range(8)]  # noqa: E731
    rows = [[peaked(1, 2, 3, 4), peaked(2, 2, 1, 1)], [peaked(2, 1, 1, 2), peaked(1, 1, 1, 1)]]
    head.loss_by_feat(*outputs(head, rows), GTS, METAS)
    pred = [[56.0, 56, 88, 104], [48.0, 64, 72, 88], [32.0, 48, 80, 96]]
    check(seen, pred, TARGETS)


@pytest.mark.parametrize("norm_on_bbox", [False, True])
def test_boxes_of_fcos(seen, norm_on_bbox):
    """Locations (68, 76) of level 0 and (72, 88) of level 1, the GTs' centres; from there."""
    head = with_dc("DCFCOSHead", norm_on_bbox=norm_on_bbox, center_sampling=True,
                   center_sample_radius=0.25)  # fmt: skip
    unit = (lambda row, s: [x / s for x in row]) if norm_on_bbox else lambda row, s: row
    rows = [[unit([3, 5, 7, 9], 8), unit([60, 70, 80, 90], 16)],
            [unit([4, 4, 2, 2], 8), unit([9, 9, 9, 9], 16)]]  # fmt: skip
    gts = [instances((61, 70, 75, 82), (2, 28, 142, 148), labels=[1, 0]),
           instances((58, 74, 78, 78), labels=[2])]  # fmt: skip
    head.loss_by_feat(*outputs(head, rows), gts, METAS)
    pred = [[-3.0, -5, 7, 9], [-4.0, -4, 2, 2], [-60.0, -70, 80, 90]]
    check(seen, pred, [[-7.0, -6, 7, 6], [-10.0, -2, 10, 2], [-70.0, -60, 70, 60]])


@pytest.mark.parametrize("kind", HEADS)
def test_boxes_are_decoded_in_float32_under_autocast(seen, kind):
    """bfloat16 could not tell 301 from 300 pixels."""
    head = with_dc(kind)
    with torch.autocast("cpu", torch.bfloat16):
        head.loss_by_feat(*head(features()), SCENE, METAS)
    assert seen and all(box.dtype == torch.float32 for pair in seen for box in pair)
    if kind == "DCGFLHead":  # uniform distributions: 3.5 strides to each side
        seen.clear()
        head.assigner = FixedAssigner(*POSITIVES)
        uneven = [[k * 0.1 for _ in range(4) for k in range(8)]] * 2
        with torch.autocast("cpu", torch.bfloat16):
            head.loss_by_feat(*outputs(head, [uneven, uneven]), GTS, METAS)
        mean = sum(k * math.exp(k * 0.1) for k in range(8)) / sum(
            math.exp(k * 0.1) for k in range(8)
        )
        width = (seen[0][0][:, 2] - seen[0][0][:, 0]).tolist()
        assert width == pytest.approx([2 * mean * stride for stride in (8, 8, 16)], rel=1e-5)


class ScoreReader(FixedAssigner):
    """Asks for the probabilities of given (anchor, class) pairs, as IACAssigner does."""

    needs_scores = True
    scores = None

    def __init__(self, pairs, *images):
        super().__init__(*images)
        self.pairs, self.found = pairs, []

    def assign(self, *args, **kwargs):
        self.found.append(self.scores(*torch.tensor(self.pairs).T))
        return super().assign(*args, **kwargs)


def logits_of(head, num_anchors=1):
    """Class logits, all different: by image, place, anchor and class."""
    channels = num_anchors * head.cls_out_channels
    levels = []
    for i, s in enumerate(STRIDES):
        side = 128 // s
        level = torch.arange(2 * channels * side * side, dtype=torch.float32)
        level = level.view(2, channels, side, side) / 4000 - 1 + i
        levels.append(level.requires_grad_())
    return levels


@pytest.mark.parametrize("loss", [None, SOFTMAX])
@pytest.mark.parametrize("kind", ANCHOR_HEADS)
def test_probabilities_of_the_right_image_place_and_class(kind, loss):
    if loss is not None and kind == "DCGFLHead":
        loss = dict(type="DCLoss", loss=QUALITY)  # knows sigmoid only
    options = {} if loss is None else dict(loss_cls=loss)
    two = dict(ANCHORS, scales_per_octave=2)
    num = 2 if kind == "DCRetinaHead" else 1
    if num == 2:
        options["anchor_generator"] = two
    if kind == "DCGFLHead":
        options["loss_cls"] = dict(type="DCLoss", loss=QUALITY)
    head = make(kind, **options)
    places = [(0, 0), (FINE * num + num - 1, 2), (COARSE * num, 1)]
    reader = head.assigner = ScoreReader(places, {}, {})
    levels = logits_of(head, num)
    rest = outputs(head, [[[0.0] * (32 if kind == "DCGFLHead" else 4 * num)] * 2] * 2)[1:]
    head.loss_by_feat(levels, *rest, [instances(), instances()], METAS)
    assert reader.scores is None
    columns = head.cls_out_channels
    activate = torch.sigmoid if head.use_sigmoid_cls else lambda x: x.softmax(dim=0)
    for image, found in enumerate(reader.found):
        assert not found.requires_grad
        expected = []
        for level, y, x, anchor, label in [(0, 0, 0, 0, 0), (0, 9, 8, num - 1, 2), (1, 5, 4, 0, 1)]:
            column = levels[level][image, anchor * columns : (anchor + 1) * columns, y, x]
            expected.append(activate(column)[label].item())
        assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ANCHOR_HEADS)
def test_anchors_outside_the_image_are_not_counted(kind):
    """With allowed_border 0 the assigner sees those inside only: the first is at (16, 16)."""
    head = with_dc(kind, train_cfg=dict(allowed_border=0))
    reader = head.assigner = ScoreReader([(0, 1), (12, 2)], {}, {})
    levels = logits_of(head)
    rest = outputs(head, [[[0.0] * (32 if kind == "DCGFLHead" else 4)] * 2] * 2)[1:]
    head.loss_by_feat(levels, *rest, [instances(), instances()], METAS)
    assert reader.priors[0].tolist() == [0, 0, 32, 32]
    for image, found in enumerate(reader.found):
        # 12 anchors a row lie inside: centres at 16, 24, ..., 104.
        expected = [levels[0][image, 1, 2, 2].sigmoid(), levels[0][image, 2, 3, 2].sigmoid()]
        assert found.tolist() == pytest.approx([each.item() for each in expected])


@pytest.mark.parametrize("kind", ANCHOR_HEADS)
def test_an_assigner_that_fails_leaves_no_scores_behind(kind):
    head = with_dc(kind)
    reader = head.assigner = ScoreReader([(10**9, 0)], {}, {})
    with pytest.raises(IndexError):
        head.loss_by_feat(*head(features()), SCENE, METAS)
    assert reader.scores is None and head._last_targets is None
    assert not head.loss_cls.gives_unreduced


def test_assigners_without_scores_get_none():
    head = with_dc("DCRetinaHead")
    head.assigner.scores = "untouched"
    head.loss_by_feat(*head(features()), SCENE, METAS)
    assert head.assigner.scores == "untouched"


@pytest.mark.parametrize("sigmoid", [True, False])
def test_probabilities_across_devices(sigmoid):
    """mmdet assigns on the CPU with gpu_assign_thr, while the logits stay on the GPU."""
    head = make("DCRetinaHead", loss_cls=FOCAL if sigmoid else SOFTMAX)
    logits = torch.randn(20, head.cls_out_channels)
    inside = torch.tensor([False] * 3 + [True] * 6 + [False] + [True] * 6 + [False] * 4)
    inds, labels = torch.tensor([0, 11, 5]), torch.tensor([2, 0, 1])
    expected = head._probability(logits, inside, inds, labels)
    rows = logits[[3, 15, 8]]
    activated = rows.sigmoid() if sigmoid else rows.softmax(dim=1)
    assert expected.tolist() == [activated[0, 2], activated[1, 0], activated[2, 1]]
    for device in ("cpu", "cuda:0"):
        parts = (place(logits, "cuda:0"), place(inside, "cuda:0"),
                 place(inds, device), place(labels, device))  # fmt: skip
        found = head._probability(*parts)
        assert found.device == torch.device(device) and found.tolist() == expected.tolist()
    half = head._probability(logits.half(), inside, inds, labels)
    assert half.dtype == torch.float32
    assert half.tolist() == pytest.approx(expected.tolist(), abs=2e-3)


@pytest.mark.parametrize("boxes", ["gts", "priors", "both"])
@pytest.mark.parametrize("assigner", ["IACAssigner", "MaxIoUAssigner"])
def test_mmdets_box_classes(boxes, assigner):
    """data_preprocessor=dict(boxtype2tensor=False), and use_box_type of the generator."""
    losses = []
    for typed in (False, True):
        options = {}
        if typed and boxes != "gts":
            options = dict(
                anchor_generator=dict(ANCHORS, use_box_type=True),
                bbox_coder=dict(type="DeltaXYWHBBoxCoder", use_box_type=True),
            )
        head = with_dc("DCRetinaHead", train_cfg=dict(assigner=dict(type=assigner, **MAX_IOU)),
                       **options)  # fmt: skip
        gts = SCENE
        if typed and boxes != "priors":
            gts = [InstanceData(bboxes=HorizontalBoxes(gt.bboxes), labels=gt.labels)
                   for gt in SCENE]  # fmt: skip
        losses.append(total(head.loss_by_feat(*head(features()), gts, METAS)))
    assert losses[0] == losses[1]
