"""The DC heads on a GPU: host-device synchronisations and mixed precision."""

import pytest
import torch
from helpers.dc_head_cases import (
    ANCHORS,
    FOCAL,
    HEADS,
    MAX_IOU,
    METAS,
    QUALITY,
    SCENE,
    SOFTMAX,
    features,
    make,
    total,
    with_dc,
    wrapped,
)
from helpers.half_precision import scene, train

ASSIGNERS = {
    "DCRetinaHead": dict(type="IACAssigner", **MAX_IOU),
    "DCATSSHead": dict(type="IACATSSAssigner", topk=9),
    "DCGFLHead": dict(type="IACATSSAssigner", topk=9),
}


def waits_of(device, head, strides, num_images):
    """Host-device synchronisations of this package's own lines in one step's losses, by line."""
    generator = torch.Generator().manual_seed(0)
    feats = [
        torch.randn(num_images, 8, 128 // s, 128 // s, generator=generator).cuda() for s in strides
    ]
    gts = [gt.to("cuda") for gt in (SCENE * 2)[:num_images]]
    outs = head.cuda()(feats)
    with device.count() as counts:
        head.loss_by_feat(*outs, gts, METAS[:1] * num_images)
    lines = counts.syncs_by_line()
    return {k: n for k, n in lines.items() if k.startswith("misalign_det") and "(" not in k}


@pytest.mark.cuda
@pytest.mark.parametrize("kind", HEADS)
def test_one_host_wait_whatever_the_levels_and_images(kind, simulated_cuda):
    """And one an image where IAC's assigner lists its pairs."""
    if simulated_cuda is None:
        pytest.skip("counted on the simulated device alone")
    for strides, num_images in (([8], 1), ([8, 16], 3), ([8, 16, 32, 64], 2)):
        options = dict(anchor_generator=dict(ANCHORS, strides=strides))
        if kind == "DCFCOSHead":
            options = dict(strides=strides, regress_ranges=((-1, 1e8),) * len(strides))
        found = waits_of(simulated_cuda, with_dc(kind, **options), strides, num_images)
        assert sum(found.values()) == 1, found
        if kind in ASSIGNERS:
            head = with_dc(kind, train_cfg=dict(assigner=ASSIGNERS[kind]), **options)
            found = waits_of(simulated_cuda, head, strides, num_images)
            assert sum(found.values()) == 1 + num_images, found


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dc", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_strong_logits_in_half_precision(kind, dc, dtype):
    """Of -25 to 25: mmcv's focal loss gives no number in float16, and knows no bfloat16."""
    head = (with_dc if dc else make)(kind, **({} if dc else dict(loss_cls=wrapped(kind)))).cuda()
    outs, gts = head([level.cuda() for level in features()]), [gt.to("cuda") for gt in SCENE]
    strong = torch.linspace(-25, 25, 3).cuda()[:, None, None].to(dtype)
    scores = [(level.detach().to(dtype) + strong).requires_grad_() for level in outs[0]]
    with torch.autocast("cuda", dtype):
        found = total(head.loss_by_feat(scores, *outs[1:], gts, METAS))
    wide = [level.detach().float() for level in scores]
    expected = total(head.loss_by_feat(wide, *outs[1:], gts, METAS))
    assert found["loss_cls"].dtype == torch.float32 and found["loss_cls"] > 0
    torch.testing.assert_close(found["loss_cls"], expected["loss_cls"], rtol=1e-2, atol=0)
    found["loss_cls"].backward()
    assert all(level.grad.dtype == dtype and level.grad.isfinite().all() for level in scores)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.bfloat16),
        pytest.param("cuda", torch.float16, marks=pytest.mark.cuda),
        pytest.param("cuda", torch.bfloat16, marks=pytest.mark.cuda),
    ],
)
@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("DCRetinaHead", FOCAL),
        ("DCRetinaHead", SOFTMAX),
        ("DCATSSHead", FOCAL),
        ("DCGFLHead", QUALITY),
        ("DCFCOSHead", FOCAL),
        ("DCFCOSHead", SOFTMAX),
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_steps_on_crowded_images(kind, loss, device, dtype):
    options = dict(train_cfg=dict(assigner=ASSIGNERS[kind])) if kind in ASSIGNERS else {}
    head = make(kind, loss_cls=dict(type="DCLoss", loss=loss), **options).to(device)
    feats, gts = [level.to(device) for level in features()], scene(12, 0, device, 80, 60)
    before = [parameter.detach().clone() for parameter in head.parameters()]
    train(head, lambda: total(head.loss_by_feat(*head(feats), gts, METAS)), device, dtype, 8)
    # A gradient that is never finite is a step that is never taken.
    assert not all(map(torch.equal, before, head.parameters()))
