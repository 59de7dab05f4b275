"""BFloat16OptimWrapper: autocast in the forward pass, float32 weights and gradients, no scaler."""

import torch
from mmdet.registry import OPTIM_WRAPPERS

import misalign_det  # noqa: F401


def test_forward_in_bfloat16_update_in_float32():
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 4)
    wrapper = OPTIM_WRAPPERS.build(
        dict(type="BFloat16OptimWrapper", optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    )
    before = model.weight.detach().clone()
    x = torch.randn(16, 8)
    with wrapper.optim_context(model):
        out = model(x)
    assert out.dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)


def test_gradient_is_that_of_float32_to_bfloat16s_precision():
    torch.manual_seed(0)
    model, x = torch.nn.Linear(8, 4), torch.randn(16, 8)
    (exact,) = torch.autograd.grad(model(x).square().mean(), model.weight)
    wrapper = OPTIM_WRAPPERS.build(
        dict(type="BFloat16OptimWrapper", optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    )
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        loss = model(x).float().square().mean()
    wrapper.update_params(loss)
    torch.testing.assert_close(before - model.weight, exact, rtol=0.05, atol=0.01)
