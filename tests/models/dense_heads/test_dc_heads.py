"""The four DC heads: how they are built, and their losses beside those of mmdet's heads."""

import math

import pytest
import torch
from helpers.dc_head_cases import (
    FOCAL,
    HEADS,
    METAS,
    SCENE,
    SOFTMAX,
    features,
    instances,
    make,
    total,
    with_dc,
    wrapped,
)
from mmdet.registry import MODELS

from misalign_det.models import DCLoss
from misalign_det.models.losses.dc_loss import with_use_sigmoid


class OwnDCLoss(DCLoss):
    """A user's loss derived from DCLoss."""


class SilentDCLoss(DCLoss):
    """One that knows its own loss, and so hides it from the head's config."""

    def __init__(self):
        super().__init__(dict(FOCAL), use_sigmoid=True)


@pytest.mark.parametrize("kind", HEADS)
class TestConstruction:
    @pytest.mark.parametrize("given", ["DCLoss", "mmdet.DCLoss", DCLoss, OwnDCLoss])
    @pytest.mark.parametrize("as_class", [False, True])
    def test_type_as_string_scoped_or_class(self, kind, given, as_class):
        loss = dict(wrapped(kind))
        if as_class:
            loss["type"] = MODELS.get(loss["type"])
        head = make(kind, loss_cls=dict(type=given, loss=loss))
        assert head.use_sigmoid_cls and head.cls_out_channels == 3
        assert isinstance(head.loss_cls, MODELS.get(given) if isinstance(given, str) else given)

    def test_use_sigmoid_given_or_not(self, kind):
        loss = wrapped(kind)
        silent = dict(type=loss["type"])  # sigmoid by its default
        for options in (dict(loss=loss), dict(loss=loss, use_sigmoid=True), dict(loss=silent),
                        dict(loss=loss, use_sigmoid=None)):  # fmt: skip
            head = make(kind, loss_cls=dict(type="DCLoss", **options))
            assert head.use_sigmoid_cls and head.cls_out_channels == 3
        softmax = (dict(), dict(use_sigmoid=False)) if kind != "DCGFLHead" else ()
        for options in softmax:  # GFL's targets are for its own loss alone
            head = make(kind, loss_cls=dict(type=DCLoss, loss=SOFTMAX, **options))
            assert not head.use_sigmoid_cls and head.cls_out_channels == 4
        with pytest.raises(ValueError, match="use_sigmoid"):
            make(kind, loss_cls=dict(type="DCLoss", loss=loss, use_sigmoid=False))

    def test_a_config_that_hides_the_wrapped_loss(self, kind):
        with pytest.raises(ValueError, match="use_sigmoid beside its type"):
            make(kind, loss_cls=dict(type=SilentDCLoss))

    def test_a_wrapped_loss_of_other_targets(self, kind):
        quality = kind == "DCGFLHead"
        for name in ("VarifocalLoss", "FocalLoss" if quality else "QualityFocalLoss"):
            wrong = dict(type="DCLoss", loss=dict(type=name, use_sigmoid=True))
            fit = "QualityFocalLoss" if quality else "FocalLoss"
            with pytest.raises(ValueError, match=f"class indices.* {name} does not take.*{fit}"):
                make(kind, loss_cls=wrong)

    def test_default_loss_is_mmdets(self, kind):
        mine, theirs = make(kind), make(kind[2:])
        assert type(mine.loss_cls) is type(theirs.loss_cls)
        assert mine.use_sigmoid_cls and mine.cls_out_channels == theirs.cls_out_channels

    def test_the_config_stays_as_it_was(self, kind):
        config = dict(type="DCLoss", loss=dict(wrapped(kind)))
        assert with_use_sigmoid(config) == dict(config, use_sigmoid=True)
        assert config == dict(type="DCLoss", loss=wrapped(kind))
        assert with_use_sigmoid(config["loss"]) is config["loss"]

    def test_mmdets_own_head(self, kind):
        """It reads use_sigmoid from the config; DCLoss there is the wrapped loss."""
        loss = wrapped(kind)
        with pytest.raises(ValueError, match=kind):
            make(kind[2:], loss_cls=dict(type="DCLoss", loss=loss))
        found = []
        for loss_cls in (loss, dict(type="DCLoss", loss=loss, use_sigmoid=True)):
            head = make(kind[2:], loss_cls=loss_cls)
            assert head.cls_out_channels == 3
            found.append(total(head.loss_by_feat(*head(features()), SCENE, METAS)))
        assert found[0]["loss_cls"] == found[1]["loss_cls"]


@pytest.mark.parametrize("kind", HEADS)
class TestLosses:
    def test_sums_are_mmdets_and_gradients_are_not(self, kind):
        values, gradients = [], []
        for head in (make(kind[2:], loss_cls=wrapped(kind)), with_dc(kind)):
            values.append(total(head.loss_by_feat(*head(features()), SCENE, METAS)))
            head.zero_grad()
            values[-1]["loss_cls"].backward()
            gradients.append([p.grad for p in head.parameters() if p.grad is not None])
        for name in values[0]:
            torch.testing.assert_close(values[1][name], values[0][name])
        assert any(not torch.allclose(*pair, rtol=1e-3) for pair in zip(*gradients))

    def test_shape_of_the_result_is_mmdets(self, kind):
        for gts in (SCENE, [instances(), instances()]):
            head, plain = with_dc(kind), make(kind[2:], loss_cls=wrapped(kind))
            mine, theirs = (
                each.loss_by_feat(*each(features()), gts, METAS) for each in (head, plain)
            )
            assert type(mine["loss_cls"]) is type(theirs["loss_cls"])
            torch.testing.assert_close(total(mine)["loss_cls"], total(theirs)["loss_cls"])

    def test_bfloat16_autocast(self, kind):
        head = with_dc(kind)
        plain = make(kind, loss_cls=wrapped(kind))
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = (
                total(each.loss_by_feat(*each(features()), SCENE, METAS)) for each in (head, plain)
            )
        found["loss_cls"].backward()
        torch.testing.assert_close(found["loss_cls"], expected["loss_cls"], rtol=1e-4, atol=1e-6)
        assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)

    def test_an_exception_leaves_nothing_behind(self, kind, monkeypatch):
        head = with_dc(kind)
        outs = head(features())

        def fail(*args, **kwargs):
            raise KeyboardInterrupt

        for owner, name in ((head, "positive_boxes"), (head.loss_cls.loss, "forward")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(KeyboardInterrupt):
                    head.loss_by_feat(*outs, SCENE, METAS)
            assert head._last_targets is None and not head.loss_cls.gives_unreduced
        assert total(head.loss_by_feat(*outs, SCENE, METAS))["loss_cls"].isfinite()


@pytest.mark.parametrize("momentum", [0, 0.75])
def test_ghm_in_retinanet(momentum):
    """It divides by its own count, whatever the head's avg_factor; three steps."""
    loss = dict(type="GHMC", bins=30, momentum=momentum, use_sigmoid=True)
    plain, head = (make("DCRetinaHead", loss_cls=config)
                   for config in (loss, dict(type="DCLoss", loss=loss)))  # fmt: skip
    for _ in range(3):
        expected, found = (
            total(each.loss_by_feat(*each(features()), SCENE, METAS))["loss_cls"]
            for each in (plain, head)
        )
        torch.testing.assert_close(found, expected)
    for mine, theirs in zip(head.loss_cls.loss.buffers(), plain.loss_cls.buffers()):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "DCGFLHead"])
def test_half_precision_scores(kind, dtype):
    """What a head in half precision hands over; mmdet's quality focal loss takes none."""
    head, plain = with_dc(kind), make(kind, loss_cls=wrapped(kind))
    outs = head(features())
    scores = [level.detach().to(dtype) for level in outs[0]]
    found, expected = (
        total(each.loss_by_feat(scores, *outs[1:], SCENE, METAS)) for each in (head, plain)
    )
    assert found["loss_cls"].dtype == expected["loss_cls"].dtype
    torch.testing.assert_close(found["loss_cls"], expected["loss_cls"], rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "DCGFLHead"])
def test_one_infinite_box(kind):
    """The sum of the classification losses is still mmdet's; its box loss is not finite then."""
    values = []
    for head in (with_dc(kind), make(kind, loss_cls=wrapped(kind))):
        outs = [[level.detach().clone() for level in part] for part in head(features())]
        outs[1][0][0, :, 5, 5] = math.inf
        outs[1][1][1] = -1e30
        values.append(total(head.loss_by_feat(*outs, SCENE, METAS))["loss_cls"])
    assert values[0].isfinite()
    torch.testing.assert_close(*values)
