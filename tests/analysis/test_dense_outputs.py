"""What the analysis tools read of a head, against mmdet's own ways to it."""

import pytest
import torch
from helpers.tiny_detectors import HEADS, make_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import nn

from misalign_det.analysis.dense_outputs import dense_head, dense_outputs, training_positives
from misalign_det.errors import InputError


@pytest.fixture
def detector(tmp_path):
    def build(head):
        cfg = Config.fromfile(make_detector(tmp_path, head)[0])
        torch.manual_seed(0)
        return MODELS.build(cfg.model).eval()

    return build


GTS = InstanceData(bboxes=torch.tensor([[20.0, 20, 90, 100], [40, 60, 70, 80]]),
                   labels=torch.tensor([0, 3]))  # fmt: skip
IMAGE = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
META = dict(img_shape=(128, 128), pad_shape=(128, 128), batch_input_shape=(128, 128))


@pytest.mark.parametrize("head", HEADS)
def test_locations_are_those_of_the_heads_priors(detector, head):
    """mmdet's points lie in the middle of a cell, its anchors' centres at its corner."""
    outputs = dense_outputs(detector(head), IMAGE)
    points, strides = outputs.locations()
    assert len(points) == len(strides) == len(outputs.bboxes) == len(outputs.logits)
    shift = 0.0 if head in ("RetinaHead", "ATSSHead", "GFLHead") else 0.5
    for prior in range(0, len(points), 37):
        level, row, column = outputs.cell(prior)
        stride = outputs.strides[level]
        assert strides[prior] == stride
        expected = [(column + shift) * stride, (row + shift) * stride]
        assert points[prior].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_positives(detector, head):
    model = detector(head)
    priors, gts = training_positives(model, IMAGE, GTS, META)
    assert set(gts.tolist()) == {0, 1} and not model.bbox_head.training
    points, _ = dense_outputs(model, IMAGE).locations()
    boxes = GTS.bboxes[gts]
    if head != "RetinaHead":  # by overlap; the others by location
        x, y = points[priors].T
        assert ((x > boxes[:, 0]) & (x < boxes[:, 2])).all()
        assert ((y > boxes[:, 1]) & (y < boxes[:, 3])).all()


def test_positives_are_those_of_the_training_step(detector):
    model = detector("TripleHead")
    outs = model.bbox_head(model.extract_feat(IMAGE))
    targets = model.bbox_head.get_targets(outs[0], outs[1], [GTS], outs[3])
    expected = {
        (p, g) for p, g in zip(*(part.tolist() for part in targets.assign_result.nonzero()[:2]))
    }
    found = training_positives(model, IMAGE, GTS, META)
    assert set(zip(*(part.tolist() for part in found))) == expected


TOOD = dict(
    type="TOODHead", num_classes=6, in_channels=8, feat_channels=8, stacked_convs=2,
    norm_cfg=dict(type="GN", num_groups=2),
    anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8,
                          scales_per_octave=1, strides=[8, 16, 32, 64, 128]),
    bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1] * 4),
    initial_loss_cls=dict(type="FocalLoss", use_sigmoid=True, activated=True),
    loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, activated=True, beta=2.0),
    loss_bbox=dict(type="GIoULoss"),
    train_cfg=dict(initial_epoch=4, initial_assigner=dict(type="ATSSAssigner", topk=9),
                   assigner=dict(type="TaskAlignedAssigner", topk=13), alpha=1, beta=6,
                   allowed_border=-1, pos_weight=-1, debug=False),
)  # fmt: skip


def with_head(detector, cfg):
    """A detector with another head, whose outputs differ from location to location."""
    model = detector("ATSSHead")
    torch.manual_seed(0)
    model.bbox_head = MODELS.build(dict(cfg, test_cfg=model.bbox_head.test_cfg))
    for parameter in model.bbox_head.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def boxes_of_the_head(model, image):
    """Box, score and label of every location and class, as the head's own predict_by_feat."""
    head, size = model.bbox_head, 10**5
    cfg = head.test_cfg.copy()
    cfg.update(score_thr=-1, nms_pre=10**6, min_bbox_size=-1)
    metas = [dict(img_shape=(size, size), scale_factor=(1.0, 1.0))]
    with torch.no_grad():
        outs = head(model.extract_feat(image))
        return head.predict_by_feat(
            *outs, batch_img_metas=metas, cfg=cfg, rescale=False, with_nms=False
        )[0]


@pytest.mark.parametrize("anchor_type", ["anchor_free", "anchor_based"])
def test_boxes_and_scores_of_tood_are_its_own(detector, anchor_type):
    model = with_head(detector, dict(TOOD, anchor_type=anchor_type))
    own, outputs = boxes_of_the_head(model, IMAGE), dense_outputs(model, IMAGE)
    probabilities = outputs.logits.sigmoid()
    found = torch.cat([outputs.bboxes.repeat_interleave(6, dim=0), probabilities.view(-1, 1),
                       torch.arange(6.0).repeat(len(probabilities))[:, None]], dim=1)  # fmt: skip
    expected = torch.cat([own.bboxes, own.scores[:, None], own.labels[:, None]], dim=1)
    assert found.shape == expected.shape and probabilities.std() > 1e-3
    # The head sorts the boxes of each level by score.
    near = torch.cdist(expected.double(), found.double()).min(dim=1).values
    assert near.max() < 1e-3


def test_positives_of_tood_are_those_of_its_own_assigner(detector):
    model = with_head(detector, TOOD)
    head, runtime = model.bbox_head, MessageHub.get_current_instance().runtime_info
    aligned = []
    original = head.alignment_assigner.assign
    head.alignment_assigner.assign = lambda *args: aligned.append(original(*args)) or aligned[-1]
    runtime.pop("epoch", None)
    for before in ({}, dict(epoch=1)):
        runtime.update(before)
        priors, gts = training_positives(model, IMAGE, GTS, META)
        assert {key: runtime[key] for key in runtime if key == "epoch"} == before
        result = aligned.pop()
        assert priors.tolist() == (result.gt_inds > 0).nonzero().squeeze(1).tolist()
        assert gts.tolist() == (result.gt_inds[priors] - 1).tolist() and len(gts)
    runtime.pop("epoch")


def test_a_head_that_decodes_in_its_own_way_is_refused(detector):
    fovea = dict(type="FoveaHead", num_classes=6, in_channels=8, feat_channels=8, stacked_convs=1,
                 strides=[8, 16, 32, 64, 128], base_edge_list=[16, 32, 64, 128, 256],
                 scale_ranges=((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)),
                 loss_cls=dict(type="FocalLoss", use_sigmoid=True),
                 loss_bbox=dict(type="SmoothL1Loss"))  # fmt: skip
    with pytest.raises(InputError, match="FoveaHead decodes its boxes in a way of its own"):
        dense_outputs(with_head(detector, fovea), IMAGE)


def test_an_assigner_that_is_not_called_is_named(detector):
    model = detector("ATSSHead")
    model.bbox_head.loss_by_feat = lambda *outs, **kwargs: {}
    with pytest.raises(InputError, match="ATSSHead did not call its assigner"):
        training_positives(model, IMAGE, GTS, META)


def test_what_a_dense_head_needs(detector):
    model = detector("RetinaHead")
    assert dense_head(model) is dense_head(model, needs="nms") is model.bbox_head
    for needs in ("locations", "nms"):
        with pytest.raises(InputError, match="Identity is not a one-stage detector"):
            dense_head(nn.Identity(), needs)
    del model.bbox_head.test_cfg["nms"]
    with pytest.raises(InputError, match="RetinaHead has no test_cfg.nms"):
        dense_head(model, needs="nms")
    model.bbox_head.test_cfg = None
    with pytest.raises(InputError, match="RetinaHead has no test_cfg.nms"):
        dense_head(model, needs="nms")
    assert dense_head(model) is model.bbox_head
    model.bbox_head.use_sigmoid_cls = False
    with pytest.raises(InputError, match="softmax"):
        dense_head(model)
    model.bbox_head = MODELS.build(dict(type="YOLOXHead", num_classes=2, in_channels=8,
                                        test_cfg=dict(nms=dict(type="nms"))))  # fmt: skip
    assert dense_head(model, needs="nms") is model.bbox_head
    with pytest.raises(InputError, match="YOLOXHead is not a head over anchors or points"):
        dense_head(model)
    other = nn.Module()  # not a detector whose outputs predict_by_feat can suppress
    other.bbox_head = model.bbox_head
    with pytest.raises(InputError, match="not a one-stage detector"):
        dense_head(other, needs="nms")
