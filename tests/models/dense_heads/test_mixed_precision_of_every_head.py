"""Every head trained in float16 and bfloat16 on CUDA, on crowded images."""

import pytest
import torch
from helpers import every_head
from helpers.dense_head_cases import features
from helpers.half_precision import scene, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cuda,
    pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16]),
]
# The others are in test_mixed_precision_training.py.
OTHERS = sorted(every_head.HEADS.keys() - {"TripleHead", "RFAHead", "LossAwareFCOSHead"})


def train_by_name(name, dtype, steps):
    """Total loss of each step on two images of 128 x 128 pixels with 20 objects each."""
    head = every_head.make_head(name).to("cuda").train()
    feats = [level.to("cuda") for level in features(2, 128)]
    boxes = [
        torch.cat([image.bboxes / 2, image.labels[:, None]], dim=1).tolist()
        for image in scene(20, 0, "cpu")
    ]
    samples = every_head.samples(*boxes, device="cuda")
    totals = train(head, lambda: every_head.totals(head.loss(feats, samples)), "cuda", dtype, steps)
    assert all(parameter.isfinite().all() for parameter in head.parameters())
    return totals


@pytest.mark.parametrize("name", OTHERS)
def test_200_steps_of_every_other_head(name, dtype, quick_steps):
    totals = train_by_name(name, dtype, 200)
    assert totals[-1] < 0.9 * totals[0]


@pytest.mark.parametrize("name", ["TripleHead", "RFAHead"])
def test_steps_with_kernels(name, dtype):
    totals = train_by_name(name, dtype, 2)
    assert totals[-1] < totals[0]
