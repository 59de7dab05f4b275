"""DCLoss around every classification loss of mmdet's, and around losses that it cannot weigh."""

import copy
import pickle

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

import misalign_det  # noqa: F401
from misalign_det.models.losses import DCLoss
from misalign_det.models.losses.dc_loss import positive_rows, with_use_sigmoid

NUM_CLASSES = 3
LABELS = [torch.tensor([0, 3, 2, 3, 1]), torch.tensor([3, 3, 3]), torch.tensor([1, 3])]
WEIGHTS = [torch.tensor([1.0, 0.5, 2, 0, 1]), torch.tensor([1.0, 1, 0]), torch.tensor([3.0, 1])]
LOSSES = {
    "focal": dict(type="FocalLoss", use_sigmoid=True, loss_weight=0.7),
    "focal, one-hot": dict(type="FocalLoss", use_sigmoid=True),
    "focal of V3Det": dict(type="FocalCustomLoss", use_sigmoid=True, num_classes=NUM_CLASSES),
    "quality focal": dict(type="QualityFocalLoss", use_sigmoid=True),
    "quality focal, dense": dict(type="QualityFocalLoss", use_sigmoid=True),
    "varifocal, dense": dict(type="VarifocalLoss", use_sigmoid=True),
    "softmax": dict(type="CrossEntropyLoss", class_weight=[1.0, 2, 3, 0.5]),
    "softmax, ignoring": dict(type="CrossEntropyLoss", ignore_index=2, avg_non_ignore=True),
    "softmax of V3Det": dict(type="CrossEntropyCustomLoss", num_classes=NUM_CLASSES),
    "sigmoid": dict(type="CrossEntropyLoss", use_sigmoid=True, class_weight=[1.0, 2, 3]),
    "GHM": dict(type="GHMC", bins=10, use_sigmoid=True, loss_weight=0.7),
    "GHM with momentum": dict(type="GHMC", bins=30, momentum=0.75, use_sigmoid=True),
}


def make(name):
    """The loss itself, and DCLoss around it."""
    config = LOSSES[name]
    wrapped = MODELS.build(config)
    return wrapped, MODELS.build(
        dict(type="DCLoss", loss=config, use_sigmoid=wrapped.use_sigmoid or None)
    )


def calls(name):
    """Scores and targets of three levels in the form that the loss takes."""
    generator = torch.Generator().manual_seed(0)
    columns = NUM_CLASSES + (not make(name)[0].use_sigmoid)
    for labels, weight in zip(LABELS, WEIGHTS):
        scores = torch.randn(len(labels), columns, generator=generator).requires_grad_()
        quality = torch.rand(len(labels), generator=generator)
        one_hot = nn.functional.one_hot(labels, NUM_CLASSES + 1)[:, :NUM_CLASSES]
        target = labels
        if "one-hot" in name:
            target = one_hot
        elif "dense" in name:
            target = one_hot * quality[:, None]
            if "varifocal" in name:
                weight = weight[:, None].expand(target.shape)
        elif name == "quality focal":
            target = labels, quality
        yield scores, target, weight


def in_batch(loss, name, avg_factor, boxes):
    """Value of each level, with the positives' boxes as given."""
    with loss.unreduced():
        rows = [
            loss(scores, target, weight, avg_factor=avg_factor)
            for scores, target, weight in calls(name)
        ]
    return reduced(loss, rows, boxes)


def reduced(loss, rows, boxes):
    """Values of unreduced calls."""
    positive = positive_rows(rows, NUM_CLASSES)
    return loss.reduce(rows, positive, loss.coefficient(*boxes))


def one_call(loss, boxes, *args, **kwargs):
    """Value of a batch of one call."""
    with loss.unreduced():
        rows = loss(*args, **kwargs)
    return reduced(loss, [rows], boxes)[0]


GT = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
MOVED = GT + torch.tensor([[0.0], [2], [8], [20]])


@pytest.mark.parametrize("avg_factor", [4.0, None])
@pytest.mark.parametrize("name", LOSSES)
class TestMmdetsLosses:
    def test_equal_coefficients_are_the_wrapped_loss(self, name, avg_factor):
        wrapped, loss = make(name)
        results = in_batch(loss, name, avg_factor, (GT, GT))
        for result, (scores, target, weight) in zip(results, calls(name)):
            plain = wrapped(scores, target, weight, avg_factor=avg_factor)
            torch.testing.assert_close(result, plain)
        for mine, theirs in zip(loss.loss.buffers(), wrapped.buffers()):
            assert torch.equal(mine, theirs)  # a batch counts once in running statistics

    def test_gradients_of_equal_coefficients_are_too(self, name, avg_factor):
        gradients = []
        wrapped, loss = make(name)
        levels = list(calls(name))
        for given in (wrapped, loss):
            with loss.unreduced():
                values = [given(s, t, w, avg_factor=avg_factor) for s, t, w in levels]
            values = reduced(loss, values, (GT, GT)) if given is loss else values
            gradients.append(torch.autograd.grad(sum(values), [level[0] for level in levels]))
        for mine, theirs in zip(*gradients):
            torch.testing.assert_close(mine, theirs)

    def test_different_coefficients(self, name, avg_factor):
        """Each level changes; the sum over levels stays, and so do levels without positives."""
        wrapped, loss = make(name)
        results = in_batch(loss, name, avg_factor, (MOVED, GT))
        plain = [wrapped(s, t, w, avg_factor=avg_factor) for s, t, w in calls(name)]
        assert results[0] > plain[0] and results[2] < plain[2]
        torch.testing.assert_close(results[1], plain[1])
        torch.testing.assert_close(sum(results), sum(plain))

    def test_outside_a_batch(self, name, avg_factor):
        wrapped, loss = make(name)
        for scores, target, weight in calls(name):
            expected = wrapped(scores, target, weight, avg_factor=avg_factor)
            assert torch.equal(loss(scores, target, weight, avg_factor=avg_factor), expected)


def test_ghm_keeps_the_divisor_that_it_finds():
    """Valid entries, not the head's number of positives."""
    wrapped, loss = make("GHM")
    scores, labels, weight = next(calls("GHM"))
    rows = loss.loss(scores, labels, weight, reduction_override="none")
    positive = labels < NUM_CLASSES
    boxes = GT[:3].clone()
    boxes[2] += 1000
    result = one_call(loss, (boxes, GT[:3]), scores, labels, weight, avg_factor=1.0)
    total = rows.sum(dim=1)[positive]
    with torch.no_grad():
        lambdas = torch.tensor([2.0, 2, 1 / torch.tensor(0.5).sigmoid()])
        factor = torch.ones(5)
        factor[positive] = lambdas * total.sum() / (lambdas * total).sum()
        expected = (rows.sum(dim=1) * factor).sum() / 12  # four of five rows of three count
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=0)


def test_no_valid_entry_at_all():
    for name in LOSSES:
        wrapped, loss = make(name)
        scores, target, weight = next(calls(name))
        result = one_call(loss, (MOVED[:3], GT[:3]), scores, target, weight * 0)
        result.backward()
        assert result == 0 and not scores.grad.any(), name


@pytest.mark.parametrize("where", ["in a batch", "outside"])
def test_further_keywords_reach_the_wrapped_loss(where):
    wrapped, loss = make("softmax")
    scores, labels, _ = next(calls("softmax"))

    def value(**kwargs):
        if where == "outside":
            return loss(scores, labels, **kwargs)
        return one_call(loss, (GT[:3], GT[:3]), scores, labels, **kwargs)

    for kwargs in (dict(ignore_index=3), dict(ignore_index=3, avg_factor=2.0),
                   dict(weight=torch.rand(5), ignore_index=0)):  # fmt: skip
        torch.testing.assert_close(value(**kwargs), wrapped(scores, labels, **kwargs))
        assert value(**kwargs) != value(**dict(kwargs, ignore_index=None))


@pytest.mark.parametrize("kind", [tuple, list])
def test_labels_and_qualities_as_a_pair(kind):
    wrapped, loss = make("quality focal")
    scores, target, weight = next(calls("quality focal"))
    boxes = GT[:3], GT[:3]
    result = one_call(loss, boxes, scores, kind(target), weight, avg_factor=2.0)
    torch.testing.assert_close(result, wrapped(scores, target, weight, avg_factor=2.0))


def test_weights_under_another_name():
    """mmdet's GHMC calls them label_weight."""
    wrapped, loss = make("GHM")
    scores, labels, weight = next(calls("GHM"))
    expected = wrapped(scores, labels, label_weight=weight)
    assert torch.equal(loss(scores, labels, label_weight=weight), expected)
    found = one_call(loss, (GT[:3], GT[:3]), scores, labels, label_weight=weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("by", ["config", "call"])
def test_reductions(reduction, by):
    options = dict(reduction=reduction) if by == "config" else {}
    override = reduction if by == "call" else None
    config = dict(LOSSES["focal"], **options)
    loss = MODELS.build(dict(type="DCLoss", loss=config, use_sigmoid=True))
    scores, labels, weight = next(calls("focal"))
    call = (scores, labels, weight)
    result = one_call(loss, (GT[:3], GT[:3]), *call, reduction_override=override)
    expected = MODELS.build(config)(scores, labels, weight, reduction_override=override)
    torch.testing.assert_close(result, expected)
    assert result.shape == (scores.shape if reduction == "none" else ())
    moved = one_call(loss, (MOVED[:3], GT[:3]), *call, reduction_override=override)
    torch.testing.assert_close(moved.sum(), expected.sum())
    if reduction == "none":
        factors = (moved / expected)[weight > 0]  # of the rows: equal in all columns
        torch.testing.assert_close(factors, factors[:, :1].expand(-1, 3))
        assert factors[0, 0] > 1 and factors[1, 0] == 1 and factors[3, 0] < 1


class OwnFocalLoss(nn.Module):
    """A user's loss without any attribute that mmdet's losses have."""

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        return MODELS.build(LOSSES["focal"])(pred, target, weight, avg_factor, reduction_override)


class WholeLoss(nn.Module):
    """A user's loss that reduces whatever it is asked for."""

    def forward(self, pred, target, weight=None, **kwargs):
        return nn.functional.cross_entropy(pred, target)


class LossWithoutReduction(WholeLoss):
    def forward(self, pred, target, weight=None, avg_factor=None):
        return nn.functional.cross_entropy(pred, target)


def test_a_loss_without_mmdets_attributes():
    loss = MODELS.build(dict(type="DCLoss", loss=dict(type=OwnFocalLoss), use_sigmoid=True))
    assert loss.use_sigmoid is True
    assert MODELS.build(dict(type="DCLoss", loss=dict(type=OwnFocalLoss))).use_sigmoid is False
    results = in_batch(loss, "focal", 4.0, (GT, GT))
    for result, (scores, target, weight) in zip(results, calls("focal")):
        torch.testing.assert_close(result, loss.loss(scores, target, weight, 4.0))


@pytest.mark.parametrize(
    "config",
    [
        dict(type="SeesawLoss", num_classes=NUM_CLASSES),
        dict(type="EQLV2Loss", num_classes=NUM_CLASSES),
        dict(type="CrossEntropyLoss", use_mask=True),
        dict(type=LossWithoutReduction),
    ],
    ids=lambda config: getattr(config["type"], "__name__", config["type"]),
)
def test_losses_of_the_whole_batch_are_refused(config):
    with pytest.raises(ValueError, match="loss of each row"):
        MODELS.build(dict(type="DCLoss", loss=config))


def test_a_loss_that_reduces_all_the_same_is_refused_at_its_first_call():
    loss = MODELS.build(dict(type="DCLoss", loss=dict(type=WholeLoss)))
    with loss.unreduced(), pytest.raises(TypeError, match="WholeLoss"):
        loss(torch.randn(4, 4), torch.tensor([0, 1, 3, 3]), avg_factor=1.0)
    assert loss(torch.zeros(4, 4), torch.tensor([0, 1, 3, 3])) > 0


@pytest.mark.parametrize("kind", ["DCLoss", "mmdet.DCLoss", DCLoss])
def test_a_sigmoid_loss_must_be_declared(kind):
    """mmdet's heads read use_sigmoid from the config; without it they would build softmax."""
    config = dict(type=kind, loss=LOSSES["focal"])
    with pytest.raises(ValueError, match="use_sigmoid=True.*DCRetinaHead"):
        MODELS.build(config)
    assert MODELS.build(dict(config, use_sigmoid=True)).use_sigmoid is True
    assert MODELS.build(dict(config, loss=LOSSES["softmax"])).use_sigmoid is False


class OwnDCLoss(DCLoss):
    """A user's loss derived from DCLoss."""


@pytest.mark.parametrize("kind", ["DCLoss", "mmdet.DCLoss", DCLoss, OwnDCLoss])
def test_use_sigmoid_is_filled_in_for_a_head(kind):
    config = dict(type=kind, loss=dict(type="FocalLoss"))  # sigmoid by its default
    for given in (config, dict(config, use_sigmoid=None)):
        copied = dict(given)
        assert with_use_sigmoid(given) == dict(config, use_sigmoid=True)
        assert given == copied
    assert with_use_sigmoid(dict(config, loss=LOSSES["softmax"]))["use_sigmoid"] is False
    own = dict(type=OwnFocalLoss, use_sigmoid=True)
    assert with_use_sigmoid(dict(config, loss=own, use_sigmoid=False))["use_sigmoid"] is False
    for other in (LOSSES["focal"], dict(type="GHMC", loss=config), dict(type=kind)):
        assert with_use_sigmoid(other) is other


def test_attributes_of_the_wrapped_loss():
    """mmdet's heads ask for them: V3Det's activation and accuracy, and the weight."""
    wrapped, loss = make("softmax of V3Det")
    assert loss.custom_cls_channels and loss.loss_weight == 1.0
    scores = torch.randn(2, 4)
    assert torch.equal(loss.get_activation(scores), wrapped.get_activation(scores))
    assert not hasattr(make("focal")[1], "custom_cls_channels")
    with pytest.raises(AttributeError):  # asked before it has a loss, as by copy
        _ = DCLoss.__new__(DCLoss).loss
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied.get_cls_channels(NUM_CLASSES) == NUM_CLASSES + 1
