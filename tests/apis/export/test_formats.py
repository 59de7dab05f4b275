"""Exported files give, at any size and number of images, what mmdet's predict gives."""

import sys

import onnx
import pytest
import torch
from helpers.every_head import HEADS
from helpers.exported_detectors import make_detector, make_items

from misalign_det.apis.export.comparison import compare
from misalign_det.apis.export.detector_graph import DetectorGraph, example_input
from misalign_det.apis.export.formats import (
    load_onnx,
    load_program,
    required,
    write_onnx,
    write_program,
)
from misalign_det.apis.export.nms_graph import NMSGraph
from misalign_det.errors import InputError

EXAMPLE = example_input((2, 64, 96))


def written(graph, path, opset=17):
    graph.eval().requires_grad_(False)
    nms = isinstance(graph, NMSGraph)
    names = ("detections", "labels") if nms else ("boxes", "scores")
    write_onnx(graph, EXAMPLE, path, names, {"classes": '["a"]'}, opset)
    return load_onnx(path)


@pytest.mark.parametrize("head", HEADS)
def test_onnx_with_nms_gives_the_detections(head, tmp_path):
    graph = NMSGraph(make_detector(head))
    exported = written(graph, tmp_path / "nms.onnx")
    items = make_items((70, 50), (64, 96))
    assert compare(graph, exported, items).number == 2
    detections, labels = exported(items[0]["inputs"].float()[None])
    assert detections.shape == (1, 10, 5) and (labels >= 0).all()
    scores = detections[0, :, 4]
    assert (scores[:-1] >= scores[1:]).all() and scores[0] > scores[-1]


@pytest.mark.parametrize("head", ["TripleHead", "RFAHead", "DCGFLHead"])
def test_onnx_without_nms_gives_all_boxes_and_scores(head, tmp_path):
    options = {} if head == "DCGFLHead" else dict(score_mode="geometric_mean")
    graph = DetectorGraph(make_detector(head, **options))
    exported = written(graph, tmp_path / "dense.onnx", opset=16)
    assert compare(graph, exported, make_items((70, 50))).number == 1
    boxes, scores = exported(torch.rand(3, 3, 33, 130) * 255)
    locations = 8 * 20 + 4 * 10 + 2 * 5 + 1 * 3 + 1 * 2  # of 64 x 160
    assert boxes.shape == (3, locations, 4) and scores.shape == (3, locations, 4)
    assert boxes.amin() >= 0 and boxes[..., 2].amax() == 130 and boxes[..., 3].amax() == 33


@pytest.mark.parametrize(
    "test_cfg",
    [
        dict(box_voting=dict(sigma=0.05, iou_threshold=0.1)),
        dict(nms=dict(type="nms", iou_threshold=0.3, class_agnostic=True)),
        dict(score_thr=0.6, nms_pre=7),
        dict(score_thr=1.0),  # nothing is found
    ],
    ids=["voting", "class-agnostic", "selection", "nothing"],
)
def test_test_cfg_is_inside(test_cfg, tmp_path):
    graph = NMSGraph(make_detector("TripleHead", test_cfg))
    exported = written(graph, tmp_path / "nms.onnx")
    items = make_items((64, 96))
    compare(graph, exported, items)
    labels = exported(items[0]["inputs"].float()[None])[1]
    plain = NMSGraph(make_detector("TripleHead"))
    if "score_thr" in test_cfg:
        assert (labels < 0).any()
    assert any(
        not torch.equal(mine, other)
        for mine, other in zip(graph(EXAMPLE + 99), plain(EXAMPLE + 99))
    )


@pytest.mark.slow
def test_a_program_of_torch_export(tmp_path):
    graph = DetectorGraph(make_detector("TripleHead")).eval().requires_grad_(False)
    path = tmp_path / "dense.pt2"
    write_program(graph, EXAMPLE, path, {"classes": '["a"]'})
    assert compare(graph, load_program(path), make_items((70, 50))).number == 1


def test_metadata_and_opset_stand_in_the_file(tmp_path):
    written(DetectorGraph(make_detector("DCFCOSHead")), tmp_path / "dense.onnx", opset=18)
    model = onnx.load(str(tmp_path / "dense.onnx"))
    assert {p.key: p.value for p in model.metadata_props}["classes"] == '["a"]'
    assert model.opset_import[0].version == 18
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r'pip install "misalign_det\[export\]"'):
        required("onnxruntime")
