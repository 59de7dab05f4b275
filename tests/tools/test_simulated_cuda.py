"""The simulated CUDA device refuses and counts what a real one does: a fault of each kind."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import deform_conv2d, modulated_deform_conv2d, nms, sigmoid_focal_loss
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from misalign_det.utils import has_triton, new_tensor_without_sync

simulated_cuda = pytest.importorskip(
    "simulated_cuda", exc_type=ImportError, reason="the simulated CUDA device needs torch 2.2"
)
SimulatedCuda = simulated_cuda.SimulatedCuda


@pytest.fixture
def device():
    if torch.cuda.is_available():
        pytest.skip("there is a real one")
    with SimulatedCuda() as device:
        yield device


def test_is_off_outside_of_its_context():
    def replaced():
        return torch.cuda.is_available(), torch.Tensor.to, torch.nn.Module.to, torch.autocast

    before = replaced()
    with SimulatedCuda():
        assert torch.cuda.is_available() and torch.cuda.get_device_name().startswith("simulated")
        assert not any(new == old for new, old in zip(replaced(), before))
    assert replaced() == before


def test_tensors_say_cuda(device):
    x = torch.zeros(2, device="cuda")
    for y in (x, x + 1, x.to("cpu").cuda(), torch.tensor([1], device="cuda"), x[:1], x.new_ones(1)):
        assert y.is_cuda and y.device == torch.device("cuda", 0) and not y.is_cpu
    assert not x.cpu().is_cuda and x.cpu().numpy().tolist() == [0, 0]


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.where(x > 0, x, y),
        lambda x, y: F.linear(x, y[None]),
        lambda x, y: x.scatter(0, torch.zeros(3, dtype=torch.long), x),
        lambda x, y: x.index_put((torch.zeros(3, dtype=torch.long),), y),
    ],
)
def test_two_devices_do_not_mix(device, mix):
    with pytest.raises(RuntimeError, match="same device"):
        mix(torch.ones(3, device="cuda"), torch.ones(3))


def test_what_may_mix(device):
    x = torch.arange(3.0, device="cuda")
    assert (x * torch.tensor(2.0)).tolist() == [0, 2, 4]  # a number
    with device.count() as counts:
        assert x[torch.tensor([2, 0])].tolist() == [2, 0]  # an index is copied over
    assert sum("index on the host" in reason for reason, _ in counts.syncs) == 1


def test_numpy_is_refused(device):
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(1, device="cuda").numpy()


@pytest.mark.parametrize(
    "sync",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.tensor([1.0], device="cuda"),
        lambda x: torch.ones(1).to("cuda"),
        lambda x: torch.ones(1).to("cuda", non_blocking=True),  # not pinned
        lambda x: x.masked_select(x > 0),
        lambda x: torch.unique(x),
        lambda x: x.view(-1).long().bincount(),
        lambda x: torch.equal(x, x),
        lambda x: x[:, [0, 1]],
        lambda x: x.view(-1).repeat_interleave(x.view(-1).long()),
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_synchronisations_are_counted(device, sync):
    x = torch.ones(2, 2, device="cuda")
    with device.count() as counts:
        sync(x)
    assert counts.num_syncs >= 1


def test_what_does_not_wait(device):
    x = torch.ones(2, 2, device="cuda")
    target = torch.empty(2, 2, pin_memory=True)
    with device.count() as counts:
        target.copy_(x, non_blocking=True)
        torch.ones(1).pin_memory().to("cuda", non_blocking=True)
        x[x.long()].sum().clamp(min=1)
        x.new_full((1,), 2.0)
        x.view(-1).repeat_interleave(torch.ones(4, dtype=torch.long).pin_memory().to(
            "cuda", non_blocking=True), output_size=4)  # fmt: skip
    assert counts.num_syncs == 0 and target.tolist() == [[1, 1], [1, 1]]


def test_launches_are_counted_by_line(device):
    x = torch.ones(4, device="cuda")
    with device.count() as counts:
        (x.view(2, 2).T[0] + 1).exp()  # the views launch nothing
    assert counts.launches_by_operator() == {"add": 1, "exp": 1}
    with device.count() as outer, device.count() as counts:
        with new_tensor_without_sync(x):
            x.new_tensor([1.0])
    assert counts.num_launches == outer.num_launches == 1 and counts.num_syncs == 0
    assert not any("new_tensor.py" in line for line in counts.launches_by_line())
    from misalign_det.models.layers import star_dcn_offset

    distances = torch.ones(1, 4, 2, 2, device="cuda")
    with device.count() as counts:
        star_dcn_offset(distances)
    assert all("layers/star_offsets.py:" in line for line in counts.launches_by_line())
    assert "launches" in counts.table()


def test_a_backward_pass_is_counted_and_stays_on_the_device(device):
    x = torch.ones(4, device="cuda", requires_grad=True)
    loss = (x * x).sum()
    with device.count() as counts:
        loss.backward()
    assert x.grad.is_cuda and counts.num_launches >= 2


def test_tensors_say_cuda_in_a_backward_pass_of_our_own_too(device):
    seen = []

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.extend([grad.is_cuda, ctx.saved_tensors[0].device.type])
            return grad * torch.ones(2, device=grad.device)

    x = torch.ones(2, device="cuda", requires_grad=True)
    Identity.apply(x).sum().backward()
    assert seen == [True, "cuda"] and x.grad.tolist() == [1, 1]


def test_autocast_goes_by_cudas_lists(device):
    x, weight = torch.ones(2, 2, device="cuda"), torch.ones(2, 2, device="cuda", requires_grad=True)
    with torch.autocast("cuda"):
        assert torch.is_autocast_enabled("cuda") and not torch.is_autocast_enabled("cpu")
        half = x @ weight
        assert half.dtype == torch.float16  # lower precision
        assert half.softmax(1).dtype == half.sum().dtype == half.exp().dtype == torch.float32
        assert half.relu().dtype == F.logsigmoid(half).dtype == torch.float16  # as it comes
        assert torch.addcmul(half, half, x).dtype == torch.float32  # the widest
        with pytest.raises(RuntimeError, match="unsafe to autocast"):
            F.binary_cross_entropy(x, x)
        with torch.autocast("cuda", enabled=False):
            assert (x @ weight).dtype == torch.float32
        assert (x.double() @ weight.double()).dtype == torch.float64
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32  # the CPU has its own
    with torch.autocast("cuda", torch.bfloat16):
        assert F.conv2d(x.view(1, 1, 2, 2), weight[None, None]).dtype == torch.bfloat16
        with device.count() as counts:
            x @ weight, x @ weight  # a weight is cast once
        assert counts.launches_by_operator()["_to_copy"] == 3


def test_deterministic_algorithms(device):
    x = torch.ones(3, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="cumsum does not have a deterministic"):
            x.cumsum(0)
        x.long().cumsum(0)
        with pytest.raises(RuntimeError, match="grid_sampler_2d_backward"):
            image = torch.ones(1, 1, 2, 2, device="cuda", requires_grad=True)
            grid = torch.zeros(1, 1, 1, 2, device="cuda")
            F.grid_sample(image, grid, align_corners=False).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def deform_inputs(**options):
    x, offset = torch.randn(1, 4, 6, 6, **options), torch.zeros(1, 18, 6, 6, **options)
    return x, offset, torch.randn(3, 4, 3, 3, **options)


def test_mmcvs_deformable_convolution_wants_contiguous_memory(device):
    x, offset, weight = deform_inputs(device="cuda")
    args = 1, 1, 1, 1, 1, False, 1
    expected = F.conv2d(x.cpu(), weight.cpu(), padding=1)
    torch.testing.assert_close(deform_conv2d(x, offset, weight, *args).cpu(), expected)
    last = torch.channels_last
    for bad in ((x.contiguous(memory_format=last), offset, weight),
                (x, offset, weight.contiguous(memory_format=last))):  # fmt: skip
        with pytest.raises(RuntimeError, match="contiguous"):
            deform_conv2d(*bad, *args)
    with pytest.raises(RuntimeError, match="one device"):
        deform_conv2d(x, offset.cpu(), weight, *args)


def test_mmcvs_modulated_convolution_misreads_channels_last(device):
    x, offset, weight = deform_inputs(device="cuda")
    mask = torch.ones(1, 9, 6, 6, device="cuda")
    for layout, problems in ((torch.contiguous_format, 0), (torch.channels_last, 1)):
        with device.count() as counts:
            moved = x.contiguous(memory_format=layout)
            modulated_deform_conv2d(moved, offset, mask, weight, None, 1, 1, 1, 1, 1)
        assert len(counts.problems) == problems


def test_mmcvs_deformable_gradient_is_not_deterministic(device):
    x, offset, weight = deform_inputs(device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        with device.count() as counts:
            out = deform_conv2d(x.requires_grad_(), offset, weight, 1, 1, 1, 1, 1, False, 1)
            out.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert any("any order" in problem for problem in counts.problems)


def test_mmcvs_focal_loss_in_half_precision(device):
    labels = torch.tensor([0, 1], device="cuda")
    logits = torch.tensor([[-18.0], [8.5]], device="cuda")

    def loss(x):
        return sigmoid_focal_loss(x, labels, 2.0, 0.25, None, "none").cpu()

    assert loss(logits).isfinite().all()
    assert not loss(logits.half()).isfinite().all()
    with pytest.raises(RuntimeError, match="not implemented"):
        loss(logits.bfloat16())
    with device.count() as counts:
        sigmoid_focal_loss(logits, labels, 2.0, 0.25, None, "none")
    assert counts.num_syncs == 1


def test_mmcvs_focal_loss_has_mmdets_numbers(device):
    torch.manual_seed(0)
    logits, labels = torch.randn(20, 3, requires_grad=True), torch.randint(4, (20,))
    target = F.one_hot(labels, 4)[:, :3]
    expected = py_sigmoid_focal_loss(logits, target, reduction="none")
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    x = logits.detach().to("cuda").requires_grad_()
    found = sigmoid_focal_loss(x, labels.to("cuda"), 2.0, 0.25, None, "none")
    found.sum().backward()
    torch.testing.assert_close((found.detach().cpu(), x.grad.cpu()), (expected.detach(), wanted))


def test_mmcvs_nms_takes_float32_and_waits_once(device):
    boxes = torch.tensor([[0, 0, 9, 9], [1, 0, 9, 9], [20, 20, 30, 30.0]], device="cuda")
    scores = torch.tensor([0.5, 0.9, 0.7], device="cuda")
    with device.count() as counts:
        _, keep = nms(boxes, scores, 0.5)
    assert keep.is_cuda and counts.num_syncs == 1 and keep.tolist() == [1, 2]
    with pytest.raises(RuntimeError, match="Float"):
        nms(boxes.half(), scores.half(), 0.5)


@pytest.mark.parametrize("in_convolutions, in_products", [(True, False), (False, True)])
def test_factors_round_to_tf32_where_torchs_settings_allow_it(
    request, monkeypatch, in_convolutions, in_products
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", in_convolutions)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = in_products
    request.addfinalizer(lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", before))
    torch.manual_seed(0)
    x, weight = torch.randn(1, 8, 5, 5), torch.randn(8, 8, 3, 3)
    rows, columns, bias = torch.randn(6, 70), torch.randn(70, 5), torch.randn(5)
    grad = torch.randn(1, 8, 3, 3)

    def outputs(device, dtype):
        parts = [part.to(device, dtype) for part in (x, weight, rows, columns, bias)]
        x_, weight_, rows_, columns_, bias_ = parts
        out = F.conv2d(x_, weight_.requires_grad_())
        (gradient,) = torch.autograd.grad(out, weight_, grad.to(device, dtype))
        products = [rows_ @ columns_, torch.addmm(bias_, rows_, columns_)]
        products.append(torch.bmm(rows_[None], columns_[None]))
        return [part.detach().cpu().double() for part in (out, gradient, *products)]

    exact = outputs("cpu", torch.float64)
    for tf32 in (False, True):
        with SimulatedCuda(tf32):
            found = outputs("cuda", torch.float32)
        errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, exact)]
        for number, error in enumerate(errors):
            rounded = tf32 and (in_convolutions if number < 2 else in_products)
            assert 1e-5 < error < 1e-2 if rounded else error < 2e-6


def test_triton_kernels_run_in_the_interpreter(device):
    assert has_triton(torch.zeros(1, device="cuda")) and not has_triton(torch.zeros(1))


def test_a_training_step_with_gradient_scaling(device):
    """An infinite gradient is found, the step is left out and the scale halved."""
    layer = torch.nn.Linear(2, 1).cuda()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, foreach=True)
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    before = layer.weight.detach().cpu().clone()
    scaler.scale(layer(torch.full((1, 2), float("inf"), device="cuda")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0 and torch.equal(layer.weight.detach().cpu(), before)
    optimizer.zero_grad()
    scaler.scale(layer(torch.ones(1, 2, device="cuda")).sum()).backward()
    scaler.step(optimizer)
    assert torch.allclose(layer.weight.detach().cpu(), before - 0.1)
