"""`Dynamic Coefficient Loss`, eq. 1 to 3 by hand, DCLoss around losses, and the heads it trains."""

import importlib
import math
from pathlib import Path

import mmdet
import pytest
import torch
from helpers.half_precision import FLOAT16, needs_float16
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

import misalign_det  # noqa: F401
from misalign_det.models.losses import dynamic_coefficient, normalized_coefficient
from misalign_det.models.losses.dc_loss import UnreducedLoss, positive_rows

coefficients = importlib.import_module("misalign_det.models.losses.dynamic_coefficient")
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


def dc_loss_around(config, **options):
    """A DCLoss built by itself: it must be told what its heads would tell it."""
    return MODELS.build(
        dict(type="DCLoss", loss=config, use_sigmoid=config["use_sigmoid"], **options)
    )


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


@pytest.mark.parametrize("distance", ["enclosing", "gt", "raw"])
def test_distance_counts_where_the_shapes_are_equal(distance):
    # 20 x 20 each, centres 30 and 40 px apart; enclosing box 50 x 60.
    pred, target = torch.tensor([[30.0, 40, 50, 60]]), torch.tensor([[0.0, 0, 20, 20]])
    unit = {"enclosing": 50**2 + 60**2, "gt": 800, "raw": 1}[distance]
    expected = 1 / (sigmoid(2500 / unit) + 1e-6)
    assert dynamic_coefficient(pred, target, distance).item() == pytest.approx(expected)


def test_size_of_the_gt_not_of_the_prediction():
    # Squares of 10 (predicted) and 30, centres 9 px apart along x.
    pred, target = torch.tensor([[19.0, 10, 29, 20]]), torch.tensor([[0.0, 0, 30, 30]])
    expected = 1 / sigmoid(81 / 1800)
    assert dynamic_coefficient(pred, target, "gt", 0).item() == pytest.approx(expected)


def test_defaults_are_the_enclosing_box_and_a_millionth():
    pred, target = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[0.0, 0, 30, 20]])
    default = dynamic_coefficient(pred.double(), target.double()).item()
    assert default == pytest.approx(1 / (sigmoid(100 / 1300) + math.tanh(1) + 1e-6), abs=1e-12)
    loss = dc_loss_around(FOCAL)
    assert (loss.distance, loss.eps) == ("enclosing", 1e-6)


def test_boxes_without_area():
    """Sides are at least 1e-6 px: a point is a square, a line far from one."""
    point, line, box = [3.0, 3, 3, 3], [3.0, 3, 3, 13], [0.0, 0, 6, 6]
    pred, target = torch.tensor([point, line, point, box]), torch.tensor([point, line, box, point])
    for distance, values in dict(enclosing=[2, 2, 2, 2], gt=[2, 2, 2, 2]).items():
        found = dynamic_coefficient(pred, target, distance, eps=0).tolist()
        assert found == pytest.approx(values)
    inside_out = torch.tensor([[6.0, 6, 0, 0]])  # of no extent, as a point
    assert dynamic_coefficient(inside_out, pred[3:], eps=0).item() == pytest.approx(2)
    away = dynamic_coefficient(torch.tensor([point]), torch.tensor([[5.0, 3, 5, 3]]), "gt", 0)
    assert away.item() == pytest.approx(1)  # sigmoid of a huge distance, equal shapes


@pytest.mark.parametrize("distance", ["enclosing", "gt", "raw"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_broken_boxes_get_the_least_coefficient(distance, value):
    """And leave the others as they are, whichever of both boxes and corners is broken."""
    target = torch.tensor([[10.0, 10, 30, 30]]).repeat(9, 1)
    pred = target + 2
    expected = dynamic_coefficient(pred, target, distance)
    for place in range(4):
        pred[place, place] = target[4 + place, place] = value
    found = dynamic_coefficient(pred, target, distance)
    assert found[:8].tolist() == [pytest.approx(0.5)] * 8 and found[8] == expected[8]
    whole = torch.full((1, 4), value)
    assert dynamic_coefficient(whole, whole, distance).item() == pytest.approx(0.5)


def test_squares_beyond_float32():
    target = torch.tensor([[0.0, 0, 1e30, 1e30], [0.0, 0, 10, 10]])
    pred = torch.tensor([[0.0, 0, 1e30, 1e30], [-1e30, -1e30, 1e30, 1e30]])
    assert dynamic_coefficient(pred, target, eps=0).tolist() == pytest.approx([2, 2])
    pred = torch.tensor([[1e30, 1e30, 2e30, 2e30], [1e30, 1e30, 2e30, 2e30]])
    # Centres a diagonal apart in an enclosing box of two; a diagonal and a half in 2 of them.
    expected = [1 / sigmoid(1 / 4), 1 / sigmoid(9 / 16)]
    assert dynamic_coefficient(pred, target, eps=0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_the_coefficient(dtype):
    boxes = torch.tensor([[0.0, 0, 64, 64], [0, 0, 400, 400]], dtype=dtype)  # 400^2 > 65504
    found = dynamic_coefficient(boxes, boxes)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.tolist() == pytest.approx([2, 2], rel=1e-5)


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


def test_losses_without_a_finite_sum_leave_the_coefficients():
    coefficient = torch.tensor([2.0, 1.0])
    for broken in (math.inf, math.nan):
        found = normalized_coefficient(coefficient, torch.tensor([broken, 1.0]))
        assert found.tolist() == [1, 0.5]
    beyond = normalized_coefficient(torch.tensor([2.0, 0.2]), torch.full((2,), 3e38))
    assert beyond.tolist() == pytest.approx([1, 0.1])  # the sum of the losses overflows


def test_normalized_coefficient_is_a_constant():
    losses = torch.rand(3, requires_grad=True)
    assert not normalized_coefficient(torch.rand(3, requires_grad=True), losses).requires_grad


class OtherProcess:
    """Stands for a second process whose tensors are known: what both reductions would give."""

    def __init__(self, monkeypatch, peak, total, weighted):
        self.peak, self.sums = torch.tensor(peak), torch.tensor([total, weighted])
        monkeypatch.setattr(coefficients, "all_reduce", self.all_reduce)
        monkeypatch.setattr(coefficients, "reduce_mean", self.reduce_mean)

    def all_reduce(self, own, op):
        assert op == "max" and not own.requires_grad
        own.copy_(torch.max(own, self.peak))  # in place, as torch.distributed's

    def reduce_mean(self, own):
        return (own + self.sums) / 2


def test_sums_and_peak_run_over_all_processes(monkeypatch):
    # Here lambda 1, 2 and losses 3, 1; there lambda 4 and loss 6: sums 10 and 3 + 2 + 24 = 29.
    OtherProcess(monkeypatch, peak=4.0, total=6.0, weighted=6.0 * 4 / 4)
    found = normalized_coefficient(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]))
    assert found.tolist() == pytest.approx([10 / 29, 20 / 29])


def test_a_process_without_positives_takes_part(monkeypatch):
    OtherProcess(monkeypatch, peak=4.0, total=6.0, weighted=6.0)
    assert normalized_coefficient(torch.zeros(0), torch.zeros(0)).shape == (0,)


def one_batch(loss, calls, boxes):
    """Losses of several calls (scores, target, weight, avg_factor) as one batch."""
    with loss.unreduced():
        rows = [
            loss(scores, target, weight, avg_factor=avg_factor)
            for scores, target, weight, avg_factor in calls
        ]
    pred, target = (torch.cat(list(side) or [torch.zeros(0, 4)]) for side in boxes)
    return loss.reduce(rows, positive_rows(rows, 3), loss.coefficient(pred, target))


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
    loss = dc_loss_around(config)
    calls, (_, gt) = inputs(config)
    results = one_batch(loss, calls, (gt, gt))  # perfect boxes: lambda is 2 everywhere
    for result, (scores, target, weight, avg_factor) in zip(results, calls):
        expected = MODELS.build(config)(scores, target, weight, avg_factor=avg_factor)
        assert torch.equal(result, expected)
        assert torch.equal(loss(scores, target, weight, avg_factor=avg_factor), expected)


@pytest.mark.parametrize("config", [FOCAL, QUALITY, ENTROPY], ids=lambda config: config["type"])
def test_the_positives_total_over_all_levels_is_unchanged(config):
    """And so is each level's negatives' loss; single levels' positives do change."""
    loss = dc_loss_around(config)
    calls, boxes = inputs(config)
    with torch.no_grad():
        results = one_batch(loss, calls, boxes)
        plain = [loss(s, t, w, avg_factor=a) for s, t, w, a in calls]
    torch.testing.assert_close(sum(results), sum(plain))
    assert not torch.allclose(results[0], plain[0])
    torch.testing.assert_close(results[1], plain[1])  # a level without positives


def test_equals_equation_3_in_plain_numbers():
    loss = dc_loss_around(FOCAL)
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
    loss = dc_loss_around(QUALITY).double()
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


def test_the_sum_stays_to_the_precision_of_the_losses():
    loss = dc_loss_around(FOCAL)
    calls, boxes = inputs(FOCAL, torch.float64)
    plain = sum(loss(s, t, w, avg_factor=a) for s, t, w, a in calls)
    assert sum(one_batch(loss, calls, boxes)).item() == pytest.approx(plain.item(), rel=1e-13)


def test_no_positive_at_all():
    loss = dc_loss_around(FOCAL)
    scores = torch.randn(4, 3, requires_grad=True)
    (result,) = one_batch(loss, [(scores, torch.full((4,), 3), None, 1.0)], ([], []))
    assert result > 0
    result.backward()


def test_one_broken_box_of_a_batch():
    loss = dc_loss_around(FOCAL)
    calls, (pred, gt) = inputs(FOCAL)
    pred[0][0, 2] = math.inf
    results = one_batch(loss, calls, (pred, gt))
    torch.testing.assert_close(sum(results), sum(loss(s, t, w, avg_factor=a)
                                                 for s, t, w, a in calls))  # fmt: skip
    sum(results).backward()
    assert all(call[0].grad.isfinite().all() for call in calls)


def positives(*labels):
    """Indices of the positives among the rows of calls with these labels."""
    calls = [UnreducedLoss(torch.zeros(len(each)), each, "mean", 1.0, None) for each in labels]
    return positive_rows(calls, num_classes=3).tolist()


def test_which_labels_are_positives():
    """0 to num_classes - 1; -1 stands for ignored anchors in mmdet."""
    assert positives(torch.tensor([-1, 0, 2, 3, 255])) == [1, 2]
    assert positives(torch.tensor([[0.0, 0.2, 0], [0, 0, 0], [0, 0, 1]])) == [0, 2]
    assert positives(torch.tensor([[0, 0, 0, 1.0]])) == []


def test_positives_of_all_calls():
    assert positives(torch.tensor([0, 3, 3, 1]), torch.tensor([3, 2])) == [0, 3, 5]


def test_distance_and_eps_reach_the_coefficient():
    """Two positives, equal losses: lambda' is twice each one's share of lambda."""
    gt = torch.tensor([[0.0, 0, 10, 10]]).repeat(2, 1)
    pred = gt + torch.tensor([[0.0, 0, 0, 0], [3, 4, 3, 4]])
    bad = {"enclosing": 25 / (13**2 + 14**2), "gt": 25 / 200, "raw": 25}
    for distance, squared in bad.items():
        for eps in (1e-6, 0.5):
            loss = dc_loss_around(FOCAL, distance=distance, eps=eps)
            scores, lambdas = torch.zeros(2, 3), (1 / (0.5 + eps), 1 / (sigmoid(squared) + eps))
            with loss.unreduced():
                call = loss(scores, torch.tensor([0, 0]), reduction_override="none")
            (rows,) = loss.reduce([call], torch.arange(2), loss.coefficient(pred, gt))
            share = rows.sum(dim=1) / rows.sum()
            assert share.tolist() == pytest.approx([each / sum(lambdas) for each in lambdas])


def test_the_state_ends_with_the_block():
    loss = dc_loss_around(FOCAL)
    with pytest.raises(KeyError), loss.unreduced():
        assert loss.gives_unreduced
        raise KeyError
    assert not loss.gives_unreduced
    scores, labels = torch.randn(2, 3), torch.tensor([0, 3])
    assert loss(scores, labels) == MODELS.build(FOCAL)(scores, labels)


def test_boxes_carry_no_gradient():
    loss = dc_loss_around(FOCAL)
    pred = torch.tensor([[0.0, 0, 9, 10]], requires_grad=True)
    scores = torch.zeros(1, 3, requires_grad=True)
    result = one_batch(loss, [(scores, torch.tensor([0]), None, 1.0)], ([pred], [pred.detach()]))
    result[0].backward()
    assert pred.grad is None and scores.grad.any()


@pytest.mark.parametrize("dtype", [FLOAT16, torch.bfloat16])
def test_half_precision_losses(dtype):
    """Equation 2 in float32, the value in the wrapped loss's own type."""
    loss = dc_loss_around(ENTROPY)
    scores = torch.tensor([[3.0, 0, 0, 0], [0, 0, 0, 0]], dtype=dtype)
    call = (scores, torch.tensor([0, 1]), None, 1.0)
    boxes = torch.tensor([[0.0, 0, 400, 400], [0, 0, 400, 400]])
    for avg_factor in (None, 1.0):  # divided by the loss itself, and by what the head says
        (same,) = one_batch(loss, [(*call[:3], avg_factor)], ([boxes], [boxes]))
        plain = loss(*call[:2], avg_factor=avg_factor)
        assert same.dtype == plain.dtype == dtype and same == plain
    (moved,) = one_batch(loss, [call], ([boxes + torch.tensor([[300.0], [0]])], [boxes]))
    torch.testing.assert_close(moved, plain, rtol=2e-2, atol=0)


@needs_float16
def test_sums_beyond_half_precision():
    """40 rows of 2000 are more than float16 holds; mmdet's own sum is then infinite too."""
    loss = dc_loss_around(ENTROPY)
    scores = torch.zeros(40, 4, dtype=torch.float16)
    scores[:, 1] = 2800
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(40, 1)
    with loss.unreduced():
        call = loss(scores, torch.zeros(40, dtype=torch.long), reduction_override="none")
    coefficient = loss.coefficient(boxes + torch.arange(40)[:, None] % 2 * 5.0, boxes)
    (rows,) = loss.reduce([call], torch.arange(40), coefficient)
    assert rows.dtype == torch.float16 and rows[0] > 1960 > rows[1]
    assert rows.float().sum().item() == pytest.approx(40 * 1960, rel=1e-3)


@needs_float16
def test_levels_of_different_precision():
    """Under autocast one level may give float32 losses and the next half precision."""
    loss = dc_loss_around(ENTROPY)
    calls, boxes = inputs(ENTROPY)
    calls[1:2] = [(calls[1][0].detach().bfloat16(), *calls[1][1:])]
    calls[2:3] = [(calls[2][0].detach().half(), *calls[2][1:])]
    plain = [loss(s, t, w, avg_factor=a) for s, t, w, a in calls]
    results = one_batch(loss, calls, boxes)
    assert [r.dtype for r in results] == [p.dtype for p in plain]
    torch.testing.assert_close(sum(map(float, results)), sum(map(float, plain)), rtol=1e-3, atol=0)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="distance"):
        MODELS.build(dict(type="DCLoss", loss=FOCAL, distance="far"))
    with pytest.raises(ValueError, match="distance"):
        dynamic_coefficient(torch.zeros(1, 4), torch.zeros(1, 4), "far")
    with pytest.raises(ValueError, match="use_sigmoid=False beside a wrapped loss with True"):
        MODELS.build(dict(type="DCLoss", loss=FOCAL, use_sigmoid=False))
    with pytest.raises(ValueError, match="use_sigmoid=True beside a wrapped loss with False"):
        MODELS.build(dict(type="DCLoss", loss=ENTROPY, use_sigmoid=True))
    loss = dc_loss_around(FOCAL)
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
