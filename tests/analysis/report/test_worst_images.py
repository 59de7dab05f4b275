"""The images that lose most, and the pairs of boxes that count."""

from types import SimpleNamespace

import numpy as np
import pytest

from misalign_det.analysis.report.worst_images import WorstImages


def test_the_worst_images_are_those_that_lose_most():
    images = WorstImages(num=2)

    def update(name, iou, best, scores):
        boxes = np.arange(4.0 * len(iou)).reshape(-1, 4)
        outcome = SimpleNamespace(
            iou=np.array(iou), best_iou=np.array(best), scores=np.array(scores), bboxes=boxes,
            best_bboxes=boxes + 1)  # fmt: skip
        images.update(name, np.zeros((1, 4)), outcome)

    update("little", [0.6], [0.64], [0.9])  # 0.05 is the least that counts
    update("unsure", [0.1], [0.9], [0.29])  # below 0.3 nothing is shown
    update("nothing", [np.nan], [np.nan], [0.9])
    assert images.compute() == []
    update("one", [0.5, 0.5], [0.6, 0.5], [0.3, 0.9])
    assert [(w.path, len(w.kept)) for w in images.compute()] == [("one", 1)]  # 0.3 is shown
    update("three", [0.5], [0.8], [0.9])
    update("two", [0.5, 0.5], [0.6, 0.6], [0.9, 0.9])
    worst = images.compute()
    assert [(w.path, len(w.kept)) for w in worst] == [("three", 1), ("two", 2)]
    assert worst[1].iou_lost == pytest.approx(0.2)
    assert (worst[0].better == worst[0].kept + 1).all()
