"""What mmdet's own tests demand of its heads, assigners and losses, of those of this package.

Which of mmdet's test files each demand comes from stands in tests/README.md.
"""

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401

STRIDES = [8, 16, 32, 64, 128]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
COMMON = dict(num_classes=4, in_channels=16, feat_channels=16, stacked_convs=2)
GN = dict(type="GN", num_groups=4)
ANCHORS = dict(anchor_generator=dict(
    type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
    strides=STRIDES))  # fmt: skip
FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25)
DC_FOCAL = dict(loss_cls=dict(type="DCLoss", loss=FOCAL))
DC_QUALITY = dict(loss_cls=dict(
    type="DCLoss", loss=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0)))  # fmt: skip
JLA = dict(assigner=dict(type="JLAAssigner"))
ALIGN = dict(assigner=dict(type="SpatialAlignAssigner"))
MAX_IOU = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
REST = dict(sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1, debug=False)
IAC = dict(assigner=dict(type="IACAssigner", **MAX_IOU), **REST)
IAC_ATSS = dict(assigner=dict(type="IACATSSAssigner", topk=9), **REST)
HEADS = {
    "TripleHead": (dict(strides=STRIDES, norm_cfg=GN), JLA),
    "LossAwareFCOSHead": (dict(strides=STRIDES, norm_cfg=GN), JLA),
    "RFAHead": (dict(strides=STRIDES, norm_cfg=GN), ALIGN),
    "RFAFCOSHead": (dict(strides=STRIDES, norm_cfg=GN), None),
    "FCOSHeadWithoutCenterness": (dict(strides=STRIDES, norm_cfg=GN), None),
    "DCRetinaHead": (dict(**DC_FOCAL, **ANCHORS), IAC),
    "DCATSSHead": (
        dict(norm_cfg=GN, loss_bbox=dict(type="GIoULoss"), **DC_FOCAL, **ANCHORS), IAC_ATSS),
    "DCFCOSHead": (dict(strides=STRIDES, norm_cfg=GN, **DC_FOCAL), None),
    "DCGFLHead": (
        dict(norm_cfg=GN, reg_max=7, loss_bbox=dict(type="GIoULoss"), **DC_QUALITY, **ANCHORS),
        IAC_ATSS,
    ),
}
TEST_CFG = dict(nms_pre=100, min_bbox_size=0, score_thr=0.0, max_per_img=10,
                nms=dict(type="nms", iou_threshold=0.6))  # fmt: skip


def make_head(name):
    options, train_cfg = HEADS[name]
    torch.manual_seed(0)
    config = dict(type=name, **COMMON, **options, train_cfg=train_cfg, test_cfg=TEST_CFG)
    head = MODELS.build(ConfigDict(config))
    head.init_weights()
    return head


def features(device, num=1):
    torch.manual_seed(1)
    return tuple(torch.randn(num, 16, 256 // s, 256 // s, device=device) for s in STRIDES)


def samples(*boxes, device="cpu"):
    """One data sample an image, each from a list of (x0, y0, x1, y1, label)."""
    out = []
    for rows in boxes:
        rows = torch.tensor(rows, dtype=torch.float32, device=device).reshape(-1, 5)
        sample = DetDataSample(metainfo=dict(
            img_shape=(256, 256), pad_shape=(256, 256), ori_shape=(256, 256), scale_factor=(1, 1),
            batch_input_shape=(256, 256)))  # fmt: skip
        sample.gt_instances = InstanceData(bboxes=rows[:, :4], labels=rows[:, 4].long())
        sample.ignored_instances = InstanceData(bboxes=rows[:0, :4])
        out.append(sample)
    return out


def totals(losses):
    return {k: sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k}


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
