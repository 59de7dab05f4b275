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
