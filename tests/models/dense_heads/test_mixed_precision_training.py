"""Heads trained in half precision on crowded images: finite losses, and float32's positives."""

import pytest
import torch
from helpers.dense_head_cases import METAS, features, make_head
from helpers.half_precision import scene, train

HEADS = {
    "TripleHead": dict(type="JLAAssigner"),
    "RFAHead": dict(type="SpatialAlignAssigner"),
    "LossAwareFCOSHead": dict(type="JLAAssigner", per_gt_reweight=1.0),
}
PRECISIONS = [
    ("cpu", torch.bfloat16),
    pytest.param("cuda", torch.float16, marks=pytest.mark.cuda),
    pytest.param("cuda", torch.bfloat16, marks=pytest.mark.cuda),
]


@pytest.mark.slow
@pytest.mark.parametrize(("device", "dtype"), PRECISIONS)
@pytest.mark.parametrize("kind", HEADS)
def test_200_steps_on_crowded_images(kind, device, dtype, quick_steps):
    head = make_head(kind, assigner=HEADS[kind]).to(device)
    feats = [level.to(device) for level in features(2, 256)]
    crowd = scene(40, 0, device)
    totals = train(head, lambda: head.loss_by_feat(*head(feats), crowd, METAS), device, dtype, 200)
    assert totals[-1] < totals[0] / 2
    # Of a dozen scenes, and a little less in each alone, where one GT whose boundary rounding moves
    # decides: 0.9897 in the worst of a few runs on two kinds of processors, and 0.9987 on average.
    agree = []
    for seed in range(1, 13):
        few = scene(7, seed, device)
        half, full = (positives(head, feats, few, device, dtype, on) for on in (True, False))
        assert full.any()
        agree.append((half == full).all(dim=1).float().mean().item())
    assert sum(agree) / len(agree) >= 0.998
    assert min(agree) >= 0.98


@torch.no_grad()
def positives(head, feats, gts, device, dtype, enabled):
    """Which location is a positive of which GT, ``(N * P, G)``."""
    with torch.autocast(device, dtype, enabled=enabled):
        outs = head(feats)
        assigned = head.get_targets(outs[0], outs[1], gts).assign_result
    found = torch.zeros(len(assigned.ignored), sum(map(len, gts)), dtype=torch.bool)
    prior_inds, gt_inds, _ = assigned.nonzero()
    found[prior_inds.cpu(), gt_inds.cpu()] = True
    return found
