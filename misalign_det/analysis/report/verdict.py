"""The report's verdict: what the figures of a detector say, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .measurement import Measurement
from .resampling import Resampled

SHARES = (
    (0.0, "hardly any"), (0.1, "a tenth"), (0.2, "a fifth"), (0.25, "a quarter"), (0.33, "a third"),
    (0.4, "two fifths"), (0.5, "half"), (0.6, "three fifths"), (0.67, "two thirds"),
    (0.75, "three quarters"), (0.8, "four fifths"), (0.9, "nine tenths"), (1.0, "nearly all"),
)  # fmt: skip
NOTHING = 0.005  # AP, 0 to 1, that counts as little


@dataclass
class Statement:
    """A sentence of the verdict.

    Attributes:
        text: the sentence.
        figure: its figure, with unit and 95 % interval.
    """

    text: str
    figure: str


@dataclass(frozen=True)
class Figure:
    """How a figure of :attr:`~.measurement.Measurement.resampled` is written.

    Attributes:
        key: in ``resampled``.
        label: what it is, in a few words.
        factor: by which it is multiplied.
        digits: after the point.
        better: 1 if more is better, -1 if less is, 0 if neither.
    """

    key: str
    label: str
    factor: float = 100.0
    digits: int = 1
    better: int = 0

    def text(self, found: Resampled, signed: bool = False) -> str:
        """The value; with a sign if it is a difference."""
        if np.isnan(found.value):
            return "–"
        return self._number(found.value, signed)

    def interval(self, found: Resampled, signed: bool = False) -> str:
        """The ends of the interval, '' without one."""
        ends = found.interval()
        if np.isnan(ends).any():
            return ""
        low, high = (self._number(end, signed) for end in ends)
        return f"{low} to {high}"

    def _number(self, value: float, signed: bool) -> str:
        rounded = round(self.factor * value, self.digits) + 0.0  # no -0.0
        return f"{rounded:{'+' if signed else ''}.{self.digits}f}"

    def whole(self, found: Resampled, unit: str = "", signed: bool = False) -> str:
        """Value, unit and interval."""
        ends = self.interval(found, signed)
        value = " ".join(part for part in (self.text(found, signed), unit) if part)
        return f"{value} ({ends})" if ends else value


FIGURES = {
    figure.key: figure
    for figure in (
        Figure("AP", "AP", better=1),
        Figure("AP_by_iou", "AP by IoU", better=1),
        Figure("headroom", "headroom, AP", better=-1),
        Figure("explained", "ranking explained, %", digits=0, better=1),
        Figure("laece", "calibration error", factor=1, digits=3, better=-1),
        Figure("overconfidence", "overconfidence", factor=1, digits=3),
        Figure("regret", "NMS regret, AP", better=-1),
        Figure("balanced", "gain by CLBalancedNMS, AP"),
        Figure("gap", "spatial gap, strides", factor=1, digits=2, better=-1),
    )
}


def verdict(found: Measurement) -> list[Statement]:
    """The statements on one detector, the most general first; what is not measured is left out."""
    if len(found.detections) == 0:
        return [Statement("The detector found nothing. Check its score threshold.", "")]
    parts = found.resampled
    statements = []
    if not np.isnan(parts["explained"].value):
        statements.append(_on_ranking(parts["explained"]))
    if not np.isnan(parts["headroom"].value):
        ap, ideal = (FIGURES["AP"].text(parts[key]) for key in ("AP", "AP_by_iou"))
        statements.append(
            Statement(
                f"Ranked by their fit, the same boxes would have {ideal} AP in place of {ap}.",
                "headroom " + FIGURES["headroom"].whole(parts["headroom"], "AP"),
            )
        )
    statements += [*_most_headroom(found), *_on_nms(parts)]
    if not np.isnan(parts["laece"].value):
        over = parts["overconfidence"].value
        text = f"Scores are {abs(over):.2f} too {'high' if over > 0 else 'low'} on average."
        if abs(over) < 0.01:
            text = "Scores are neither too high nor too low on average."
        statements.append(
            Statement(text, "calibration error " + FIGURES["laece"].whole(parts["laece"]))
        )
    if "gap" in parts and not np.isnan(parts["gap"].value):
        other = found.gaps[0]["other_level"]
        statements.append(
            Statement(
                "The location with the best score and the one with the best box lie "
                f"{parts['gap'].value:.1f} strides apart, for {100 * other:.0f}\u00a0% of the "
                "objects on different levels.",
                "median gap " + FIGURES["gap"].whole(parts["gap"], "strides"),
            )
        )
    return statements


def one_line(found: Measurement) -> str:
    """AP, then the verdict's first sentences, each with its figure and interval, in one line."""
    parts = [f"AP {FIGURES['AP'].whole(found.resampled['AP'])}."]
    for statement in verdict(found)[:4]:
        figure = f": {statement.figure}." if statement.figure else "."
        parts.append(statement.text.removesuffix(".") + figure)
    return " ".join(parts)


def _on_ranking(explained: Resampled) -> Statement:
    share = min(SHARES, key=lambda entry: abs(entry[0] - explained.value))[1]
    text, figure = f"Scores explain {share} of the ranking.", FIGURES["explained"]
    # Where the interval reaches above 0, the images do not show which way round it is.
    if explained.value < 0 and not explained.interval()[1] >= 0:
        text = "Scores rank the boxes the wrong way round: the better box has the lower score."
    return Statement(text, figure.whole(explained, "%"))


def _most_headroom(found: Measurement) -> list[Statement]:
    """The class that aligned training may help most; nothing with a single class."""
    known = {
        name: found.resampled[f"headroom/{name}"]
        for name in found.classes
        if not np.isnan(found.resampled[f"headroom/{name}"].value)
    }
    if len(known) < 2:
        return []
    first, second = sorted(known, key=lambda name: -known[name].value)[:2]
    low, _ = (known[first] - known[second]).interval()
    tie = f" or {second}" if low <= 0 else ""
    return [
        Statement(
            f"Aligned training may gain most on {first}{tie}.",
            f"headroom of {first} {FIGURES['headroom'].whole(known[first], 'AP')}, "
            f"of {second} {FIGURES['headroom'].whole(known[second], 'AP')}",
        )
    ]


def _on_nms(parts: dict[str, Resampled]) -> list[Statement]:
    statements = []
    if "balanced" in parts and not np.isnan(parts["balanced"].value):
        gain = parts["balanced"]
        low, high = gain.interval()
        if np.isnan(low):
            low = high = gain.value
        if low > 0:
            text = f"CLBalancedNMS would gain{' a little' if gain.value < NOTHING else ''}."
        elif high < 0:
            text = f"CLBalancedNMS would lose{' a little' if gain.value > -NOTHING else ''}."
        elif high <= NOTHING:
            text = "CLBalancedNMS would gain nothing."
        else:
            text = "Whether CLBalancedNMS would gain, these images do not show."
        statements.append(Statement(text, FIGURES["balanced"].whole(gain, "AP", signed=True)))
    if "regret" in parts and not np.isnan(parts["regret"].value):
        statements.append(
            Statement(
                "Of overlapping boxes, the one that fits best in place of the one with the highest "
                f"score would gain {FIGURES['regret'].text(parts['regret'])} AP.",
                "NMS regret " + FIGURES["regret"].whole(parts["regret"], "AP"),
            )
        )
    return statements


@dataclass
class Difference:
    """A figure of a detector beside that of the first one.

    Attributes:
        label: of the figure.
        first, second: the figures of both.
        gain: ``second - first`` with its sign.
        interval: of the gain; '' without one.
        says: ``'better'``, ``'worse'``, ``'more'``, ``'less'``, or ``'not clear'`` if the interval
            contains 0; '' without one.
    """

    label: str
    first: str
    second: str
    gain: str
    interval: str
    says: str


def differences(first: Measurement, second: Measurement) -> list[Difference]:
    """The figures that both detectors have, with paired differences.

    Args:
        first, second: measured on the same images; see :func:`same_images`.
    """
    rows = []
    for key, figure in FIGURES.items():
        if key not in first.resampled or key not in second.resampled:
            continue
        one, other = first.resampled[key], second.resampled[key]
        gain = other - one
        if np.isnan(gain.value):
            continue
        rows.append(
            Difference(
                figure.label,
                figure.text(one),
                figure.text(other),
                figure.text(gain, signed=True),
                figure.interval(gain, signed=True),
                _says(gain, figure.better),
            )
        )
    return rows


def _says(gain: Resampled, better: int) -> str:
    low, high = gain.interval()
    if np.isnan(low):
        return ""
    if low <= 0 <= high:
        return "not clear"
    sign = 1 if low > 0 else -1
    if not better:
        return "more" if sign > 0 else "less"
    return "better" if sign == better else "worse"


def same_images(measured: Sequence[Measurement]) -> bool:
    """Whether all detectors were measured on the same images with the same objects."""
    sets = [[(image.path, image.gt_bboxes.tolist()) for image in m.images] for m in measured]
    return all(images == sets[0] for images in sets[1:])
