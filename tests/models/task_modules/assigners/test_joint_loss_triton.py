"""The classification loss of pairs as one Triton kernel."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.kernel_compilation import compile_for_gpus

from misalign_det.models.task_modules.assigners.candidates import CandidatePairs
from misalign_det.models.task_modules.assigners.joint_loss import pair_classification_loss

MODULE = "misalign_det.models.task_modules.assigners.joint_loss_triton"


def random_pairs(num_pairs, num_priors, num_gts, device="cpu"):
    gt_inds = torch.randint(num_gts, (num_pairs,)).sort().values
    parts = torch.randint(num_priors, (num_pairs,)), gt_inds, gt_inds.bincount(minlength=num_gts)
    return CandidatePairs(*(part.to(device) for part in parts))


def focal_loss(pairs, logits, labels, alpha, gamma):
    """Focal loss in float64, class by class (Lin et al. 2017, eq. 5)."""
    x = logits[pairs.prior_inds].double()
    negative = (1 - alpha) * x.sigmoid() ** gamma * -F.logsigmoid(-x)
    positive = alpha * (-x).sigmoid() ** gamma * -F.logsigmoid(x)
    own = torch.nn.functional.one_hot(labels[pairs.gt_inds], x.shape[1]).bool()
    return torch.where(own, positive, negative).sum(dim=1)


@pytest.mark.cuda
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("num_classes", [1, 3, 128, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_the_focal_loss_in_float64(num_classes, gamma, dtype):
    torch.manual_seed(0)
    pairs = random_pairs(37, 11, 5)
    logits = (torch.randn(11, num_classes) * 8).to(dtype)
    labels = torch.randint(num_classes, (5,))
    expected = focal_loss(pairs, logits, labels, 0.25, gamma)
    on_gpu = CandidatePairs(*(part.to("cuda") for part in vars(pairs).values()))
    found = pair_classification_loss(on_gpu, logits.to("cuda"), labels.to("cuda"), 0.25, gamma)
    assert found.dtype == torch.float32
    # A GPU's exponential of x is off by x times its last bit, and there are three of them.
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-5, atol=0)


@pytest.mark.cuda
def test_infinite_and_missing_numbers_and_strides():
    logits = torch.tensor([[math.inf, -math.inf, 0.0], [-math.inf, 0.0, math.nan]])
    pairs = CandidatePairs(*(torch.tensor(x, device="cuda") for x in ([0, 0, 1, 1], [0, 1, 0, 2],
                                                                      [2, 1, 1])))  # fmt: skip
    labels = torch.tensor([0, 1, 2], device="cuda")
    logits = logits.T.contiguous().to("cuda").T  # classes are rows in memory
    losses = pair_classification_loss(pairs, logits, labels).cpu()
    assert losses[0].item() == pytest.approx(0.75 * 0.25 * math.log(2))  # knows its class
    assert losses[1].item() == math.inf  # sure of another class
    assert losses[2].isnan() and losses[3].isnan()


@pytest.mark.cuda
def test_one_launch_and_none_without_pairs(simulated_cuda):
    pairs, labels = random_pairs(40, 11, 5, "cuda"), torch.zeros(5, dtype=torch.long, device="cuda")
    logits = torch.randn(11, 80, device="cuda")
    if simulated_cuda is not None:
        with simulated_cuda.count() as counts:
            pair_classification_loss(pairs, logits, labels)
        assert counts.launches_by_operator() == {"triton.focal_kernel": 1}
        assert counts.num_syncs == 0
    assert len(pair_classification_loss(random_pairs(0, 11, 5, "cuda"), logits, labels)) == 0


def test_compiles_for_gpus():
    kernels = [
        (
            MODULE,
            "focal_kernel",
            [dtype, "*i64", "*i64", "*i64", "*fp32", *["i32"] * 4, "fp32", "fp32"],
            dict(GAMMA=gamma, PAIRS=16, CLASSES=classes),
        )
        for dtype, gamma, classes in [
            ("*fp32", 2, 128),
            ("*fp32", 0, 1),
            ("*fp32", -1, 128),
            ("*fp16", 2, 128),
            ("*bf16", 2, 128),
        ]
    ]
    assert compile_for_gpus(kernels) == 2 * len(kernels)
