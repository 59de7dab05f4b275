"""torch.export and torch.jit of the heads: any size, and the numbers of the eager model."""

import pytest
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

import misalign_det  # noqa: F401
from misalign_det.models.layers import RFAConv2d

HEADS = {
    "TripleHead": dict(sparse_refinement=True),
    "RFAHead": dict(rfa_modulated=True),
    "RFAFCOSHead": {},
}


class Raw(torch.nn.Module):
    """A head's outputs as one flat tuple, of one level."""

    def __init__(self, kind, **options):
        super().__init__()
        torch.manual_seed(0)
        test_cfg = ConfigDict(score_thr=0.9)  # nothing passes: a sparse refinement refines nothing
        config = dict(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=2, strides=[8])
        norm_cfg = dict(type="GN", num_groups=4)
        self.head = MODELS.build(
            dict(type=kind, **config, norm_cfg=norm_cfg, test_cfg=test_cfg, **options)
        )
        self.head.init_weights()
        for layer in self.head.modules():
            if isinstance(layer, RFAConv2d):
                torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
        if kind == "TripleHead":
            torch.nn.init.normal_(self.head.conv_reg.weight, std=0.1)
        self.eval().requires_grad_(False)

    def forward(self, x):
        return tuple(level for part in self.head((x,)) for level in part)


def assert_equal(program, model, size):
    torch.manual_seed(1)
    x = torch.randn(size)
    model.head.sparse_refinement = False
    for mine, other in zip(program(x), model(x), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
def test_torch_export_for_every_size(kind):
    model, any_size = Raw(kind, **HEADS[kind]), torch.export.Dim.AUTO
    shapes = {"x": dict.fromkeys((0, 2, 3), any_size)}
    example = (torch.randn(2, 16, 12, 15),)
    program = torch.export.export(model, example, dynamic_shapes=shapes).module()
    for size in ((2, 16, 12, 15), (1, 16, 20, 10), (3, 16, 3, 40)):
        assert_equal(program, model, size)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["TripleHead", "RFAHead"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_torch_jit_of_an_image(kind):
    model = Raw(kind, **HEADS[kind])
    traced = torch.jit.trace(model, (torch.randn(1, 16, 12, 15),), check_trace=False)
    assert_equal(traced, model, (1, 16, 12, 15))


@pytest.mark.parametrize("score_mode", ["geometric_mean", "product", "class"])
@pytest.mark.parametrize("kind", ["TripleHead", "RFAHead"])
def test_exporters_that_multiply_the_sigmoids_get_the_score(monkeypatch, kind, score_mode):
    """As mmdeploy does: it puts its own function in the place of mmdet's predict_by_feat."""

    def multiply(self, cls_scores, bbox_preds, score_factors=None, cfg=None, **kwargs):
        scores = cls_scores[0].sigmoid()
        if score_factors is not None:
            scores = scores * score_factors[0].sigmoid()
        return scores, cfg.score_thr

    monkeypatch.setattr(BaseDenseHead, "predict_by_feat", multiply)
    model = Raw(kind, score_mode=score_mode)
    model.head.test_cfg.score_thr = 0.09
    outs = model.head((torch.randn(1, 16, 4, 5) * 5,))
    probability, quality = outs[0][0].sigmoid(), outs[2][0].sigmoid()
    product = probability * quality
    expected = {"geometric_mean": product.sqrt(), "product": product, "class": probability}
    scores, threshold = model.head.predict_by_feat(*outs, batch_img_metas=[{}])
    torch.testing.assert_close(scores, expected[score_mode], rtol=1e-5, atol=1e-7)
    assert threshold == pytest.approx(0.3 if score_mode == "geometric_mean" else 0.09)
    assert model.head.test_cfg.score_thr == 0.09
