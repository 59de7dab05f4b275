"""TripleHead and the loss-aware FCOS head: paper's parameter counts, equations, awkward batches."""

import math
from pathlib import Path

import pytest
import torch
from dense_head_cases import CROWD, METAS, ONE, STRIDES, features, instances, losses_of, make_head
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

CONFIGS = Path(__file__).parents[3] / "configs"
OPTIONS = [
    dict(),
    dict(offset_mode="grid_plus_box"),
    dict(refine_mode="add"),
    dict(refine_mode="none"),
    dict(refine_detach=False),
    dict(confidence_target="refined"),
    dict(score_mode="geometric_mean"),
    dict(score_mode="class"),
    dict(assign_boxes="refined"),
    dict(with_confidence=False, score_mode="class"),
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
    assert ("loss_confidence" in losses) == head.with_confidence
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
    head = make_head(prior_distance=4.0)
    for conv in (head.conv_coarse, head.conv_reg):
        torch.nn.init.zeros_(conv.weight)
    _, refined, _, coarse = head(features())
    for distances, stride in zip(coarse, STRIDES):
        torch.testing.assert_close(distances, torch.full_like(distances, 4.0 * stride))
    for mine, theirs in zip(refined, coarse):
        torch.testing.assert_close(mine, theirs)


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


def test_detection_score_is_probability_times_confidence():
    """One class, no NMS threshold: the best score is the largest product over all locations."""
    head = make_head(num_classes=1).eval()
    cls_scores, _, confidences, _ = outs = head(features(1))
    result = head.predict_by_feat(*outs, batch_img_metas=METAS[:1])[0]
    products = [(c.sigmoid() * q.sigmoid()).max() for c, q in zip(cls_scores, confidences)]
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
    assert not (targets.background & targets.edges.ignored).any()
    assert targets.edges.ignored.any()
    positive = torch.zeros_like(targets.background)
    positive[targets.prior_inds] = True
    assert (targets.background | positive | targets.edges.ignored).all()


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
    assert head.classification_loss(targets).item() == pytest.approx(
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
        (dict(score_mode="sum"), "score_mode"),
        (dict(with_confidence=False), "with_confidence"),
        (dict(prior_distance=0), "prior_distance"),
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
        "loss_cls", "loss_bbox", "loss_bbox_coarse", "loss_confidence"
    }  # fmt: skip
    model.eval()
    with torch.no_grad():
        assert len(model(**data, mode="predict")) == 2
        assert len(model(**data, mode="tensor")) == 4
