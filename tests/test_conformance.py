"""What mmdet's own tests demand of its heads, assigners and losses, of those of this package.

Which of mmdet's test files each demand comes from stands in tests/README.md.
"""

import pytest
import torch
from helpers.every_head import FOCAL, HEADS, MAX_IOU, STRIDES, features, make_head, samples, totals
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", HEADS)
class TestHeads:
    def test_without_objects_only_classification_costs(self, name, device):
        head = make_head(name).to(device).train()
        losses = totals(head.loss(features(device), samples([], device=device)))
        assert losses.pop("loss_cls") > 0
        assert losses and all(value == 0 for value in losses.values())

    def test_with_an_object_everything_costs(self, name, device):
        head = make_head(name).to(device).train()
        losses = totals(head.loss(features(device), samples([(23, 20, 158, 151, 2)],
                                                            device=device)))  # fmt: skip
        assert all(value > 0 for value in losses.values())

    def test_every_parameter_has_a_gradient_in_any_batch(self, name, device):
        for boxes in ([[], []], [[(23, 20, 158, 151, 2)], []]):
            head = make_head(name).to(device).train()
            losses = totals(head.loss(features(device, 2), samples(*boxes, device=device)))
            sum(losses.values()).backward()
            missing = [n for n, p in head.named_parameters() if p.grad is None]
            assert not missing and all(p.grad.isfinite().all() for p in head.parameters())

    def test_tensor_mode(self, name, device):
        outputs = make_head(name).to(device)(features(device))
        assert all(len(part) == len(STRIDES) for part in outputs)
        sizes = [tuple(level.shape[-2:]) for level in outputs[0]]
        assert sizes == [(256 // s, 256 // s) for s in STRIDES]

    @torch.no_grad()
    def test_predict_mode(self, name, device):
        head = make_head(name).to(device).eval()
        found = head.predict(features(device, 2), samples([], [], device=device))
        assert len(found) == 2
        for result in found:
            assert 0 < len(result) <= 10 and result.bboxes.shape[1] == 4
            assert result.labels.max() < 4 and (result.scores.diff() <= 0).all()
        head.test_cfg.score_thr = 1.0
        (nothing,) = head.predict(features(device), samples([], device=device))
        assert nothing.bboxes.shape == (0, 4) and len(nothing.scores) == len(nothing.labels) == 0


def predictions(num, device="cpu"):
    """Points of stride 8 for this package's assigners, boxes for mmdet's, in one layout."""
    side = torch.arange(num, device=device) * 8 + 4.0
    points = torch.stack([side, side, torch.full_like(side, 8), torch.full_like(side, 8)], 1)
    boxes = torch.cat([points[:, :2] - 10, points[:, :2] + 10], 1)
    return points, boxes, torch.linspace(-2, 2, 3 * num, device=device).view(num, 3)


ASSIGNERS = {
    "JLAAssigner": {},
    "SpatialAlignAssigner": {},
    "IACAssigner": dict(MAX_IOU, ignore_iof_thr=0.5),
    "IACATSSAssigner": dict(topk=9, ignore_iof_thr=0.5),
}


def assign(name, num_priors, gt_boxes, ignored=(), device="cpu"):
    points, boxes, logits = predictions(num_priors, device)
    anchors = "IAC" in name
    pred = InstanceData(priors=boxes if anchors else points, bboxes=boxes,
                        scores=logits.sigmoid() if anchors else logits)  # fmt: skip
    gts = torch.tensor(gt_boxes, dtype=torch.float32, device=device).reshape(-1, 4)
    labels = torch.arange(len(gts), device=device) % 3
    crowd = torch.tensor(ignored, dtype=torch.float32, device=device).reshape(-1, 4)
    levels = [[num_priors]] if name == "IACATSSAssigner" else []
    return TASK_UTILS.build(dict(type=name, **ASSIGNERS[name])).assign(
        pred, *levels, InstanceData(bboxes=gts, labels=labels), InstanceData(bboxes=crowd)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ASSIGNERS)
class TestAssigners:
    def test_objects_and_labels(self, name, device):
        result = assign(name, 12, [(0, 0, 30, 30), (50, 50, 90, 90)], device=device)
        assert set(result.gt_inds.tolist()) <= {-1, 0, 1, 2} and (result.gt_inds > 0).any()
        positive = result.gt_inds > 0
        assert (result.labels[positive] == result.gt_inds[positive] - 1).all()
        assert (result.labels[~positive] == -1).all() and result.num_gts == 2

    def test_without_objects(self, name, device):
        result = assign(name, 12, [], device=device)
        assert result.gt_inds.tolist() == [0] * 12 and result.labels.tolist() == [-1] * 12

    def test_without_locations(self, name, device):
        result = assign(name, 0, [(0, 0, 30, 30)], device=device)
        assert result.gt_inds.shape == result.labels.shape == (0,)

    def test_without_either(self, name, device):
        result = assign(name, 0, [], device=device)
        assert result.gt_inds.shape == (0,) and result.num_gts == 0

    def test_ignored_regions(self, name, device):
        result = assign(name, 12, [(0, 0, 30, 30)], [(60, 60, 110, 110)], device=device)
        inside = result.gt_inds[9:]
        # mmdet's two take anchors there out of training; points are background, as in FCOS.
        assert (inside == (-1 if "IAC" in name else 0)).all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_reduction_overrides_of_dc_loss(reduction):
    wrapped = MODELS.build(FOCAL)
    loss = MODELS.build(dict(type="DCLoss", loss=FOCAL, use_sigmoid=True))
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 4, 4])
    torch.testing.assert_close(
        loss(logits, labels, reduction_override=reduction),
        wrapped(logits, labels, reduction_override=reduction),
    )
    with pytest.raises(AssertionError):
        loss(logits, labels, reduction_override="true")
