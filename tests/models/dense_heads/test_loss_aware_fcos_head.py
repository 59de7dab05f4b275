"""What the loss-aware heads share: decoding, losses by hand, reductions, and predictions."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.dense_head_cases import (
    CROWD,
    METAS,
    ONE,
    STRIDES,
    features,
    instances,
    losses_of,
    make_head,
)
from helpers.half_precision import FLOAT16
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from misalign_det.models.dense_heads import dense_targets
from misalign_det.models.dense_heads.dense_targets import DenseTargets
from misalign_det.models.dense_heads.distances import exp_distance
from misalign_det.models.dense_heads.float32_logits import at_least_float32
from misalign_det.models.dense_heads.iou_branch import logits_of_powers

HEADS = ("LossAwareFCOSHead", "RFAHead", "TripleHead")


def hand_targets(weights, num=4, ignored=(), logits=None):
    """Positives at the first locations, each a box of 10 x 10 at the origin and class 1."""
    weights = torch.tensor(weights)
    places = torch.arange(len(weights))
    positives = SimpleNamespace(
        nonzero=lambda: (places, torch.zeros_like(places), weights),
        ignored=torch.tensor([i in ignored for i in range(num)]),
    )
    gts = SimpleNamespace(labels=torch.tensor([1]), bboxes=torch.tensor([[0.0, 0, 10, 10]]))
    logits = torch.zeros(num, 3) if logits is None else logits
    bboxes = torch.tensor([[0.0, 0, 10, 5]]).repeat(num, 1).requires_grad_()  # IoU 0.5
    return DenseTargets(logits, bboxes, bboxes, torch.zeros(num, 2), gts, positives)


@pytest.fixture
def two_processes(monkeypatch):
    """The other process adds 6 to every sum before the mean is taken."""
    monkeypatch.setattr(dense_targets, "reduce_mean", lambda value: (value + 6) / 2)


def test_distances_are_exponentials_in_float32_with_a_bound():
    x = torch.tensor([0.0, math.log(3), 8.0, 9.0, math.inf, -math.inf])
    expected = torch.tensor([1.0, 3.0, math.exp(8), math.exp(8), math.exp(8), 0.0])
    torch.testing.assert_close(exp_distance(x), expected)
    half = exp_distance(torch.tensor([1.0], dtype=torch.bfloat16))
    assert half.dtype == torch.float32 and half.item() == pytest.approx(math.e)


@pytest.mark.parametrize("dtype", [torch.bfloat16, FLOAT16])
@pytest.mark.parametrize("kind", HEADS)
def test_boxes_are_float32_under_autocast(kind, dtype):
    head = make_head(kind)
    with torch.autocast("cpu", dtype):
        outs = head(features(1))
        targets = head.get_targets(outs[0], outs[1], [ONE])
    for level in (*outs[1], *(outs[3] if kind == "TripleHead" else ())):
        assert level.dtype == torch.float32
    assert targets.bboxes.dtype == torch.float32


def test_decode_is_in_float32_whatever_it_is_given():
    head = make_head("LossAwareFCOSHead")
    levels = [torch.full((1, 4, 1, 1), 3.0, dtype=torch.bfloat16)]
    boxes = head.decode(torch.tensor([[1001.0, 4.0]]), levels)  # bfloat16 knows 1000 and 1004
    assert boxes.tolist() == [[[998.0, 1.0, 1004.0, 7.0]]]


def test_float64_stays_and_half_precision_does_not():
    kinds = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    found = [at_least_float32(torch.zeros(1, dtype=dtype)).dtype for dtype in kinds]
    assert found == [torch.float64, torch.float32, torch.float32, torch.float32]


@pytest.mark.parametrize("kind", HEADS)
def test_the_untrained_distance_is_the_prior_one(kind):
    head = make_head(kind, init_distance=3.0)
    conv = head.conv_coarse if kind == "TripleHead" else head.conv_reg
    torch.testing.assert_close(conv.bias, torch.full((4,), math.log(3)))
    assert make_head(kind).init_distance == 4.0


def test_the_untrained_distance_may_differ_between_levels():
    distances = [1.5, 4.0, 3.0, 4.0, 6.0][: len(STRIDES)]
    head = make_head("LossAwareFCOSHead", init_distance=distances)
    torch.nn.init.zeros_(head.conv_reg.weight)
    for found, distance, stride in zip(head(features())[1], distances, STRIDES, strict=True):
        torch.testing.assert_close(found, torch.full_like(found, distance * stride))


def test_the_divisor_is_the_sum_of_the_weights_but_at_least_one():
    assert hand_targets([0.5, 2.0]).avg_factor == 2.5
    assert hand_targets([0.5, 0.25]).avg_factor == 1.0


def test_the_divisor_is_the_mean_over_processes(two_processes):
    assert hand_targets([0.5, 1.5]).avg_factor == 4.0


def box_loss(targets, loss, pos_weights=None):
    return targets.mean(targets.box_losses(loss, targets.bboxes), pos_weights)


def test_box_loss_by_hand():
    loss = MODELS.build(dict(type="GIoULoss"))  # half of the GT: 0.5 a box
    targets = hand_targets([1.0, 3.0])
    assert box_loss(targets, loss).item() == pytest.approx(0.5)
    targets = hand_targets([0.2, 0.2])  # 0.4 weights over a divisor of 1
    assert box_loss(targets, loss).item() == pytest.approx(0.2)
    # Further weights: the divisor is their sum, and below 1 too.
    further = box_loss(targets, loss, torch.tensor([1.0, 0.5]))
    assert further.item() == pytest.approx(0.5)
    tiny = box_loss(targets, loss, torch.full((2,), 5e-7))
    assert tiny.item() == pytest.approx(0.1, rel=0.2)  # 2e-7 x 0.5 over the least divisor, 1e-6
    nothing = box_loss(targets, loss, torch.zeros(2))
    assert nothing.item() == 0


def test_box_loss_over_processes(two_processes):
    targets = hand_targets([1.0, 3.0])
    loss = MODELS.build(dict(type="GIoULoss"))
    # 4 x 0.5 over (4 + 6) / 2; with further weights (1 + 1.5) x 0.5 over (2.5 + 6) / 2.
    assert box_loss(targets, loss).item() == pytest.approx(2 / 5)
    further = box_loss(targets, loss, torch.tensor([1.0, 0.5]))
    assert further.item() == pytest.approx(1.25 / 4.25)


def test_iou_branch_loss_by_hand():
    targets = hand_targets([1.0, 3.0])
    loss = MODELS.build(dict(type="CrossEntropyLoss", use_sigmoid=True))
    outputs = [torch.tensor([0.0, math.log(3), 9.0, 9.0]).view(1, 1, 2, 2)]  # p = 0.5, 0.75
    found = targets.iou_branch_loss(loss, outputs, torch.tensor([0.25, 1.0]))
    expected = (math.log(2) + 3 * math.log(4 / 3)) / 4
    assert found.item() == pytest.approx(expected)


def classification_loss(targets):
    return targets.classification_loss(make_head("LossAwareFCOSHead").loss_cls, 3)


def test_classification_loss_by_hand():
    """Two positives, one ignored and one background location, all logits zero."""
    targets = hand_targets([1.0, 3.0], ignored=(2,))
    own, other = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    expected = (4 * (own + 2 * other) + 3 * other) / 4
    assert classification_loss(targets).item() == pytest.approx(expected)
    assert targets.background.tolist() == [False, False, False, True]


def test_quality_focal_loss_is_trained_towards_the_iou():
    """As above, with probabilities of 3/4 and an IoU of 1/2."""
    targets = hand_targets([1.0, 3.0], ignored=(2,), logits=torch.full((4, 3), math.log(3)))
    targets.assign_bboxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)  # TripleHead's coarse box
    negative = math.log(4)  # -log(1 - 3/4)
    own = (0.75 - 0.5) ** 2 * (0.5 * math.log(4 / 3) + 0.5 * negative)
    other = 0.75**2 * negative
    loss = MODELS.build(dict(type="mmdet.QualityFocalLoss", use_sigmoid=True, beta=2.0))
    expected = (4 * (own + 2 * other) + 3 * other) / 4
    assert targets.classification_loss(loss, 3).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("gts", [instances(), CROWD], ids=["no object", "ambiguous locations"])
def test_every_head_trains_with_quality_focal_loss(kind, gts):
    head = make_head(kind, loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0))
    _, total = losses_of(head, [gts])
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["loss_cls", "loss_iou"])
def test_losses_get_float32_logits(name, dtype):
    seen = []
    targets = hand_targets([1.0], logits=torch.full((4, 3), -20.0, dtype=dtype))

    def loss(logits, *args, **kwargs):
        seen.append(logits.dtype)
        return logits.sum()

    if name == "loss_cls":
        targets.classification_loss(loss, 3)
    else:
        targets.iou_branch_loss(loss, [torch.zeros(1, 1, 2, 2, dtype=dtype)], torch.ones(1))
    assert seen == [torch.float32]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("broken", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", HEADS)
def test_broken_outputs_pass_the_assignment(kind, broken, value):
    """A hook may then see the loss for what it is; the other losses stay numbers."""
    head = make_head(kind)
    outs = [[level.clone() for level in part] for part in head(features())]
    if broken >= len(outs):
        return
    outs[broken][0][0, :, 3:9, 3:9] = value
    losses = head.loss_by_feat(*outs, [ONE, CROWD], METAS)
    assert set(losses) == set(losses_of(head, [ONE, CROWD])[0])
    if broken != 0:
        assert losses["loss_cls"].isfinite()


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("gts", [[instances()], [instances((0, 0, 8, 8))]], ids=["none", "one"])
@pytest.mark.parametrize("kind", HEADS)
def test_maps_of_one_cell(kind, gts, num_classes):
    head = make_head(kind, num_classes=num_classes)
    feats = [torch.randn(1, 16, 1, 1) for _ in STRIDES]
    losses, total = losses_of(head, gts, feats)
    assert total.isfinite() and losses["loss_cls"] > 0
    assert (losses["loss_bbox"] > 0) == bool(len(gts[0]))
    total.backward()
    head.eval()
    (found,) = head.predict_by_feat(*head(feats), batch_img_metas=METAS[:1])
    assert found.bboxes.shape == (len(found), 4) and found.bboxes.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("absent", ["nms", "score_thr", "nms_pre", "max_per_img", "all", "cfg"])
@pytest.mark.parametrize("none", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_absent_keys_of_test_cfg_exclude_nothing(kind, none, absent):
    head = make_head(kind, num_classes=1).eval()
    head.test_cfg.update(score_thr=0.009, nms_pre=30, max_per_img=7)
    if kind == "TripleHead":
        head.sparse_refinement = True
    if absent == "cfg":
        head.test_cfg = None
    else:
        for key in list(head.test_cfg) if absent == "all" else [absent]:
            del head.test_cfg[key]
            if none:
                head.test_cfg[key] = None
    (found,) = head.predict_by_feat(*head(features(1)), batch_img_metas=METAS[:1])
    everything = sum((128 // s) ** 2 for s in STRIDES)
    assert len(found) == everything if absent in ("all", "cfg") else 0 < len(found) < everything
    if absent == "nms":
        assert len(found) == 7  # the best of all, one beside the other
    assert (found.scores.diff() <= 0).all()


@torch.no_grad()
@pytest.mark.parametrize("key", ["nms_pre", "max_per_img"])
@pytest.mark.parametrize("kind", HEADS)
def test_negative_counts_exclude_nothing(kind, key):
    """Under -1 mmdet leaves out the last candidate, be it the only one."""
    head = make_head(kind).eval()
    outs = head(features(1))
    found = []
    for value in (None, -1):
        cfg = ConfigDict({**head.test_cfg, "max_per_img": None, key: value})
        if key == "nms_pre":
            cfg.score_thr = 0.009
        found.append(head.predict_by_feat(*outs, batch_img_metas=METAS[:1], cfg=cfg)[0])
    assert len(found[1]) == len(found[0]) > 20
    torch.testing.assert_close(found[1].bboxes, found[0].bboxes, rtol=0, atol=0)


@pytest.mark.parametrize("iou_branch", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_losses_of_outputs_by_name(kind, iou_branch):
    options = {} if iou_branch else dict(score_mode="class")
    head = make_head(kind, with_iou_branch=iou_branch, **options)
    outs = head(features(1))
    names = ("cls_scores", "bbox_preds", "iou_preds", "coarse_preds")
    named = dict(zip(names, outs), batch_gt_instances=[ONE], batch_img_metas=METAS[:1])
    assert head.loss_by_feat(**named) == head.loss_by_feat(*outs, [ONE], METAS[:1])


def test_without_norm_layers():
    for kind in HEADS:
        config = dict(type=kind, num_classes=3, in_channels=8, feat_channels=8, norm_cfg=None)
        assert not any(isinstance(m, torch.nn.GroupNorm) for m in MODELS.build(config).modules())
    config = dict(type="LossAwareFCOSHead", num_classes=3, in_channels=8, feat_channels=64)
    assert MODELS.build(config).cls_convs[0].norm.num_groups == 32


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("kind", [*HEADS, "RFAFCOSHead"])
def test_init_weights_keeps_the_checkpoint_of_init_cfg(kind, as_list, tmp_path):
    options = dict(assigner=False) if kind == "RFAFCOSHead" else {}
    expected = make_head(kind, **options).state_dict()
    for value in expected.values():
        value.uniform_(-1, 1)
    path = str(tmp_path / "detector.pth")
    torch.save({f"bbox_head.{name}": value for name, value in expected.items()}, path)
    pretrained = dict(type="Pretrained", checkpoint=path, prefix="bbox_head.")
    normal = dict(type="Normal", layer="Conv2d", std=0.01)
    head = make_head(kind, init_cfg=[normal, pretrained] if as_list else pretrained, **options)
    found = head.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@torch.no_grad()
def test_a_config_of_the_call_comes_before_the_heads_own():
    head = make_head("RFAHead").eval()
    for cfg in (dict(max_per_img=3), ConfigDict(max_per_img=3, nms=None)):
        (found,) = head.predict_by_feat(*head(features(1)), batch_img_metas=METAS[:1], cfg=cfg)
        assert len(found) == 3
    assert head.test_cfg.max_per_img == 20 and head.test_cfg.score_thr == 0
    head.predict_by_feat(*head(features(1)), batch_img_metas=METAS[:1])
    assert head.test_cfg.nms_pre == 100 and head.test_cfg.nms.iou_threshold == 0.6
    del head.test_cfg.nms
    head.predict_by_feat(*head(features(1)), batch_img_metas=METAS[:1])
    assert "nms" not in head.test_cfg


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
def test_priors_of_half_precision_outputs_are_exact(kind):
    """mmdet places them in the dtype of the class logits: bfloat16 has no 1001."""
    head = make_head(kind).eval()
    outs = list(head([torch.randn(1, 16, 1, 256 * 8 // s) for s in STRIDES]))
    outs[0] = [level.bfloat16() for level in outs[0]]
    metas = [dict(img_shape=(2048, 2048), scale_factor=(1, 1))]
    cfg = ConfigDict(score_thr=0)
    (found,) = head.predict_by_feat(*outs, batch_img_metas=metas, cfg=cfg)
    points, _ = head.prior_generator.joined(outs[0])
    boxes = head.bbox_coder.decode(points, torch.cat([b[0].flatten(1).T for b in outs[1]]),
                                   max_shape=(2048, 2048))  # fmt: skip
    for labels in range(3):
        mine = found.bboxes[found.labels == labels]
        order, expected = mine.sum(dim=1).argsort(), boxes.sum(dim=1).argsort()
        torch.testing.assert_close(mine[order], boxes[expected], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("exponent", [0.5, 0.2, 0.9])
def test_logits_of_powers(exponent):
    x = torch.tensor([-math.inf, -1e5, -100, -30, -3, -1e-3, 0, 1e-3, 3, 30, 100, 1e5, math.inf])
    found = logits_of_powers([x.view(1, 1, 1, -1)], exponent)[0].flatten()
    exact = x.double().sigmoid() ** exponent
    torch.testing.assert_close(found.double().sigmoid(), exact, rtol=2e-5, atol=1e-30)
    assert found[6].item() == pytest.approx(math.log(0.5**exponent / (1 - 0.5**exponent)))
    assert found[0] == -math.inf and found[-1] == math.inf
    assert found[1].item() == pytest.approx(-1e5 * exponent)
    assert found[-2].item() == pytest.approx(1e5 - math.log(exponent)) and (found.diff() > 0).all()
    assert logits_of_powers([torch.full((1, 1, 1, 1), math.nan)], exponent)[0].isnan()


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
def test_the_weighted_geometric_mean(kind):
    """As many detections as by the mean of equal weights, and other scores of the same boxes."""
    head = make_head(
        kind, with_iou_branch=True, score_mode="geometric_mean", score_alpha=0.3
    ).eval()
    torch.manual_seed(0)
    outs = [[torch.randn_like(level) * 3 for level in part] for part in head(features(1))]
    outs[1] = [level.abs() * 5 for level in outs[1]]
    cfg = ConfigDict(score_thr=0.05, nms_pre=1000)
    found = {}
    for mode in ("geometric_mean", "class"):
        head.score_mode = mode
        (found[mode],) = head.predict_by_feat(*outs, batch_img_metas=METAS[:1], cfg=cfg)
    head.score_mode = "product"
    (product,) = head.predict_by_feat(*outs, batch_img_metas=METAS[:1], cfg=cfg)
    assert len(product) == len(found["class"]) == len(found["geometric_mean"]) > 0
    order = [torch.argsort(part.bboxes.sum(1) + 1e3 * part.labels) for part in found.values()]
    by_mean, by_class = (part[index] for part, index in zip(found.values(), order))
    product = product[torch.argsort(product.bboxes.sum(1) + 1e3 * product.labels)]
    ious = product.scores / by_class.scores
    expected = by_class.scores**0.3 * ious**0.7
    torch.testing.assert_close(by_mean.scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "alpha, mode", [(0, "geometric_mean"), (1, "geometric_mean"), (0.3, "product")]
)
def test_score_alpha_out_of_place(alpha, mode):
    with pytest.raises(ValueError, match="score_alpha"):
        make_head("LossAwareFCOSHead", with_iou_branch=True, score_mode=mode, score_alpha=alpha)


@torch.no_grad()
@pytest.mark.parametrize("score_thr", [0.0, 0.05, 0.4, -1.0])
@pytest.mark.parametrize("nms_pre", [-1, 25])
def test_geometric_mean_selects_by_the_class_probability(score_thr, nms_pre):
    """Thresholds and limits let through what they let through of the class probability alone."""
    torch.manual_seed(0)
    head = make_head("RFAHead").eval()
    outs = [[torch.randn_like(level) * 3 for level in part] for part in head(features(1))]
    outs[1] = [level.abs() * 5 for level in outs[1]]
    cfg = ConfigDict(score_thr=score_thr, nms_pre=nms_pre)
    found = {}
    for mode in ("geometric_mean", "product", "class"):
        head.score_mode = mode
        (found[mode],) = head.predict_by_feat(*outs, batch_img_metas=METAS[:1], cfg=cfg)
    assert cfg == ConfigDict(score_thr=score_thr, nms_pre=nms_pre)
    best = max(level.sigmoid().max() for level in outs[0])  # the quality has no part in it
    torch.testing.assert_close(found["class"].scores.max(), best)
    mean, product = found["geometric_mean"], found["product"]
    assert len(mean) == len(product) == len(found["class"]) > 0
    torch.testing.assert_close(mean.scores, product.scores.sqrt(), rtol=0, atol=1e-6)
    torch.testing.assert_close(mean.bboxes, product.bboxes)
    assert torch.equal(mean.labels, product.labels)


def test_what_an_ignored_location_predicts_does_not_matter():
    logits = torch.zeros(4, 3)
    expected = classification_loss(hand_targets([1.0], ignored=(2,), logits=logits))
    logits = logits.clone()
    logits[2] = torch.tensor([math.inf, -math.inf, math.nan])
    logits.requires_grad_()
    found = classification_loss(hand_targets([1.0], ignored=(2,), logits=logits))
    assert found.item() == expected.item()
    found.backward()
    assert logits.grad.isfinite().all() and not logits.grad[2].any()


LIKE_RFA = dict(
    with_iou_branch=True, iou_mode="giou", score_mode="geometric_mean", centerness_weight=True,
    loss_bbox=dict(type="GIoULoss"),
)  # fmt: skip


@pytest.mark.parametrize("tower", ["regression", "classification"])
def test_rfa_head_without_its_adaptors_is_this_head(tower):
    """Names and order of the parameters, losses and detections."""
    base = make_head("LossAwareFCOSHead", **LIKE_RFA, iou_branch_on=tower)
    rfa = make_head("RFAHead", rfa_position=None, iou_branch_on=tower)
    base.load_state_dict(rfa.state_dict())
    assert list(base.state_dict()) == list(rfa.state_dict())
    losses = [losses_of(head, [ONE, CROWD])[0] for head in (base, rfa)]
    assert losses[0] == losses[1] and set(losses[0]) == {"loss_cls", "loss_bbox", "loss_iou"}
    with torch.no_grad():
        found = [
            head.eval().predict_by_feat(*head(features(1)), batch_img_metas=METAS[:1])[0]
            for head in (base, rfa)
        ]
    assert torch.equal(found[0].scores, found[1].scores)
    assert torch.equal(found[0].bboxes, found[1].bboxes)


def test_an_iou_branch_changes_no_other_loss():
    losses = []
    for branch in (False, True):  # without it two outputs, as FCOS's towers have
        head = make_head("LossAwareFCOSHead", with_iou_branch=branch)
        torch.nn.init.zeros_(head.conv_cls.weight), torch.nn.init.zeros_(head.conv_reg.weight)
        losses.append(losses_of(head, [ONE, CROWD])[0])
        assert len(head(features(1))) == 2 + branch
    assert losses[1].pop("loss_iou") > 0 and losses[0] == losses[1]


@pytest.mark.parametrize("option", ["iou_branch_on", "iou_mode", "score_mode"])
@pytest.mark.parametrize("kind", ["LossAwareFCOSHead", "RFAHead"])
def test_choices_of_the_iou_branch(kind, option):
    with pytest.raises(ValueError, match=option):
        make_head(kind, with_iou_branch=True, **{option: "both"})


@pytest.mark.parametrize("mode", ["product", "geometric_mean"])
@pytest.mark.parametrize("kind", HEADS)
def test_scores_need_the_branch(kind, mode):
    with pytest.raises(ValueError, match=f"{mode}.*with_iou_branch=False goes with"):
        make_head(kind, with_iou_branch=False, score_mode=mode)
