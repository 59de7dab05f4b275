"""CLBalancedNMS of CUDA tensors: the CPU's results, no more host syncs than mmcv's NMS."""

import itertools
import math

import pytest
import torch
from helpers.nms_scenes import check_equal_on_cuda, odd_boxes, random_boxes, without_ties
from mmcv.ops import batched_nms, nms

from misalign_det.models.post_processing import cl_balanced_nms, nms_cuda

pytestmark = pytest.mark.cuda
CLOSENESS, OUTPUT = ("gaussian", "linear", "literal"), ("own", "best", "selection")


@pytest.fixture(params=["triton", "torch"])
def backend(request, monkeypatch):
    """With Triton, and without it."""
    if request.param == "torch":
        monkeypatch.setattr(nms_cuda, "has_triton", lambda x: False)
    return request.param


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_cpu(seed, backend):
    """Ties, equal boxes, boxes without area and of negative extent."""
    boxes, scores = odd_boxes(45, seed)
    check_equal_on_cuda(
        boxes,
        scores,
        iou_threshold=[0.3, 0.5, 0.6, 0.7, 1.0][seed % 5],
        offset=seed % 2,
        gamma=[0.3, 1.0, 5.0][seed % 3],
        sigma=[0.05, 0.3][seed % 2],
        max_num=[-1, 4][seed % 2],
    )


@pytest.mark.parametrize("closeness, output_score", [*itertools.product(CLOSENESS, OUTPUT)])
def test_every_closeness_and_output_score(closeness, output_score, backend):
    boxes, scores, _ = random_boxes(30, objects=3)
    check_equal_on_cuda(boxes, scores, closeness=closeness, output_score=output_score, gamma=2.0)


def test_more_boxes_than_one_word_or_one_chunk_holds(backend):
    """Clusters of more than 512 boxes, and kept boxes that lie beyond them."""
    boxes, scores, _ = random_boxes(700, objects=2)
    far = torch.tensor([[900.0, 900, 930, 930], [901, 900, 931, 930]])
    last = torch.tensor([0.01, 0.005])
    _, keep = check_equal_on_cuda(torch.cat([boxes, far]), torch.cat([scores, last]), 0.2)
    assert 700 in keep or 701 in keep


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype, backend):
    boxes, scores, _ = random_boxes(25, objects=3)
    check_equal_on_cuda(boxes.to(dtype), scores.to(dtype))
    check_equal_on_cuda(boxes.to(dtype), scores)
    check_equal_on_cuda(boxes, 0.5 + 1e-12 * torch.arange(25).double())  # equal in float32


def test_views_with_other_strides(backend):
    boxes, scores, _ = random_boxes(30, objects=3)
    check_equal_on_cuda(
        boxes.t().contiguous().t(), torch.stack([scores, scores])[:, ::2][0].repeat(2)
    )


def test_edge_cases(backend):
    for gamma in (0, 0.3):
        check_equal_on_cuda(torch.zeros(0, 4), torch.zeros(0), gamma=gamma)
        check_equal_on_cuda(torch.zeros(0, 4).half(), torch.zeros(0).half(), gamma=gamma)
        check_equal_on_cuda(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([0.5]), gamma=gamma)
        check_equal_on_cuda(torch.tensor([[3.0, 3, 9, 9]]).repeat(600, 1), torch.full((600,), 0.5))
        check_equal_on_cuda(
            torch.tensor([[3.0, 3, 3, 3]]).repeat(5, 1), torch.arange(5) / 5, gamma=gamma
        )


def test_boxes_of_negative_extent_suppress_nothing(backend):
    """In mmcv's CUDA kernel their negative area would; and two areas may sum to 0."""
    boxes = torch.tensor([[50.0, 0, 10, 40], [0, 0, 40, 40], [200, 200, 240, 240], [1, 0, 41, 40]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    _, keep = check_equal_on_cuda(boxes, scores, output_score="selection")
    assert keep.tolist() == [0, 1, 2]


@pytest.mark.parametrize("threshold", [0, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("max_num", [-1, 3])
def test_score_threshold_and_max_num(threshold, max_num, backend):
    boxes, scores, _ = random_boxes(30, objects=4)
    check_equal_on_cuda(boxes, scores, score_threshold=threshold, max_num=max_num)


def test_gamma_zero_is_mmcvs_nms():
    boxes, scores, _ = random_boxes(60)
    boxes, scores = boxes.to("cuda"), without_ties(scores).to("cuda")
    expected = nms(boxes, scores, 0.5, score_threshold=0.1, max_num=9)
    found = cl_balanced_nms(boxes, scores, 0.5, score_threshold=0.1, max_num=9, gamma=0)
    for mine, theirs in zip(found, expected):
        assert torch.equal(mine.cpu(), theirs.cpu())


@pytest.mark.parametrize("options", [{}, dict(score_threshold=0.5), dict(gamma=0)], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_broken_input_is_named(where, value, options, backend):
    """Even where the score threshold leaves out the broken box, or all of them."""
    boxes, scores, _ = random_boxes(5)
    scores[:] = 0.4
    (boxes if where == "boxes" else scores)[2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        cl_balanced_nms(boxes.to("cuda"), scores.to("cuda"), 0.5, **options)


def test_large_coordinates_are_no_broken_input(backend):
    far = torch.tensor([[0.0, 0, 1e19, 1e19], [1e18, 0, 1e19, 1e19]])  # squares overflow
    check_equal_on_cuda(far, torch.tensor([0.5, 0.4]))


@pytest.mark.parametrize("output_score", OUTPUT)
def test_boxes_that_require_a_gradient(output_score, backend):
    boxes, scores, _ = random_boxes(20)
    leaf = boxes.to("cuda").requires_grad_()
    dets, keep = cl_balanced_nms(leaf, scores.to("cuda"), 0.5, output_score=output_score)
    dets[:, :4].sum().backward()
    expected = torch.zeros(20, 4)
    expected[keep.cpu()] = 1
    assert torch.equal(leaf.grad.cpu(), expected)


def test_deterministic_mode(backend):
    """It also fills memory that is allocated and not written."""
    boxes, scores, _ = random_boxes(80, objects=3)
    torch.use_deterministic_algorithms(True)
    try:
        check_equal_on_cuda(boxes, scores)
    finally:
        torch.use_deterministic_algorithms(False)


def count(device, config, num, classes):
    """Launches and host syncs of ``batched_nms``; on a real GPU nothing is counted."""
    boxes, scores, labels = random_boxes(num, classes=classes, objects=1 + num // 20)
    arguments = [part.to("cuda") for part in (boxes, scores, labels)]
    if device is None:
        batched_nms(*arguments, dict(config))
        return 0, 0
    with device.count() as counts:
        batched_nms(*arguments, dict(config))
    return counts.num_launches, counts.num_syncs


@pytest.mark.parametrize("score_threshold", [0, 0.5])
@pytest.mark.parametrize("gamma", [0, 0.3])
def test_no_more_host_syncs_than_mmcvs_nms(gamma, score_threshold, backend, simulated_cuda):
    options = dict(iou_threshold=0.6, score_threshold=score_threshold)
    _, plain = count(simulated_cuda, dict(type="nms", **options), 40, 3)
    ours = dict(type="CLBalancedNMS", gamma=gamma, **options)
    assert count(simulated_cuda, ours, 40, 3)[1] <= plain


def test_launches_and_host_syncs_do_not_grow(simulated_cuda):
    """Neither with the boxes nor with the classes; and launches are about as many as mmcv's."""
    options = dict(iou_threshold=0.1)
    plain, _ = count(simulated_cuda, dict(type="nms", **options), 40, 3)
    seen = {
        count(simulated_cuda, dict(type="CLBalancedNMS", **options), num, classes)
        for num, classes in [(1, 1), (70, 1), (70, 3), (200, 80)]
    }
    assert len(seen) == 1
    assert seen.pop()[0] <= 1.2 * plain
