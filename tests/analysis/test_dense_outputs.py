"""What the analysis tools read of a head, against mmdet's own ways to it."""

import pytest
import torch
from helpers.tiny_detectors import HEADS, make_detector
from mmdet.registry import MODELS
from mmengine.config import Config
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
