"""Parts that several figures share: images with axes, legends, objects, bands of text."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from .palette import SKY_BLUE, VERMILION, rgb

# Marks on images and maps: each has an edge, to stand out on light and on dark pixels.
EDGE = [withStroke(linewidth=3, foreground="black")]
OBJECT: dict[str, Any] = dict(color="white", lw=1.5, path_effects=EDGE)
OWN_PEAK: dict[str, Any] = dict(marker="*", ms=14, color=SKY_BLUE, mec="black", ls="none")
OTHER_PEAK: dict[str, Any] = dict(marker="o", ms=12, mfc="none", mec=VERMILION, mew=2.2, ls="none",
                  path_effects=EDGE)  # fmt: skip
POSITIVE: dict[str, Any] = dict(
    marker="x", ms=7, mew=1.8, color="white", ls="none", path_effects=EDGE
)


def show_image(axis: Axes, image: np.ndarray) -> None:
    """Show an image with its pixels on the axes.

    Args:
        axis: of matplotlib.
        image: RGB, ``(H, W, 3)``.
    """
    height, width = image.shape[:2]
    axis.imshow(image, extent=(0, width, height, 0))
    axis.set(xlim=(0, width), ylim=(height, 0), xlabel="x, pixels", ylabel="y, pixels")
    axis.tick_params(labelsize=7)
    axis.xaxis.label.set_fontsize(8)
    axis.yaxis.label.set_fontsize(8)


def outline(axis: Axes, bbox: Tensor) -> None:
    """Draw a GT, xyxy in pixels of the image, ``(4,)``."""
    left, top, right, bottom = bbox.tolist()
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **OBJECT))


def legend_below(fig: Figure, entries: Sequence[tuple[str, dict]]) -> None:
    """A legend of the whole figure, on grey, so that white marks are seen.

    Args:
        fig: with ``layout='constrained'``.
        entries: what a mark means, and the keywords of ``Line2D`` that draw it.
    """
    fig.legend(
        [Line2D([], [], **mark) for _, mark in entries], [text for text, _ in entries],
        loc="outside lower center", ncols=len(entries), fontsize=8, facecolor="#c8c8c8",
    )  # fmt: skip


def text_band(width: int, entries: Sequence[tuple[str, str | None, int]]) -> np.ndarray:
    """Lines of text on white, with a stroke of a colour before each text, as a legend of a picture.

    Args:
        width: of the picture in pixels; entries that do not fit go on the next line.
        entries: text, its colour as ``#rrggbb`` or ``None`` for no stroke, and the stroke's width.

    Returns:
        uint8 RGB, ``(h, width, 3)``.
    """
    placed, x, line = [], 4, 0
    for text, color, thickness in entries:
        size = _text_width(text) + (30 if color else 0)
        if x > 4 and x + size > width:
            x, line = 4, line + 1
        placed.append((x, line, text, color, thickness))
        x += size + 14
    band = np.full((24 * (line + 1), width, 3), 255, np.uint8)
    for x, row, text, color, thickness in placed:
        y = 24 * row + 12
        if color:
            cv2.line(band, (x, y), (x + 22, y), rgb(color), thickness)
            x += 28
        cv2.putText(band, text, (x, y + 5), FONT, SCALE, (0, 0, 0), 1, cv2.LINE_AA)
    return band


FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, FONT, SCALE, 1)[0][0]


def score_tags(
    canvas: np.ndarray, tags: Sequence[tuple[tuple[int, int], str, str]]
) -> list[tuple[int, int]]:
    """Write short texts on filled grounds at the upper left corners of boxes, none over another.

    Args:
        canvas: uint8 RGB, drawn on.
        tags: corner (x and y), text in ASCII and colour of the ground, the most important first. A
            text moves down where another one stands, and is left out if there is no room.

    Returns:
        x and y of the texts that are written.
    """
    taken: list[tuple[int, int, int, int]] = []
    for corner, text, color in tags:
        (width, height), _ = cv2.getTextSize(text, FONT, 0.35, 1)
        width, height = width + 2, height + 4
        x = min(max(corner[0], 0), max(canvas.shape[1] - width, 0))
        y = min(max(corner[1], 0), max(canvas.shape[0] - height, 0))
        for top in range(y, min(y + 4 * height, canvas.shape[0] - height + 1), height):
            if all(
                x >= x1 or x + width <= x0 or top >= y1 or top + height <= y0
                for x0, y0, x1, y1 in taken
            ):
                taken.append((x, top, x + width, top + height))
                cv2.rectangle(canvas, (x, top), (x + width, top + height), rgb(color), -1)
                place = (x + 1, top + height - 2)
                cv2.putText(canvas, text, place, FONT, 0.35, (255, 255, 255), 1, cv2.LINE_AA)
                break
    return [(x, y) for x, y, _, _ in taken]
