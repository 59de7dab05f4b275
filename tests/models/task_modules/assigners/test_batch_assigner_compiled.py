"""mmengine's ``compile=True``: a head's training step under ``torch.compile``."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401

HEADS = [("TripleHead", "JLAAssigner"), ("RFAHead", "SpatialAlignAssigner")]


@pytest.mark.slow
@pytest.mark.parametrize("head, assigner", HEADS)
def test_a_compiled_training_step_has_the_losses_of_a_plain_one(head, assigner):
    """The forward pass is compiled; assignment, which reads what it decides, runs as it is."""
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            type=head, num_classes=2, in_channels=8, feat_channels=8, stacked_convs=2,
            strides=[8, 16], norm_cfg=dict(type="GN", num_groups=2),
            train_cfg=dict(assigner=dict(type=assigner)),
        )
    )  # fmt: skip
    model.init_weights()
    features = [torch.randn(2, 8, side, side) for side in (8, 4)]
    boxes = torch.tensor([[4.0, 4, 40, 50], [10, 10, 60, 40]])
    objects = [InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))]
    objects.append(InstanceData(bboxes=boxes[:0], labels=torch.tensor([]).long()))
    graphs = []

    def eager(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def step(features):
        losses = model.loss_by_feat(*model(features), objects, [dict(img_shape=(64, 64))] * 2)
        return sum(losses.values())

    plain = step(features)
    compiled = torch.compile(step, backend=eager)
    for _ in range(2):
        total = compiled(features)
        torch.testing.assert_close(total, plain)
    model.zero_grad()
    total.backward()
    assert graphs and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
