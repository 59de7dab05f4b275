"""Legends and marks of figures: complete, and never over one another."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from misalign_det.analysis import palette
from misalign_det.analysis.figure_parts import (
    legend_below,
    outline,
    score_tags,
    show_image,
    text_band,
)
from misalign_det.analysis.loss_maps import LevelLosses, draw_loss_maps
from misalign_det.analysis.receptive_field import ReceptiveField, draw_receptive_fields
from misalign_det.analysis.sampling_points import SamplingPoints, draw_sampling_points

# Viénot, Brettel and Mollon's (1999) simulation of protanopia and deuteranopia, on linear RGB.
BLIND = {
    "protanopia": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranopia": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("kind", BLIND)
def test_the_first_four_colours_differ_for_the_colour_blind(kind):
    linear = np.array([to_rgb(color) for color in palette.COLORS[:4]]) ** 2.2
    seen = np.clip(linear @ np.array(BLIND[kind]).T, 0, 1) ** (1 / 2.2)
    distances = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 0.1


def test_styles_differ_by_more_than_their_colour():
    styles = [palette.style(i) for i in range(len(palette.COLORS))]
    for key in ("color", "marker", "linestyle"):
        assert len({style[key] for style in styles}) == len(styles)
    assert palette.style(6) == palette.style(0)


def test_no_text_is_written_over_another():
    canvas = np.zeros((60, 80, 3), np.uint8)
    placed = score_tags(canvas, [((5, 5), "0.91", palette.BLUE)] * 3 + [((79, 59), "1", "#000000")])
    assert len(placed) == 4 and placed[0] == (5, 5) and len(set(placed)) == 4
    assert {x for x, _ in placed[:3]} == {5} and placed[3][0] < 79  # inside the picture
    assert len(score_tags(canvas, [((0, 55), "0.91", palette.BLUE)] * 9)) == 1  # no room below


def test_a_band_shows_each_entry_and_grows_with_them():
    one = text_band(300, [("a box", palette.VERMILION, 2)])
    assert one.shape == (24, 300, 3) and (one == palette.rgb(palette.VERMILION)).all(-1).any()
    many = text_band(300, [("an entry of some length", palette.BLUE, 2)] * 5)
    assert many.shape[0] > 48 and many.shape[1] == 300


def drawn_legends(figure):
    figure.canvas.draw()
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_figures_name_their_marks_axes_and_colours():
    image, box = np.full((64, 96, 3), 100, np.uint8), torch.tensor([10.0, 10, 60, 50])
    loss = torch.rand(8, 12)
    level = LevelLosses(8, loss, loss.flip(1), loss > -1, torch.tensor([[2, 3]]))
    maps = draw_loss_maps(image, box, [level])
    assert drawn_legends(maps) == [
        "object", "its positives", "least loss of this map", "least loss of the map beside it",
    ]  # fmt: skip
    points = draw_sampling_points(image, box, (20.0, 20.0), [SamplingPoints("a", torch.rand(9, 2))])
    assert drawn_legends(points) == ["object", "location", "sampling point of the layer"]
    field = ReceptiveField("classification", 8, 20, 40, 12.0, np.random.rand(64, 64))
    fields = draw_receptive_fields([field, field])
    assert drawn_legends(fields) == ["effective field", "theoretical field, where it fits"]
    for figure in (maps, points, fields):
        # Every panel and colour bar has a label; a panel inside a grid has its neighbours'.
        assert all(axis.get_ylabel() or axis.get_xlabel() for axis in figure.axes)
        names = [axis.get_xlabel() + axis.get_ylabel() for axis in figure.axes]
        assert any("pixels" in name for name in names)


def test_marks_lie_where_they_belong():
    figure = Figure()
    axis = figure.subplots()
    show_image(axis, np.zeros((40, 60, 3), np.uint8))
    outline(axis, torch.tensor([10.0, 5, 30, 25]))
    legend_below(figure, [("object", dict(color="white"))])
    (patch,) = axis.patches
    assert patch.get_bbox().bounds == (10, 5, 20, 20)
    assert axis.get_ylim() == (40, 0) and axis.get_xlabel() == "x, pixels"
