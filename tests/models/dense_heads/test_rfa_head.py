"""RFAHead: FCOS at the start, its options and losses, and every pairing with paper B's parts."""

import pytest
import torch
from dense_head_cases import CROWD, METAS, ONE, STRIDES, features, instances, losses_of, make_head
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps

from misalign_det.models.layers import RFAConv2d

SPATIAL = dict(type="SpatialAlignAssigner")
OPTIONS = [
    dict(),
    dict(rfa_position="last"),
    dict(rfa_position=None),
    dict(rfa_modulated=True),
    dict(with_quality=False, score_mode="class"),
    dict(quality_on="classification"),
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
        key.replace("conv_centerness", "conv_quality"): value
        for key, value in fcos.state_dict().items()
    }
    missing = head.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert all("conv_offset" in key for key in missing.missing_keys)
    assert sum(isinstance(module, RFAConv2d) for module in head.modules()) == 2
    feats = features()
    outs = zip(head(feats), fcos(feats))
    for name, (mine, theirs) in zip(("class", "distance", "quality"), outs):
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
    assert ("loss_quality" in losses) == head.with_quality
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
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "gts", [[instances(), instances()], [CROWD, instances()], [ONE]], ids=["empty", "mixed", "one"]
)
def test_parts_of_both_papers_together(kind, assigner, options, dtype, gts):
    head = make_head(kind, assigner=assigner, **options)
    with torch.autocast("cpu", dtype=dtype or torch.float32, enabled=dtype is not None):
        _, total = losses_of(head, gts)
    assert total.isfinite()
    total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
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


def test_no_ground_truth_leaves_box_and_quality_losses_exactly_zero():
    losses, total = losses_of(rfa_head(), [instances(), instances()])
    assert losses.pop("loss_cls") > 0
    assert all(loss.item() == 0 for loss in losses.values())
    total.backward()


def test_box_loss_is_weighted_by_centerness():
    head = rfa_head()
    cls_scores, bbox_preds, _ = head(features(1))
    targets = head.get_targets(cls_scores, bbox_preds, [ONE])
    centerness = head.centerness(targets)
    x, y = targets.points[targets.prior_inds % len(targets.points)].unbind(dim=1)
    left, right, top, bottom = x - 10, 70 - x, y - 20, 90 - y
    ratio = torch.minimum(left, right) / torch.maximum(left, right)
    ratio = ratio * torch.minimum(top, bottom) / torch.maximum(top, bottom)
    torch.testing.assert_close(centerness, ratio.sqrt())
    giou = bbox_overlaps(
        targets.bboxes[targets.prior_inds], targets.gt_bboxes, mode="giou", is_aligned=True
    )
    expected = ((1 - giou) * centerness).sum() / centerness.sum()
    loss = head.box_loss(head.loss_bbox, targets, targets.bboxes, centerness)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_score_is_the_root_of_probability_times_quality():
    head = rfa_head(num_classes=1).eval()
    cls_scores, _, qualities = outs = head(features(1))
    result = head.predict_by_feat(*outs, batch_img_metas=METAS[:1])[0]
    roots = [(c.sigmoid() * q.sigmoid()).sqrt().max() for c, q in zip(cls_scores, qualities)]
    torch.testing.assert_close(result.scores.max(), max(roots))


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(rfa_position="middle"), "position"),
        (dict(quality_on="both"), "quality_on"),
        (dict(score_mode="sum"), "score_mode"),
        (dict(with_quality=False), "with_quality"),
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
