"""The misalignment report: one HTML file without external resources."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import jinja2
import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .measurement import Measurement
from .worst_images import WorstImage

COLORS = ("#1f6fb4", "#d1602d", "#2a8a57", "#8a4fb0", "#b08a1f", "#4a4a4a")
MIN_WIDTH = 480  # smaller images are enlarged
TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(path: str | Path, names: Sequence[str], measured: Sequence[Measurement]) -> None:
    """Write the report.

    Args:
        path: of the HTML file.
        names: of the detectors.
        measured: figures per detector, for the same classes.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(number=_number, percent=_percent)
    environment.tests["nan"] = lambda value: value != value
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    detectors = [
        dict(
            name=name,
            found=found,
            color=COLORS[i % len(COLORS)],
            scatter=_embed(draw_scores(found, COLORS[i % len(COLORS)])),
            worst=[(image, _embed_image(draw_worst(image))) for image in found.worst],
        )
        for i, (name, found) in enumerate(zip(names, measured))
    ]
    html = template.render(
        detectors=detectors,
        reliability=_embed(draw_reliability(names, measured)),
        gaps=_embed(draw_gaps(names, measured)) if any(m.gaps for m in measured) else None,
        classes=measured[0].classes,
        num_images=measured[0].num_images,
    )
    Path(path).write_text(html, encoding="utf-8")


def draw_scores(found: Measurement, color: str) -> Figure:
    """Score over IoU, one dot per box with an IoU above 0.1 with a GT of its class."""
    fig, axis = _figure(4.6, 3.6)
    detections = found.detections[found.detections.overlaps > 0.1]
    # At most about 4000 dots: more hide one another.
    step = max(1, len(detections) // 4000)
    axis.plot(detections.overlaps[::step], detections.scores[::step], ".", ms=3, alpha=0.4,
              color=color)  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="IoU with the GT", ylabel="score")
    return fig


def draw_reliability(
    names: Sequence[str], measured: Sequence[Measurement], bins: int = 10
) -> Figure:
    """Mean IoU over the score; a calibrated score lies on the diagonal."""
    fig, axis = _figure(5.4, 3.8)
    axis.plot([0, 1], [0, 1], "--", color="#999999", lw=1)
    for i, (name, found) in enumerate(zip(names, measured)):
        index = np.clip((found.detections.scores * bins).astype(int), 0, bins - 1)
        counts = np.bincount(index, minlength=bins)
        kept = counts > 0
        score, iou = (
            np.bincount(index, value, bins)[kept] / counts[kept]
            for value in (found.detections.scores, found.detections.matched_overlaps)
        )
        axis.plot(score, iou, "o-", ms=4, color=COLORS[i % len(COLORS)], label=name)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="mean IoU, 0 for a false positive")
    axis.legend(fontsize=8, loc="upper left")
    return fig


def draw_gaps(names: Sequence[str], measured: Sequence[Measurement]) -> Figure:
    """Median distance of the two peaks in strides, one group of bars per level."""
    known = [(i, name, m) for i, (name, m) in enumerate(zip(names, measured)) if m.gaps]
    groups = [row["group"] for row in known[0][2].gaps if row["group"].startswith("stride")]
    for _, _, found in known[1:]:
        groups += [r["group"] for r in found.gaps
                   if r["group"].startswith("stride") and r["group"] not in groups]  # fmt: skip
    fig, axis = _figure(6.2, 3.4)
    width = 0.8 / len(known)
    for position, (i, name, found) in enumerate(known):
        rows = {row["group"]: row["strides"] for row in found.gaps}
        heights = [rows.get(group, np.nan) for group in groups]
        axis.bar(np.arange(len(groups)) + (position - (len(known) - 1) / 2) * width, heights, width,
                 color=COLORS[i % len(COLORS)], label=name)  # fmt: skip
    axis.set_xticks(range(len(groups)), groups, fontsize=8)
    axis.set_ylabel("median gap in strides")
    axis.legend(fontsize=8)
    return fig


def draw_worst(image: WorstImage) -> np.ndarray:
    """GTs in green, kept boxes in red, the better boxes that they suppressed in blue; uint8 BGR."""
    canvas = mmcv.imread(image.path)
    if canvas is None:  # a file format that OpenCV cannot read: boxes on white
        corner = np.concatenate([image.gt_bboxes, image.kept, image.better])[:, 2:].max(axis=0)
        canvas = np.full((*np.ceil(corner[::-1]).astype(int).clip(1), 3), 255, np.uint8)
    scale = max(1.0, MIN_WIDTH / canvas.shape[1])
    canvas = cv2.resize(canvas, None, fx=scale, fy=scale)
    colors = (60, 170, 40), (40, 40, 220), (220, 120, 20)
    for boxes, color in zip((image.gt_bboxes, image.kept, image.better), colors):
        for box in np.asarray(boxes) * scale:
            x0, y0, x1, y1 = box.round().astype(int).tolist()
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 2)
    return canvas


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(width, height), layout="constrained")
    axis = fig.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return fig, axis


def _embed(fig: Figure) -> str:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _embed_image(image: np.ndarray) -> str:
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()


def _number(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"
