"""Every head trained in float16 and bfloat16 on CUDA, on crowded images."""

import every_head
import pytest
import torch
from crowded_scenes import scene
from dense_head_cases import features

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cuda,
    pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16]),
]
# The others are in test_mixed_precision_training.py.
OTHERS = sorted(every_head.HEADS.keys() - {"TripleHead", "RFAHead", "LossAwareFCOSHead"})


def train(name, dtype, steps):
    """Total loss of each step of a head on two images with 20 objects each, all finite."""
    head = every_head.make_head(name).to("cuda").train()
    feats = [level.to("cuda") for level in features(2, 128)]
    boxes = [
        torch.cat([image.bboxes / 2, image.labels[:, None]], dim=1).tolist()
        for image in scene(20, 0, "cpu")
    ]
    samples = every_head.samples(*boxes, device="cuda")
    optimizer = torch.optim.SGD(
        head.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4, foreach=True
    )
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    totals = []
    for _ in range(steps):
        with torch.autocast("cuda", dtype):
            losses = every_head.totals(head.loss(feats, samples))
        assert all(value.isfinite() for value in losses.values()), losses
        total = sum(losses.values())
        optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(head.parameters(), 10)
        scaler.step(optimizer)
        scaler.update()
        totals.append(total.item())
    assert all(parameter.isfinite().all() for parameter in head.parameters())
    return totals


@pytest.mark.parametrize("name", OTHERS)
def test_200_steps_of_every_other_head(name, dtype, quick_steps):
    totals = train(name, dtype, 200)
    assert totals[-1] < 0.9 * totals[0]


@pytest.mark.parametrize("name", ["TripleHead", "RFAHead"])
def test_steps_with_kernels(name, dtype):
    totals = train(name, dtype, 2)
    assert totals[-1] < totals[0]
