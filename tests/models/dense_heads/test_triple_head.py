"""TripleHead and the loss-aware FCOS head: paper's parameter counts, equations, awkward batches."""

import math

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
from helpers.paths import CONFIGS
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from misalign_det.models.layers import RFAConv2d, auto_deform_conv2d, star_dcn_offset

OPTIONS = [
    dict(),
    dict(offset_mode="grid_plus_box"),
    dict(refine_mode="add"),
    dict(refine_mode="none"),
    dict(refine_detach=False),
    dict(iou_target="refined"),
    dict(score_mode="geometric_mean"),
    dict(score_mode="class"),
    dict(assign_boxes="refined"),
    dict(with_iou_branch=False, score_mode="class"),
    dict(guided_branches="regression"),
    dict(cls_shortcut=True),
]


@pytest.mark.parametrize(
    "config, parameters",
    [("jla_triplehead_r50_fpn_1x_coco", 34_614_307), ("fcos_r50_fpn_1x_coco", 32_244_250)],
)
def test_parameter_count_of_the_paper(config, parameters):
    """Table 4: all parameters less the affine ones of the backbone's batch norms."""
    cfg = Config.fromfile(CONFIGS / f"{config}.py").model
    cfg.backbone.init_cfg = None
    model = MODELS.build(cfg)
    affine = sum(
        p.numel()
        for module in model.backbone.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for p in module.parameters()
    )
    assert sum(p.numel() for p in model.parameters()) - affine == parameters


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_trains_and_predicts(options):
    head = make_head(**options)
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
    assert results[0].bboxes.min() >= 0 and results[0].bboxes.max() <= 128


@pytest.mark.parametrize("kind", ["TripleHead", "LossAwareFCOSHead"])
def test_no_ground_truth_leaves_box_losses_exactly_zero(kind):
    head = make_head(kind)
    losses, total = losses_of(head, [instances(), instances()])
    assert losses.pop("loss_cls") > 0
    assert all(loss.item() == 0 for loss in losses.values())
    total.backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_one_ground_truth_gives_all_losses():
    losses, _ = losses_of(make_head(), [ONE])
    assert all(loss > 0 for loss in losses.values())


def test_one_class_and_a_mixed_batch():
    head = make_head(num_classes=1)
    _, total = losses_of(head, [instances(), instances((0, 0, 128, 128), (3, 3, 9, 9))])
    assert total.isfinite()


def test_a_box_without_any_location_is_left_out():
    # (5, 5)-(7, 7) holds no location of any level: the first is at (4, 4), the next at (12, 4).
    losses, total = losses_of(make_head(), [instances((5, 5, 7, 7))])
    assert losses["loss_bbox"] == 0 and total.isfinite()


def test_untrained_boxes_reach_the_prior_distance():
    head = make_head(init_distance=4.0)
    for conv in (head.conv_coarse, head.conv_reg):
        torch.nn.init.zeros_(conv.weight)
    _, refined, _, coarse = head(features())
    for distances, stride in zip(coarse, STRIDES):
        torch.testing.assert_close(distances, torch.full_like(distances, 4.0 * stride))
    for mine, theirs in zip(refined, coarse):
        torch.testing.assert_close(mine, theirs)


def test_untrained_boxes_per_level():
    distances = [1.5, *[4.0] * (len(STRIDES) - 1)]
    head = make_head(init_distance=distances)
    for conv in (head.conv_coarse, head.conv_reg):
        torch.nn.init.zeros_(conv.weight)
    _, refined, _, coarse = head(features())
    for mine, final, distance, stride in zip(coarse, refined, distances, STRIDES, strict=True):
        torch.testing.assert_close(mine, torch.full_like(mine, distance * stride))
        torch.testing.assert_close(final, mine)
    # It is a part of the config, not of the checkpoint.
    assert head.state_dict().keys() == make_head().state_dict().keys()


def test_refinement_is_the_product_of_equation_8():
    head = make_head()
    output, coarse = (
        torch.tensor([math.log(2.0), 0.0]),
        torch.tensor([3.0, 5.0], requires_grad=True),
    )
    refined = head._refine(output, coarse)
    torch.testing.assert_close(refined, torch.tensor([6.0, 5.0]))
    assert not refined.requires_grad  # coarse is detached
    head.refine_detach = False
    (gradient,) = torch.autograd.grad(head._refine(output, coarse).sum(), coarse)
    torch.testing.assert_close(gradient, torch.tensor([2.0, 1.0]))


def test_detection_score_is_probability_times_iou():
    """One class, no NMS threshold: the best score is the largest product over all locations."""
    head = make_head(num_classes=1).eval()
    cls_scores, _, iou_preds, _ = outs = head(features(1))
    result = head.predict_by_feat(*outs, batch_img_metas=METAS[:1])[0]
    products = [(c.sigmoid() * q.sigmoid()).max() for c, q in zip(cls_scores, iou_preds)]
    torch.testing.assert_close(result.scores.max(), max(products))


def test_geometric_mean_is_the_root_of_the_product():
    results = {}
    for mode in ("product", "geometric_mean"):
        head = make_head(score_mode=mode).eval()
        results[mode] = head.predict_by_feat(*head(features(1)), batch_img_metas=METAS[:1])[0]
    torch.testing.assert_close(results["geometric_mean"].scores, results["product"].scores.sqrt())


def test_background_is_every_location_that_is_neither_positive_nor_ignored():
    head = make_head(assigner=dict(ambiguous="ignore", weighted_until=1.0))
    cls_scores, bbox_preds, _, _ = head(features(1))
    targets = head.get_targets(cls_scores, bbox_preds, [CROWD])
    assert not targets.background[targets.prior_inds].any()
    assert not (targets.background & targets.assign_result.ignored).any()
    assert targets.assign_result.ignored.any()
    positive = torch.zeros_like(targets.background)
    positive[targets.prior_inds] = True
    assert (targets.background | positive | targets.assign_result.ignored).all()


def test_classification_loss_equals_a_plain_sum():
    head = make_head()
    cls_scores, bbox_preds, _, _ = head(features(1))
    targets = head.get_targets(cls_scores, bbox_preds, [CROWD])
    prob = targets.logits.double().sigmoid()
    expected = 0.0
    for location in targets.background.nonzero().flatten():
        expected += (-0.75 * prob[location] ** 2 * (1 - prob[location]).log()).sum()
    for prior, label, weight in zip(targets.prior_inds, targets.labels, targets.weights):
        for c in range(3):
            p = prob[prior, c]
            positive = -0.25 * (1 - p) ** 2 * p.log()
            negative = -0.75 * p**2 * (1 - p).log()
            expected += weight * (positive if c == label else negative)
    assert targets.classification_loss(head.loss_cls, 3).item() == pytest.approx(
        (expected / targets.avg_factor).item(), rel=1e-4
    )


def test_bfloat16_autocast_gives_finite_losses_and_gradients():
    head = make_head()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, total = losses_of(head, [CROWD, instances()])
    assert total.isfinite()
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_the_sampled_form_exports_to_onnx_operators():
    """Tracing takes the form without mmcv's op, on any device."""
    head = make_head().eval().requires_grad_(False)
    traced = torch.jit.trace(lambda *x: tuple(t for level in head(x) for t in level), features(1))
    operators = {node.kind() for node in traced.inlined_graph.nodes()}
    assert "aten::grid_sampler" in operators or "aten::grid_sampler_2d" in operators
    assert not any("DeformConv" in operator for operator in operators)


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(offset_mode="star"), "offset_mode"),
        (dict(refine_mode="times"), "refine_mode"),
        (dict(refine_mode="none", refine_detach=False), "does not read refine_detach"),
        (dict(refine_mode="none", sparse_refinement=True), "does not read sparse_refinement"),
        (dict(refine_mode="none", guided_branches="regression"), "does not read guided_branches"),
        (dict(guided_branches="classification"), "guided_branches"),
        (dict(guided_branches="regression", cls_shortcut=True), "guided_branches='both'"),
        (dict(stacked_convs=1, feat_channels=64, cls_shortcut=True), "feat_channels"),
        (dict(score_mode="sum"), "score_mode"),
        (dict(with_iou_branch=False), "with_iou_branch"),
        (dict(iou_target="both"), "iou_target"),
        (dict(iou_branch_on="classification"), "does not read iou_branch_on"),
        (dict(centerness_weight=True), "does not read centerness_weight"),
        (dict(dcn_on_last_conv=True), "does not read dcn_on_last_conv"),
        (dict(rfa_modulated=True), "rfa_modulated needs rfa_position='first' or 'last'"),
        (dict(loss_bbox_coarse=dict(type="L1Loss")), "loss_bbox_coarse must be one of mmdet's"),
        (dict(init_distance=0), "init_distance"),
        (dict(init_distance=[1.5, 4.0]), "each of the"),
        (dict(init_distance="4"), "init_distance"),
        (dict(loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False)), "use_sigmoid"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        make_head(**options)


def test_loss_predict_and_tensor_modes_of_a_whole_detector():
    cfg = Config.fromfile(CONFIGS / "jla_triplehead_r18_fpn_12e_bccd.py").model
    model = MODELS.build(cfg)
    packed = demo_mm_inputs(2, image_shapes=[(3, 128, 128), (3, 96, 128)], num_classes=3)
    data = model.data_preprocessor(packed, training=True)
    assert set(model(**data, mode="loss")) == {
        "loss_cls", "loss_bbox", "loss_bbox_coarse", "loss_iou"
    }  # fmt: skip
    model.eval()
    with torch.no_grad():
        assert len(model(**data, mode="predict")) == 2
        assert len(model(**data, mode="tensor")) == 4


class Recorder(torch.nn.Module):
    """A loss that remembers what it is given."""

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        self.pred, self.target, self.weight = pred, target, weight
        return pred.sum(dim=1) * 0 if reduction_override == "none" else pred.sum() * 0


def two_box_head(**options):
    """A head whose refined boxes are not its coarse ones."""
    head = make_head(**options)
    torch.nn.init.normal_(head.conv_reg.weight, std=0.1)
    for level, scale in enumerate(head.scales):
        torch.nn.init.constant_(scale.scale, 1.0 + level)
    return head


@pytest.mark.parametrize("options, place", [({}, 3), (dict(assign_boxes="coarse"), 3),
                                            (dict(assign_boxes="refined"), 1)])  # fmt: skip
def test_boxes_that_drive_the_assigner(options, place):
    head = two_box_head(**options)
    outs, seen = head(features(1)), []
    assign = head.assigner.assign_batch

    def record(points, strides, logits, bboxes, gts):
        seen.append(bboxes)
        return assign(points, strides, logits, bboxes, gts)

    head.assigner.assign_batch = record
    head.loss_by_feat(*outs, [ONE], METAS[:1])
    points, _ = head.prior_generator.joined(outs[0])
    assert torch.equal(seen[0], head.decode(points, outs[place]))
    assert not torch.equal(seen[0], head.decode(points, outs[4 - place]))
    assert not seen[0].requires_grad


@pytest.mark.parametrize(
    "options, place",
    [
        ({}, 3),
        (dict(iou_target="coarse"), 3),
        (dict(iou_target="refined"), 1),
        (dict(iou_mode="giou"), 3),
    ],
)
def test_the_iou_branch_is_trained_towards_the_iou_of_its_box(options, place):
    head = two_box_head(**options)
    head.loss_iou = Recorder()
    outs = head(features(1))
    head.loss_by_feat(*outs, [ONE], METAS[:1])
    targets = head.get_targets(outs[0], outs[1], [ONE], outs[3])
    boxes = head.decode(targets.points, outs[place]).flatten(0, 1)[targets.prior_inds]
    expected = [
        bbox_overlaps(box[None], gt[None], mode=head.iou_mode).item()
        for box, gt in zip(boxes, targets.gt_bboxes)
    ]
    assert head.iou_mode == options.get("iou_mode", "iou")
    torch.testing.assert_close(head.loss_iou.target, torch.tensor(expected).clamp(min=0))
    assert not head.loss_iou.target.requires_grad
    logits = torch.cat([level.flatten() for level in outs[2]])
    assert torch.equal(head.loss_iou.pred, logits[targets.prior_inds])


def test_each_box_loss_sees_its_boxes():
    head = two_box_head()
    head.loss_bbox, head.loss_bbox_coarse = Recorder(), Recorder()
    outs = head(features(1))
    head.loss_by_feat(*outs, [ONE], METAS[:1])
    targets = head.get_targets(outs[0], outs[1], [ONE], outs[3])
    for loss, place in ((head.loss_bbox, 1), (head.loss_bbox_coarse, 3)):
        boxes = head.decode(targets.points, outs[place]).flatten(0, 1)
        assert torch.equal(loss.pred, boxes[targets.prior_inds])
    assert not torch.equal(head.loss_bbox.pred, head.loss_bbox_coarse.pred)


def test_defaults_are_the_papers():
    head = make_head()
    assert head.score_mode == "product" and head.with_iou_branch
    assert (head.offset_mode, head.refine_mode, head.refine_detach) == ("box", "multiply", True)
    for loss in (head.loss_bbox, head.loss_bbox_coarse):
        assert type(loss).__name__ == "IoULoss" and loss.loss_weight == 1
    assert head.loss_iou.use_sigmoid and head.loss_iou.loss_weight == 1
    assert head.loss_cls.alpha == 0.25 and head.loss_cls.gamma == 2
    assert not any(isinstance(module, RFAConv2d) for module in head.modules())
    assert not head.sparse_refinement and head.gradient_mul == 0.1


def test_gradient_into_the_coarse_box_through_the_offsets():
    """A tenth of it by default; the class logits reach the coarse output on no other way."""
    found = {}
    for options in (dict(), dict(gradient_mul=1.0), dict(gradient_mul=0.0)):
        head = make_head(**options)
        logits = head(features(1))[0]
        sum(level.square().sum() for level in logits).backward()
        gradient = head.conv_coarse.weight.grad
        found[options.get("gradient_mul", "default")] = gradient.norm().item()
    assert found[1.0] > 0 and found[0.0] == 0
    assert found["default"] == pytest.approx(0.1 * found[1.0], rel=1e-4)


def test_refinement_stops_the_gradient_into_the_coarse_box():
    """With no gradient through the offsets either, the refined boxes leave the coarse box alone."""
    for detach in (True, False):
        head = two_box_head(refine_detach=detach, gradient_mul=0.0)
        sum(level.sum() for level in head(features(1))[1]).backward()
        assert head.conv_coarse.weight.grad.any() != detach


def test_other_readings_of_the_refinement():
    output, coarse = torch.tensor([-1.5, 2.0]), torch.tensor([3.0, 5.0])
    added = make_head(refine_mode="add")._refine(output.bfloat16(), coarse)
    assert added.tolist() == [1.5, 7.0] and added.dtype == torch.float32


@pytest.mark.parametrize("mode", ["multiply", "add"])
def test_an_untrained_refinement_keeps_the_coarse_box(mode):
    _, refined, _, coarse = make_head(refine_mode=mode)(features(1))
    for mine, theirs in zip(refined, coarse):
        torch.testing.assert_close(mine, theirs)


def test_without_refinement_the_coarse_box_is_the_final_one():
    """It has ``loss_bbox``, and nothing is left of the regression branch."""
    ratios = [1.5, *[4.0] * (len(STRIDES) - 1)]
    head = make_head(refine_mode="none", init_distance=ratios, loss_bbox=dict(type="GIoULoss"))
    names = {name.partition(".")[0] for name, _ in head.named_parameters()}
    assert not names & {"reg_convs", "reg_guided", "conv_reg", "scales"} and "cls_guided" in names
    _, final, _, coarse = head(features())
    for mine, theirs in zip(final, coarse):
        assert torch.equal(mine, theirs)
    losses, _ = losses_of(head, [ONE, CROWD])
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_iou"}
    head.loss_bbox = Recorder()
    losses_of(head, [ONE, CROWD])
    assert head.loss_bbox.pred.shape[0] > 0


def test_outputs_of_a_level_by_its_layers():
    """Tower, guided layer, ReLU, output, in both branches; the coarse box guides."""
    head = two_box_head().eval()
    x, level, stride = features(1)[1], 1, STRIDES[1]
    outs = [part[level] for part in head(features(1))]
    pre = head.pre_convs(x)
    coarse = (head.conv_coarse(pre) * head.coarse_scales[level].scale).exp()
    offset = star_dcn_offset(coarse, "box", 0.1)
    guided = [
        auto_deform_conv2d(tower(x), offset, layer.weight).relu()
        for tower, layer in ((head.cls_convs, head.cls_guided), (head.reg_convs, head.reg_guided))
    ]
    refined = (head.conv_reg(guided[1]) * head.scales[level].scale).exp() * coarse
    expected = [head.conv_cls(guided[0]), refined * stride, head.conv_iou(pre)]
    for mine, theirs in zip(outs, [*expected, coarse * stride], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_an_unguided_classification_branch_is_a_tower_on_the_regular_grid():
    head = two_box_head(guided_branches="regression").eval()
    paper = two_box_head()
    assert len(head.cls_convs) == len(paper.cls_convs) + 1 == len(head.reg_convs) + 1
    assert not hasattr(head, "cls_guided") and isinstance(
        head.cls_convs[-1].norm, torch.nn.GroupNorm
    )
    x = features(1)
    for level, feat in enumerate(x):
        torch.testing.assert_close(head(x)[0][level], head.conv_cls(head.cls_convs(feat)))
    moved = [part[1] for part in head(x)]
    with torch.no_grad():
        head.conv_coarse.bias += 1  # another coarse box
    found = [part[1] for part in head(x)]
    assert torch.equal(found[0], moved[0]) and not torch.allclose(found[1], moved[1])


def test_the_shortcut_adds_what_the_guided_layer_of_classification_reads():
    head, x = two_box_head().eval(), features(1)
    plain = head(x)
    head.cls_shortcut = True
    found = head(x)
    for level, feat in enumerate(x):
        # the output convolution is linear but for its bias
        bias = head.conv_cls.bias[:, None, None]
        added = head.conv_cls(head.cls_convs(feat)) - bias
        torch.testing.assert_close(found[0][level], plain[0][level] + added, rtol=1e-4, atol=1e-4)
        for mine, theirs in zip(found[1:], plain[1:]):
            assert torch.equal(mine[level], theirs[level])


def test_the_offset_mode_reaches_the_guided_layers():
    logits = [make_head(offset_mode=mode)(features(1))[0][0] for mode in ("box", "grid_plus_box")]
    assert not torch.allclose(*logits)


@pytest.mark.parametrize("position", ["first", "last"])
def test_adaptors_of_the_three_branches_start_at_zero(position):
    head = make_head(rfa_position=position, stacked_convs=3)
    place = 0 if position == "first" else -1
    for tower in (head.pre_convs, head.cls_convs, head.reg_convs):
        blocks = [isinstance(block.conv, RFAConv2d) for block in tower]
        assert blocks[place] and sum(blocks) == 1
        layer = tower[place].conv
        assert not any(p.any() for p in layer.conv_offset.parameters())


def test_one_convolution_a_tower_leaves_the_guided_layers_alone():
    head = make_head(stacked_convs=1)
    assert head.cls_guided.in_channels == 16 and len(head.cls_convs) == 0
    _, total = losses_of(head, [ONE])
    assert total.isfinite()


def test_without_the_iou_branch_there_is_no_layer():
    head = make_head(with_iou_branch=False, score_mode="class")
    assert not hasattr(head, "conv_iou") and head(features(1))[2] == [None] * 5
