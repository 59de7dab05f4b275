"""A training step on CUDA is the CPU's: memory formats, batch sizes, small maps, few classes."""

import pytest
import torch
from helpers.every_head import HEADS, STRIDES, make_head, samples, totals

pytestmark = pytest.mark.cuda
DEFORMABLE = ["TripleHead", "RFAHead", "RFAFCOSHead"]
BOXES = [(3, 5, 58, 61, 2), (20, 8, 44, 30, 1), (8, 30, 20, 60, 0)]


@pytest.fixture(autouse=True)
def no_wrong_results(simulated_cuda):
    """Nothing that a GPU would compute wrongly, or otherwise each time, without an error."""
    if simulated_cuda is None:
        yield
        return
    with simulated_cuda.count() as counts:
        yield
    assert not counts.problems


def features(num, size):
    torch.manual_seed(1)
    return [torch.randn(num, 16, max(size // s, 1), max(size // s, 1)) for s in STRIDES]


def step(name, device, images, size=64, layout=torch.contiguous_format, **changes):
    """Losses and the gradient of each parameter, on the CPU."""
    head = make_head(name, **changes)
    torch.manual_seed(2)
    for layer in head.modules():  # offsets and refinements that move something
        if hasattr(layer, "conv_offset"):
            torch.nn.init.normal_(layer.conv_offset.weight, std=0.02)
    if hasattr(head, "conv_reg"):
        torch.nn.init.normal_(head.conv_reg.weight, std=0.02)
    head = head.to(device).to(memory_format=layout).train()
    feats = [
        level.to(device).contiguous(memory_format=layout) for level in features(len(images), size)
    ]
    losses = totals(head.loss(feats, samples(*images, device=device)))
    sum(losses.values()).backward()
    grads = {key: p.grad.cpu() for key, p in head.named_parameters()}
    return {key: value.detach().cpu() for key, value in losses.items()}, grads


def assert_equal_steps(*args, layout=torch.contiguous_format, **kwargs):
    losses, grads = step(*args[:1], "cuda", *args[1:], layout=layout, **kwargs)
    wanted, wanted_grads = step(*args[:1], "cpu", *args[1:], **kwargs)
    torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=1e-5)
    for key, grad in grads.items():
        torch.testing.assert_close(grad, wanted_grads[key], rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", HEADS)
def test_memory_formats(name, layout):
    assert_equal_steps(name, [BOXES, []], layout=layout)


@pytest.mark.parametrize("num", [1, 3, 16, 33])
@pytest.mark.parametrize("name", DEFORMABLE)
def test_batch_sizes(name, num):
    assert_equal_steps(name, [BOXES[: i % 3] for i in range(num)])


@pytest.mark.parametrize("name", HEADS)
def test_images_without_objects(name):
    assert_equal_steps(name, [[], []])


@pytest.mark.parametrize("name", HEADS)
def test_one_class(name):
    assert_equal_steps(name, [[(*BOXES[0][:4], 0)], []], num_classes=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", HEADS)
def test_maps_of_one_cell(name, layout):
    assert_equal_steps(name, [[(1, 1, 7, 8, 0)], []], 8, layout=layout)


@pytest.mark.parametrize("modulated", [False, True])
def test_modulated_taps(modulated):
    assert_equal_steps("RFAHead", [BOXES], layout=torch.channels_last, rfa_modulated=modulated)
    assert_equal_steps(
        "TripleHead", [BOXES], layout=torch.channels_last, rfa_position="first",
        rfa_modulated=modulated,
    )  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_deterministic_algorithms(name):
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (step(name, "cuda", [BOXES, []]) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(value, second[0][key]) for key, value in first[0].items())
    assert all(torch.equal(grad, second[1][key]) for key, grad in first[1].items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", HEADS)
def test_strong_logits_in_half_precision(name, dtype):
    """In float16 mmcv's focal loss has no number beyond -17.3 and 8.3, in bfloat16 none at all."""
    head = make_head(name)
    for key, layer in head.named_modules():
        if key in ("conv_cls", "retina_cls", "atss_cls", "gfl_cls"):
            layer.bias.data = torch.linspace(-25, 25, len(layer.bias))
    head = head.to("cuda").train()
    feats = [level.to("cuda") for level in features(1, 64)]
    with torch.autocast("cuda", dtype):
        outs = head(feats)
        assert max(level.abs().max().item() for level in outs[0]) > 18
        losses = totals(head.loss(feats, samples(BOXES, device="cuda")))
    assert all(value.isfinite() for value in losses.values())
