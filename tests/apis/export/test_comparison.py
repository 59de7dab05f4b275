"""The comparison sees what is wrong with an exported detector."""

import pytest
import torch
from helpers.exported_detectors import make_detector, make_items

from misalign_det.apis.export.comparison import compare
from misalign_det.apis.export.detector_graph import DetectorGraph
from misalign_det.apis.export.nms_graph import NMSGraph
from misalign_det.errors import InputError


@pytest.fixture(scope="module", params=[DetectorGraph, NMSGraph])
def graph(request):
    return request.param(make_detector("TripleHead")).eval().requires_grad_(False)


def test_the_graph_itself_differs_by_nothing(graph):
    difference = compare(graph, graph, make_items((64, 96)))
    assert difference.boxes < 1e-5 and difference.scores < 1e-5 and difference.number == 1


@pytest.mark.parametrize("column", [0, 4])
def test_boxes_and_scores(graph, column):
    def wrong(images):
        first, second = (part.clone() for part in graph(images))
        if column == 4 and not isinstance(graph, NMSGraph):
            second += 3e-4
        else:
            first[..., column] += 0.03 if column == 0 else 3e-4  # pixels of 96; a score
        return first, second

    with pytest.raises(InputError, match="It is not written"):
        compare(graph, wrong, make_items((64, 96)))


def test_one_size_only(graph):
    fixed = graph(torch.zeros(1, 3, 64, 96))

    def wrong(images):
        return fixed

    with pytest.raises((InputError, RuntimeError)):
        compare(graph, wrong, make_items((64, 96)))


def test_a_graph_that_is_not_the_detector(graph, monkeypatch):
    core = getattr(graph, "graph", graph)
    own = core._scores
    monkeypatch.setattr(core, "_scores", lambda *args: own(*args) * 0.999)
    with pytest.raises(InputError, match="of the graph differ"):
        compare(graph, graph, make_items((64, 96)))


def test_what_is_not_a_number(graph):
    def wrong(images):
        first, second = (part.clone() for part in graph(images))
        (first if isinstance(graph, NMSGraph) else second)[..., -1] = torch.nan
        return first, second

    with pytest.raises(InputError, match="by inf"):
        compare(graph, wrong, make_items((64, 96)))


def test_between_nearly_equal_scores_rounding_decides(monkeypatch):
    """Noise changes what NMS keeps: the other box in the file is not the file's fault."""
    graph = NMSGraph(make_detector("TripleHead")).eval().requires_grad_(False)
    own = graph.forward

    def tie(images):
        """With noise, the first box is another one."""
        detections, labels = own(images)
        detections[:, 0, 0] += 9 * (images != images.round()).any()
        return detections, labels

    def other(images):
        detections, labels = own(images)
        detections[:, 0, 0] += 9
        return detections, labels

    items = make_items((64, 96))
    with pytest.raises(InputError, match="exported boxes"):
        compare(graph, other, items)
    monkeypatch.setattr(graph, "forward", tie)
    found = compare(graph, other, items)
    assert found.undetermined == 3 and max(found.boxes, found.scores) < 1e-4
