"""Box voting: against its definition box by box, against PAA's, and what it leaves alone."""

import re
from types import SimpleNamespace

import pytest
import torch
from helpers.nms_scenes import random_boxes
from helpers.voting_reference import voted_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import PAAHead
from mmdet.models.layers import multiclass_nms

from misalign_det.models.post_processing import box_voting
from misalign_det.models.post_processing.box_voting import PAIRS, check_box_voting

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
OPTIONS = [{}, dict(sigma=0.1), dict(sigma=1.0, iou_threshold=0.4), dict(iou_threshold=0.0)]


def scene(num=60, seed=0, classes=3, device="cpu"):
    """Boxes that NMS keeps and their labels, then boxes, scores and labels of the candidates."""
    boxes, scores, labels = random_boxes(num, seed, classes)
    _, keep = batched_nms(boxes, scores, labels, dict(type="nms", iou_threshold=0.5))
    parts = boxes[keep], labels[keep], boxes, scores, labels
    return [part.to(device) for part in parts]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed, options, device):
    parts = scene(seed=seed, device=device)
    voted = box_voting(*parts, **options)
    expected = voted_reference(*parts, **options)
    torch.testing.assert_close(voted.cpu().double(), expected, rtol=1e-5, atol=1e-3)
    assert (voted - parts[0]).abs().max() > 0.1  # or there was nothing to see
    assert voted.device == parts[0].device and voted.dtype == torch.float32


def test_each_option_matters():
    """The rows of the test above differ by more than what it allows."""
    parts = scene()
    results = [box_voting(*parts, **options) for options in OPTIONS]
    for first, second in zip(results, results[1:3]):
        assert (first - second).abs().max() > 0.1
    a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    label, labels, scores = torch.zeros(1), torch.zeros(2), torch.ones(2)
    assert (box_voting(a, label, b, scores, labels, 1.0, 0.49) != a).any()
    assert torch.equal(box_voting(a, label, b, scores, labels, 1.0, 0.51), a)


def test_by_hand():
    """Half overlap at sigma 1 / (4 log 2): the exponential is one half; scores 0.8 and 0.4."""
    sigma = 0.25 / torch.tensor(2.0).log().item()
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    scores, labels = torch.tensor([0.8, 0.4]), torch.tensor([2, 2])
    voted = box_voting(boxes[:1], labels[:1], boxes, scores, labels, sigma)
    # (0.8 * 10 + 0.2 * 5) / (0.8 + 0.2)
    torch.testing.assert_close(voted, torch.tensor([[0.0, 0, 10, 9]]))


@pytest.mark.parametrize("seed", range(3))
def test_equals_paas_score_voting(seed):
    """mmdet's PAAHead groups the boxes by class: the same boxes, in the order of the classes."""
    generator = torch.Generator().manual_seed(seed)
    boxes, _, _ = random_boxes(40, seed)
    scores = torch.rand(40, 3, generator=generator) ** 3
    padded = torch.cat([scores, torch.zeros(40, 1)], dim=1)
    dets, labels = multiclass_nms(boxes, padded, 0.2, dict(type="nms", iou_threshold=0.5), 100)
    head = SimpleNamespace(cls_out_channels=3)
    expected, classes = PAAHead.score_voting(head, dets, labels, boxes, padded, 0.2)
    rows, columns = (scores > 0.2).nonzero().T
    voted = box_voting(dets[:, :4], labels, boxes[rows], scores[rows, columns], columns)
    order = labels.sort(stable=True)[1]
    assert torch.equal(labels[order], classes) and len(classes) > 5
    torch.testing.assert_close(voted[order], expected[:, :4], rtol=1e-5, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 40), far=st.sampled_from([0.0, 1e4]))
def test_properties(seed, num, far):
    """Inside the hull of the class's boxes, in any order; copies of the candidates add nothing."""
    kept, labels, boxes, scores, classes = scene(num, seed)
    kept, boxes = kept + far, boxes + far
    voted = box_voting(kept, labels, boxes, scores, classes)
    for box, before, label in zip(voted, kept, labels):
        mine = boxes[classes == label]
        touching = (mine[:, :2] <= before[2:]).all(1) & (mine[:, 2:] >= before[:2]).all(1)
        assert (box >= mine[touching].min(0)[0]).all() and (box <= mine[touching].max(0)[0]).all()
    order = torch.randperm(num)
    shuffled = box_voting(kept, labels, boxes[order], scores[order], classes[order])
    torch.testing.assert_close(shuffled, voted, rtol=1e-6, atol=1e-5)
    twice = box_voting(kept, labels, boxes.repeat(2, 1), scores.repeat(2), classes.repeat(2))
    torch.testing.assert_close(twice, voted, rtol=1e-6, atol=1e-5)
    some = torch.randperm(len(kept))[:3]  # each kept box votes for itself
    assert torch.equal(box_voting(kept[some], labels[some], boxes, scores, classes), voted[some])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lone_boxes_and_duplicates_stay_to_the_last_digit(dtype, device):
    """Also far from the origin, and beside boxes of another class."""
    lone = torch.tensor([[1 / 3, 0.1, 7.7, 9.3], [1e4 + 1 / 3, 20.7, 1e4 + 30.1, 40.9]])
    lone = lone.to(device, dtype)
    boxes = torch.cat([lone, lone[1:], lone[1:], lone + 1])
    scores = torch.tensor([0.9, 0.7, 0.3, 0.123, 0.8, 0.8], device=device)
    labels = torch.tensor([0, 0, 0, 0, 1, 1], device=device)
    voted = box_voting(lone, labels[:2], boxes, scores, labels)
    assert torch.equal(voted, lone) and voted.dtype == dtype


def test_boxes_without_a_vote_stay():
    """Without area, not finite, of scores 0; and a box that is not finite spoils no other one."""
    inf, nan = float("inf"), float("nan")
    boxes = torch.tensor(
        [[5.0, 5, 5, 9], [0, 0, inf, 4], [nan, 0, 3, 4], [50, 50, 60, 60], [50, 50, 60, 62]]
    )
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.6]), torch.zeros(5)
    voted = box_voting(boxes, labels, boxes, scores, labels)
    torch.testing.assert_close(voted[:3], boxes[:3], rtol=0, atol=0, equal_nan=True)
    assert voted[3:].isfinite().all() and 60 < voted[3, 3] < 62
    assert torch.equal(box_voting(boxes[3:], labels[3:], boxes, scores * 0, labels), boxes[3:])


def test_nothing_kept_and_nothing_before():
    kept, labels, *candidates = scene()
    assert box_voting(kept[:0], labels[:0], *candidates).shape == (0, 4)
    none = [part[:0] for part in candidates]
    assert torch.equal(box_voting(kept, labels, *none), kept)


def test_block_by_block(monkeypatch):
    """More pairs than one block holds: the same boxes."""
    parts = scene(200, classes=2)
    whole = box_voting(*parts)
    assert len(parts[0]) * 200 < PAIRS
    monkeypatch.setitem(box_voting.__globals__, "PAIRS", 3 * 200 + 7)
    assert torch.equal(box_voting(*parts), whole)
    monkeypatch.setitem(box_voting.__globals__, "PAIRS", 1)
    assert torch.equal(box_voting(*parts), whole)


@pytest.mark.cuda
def test_no_host_device_synchronisation(simulated_cuda):
    if simulated_cuda is None:
        pytest.skip("counted on the simulated device alone")
    for num in (20, 200):
        parts = scene(num, device="cuda")
        with simulated_cuda.count() as counts:
            box_voting(*parts)
        assert counts.num_syncs == 0 and counts.num_launches < 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(sigma=0), "box_voting.sigma must be positive, not 0"),
        (dict(sigma=-1.0), "box_voting.sigma must be positive"),
        (dict(sigma=float("nan")), "box_voting.sigma must be positive"),
        (dict(sigma="0.1"), "box_voting.sigma must be a number, not '0.1'"),
        (dict(iou_threshold=1), r"box_voting.iou_threshold must be in \[0, 1\), not 1"),
        (dict(iou_threshold=-0.1), "box_voting.iou_threshold must be in"),
        (dict(sigm=0.1), "box_voting has no sigm; it takes sigma and iou_threshold"),
        (0.025, "must be a dict of sigma and iou_threshold, or None for no voting, not 0.025"),
        (True, "must be a dict"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(ValueError, match=said):
        check_box_voting(options)
    if isinstance(options, dict) and "sigm" not in options:
        with pytest.raises(ValueError, match=re.compile(said)):
            box_voting(*scene(), **options)


def test_right_options():
    for options in (None, {}, *OPTIONS):
        check_box_voting(options)


def test_rotated_boxes_are_refused():
    kept, labels, boxes, scores, classes = scene()
    rotated = torch.cat([boxes, boxes[:, :1]], dim=1)
    with pytest.raises(ValueError, match=r"axis-aligned boxes \(n, 4\), not \(60, 5\)"):
        box_voting(rotated[: len(kept)], labels, rotated, scores, classes)
