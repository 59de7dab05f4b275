"""The misalignment report: one HTML file without external resources."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ...errors import InputError
from ...version import __version__
from ..palette import COLORS
from .measurement import Measurement
from .page_data import KINDS, PageData, as_json
from .pictures import choose_images
from .verdict import FIGURES, differences, same_images, verdict

MAX_BYTES = 8_000_000  # of the file
FOLDER = Path(__file__).parent
SHORT = ("AP", "AP_by_iou", "headroom", "explained", "laece", "regret", "balanced", "gap")


@dataclass
class Source:
    """Where a detector's figures come from, as the report says it.

    Attributes:
        config, checkpoint: as given.
        split: ``'val'`` or ``'test'``.
        nms: its ``test_cfg.nms``, '' without one.
    """

    config: str
    checkpoint: str
    split: str
    nms: str = ""


def plotting_library() -> str:
    """The JavaScript of plotly, which draws the charts.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError(
            'the report\'s charts need plotly: pip install "misalign_det[report]"'
        ) from error
    return get_plotlyjs()


def write_report(
    path: str | Path,
    names: Sequence[str],
    measured: Sequence[Measurement],
    sources: Sequence[Source],
    command: str = "",
) -> None:
    """Write the report, at most ``MAX_BYTES`` long.

    Pictures are left out where the file would become longer.

    Args:
        path: of the HTML file.
        names: of the detectors.
        measured: figures per detector, for the same classes.
        sources: of the figures, per detector.
        command: that writes the report, as the report shows it.

    Raises:
        InputError: plotly is not installed.
    """
    library = plotting_library()
    comparable = same_images(measured)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(FOLDER),
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=_number, percent=_percent)
    template = environment.get_template("report.html.j2")
    context: dict[str, Any] = dict(
        detectors=[
            dict(
                name=name, found=found, source=source, color=COLORS[i % len(COLORS)],
                verdict=verdict(found),
                differences=differences(measured[0], found) if i and comparable else [],
            )
            for i, (name, found, source) in enumerate(zip(names, measured, sources))
        ],
        comparable=comparable,
        figures=[FIGURES[key] for key in SHORT if any(key in m.resampled for m in measured)],
        classes=measured[0].classes,
        kinds=KINDS,
        command=command,
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        css=(FOLDER / "report.css").read_text(encoding="utf-8"),
        script=(FOLDER / "report.js").read_text(encoding="utf-8"),
        library=library,
    )  # fmt: skip
    data = PageData(names, measured)
    context["data"] = data
    left = MAX_BYTES - len(template.render(context).encode())
    for image in choose_images(measured):  # as long as there is room, the most telling first
        entry = data.image(image)
        left -= len(as_json(entry)) + 20
        if left < 0:
            break
        data.images[data.ids[image]] = entry
    Path(path).write_text(template.render(context), encoding="utf-8")


def _number(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"
