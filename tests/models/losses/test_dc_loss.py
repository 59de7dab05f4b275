"""Equations 1 to 3 of paper C by hand, DCLoss around each loss, and the four heads it trains."""

import math
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

import misalign_det  # noqa: F401
from misalign_det.models.losses import dynamic_coefficient, normalized_coefficient

STOCK = Path(mmdet.__file__).parent / ".mim/configs"
FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
QUALITY = dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0)
ENTROPY = dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.7)
HEADS = {
    "DCRetinaHead": ("retinanet/retinanet_r50_fpn_1x_coco.py", FOCAL),
    "DCATSSHead": ("atss/atss_r50_fpn_1x_coco.py", FOCAL),
    "DCFCOSHead": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", FOCAL),
    "DCGFLHead": ("gfl/gfl_r50_fpn_1x_coco.py", QUALITY),
}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("distance", ["enclosing", "gt", "raw"])
def test_coefficient_by_hand(distance):
    # Boxes of 10 x 20 and 20 x 20, centres 5 px apart; enclosing box 20 x 20.
    pred, target = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[0.0, 0, 20, 20]])
    unit = {"enclosing": 800, "gt": 800, "raw": 1}[distance]
    expected = 1 / (sigmoid(25 / unit) + math.tanh(0.5))
    assert dynamic_coefficient(pred, target, distance, eps=0).item() == pytest.approx(expected)


def test_coefficient_falls_from_two_with_the_error():
    target = torch.tensor([[10.0, 10, 30, 30]]).repeat(4, 1)
    pred = target + torch.tensor([[0.0], [1.0], [5.0], [20.0]])
    values = dynamic_coefficient(pred, target)
    assert values[0].item() == pytest.approx(2, abs=1e-5)
    assert (values[1:] < values[:-1]).all() and (values > 0.5).all()


def test_boxes_without_area_stay_finite():
    assert dynamic_coefficient(torch.zeros(1, 4), torch.zeros(1, 4)).isfinite().all()


def test_normalized_coefficient_keeps_the_sum():
    torch.manual_seed(0)
    coefficient, losses = torch.rand(50) + 0.5, torch.rand(50)
    normalized = normalized_coefficient(coefficient, losses)
    torch.testing.assert_close((normalized * losses).sum(), losses.sum())
    torch.testing.assert_close(normalized / coefficient, (normalized / coefficient)[:1].expand(50))
    assert torch.equal(normalized_coefficient(torch.full((7,), 1.3), losses[:7]), torch.ones(7))
    assert torch.equal(
        normalized_coefficient(coefficient, losses * 0), coefficient / coefficient.max()
    )


def one_batch(loss, calls, boxes):
    """Losses of several calls (scores, target, weight, avg_factor) as one batch."""
    with loss.batch(num_classes=3) as batch:
        for pred, target in zip(*boxes):
            batch.add_boxes(pred, target)
        for scores, target, weight, avg_factor in calls:
            loss(scores, target, weight, avg_factor=avg_factor)
        return batch.losses()


def inputs(config, dtype=torch.float32):
    torch.manual_seed(0)
    columns = 3 if config.get("use_sigmoid") else 4
    labels = [torch.tensor([0, 3, 2, 3, 1]), torch.tensor([3, 3, 3]), torch.tensor([1, 3])]
    calls, pred, gt = [], [], []
    for label in labels:
        scores = torch.randn(len(label), columns, dtype=dtype).requires_grad_()
        target = (label, torch.rand(len(label), dtype=dtype)) if config is QUALITY else label
        calls.append((scores, target, torch.ones(len(label), dtype=dtype), 4.0))
        count = int((label < 3).sum())
        corner = torch.rand(count, 2) * 20
        gt.append(torch.cat([corner, corner + 10 + torch.rand(count, 2) * 10], dim=1))
        pred.append(gt[-1] + torch.randn(count, 4))
    return calls, (pred, gt)


@pytest.mark.parametrize("config", [FOCAL, QUALITY, ENTROPY], ids=lambda config: config["type"])
def test_constant_coefficient_is_the_wrapped_loss_exactly(config):
    loss = MODELS.build(dict(type="DCLoss", loss=config))
    calls, (_, gt) = inputs(config)
    results = one_batch(loss, calls, (gt, gt))  # perfect boxes: lambda is 2 everywhere
    for result, (scores, target, weight, avg_factor) in zip(results, calls):
        expected = MODELS.build(config)(scores, target, weight, avg_factor=avg_factor)
        assert torch.equal(result, expected)
        assert torch.equal(loss(scores, target, weight, avg_factor=avg_factor), expected)


@pytest.mark.parametrize("config", [FOCAL, QUALITY, ENTROPY], ids=lambda config: config["type"])
def test_the_positives_total_over_all_levels_is_unchanged(config):
    """And so is each level's negatives' loss; single levels' positives do change."""
    loss = MODELS.build(dict(type="DCLoss", loss=config))
    calls, boxes = inputs(config)
    with torch.no_grad():
        results = one_batch(loss, calls, boxes)
        plain = [loss(s, t, w, avg_factor=a) for s, t, w, a in calls]
    torch.testing.assert_close(sum(results), sum(plain))
    assert not torch.allclose(results[0], plain[0])
    torch.testing.assert_close(results[1], plain[1])  # a level without positives


def test_equals_equation_3_in_plain_numbers():
    loss = MODELS.build(dict(type="DCLoss", loss=FOCAL))
    calls, (pred, gt) = inputs(FOCAL)
    positive, negative, coefficient = [], 0.0, []
    for (scores, target, _, _), p, g in zip(calls, pred, gt):
        coefficient += dynamic_coefficient(p, g).tolist()
        for row, label in zip(scores.detach().double(), target.tolist()):
            terms = []
            for c, logit in enumerate(row.tolist()):
                q = sigmoid(logit)
                terms.append(
                    -0.25 * (1 - q) ** 2 * math.log(q)
                    if c == label
                    else -0.75 * q**2 * math.log(1 - q)
                )
            if label < 3:
                positive.append(sum(terms))
            else:
                negative += sum(terms)
    scale = sum(positive) / sum(c * x for c, x in zip(coefficient, positive))
    expected = (negative + sum(scale * c * x for c, x in zip(coefficient, positive))) / 4
    assert sum(one_batch(loss, calls, (pred, gt))).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_in_float64():
    """Equation 2's factor is a constant to the gradient."""
    loss = MODELS.build(dict(type="DCLoss", loss=QUALITY)).double()
    calls, boxes = inputs(QUALITY, torch.float64)
    scores = [call[0] for call in calls]
    total = sum(one_batch(loss, calls, boxes))
    gradients = torch.autograd.grad(total, scores)
    coefficient = torch.cat([dynamic_coefficient(p, g) for p, g in zip(*boxes)]).double()
    rows = [MODELS.build(QUALITY)(s, t, w, reduction_override="none") for s, t, w, _ in calls]
    masks = [t[0] < 3 for _, t, _, _ in calls]
    own = torch.cat([row[mask] for row, mask in zip(rows, masks)]).detach()
    factor = normalized_coefficient(coefficient, own)

    def frozen(*scores):
        parts, first = [], 0
        for s, (_, t, w, a), mask in zip(scores, calls, masks):
            row = MODELS.build(QUALITY)(s, t, w, reduction_override="none")
            weight = torch.ones_like(row).masked_scatter(mask, factor[first:])
            first += int(mask.sum())
            parts.append((row * weight).sum() / a)
        return sum(parts)

    for mine, theirs in zip(gradients, torch.autograd.grad(frozen(*scores), scores)):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)
    # QualityFocalLoss detaches its own modulating factor nowhere, so finite differences apply.
    assert torch.autograd.gradcheck(frozen, scores)


def test_no_positive_at_all():
    loss = MODELS.build(dict(type="DCLoss", loss=FOCAL))
    scores = torch.randn(4, 3, requires_grad=True)
    (result,) = one_batch(loss, [(scores, torch.full((4,), 3), None, 1.0)], ([], []))
    assert result > 0
    result.backward()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="distance"):
        MODELS.build(dict(type="DCLoss", loss=FOCAL, distance="far"))
    with pytest.raises(ValueError, match="use_sigmoid"):
        MODELS.build(dict(type="DCLoss", loss=FOCAL, use_sigmoid=False))
    loss = MODELS.build(dict(type="DCLoss", loss=FOCAL))
    with pytest.raises(RuntimeError, match="positives"):
        one_batch(loss, [(torch.randn(2, 3), torch.tensor([0, 3]), None, 1.0)], ([], []))


def detector(head, **options):
    base, loss = HEADS[head]
    cfg = Config.fromfile(STOCK / base).model
    cfg.backbone.init_cfg = None
    cfg.backbone.depth = 50
    cfg.bbox_head.type = head
    cfg.bbox_head.loss_cls = dict(type="DCLoss", loss=loss)
    cfg.bbox_head.update(options)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.bbox_head.init_weights()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("num_items", [[3, 2], [0, 3], [0, 0]], ids=str)
def test_stock_heads_train_with_it(head, num_items):
    """The sum of classification losses is the stock head's; the gradient is not."""
    packed = demo_mm_inputs(
        2, image_shapes=[(3, 128, 128)] * 2, num_items=num_items, num_classes=80
    )
    results = {}
    for kind in (head, head[2:]):
        model = detector(head)
        if kind != head:  # the same weights with the wrapped loss alone
            model.bbox_head.loss_cls = model.bbox_head.loss_cls.loss
        losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
        losses = {k: sum(v) if isinstance(v, list) else v for k, v in losses.items()}
        model.zero_grad()
        losses["loss_cls"].backward()
        results[kind] = losses, model.bbox_head.state_dict(keep_vars=True)
    mine, plain = results[head], results[head[2:]]
    for name in mine[0]:
        torch.testing.assert_close(mine[0][name], plain[0][name], rtol=1e-4, atol=1e-5)
    different = [
        not torch.allclose(mine[1][name].grad, plain[1][name].grad, rtol=1e-3, atol=1e-9)
        for name in mine[1]
        if mine[1][name].grad is not None
    ]
    assert any(different) == (sum(num_items) > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "head, assigner",
    [
        ("DCRetinaHead", dict(type="IACAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)),
        ("DCATSSHead", dict(type="IACATSSAssigner", topk=9)),
        ("DCGFLHead", dict(type="IACATSSAssigner", topk=9)),
    ],
)
def test_iac_assigners_in_stock_configs(head, assigner):
    model = detector(head)
    packed = demo_mm_inputs(2, image_shapes=[(3, 128, 128)] * 2, num_items=[3, 0], num_classes=80)
    counts = {}
    for threshold in (math.inf, 0.0):
        torch.manual_seed(0)
        ours = mmdet.registry.TASK_UTILS.build(dict(assigner, score_threshold=threshold))
        model.bbox_head.assigner = ours
        found = counts[threshold] = []
        sampler = model.bbox_head.sampler

        def sample(assign_result, *args, sampler=sampler, found=found, **kwargs):
            found.append(int((assign_result.gt_inds > 0).sum()))
            return type(sampler).sample(sampler, assign_result, *args, **kwargs)

        model.bbox_head.sampler = type("Counting", (), dict(sample=staticmethod(sample)))()
        losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
        model.bbox_head.sampler = sampler
        assert all(torch.as_tensor(sum(v) if isinstance(v, list) else v).isfinite()
                   for v in losses.values())  # fmt: skip
        assert ours.scores is None
    # Every anchor of some overlap counts at threshold 0: more positives, none on the empty image.
    assert counts[0.0][0] > counts[math.inf][0] and counts[0.0][1] == counts[math.inf][1] == 0
