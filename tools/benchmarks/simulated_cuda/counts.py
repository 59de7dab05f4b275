"""Launches and synchronisations, by operator and by the line of code that caused them."""

import sys
from collections import Counter
from pathlib import PurePath

OWN, LIBRARIES = "misalign_det", ("mmdet", "mmcv", "mmengine")
PASSED_THROUGH = "misalign_det/utils/new_tensor.py"  # by each function called in its context


class Counts:
    """Launches and host-device synchronisations counted since its creation.

    Attributes:
        launches: number of kernel launches of each ``(operator, line)``.
        syncs: number of times the host waited for the device, for each ``(reason, line)``.
        problems: descriptions of what a GPU would compute wrongly without an error.
    """

    def __init__(self) -> None:
        self.launches: Counter = Counter()
        self.syncs: Counter = Counter()
        self.problems: Counter = Counter()

    @property
    def num_launches(self) -> int:
        return sum(self.launches.values())

    @property
    def num_syncs(self) -> int:
        return sum(self.syncs.values())

    def launches_by_operator(self) -> Counter:
        return _summed(self.launches, 0)

    def launches_by_line(self) -> Counter:
        return _summed(self.launches, 1)

    def syncs_by_line(self) -> Counter:
        return _summed(self.syncs, 1)

    def table(self, rows: int = 30) -> str:
        """The syncs, then the lines with the most launches."""
        lines = [f"{self.num_launches} launches, {self.num_syncs} syncs"]
        for (reason, line), number in self.syncs.most_common():
            lines.append(f"{number:6d} syncs     {reason:32s} {line}")
        for line, number in self.launches_by_line().most_common(rows):
            lines.append(f"{number:6d} launches  {line}")
        return "\n".join(lines)


class Recorder:
    """Adds each event to every open :class:`Counts`."""

    def __init__(self) -> None:
        self.open: list[Counts] = []

    def launch(self, operator: str, number: int = 1) -> None:
        if self.open:
            key = (operator, calling_line())
            for counts in self.open:
                counts.launches[key] += number

    def sync(self, reason: str) -> None:
        if self.open:
            key = (reason, calling_line())
            for counts in self.open:
                counts.syncs[key] += 1

    def problem(self, text: str) -> None:
        for counts in self.open:
            counts.problems[f"{text} ({calling_line()})"] += 1


def calling_line() -> str:
    """``path:line`` of the innermost frame in this package, else in mmdet, mmcv or mmengine.

    Both, if a line of this package calls code of the others.
    """
    library, frame = None, sys._getframe(1)
    while frame is not None:
        owner = _owner(frame.f_code.co_filename)
        if owner is not None:
            line = f"{owner}:{frame.f_lineno}"
            if owner.startswith(OWN):
                return line if library is None else f"{line} (through {library})"
            library = library or line
        frame = frame.f_back
    return library or "elsewhere"


_OWNERS: dict[str, str | None] = {}


def _owner(filename: str) -> str | None:
    """The file's path from the package on, or None if it is not in one that is named here."""
    if filename not in _OWNERS:
        parts = PurePath(filename).parts
        found = [i for i, part in enumerate(parts[:-1]) if part in (OWN, *LIBRARIES)]
        owner = "/".join(parts[found[-1] :]) if found else None
        _OWNERS[filename] = None if owner == PASSED_THROUGH else owner
    return _OWNERS[filename]


def _summed(counter: Counter, place: int) -> Counter:
    out: Counter = Counter()
    for key, number in counter.items():
        out[key[place]] += number
    return out
