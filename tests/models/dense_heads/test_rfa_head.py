"""RFAHead: FCOS at the start, its options and losses, and pairings with the other parts."""

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
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps

from misalign_det.models.dense_heads.dense_targets import DenseTargets
from misalign_det.models.layers import RFAConv2d

SPATIAL = dict(type="SpatialAlignAssigner")
OPTIONS = [
    dict(),
    dict(rfa_position="last"),
    dict(rfa_position=None),
    dict(rfa_modulated=True),
    dict(with_iou_branch=False, score_mode="class"),
    dict(iou_branch_on="classification"),
    dict(score_mode="product"),
    dict(centerness_weight=False),
]


def rfa_head(assigner=None, **kwargs):
    return make_head("RFAHead", assigner=assigner or SPATIAL, **kwargs)


def fcos_head(**kwargs):
    head = FCOSHead(
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        stacked_convs=2,
        strides=STRIDES,
        norm_cfg=dict(type="GN", num_groups=4),
        conv_bias=True,
        **kwargs,
    )
    head.init_weights()
    return head.eval()


@pytest.mark.parametrize("position", ["first", "last"])
@pytest.mark.parametrize("modulated", [False, True])
def test_untrained_head_equals_fcos_with_the_same_weights(position, modulated):
    fcos = fcos_head(centerness_on_reg=True)
    head = rfa_head(rfa_position=position, rfa_modulated=modulated).eval()
    weights = {
        key.replace("conv_centerness", "conv_iou"): value
        for key, value in fcos.state_dict().items()
    }
    missing = head.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert all("conv_offset" in key for key in missing.missing_keys)
    assert sum(isinstance(module, RFAConv2d) for module in head.modules()) == 2
    feats = features()
    outs = zip(head(feats), fcos(feats))
    for name, (mine, theirs) in zip(("class", "distance", "iou"), outs):
        for level, stride, ours in zip(theirs, STRIDES, mine):
            expected = level * stride if name == "distance" else level
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_rfa_in_mmdets_fcos_head_starts_as_fcos_and_trains():
    kwargs = dict(norm_on_bbox=True, center_sampling=True)
    fcos = fcos_head(**kwargs)
    head = MODELS.build(
        dict(
            type="RFAFCOSHead",
            num_classes=3,
            in_channels=16,
            feat_channels=16,
            stacked_convs=2,
            strides=STRIDES,
            norm_cfg=dict(type="GN", num_groups=4),
            conv_bias=True,
            **kwargs,
        )
    )
    head.init_weights()
    assert all("conv_offset" in key for key in head.load_state_dict(fcos.state_dict(), False)[0])
    head.eval()
    for mine, theirs in zip(head(features()), fcos(features())):
        for ours, expected in zip(mine, theirs):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    head.train()
    _, total = losses_of(head, [ONE, CROWD])
    total.backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_trains_and_predicts(options):
    head = rfa_head(**options)
    losses, total = losses_of(head, [ONE, CROWD])
    assert total.isfinite() and losses["loss_bbox"] > 0
    assert ("loss_iou" in losses) == head.with_iou_branch
    total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    head.eval()
    with torch.no_grad():
        results = head.predict_by_feat(*head(features()), batch_img_metas=METAS)
    assert len(results) == 2 and len(results[0]) == 20


PAIRS = [
    ("RFAHead", dict(type="JLAAssigner"), {}),
    ("TripleHead", SPATIAL, {}),
    ("LossAwareFCOSHead", SPATIAL, {}),
    ("TripleHead", dict(type="JLAAssigner"), dict(rfa_position="first")),
    ("TripleHead", SPATIAL, dict(rfa_position="last", rfa_modulated=True, stacked_convs=3)),
]


@pytest.mark.parametrize("kind, assigner, options", PAIRS, ids=str)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, FLOAT16])
@pytest.mark.parametrize(
    "gts", [[instances(), instances()], [CROWD, instances()], [ONE]], ids=["empty", "mixed", "one"]
)
def test_heads_and_assigners_combine(kind, assigner, options, dtype, gts):
    head = make_head(kind, assigner=assigner, **options)
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        _, total = losses_of(head, gts)
    assert total.isfinite()
    total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, FLOAT16])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_deformable_convolution_under_autocast(dtype, num_classes):
    """Mixed, empty and crowded images; offsets away from zero; one class and several."""
    head = rfa_head(num_classes=num_classes, rfa_modulated=True)
    for module in head.modules():
        if isinstance(module, RFAConv2d):
            torch.nn.init.normal_(module.conv_offset.weight, std=0.05)
    crowd = CROWD if num_classes > 1 else instances(*CROWD.bboxes.tolist())
    for gts in ([instances(), instances()], [crowd, instances()]):
        head.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            losses, total = losses_of(head, gts)
        assert total.isfinite() and losses["loss_cls"] > 0
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_no_ground_truth_leaves_box_and_iou_losses_exactly_zero():
    losses, total = losses_of(rfa_head(), [instances(), instances()])
    assert losses.pop("loss_cls") > 0
    assert all(loss.item() == 0 for loss in losses.values())
    total.backward()


def test_box_loss_is_weighted_by_centerness():
    head = rfa_head()
    cls_scores, bbox_preds, _ = head(features(1))
    targets = head.get_targets(cls_scores, bbox_preds, [ONE])
    centerness = targets.centerness()
    x, y = targets.points[targets.prior_inds % len(targets.points)].unbind(dim=1)
    left, right, top, bottom = x - 10, 70 - x, y - 20, 90 - y
    ratio = torch.minimum(left, right) / torch.maximum(left, right)
    ratio = ratio * torch.minimum(top, bottom) / torch.maximum(top, bottom)
    torch.testing.assert_close(centerness, ratio.sqrt())
    giou = bbox_overlaps(
        targets.bboxes[targets.prior_inds], targets.gt_bboxes, mode="giou", is_aligned=True
    )
    expected = ((1 - giou) * centerness).sum() / centerness.sum()
    losses = targets.box_losses(head.loss_bbox, targets.bboxes)
    loss = targets.mean(losses, centerness)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_score_is_the_root_of_probability_times_iou():
    head = rfa_head(num_classes=1).eval()
    cls_scores, _, iou_preds = outs = head(features(1))
    result = head.predict_by_feat(*outs, batch_img_metas=METAS[:1])[0]
    roots = [(c.sigmoid() * q.sigmoid()).sqrt().max() for c, q in zip(cls_scores, iou_preds)]
    torch.testing.assert_close(result.scores.max(), max(roots))


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(rfa_position="middle"), "position"),
        (dict(iou_branch_on="both"), "iou_branch_on"),
        (dict(score_mode="sum"), "score_mode"),
        (dict(with_iou_branch=False), "with_iou_branch"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        rfa_head(**options)


@pytest.mark.cuda
@pytest.mark.parametrize("modulated", [False, True])
def test_cuda_equals_cpu(modulated):
    head = rfa_head(rfa_modulated=modulated).eval()
    for module in head.modules():
        if isinstance(module, RFAConv2d):
            torch.nn.init.normal_(module.conv_offset.weight, std=0.05)
    with torch.no_grad():
        expected = head(features(1))
        outs = head.cuda()([level.cuda() for level in features(1)])
    for mine, theirs in zip(outs, expected):
        for ours, level in zip(mine, theirs):
            torch.testing.assert_close(ours.cpu(), level, rtol=1e-3, atol=1e-3)


class Recorder(torch.nn.Module):
    """A loss that remembers what it is given."""

    def forward(self, pred, target, weight=None, avg_factor=None):
        self.pred, self.target, self.weight = pred, target, weight
        return pred.sum() * 0


def test_the_iou_branch_learns_the_clamped_giou_of_the_predicted_box():
    head = rfa_head(loss_bbox=dict(type="IoULoss"))
    head.loss_iou = Recorder()
    outs = head(features(1))
    targets = head.get_targets(outs[0], outs[1], [CROWD])
    # Every other box is flat and reaches far beyond its GT: the GIoU is below zero.
    far = targets.gt_bboxes + torch.tensor([0.0, 24, 400, -24])
    targets.bboxes[targets.prior_inds[::2]] = far[::2]
    head.get_targets = lambda *args: targets
    head.loss_by_feat(*outs, [CROWD], METAS[:1])
    boxes = targets.bboxes[targets.prior_inds]
    gious = [
        bbox_overlaps(box[None], gt[None], mode="giou").item()
        for box, gt in zip(boxes, targets.gt_bboxes)
    ]
    target = head.loss_iou.target
    assert min(gious) < 0 < max(gious) and not target.requires_grad
    torch.testing.assert_close(target, torch.tensor(gious).clamp(min=0), rtol=1e-4, atol=1e-5)
    ious = bbox_overlaps(boxes, targets.gt_bboxes, is_aligned=True)
    assert (ious - target).abs().max() > 0.01


def test_defaults_are_the_papers():
    head = rfa_head()
    for tower in (head.cls_convs, head.reg_convs):
        assert [isinstance(block.conv, RFAConv2d) for block in tower] == [True, False]
        assert not tower[0].conv.modulated
    assert head.score_mode == "geometric_mean" and head.centerness_weight
    assert type(head.loss_bbox).__name__ == "GIoULoss" and head.loss_bbox.loss_weight == 1
    assert head.loss_iou.use_sigmoid and head.loss_iou.loss_weight == 1
    assert head.loss_cls.alpha == 0.25 and head.loss_cls.gamma == 2


@pytest.mark.parametrize("kind", ["RFAHead", "RFAFCOSHead"])
def test_initialisation_leaves_the_offsets_at_zero(kind):
    config = dict(type=kind, num_classes=3, in_channels=32, feat_channels=32, strides=STRIDES)
    head = MODELS.build(config)
    head.init_weights()
    layers = [module for module in head.modules() if isinstance(module, RFAConv2d)]
    assert len(layers) == 2
    for layer in layers:
        assert not any(p.any() for p in layer.conv_offset.parameters())
        assert 0 < layer.weight.std() < 0.02  # the others are Normal, 0.01
    assert isinstance(head.cls_convs[0].conv, RFAConv2d)


@pytest.mark.parametrize(
    "kind, options, weighted",
    [
        ("RFAHead", {}, True),
        ("RFAHead", dict(centerness_weight=False), False),
        ("LossAwareFCOSHead", {}, False),
        ("LossAwareFCOSHead", dict(centerness_weight=True), True),
    ],
)
def test_centerness_weights_the_box_loss_if_it_is_wanted(kind, options, weighted):
    head = make_head(kind, assigner=SPATIAL, loss_bbox=dict(type="GIoULoss"), **options)
    outs = head(features(1))
    losses = head.loss_by_feat(*outs, [ONE], METAS[:1])
    targets = head.get_targets(outs[0], outs[1], [ONE])
    weight = targets.centerness() if weighted else torch.ones(len(targets.prior_inds))
    giou = bbox_overlaps(
        targets.bboxes[targets.prior_inds], targets.gt_bboxes, mode="giou", is_aligned=True
    )
    expected = ((1 - giou) * weight).sum() / weight.sum()
    torch.testing.assert_close(losses["loss_bbox"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tower, other", [("regression", "cls_convs"),
                                          ("classification", "reg_convs")])  # fmt: skip
def test_the_iou_branch_reads_its_tower(tower, other):
    head = rfa_head(iou_branch_on=tower).eval()
    before = head(features(1))[2]
    torch.nn.init.normal_(getattr(head, other)[1].conv.weight)
    for mine, theirs in zip(head(features(1))[2], before):
        assert torch.equal(mine, theirs)
    chosen = "reg_convs" if tower == "regression" else "cls_convs"
    torch.nn.init.normal_(getattr(head, chosen)[1].conv.weight)
    assert not torch.equal(head(features(1))[2][0], before[0])


def test_the_last_convolution_of_a_deformable_tower_is_not_replaced():
    with pytest.raises(ValueError, match="drop conv_cfg or dcn_on_last_conv"):
        rfa_head(rfa_position="last", dcn_on_last_conv=True)


@pytest.mark.parametrize(
    "loss",
    [
        dict(type="GIoULoss"),
        dict(type="GIoULoss", loss_weight=2.5),
        dict(type="GIoULoss", loss_weight=0.0),
        dict(type="IoULoss"),
    ],
    ids=str,
)
def test_the_target_is_the_giou_whatever_the_box_loss(loss):
    head = rfa_head(loss_bbox=loss)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 4, 10], [30, 30, 31, 31]], requires_grad=True)
    gts = torch.tensor([[0.0, 0, 10, 10]]).expand(3, 4)
    targets = DenseTargets.__new__(DenseTargets)
    targets.bboxes, targets.prior_inds, targets.gt_bboxes = boxes, torch.arange(3), gts
    found = head.iou_targets(targets, targets.box_losses(head.loss_bbox, boxes))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.4, 0.0]))
    assert not found.requires_grad
