"""Tables of a study from its result lines alone."""

import hashlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compose import BACKBONES, Run
from grid import DATA, Study
from methods import METHODS, REFERENCE

NONE = "–"


@dataclass(frozen=True)
class Column:
    """A data set and a training length."""

    data: str
    epochs: int

    @property
    def length(self) -> float:
        """Epochs as a multiple of the data set's usual ones."""
        return round(self.epochs / DATA[self.data].epochs, 2)


class Results:
    """The result, comparison and cost lines of a study on a split.

    Args:
        lines: from `records.read`; those of other splits and backbones, and of methods that the
            study does not have, are left out.
        study: its order of methods and data sets is kept.

    Attributes:
        runs: the runs that have a result, by method and column.
        columns: those with a result.
        methods: those with a result.
    """

    def __init__(
        self,
        lines: Iterable[Mapping[str, Any]],
        study: Study,
        split: str,
        backbone: str = "effnet-lite0",
    ) -> None:
        self.study, self.split, self.backbone = study, split, backbone
        self._results: dict[Run, Mapping[str, Any]] = {}
        self._comparisons: dict[tuple, Mapping[str, Any]] = {}
        self._costs: list[Mapping[str, Any]] = []
        for line in lines:
            if (line["split"], line["backbone"]) != (split, backbone):
                continue
            if line["kind"] == "comparison":
                key = (line["method"], line["reference"], line["data"], line["length"])
                self._comparisons[key] = line
            elif line["kind"] == "cost":
                self._costs.append(line)
            elif line["method"] in study.methods and line["data"] in DATA:
                run = Run(line["method"], line["data"], line["seed"], line["epochs"], backbone)
                self._results[run] = line
        self.runs: dict[tuple[str, Column], list[Run]] = {}
        for run in sorted(self._results, key=lambda run: run.seed):
            self.runs.setdefault((run.method, Column(run.data, run.epochs)), []).append(run)
        found = {column for _, column in self.runs}
        order = list(DATA)
        self.columns = sorted(found, key=lambda c: (order.index(c.data), c.epochs))
        self.lengths = sorted({column.length for column in self.columns})
        with_results = {method for method, _ in self.runs}
        self.methods = [method for method in study.methods if method in with_results]

    def values(self, method: str, column: Column, key: str = "AP") -> list[float]:
        """A figure of each seed; empty without results."""
        return [self._results[run][key] for run in self.runs.get((method, column), ())]

    def mean(self, method: str, columns: Sequence[Column], key: str = "AP") -> float | None:
        """Mean over seeds, then over columns; None where a column has no result."""
        each = [self.values(method, column, key) for column in columns]
        complete = columns and all(values and None not in values for values in each)
        return statistics.mean(map(statistics.mean, each)) if complete else None

    def time_ratio(self, method: str, key: str) -> float | None:
        """A time over `REFERENCE`'s, mean over data sets; None if it was not measured.

        Args:
            key: of the lines of `cost.py`: 'training_ratio' or 'inference_ratio'.
        """
        configs = {self.config(run) for run in self._results if run.method == method}
        ratios = [line.get(key) for line in self._costs if line["config"] in configs]
        return statistics.mean(ratios) if ratios and None not in ratios else None

    def config(self, run: Run) -> str:
        """Hash of the config of a run's result."""
        return self._results[run]["config"]

    def ap(self, run: Run) -> float:
        """AP of a run's result."""
        return self._results[run]["AP"]

    def lines(self, method: str, column: Column) -> list[Mapping[str, Any]]:
        """The result lines of a cell."""
        return [self._results[run] for run in self.runs.get((method, column), ())]

    def comparison(
        self, method: str, reference: str, columns: Sequence[Column]
    ) -> Mapping[str, Any] | None:
        """The comparison in a column, or over several; None if it is not of the present results."""
        data = columns[0].data if len(columns) == 1 else "all"
        line = self._comparisons.get((method, reference, data, columns[0].length))
        fresh = line and line["of"] == digest(self, (method, reference), columns)
        return line if fresh else None


def digest(results: Results, methods: Sequence[str], columns: Sequence[Column]) -> str:
    """A hash of the results that a comparison was made of."""
    lines = [
        (method, line["data"], line["seed"], line["config"], line["AP"])
        for method in methods
        for column in columns
        for line in results.lines(method, column)
    ]
    return hashlib.sha256(repr(lines).encode()).hexdigest()[:12]


def best_peer(results: Results, columns: Sequence[Column]) -> str | None:
    """mmdet's own method of the largest mean AP over some columns."""
    means = {m: results.mean(m, columns) for m in results.methods if METHODS[m].peer}
    known = {method: mean for method, mean in means.items() if mean is not None}
    return max(known, key=lambda m: known[m]) if known else None


def references(results: Results, columns: Sequence[Column]) -> list[tuple[str, str]]:
    """The pairs (method, reference) to compare.

    Every method over `REFERENCE`, over its baseline and, if it is not mmdet's, over the best peer;
    one that shares the training of another over that one alone.
    """
    best = best_peer(results, columns)
    pairs = []
    for method in results.methods:
        parts = METHODS[method]
        others = [REFERENCE, parts.baseline, None if parts.peer else best]
        if parts.trained_as in results.methods:
            others = [parts.trained_as]
        for other in dict.fromkeys(others):
            if other in results.methods and other != method:
                pairs.append((method, other))
    return pairs


def render(results: Results, picture: str | None = None) -> str:
    """The tables of a study in Markdown.

    Args:
        results: of the study and split.
        picture: link to the plot of the gains; None without one.
    """
    if not results.methods:
        return "No results yet."
    parts = [ap_table(results), _table(gain_rows(results)), _table(cost_rows(results))]
    if picture:
        parts.insert(2, f"![Gain over {REFERENCE} per data set, with its interval]({picture})")
    return "\n\n".join(part for part in parts if part)


def ap_table(results: Results) -> str:
    """The first of the tables of :func:`render`."""
    return _table(ap_rows(results)) if results.methods else "No results yet."


def ap_rows(results: Results) -> Iterator[list[str]]:
    """AP per column as mean and standard deviation over seeds, its mean, and the mean rank.

    A cell of fewer seeds than the study declares says of how many, n.
    """
    several = len(results.columns) > 1
    labels = [_label(results, column) for column in results.columns]
    split = f"AP, {results.split}"
    yield [split, *labels, *(["mean", "mean rank"] if several else [])]
    ranks = _ranks(results)
    best = {c: max((results.mean(m, [c]) or 0) for m in results.methods) for c in results.columns}
    for method in results.methods:
        cells = [_ap_cell(results, method, column, best[column]) for column in results.columns]
        if several:
            mean = results.mean(method, results.columns)
            rank = ranks.get(method)
            cells.append(NONE if mean is None else f"{100 * mean:.1f}")
            cells.append(NONE if rank is None else f"{rank:.1f}")
        yield [f"`{method}`", *cells]


def _ap_cell(results: Results, method: str, column: Column, best: float) -> str:
    return _mean_cell(results.values(method, column), best, len(results.study.seeds))


def _mean_cell(values: Sequence[float], best: float, declared: int) -> str:
    """Mean of the seeds that there are, of those that the study declares, best in bold."""
    if not values:
        return NONE
    mean = f"{100 * statistics.mean(values):.1f}"
    text = mean if statistics.mean(values) < best else f"**{mean}**"
    if len(values) > 1:
        text += f" ± {100 * statistics.stdev(values):.1f}"
    return text if len(values) >= declared else f"{text} (n = {len(values)})"


def class_table(results: Results, data: str) -> str:
    """AP of each class of a data set, after its usual training, as mean over seeds.

    Classes without an object in the split are left out.
    """
    column = Column(data, DATA[data].epochs)
    found = {
        method: results.values(method, column, "per_class")
        for method in results.methods
        if (method, column) in results.runs
    }
    if not found:
        return "No results yet."
    first = next(iter(found.values()))[0]
    names = [name for name, value in first.items() if value is not None]
    best = {n: max(statistics.mean(s[n] for s in seeds) for seeds in found.values()) for n in names}
    rows = [[f"AP by class, {data}, {results.split}", *names]]
    for method, seeds in found.items():
        declared = len(results.study.seeds)
        cells = [_mean_cell([seed[n] for seed in seeds], best[n], declared) for n in names]
        rows.append([f"`{method}`", *cells])
    return _table(rows)


def repeat_table(
    lines: Iterable[Mapping[str, Any]], repeats: Iterable[Mapping[str, Any]], split: str
) -> str:
    """AP of the trainings that were made on several devices, by device.

    Those of the usual lengths, on the first of `BACKBONES`.

    Args:
        lines: of a study, from `records.read`.
        repeats: the same trainings on other devices.
        split: what was tested.
    """
    found: dict[tuple, dict[str, float]] = {}
    backbone = next(iter(BACKBONES))
    for line in [*repeats, *lines]:
        usual = line["kind"] == "result" and line["epochs"] == DATA[line["data"]].epochs
        if usual and (line["split"], line["backbone"]) == (split, backbone):
            key = (line["method"], line["data"], line["seed"])
            found.setdefault(key, {})[line["device"]] = line["AP"]
    found = {key: each for key, each in found.items() if len(each) > 1}
    devices = sorted({device for each in found.values() for device in each})
    rows = [[f"AP, {split}", "seed", *devices]]
    for (method, data, seed), each in sorted(found.items()):
        cells = [f"{100 * each[d]:.1f}" if d in each else NONE for d in devices]
        rows.append([f"`{method}`, {data}", str(seed), *cells])
    return _table(rows) if found else "No results yet."


def _ranks(results: Results) -> dict[str, float]:
    """Mean rank over the columns, of the methods that have a result in all of them.

    Equal methods share the mean of their ranks.
    """
    methods = [m for m in results.methods if results.mean(m, results.columns) is not None]
    ranks: dict[str, list[float]] = {method: [] for method in methods}
    for column in results.columns:
        means = {method: results.mean(method, [column]) or 0 for method in methods}
        for method in methods:
            above = sum(mean > means[method] for mean in means.values())
            equal = sum(mean == means[method] for mean in means.values())
            ranks[method].append(above + (equal + 1) / 2)
    return {method: statistics.mean(each) for method, each in ranks.items()}


def groups(results: Results) -> list[list[Column]]:
    """Each column and, for each length with several columns, all of them."""
    whole = [[c for c in results.columns if c.length == length] for length in results.lengths]
    return [[column] for column in results.columns] + [g for g in whole if len(g) > 1]


def gain_rows(results: Results) -> Iterator[list[str]]:
    """Gains with their intervals, those over `REFERENCE` first."""
    columns = groups(results)
    pairs = dict.fromkeys(pair for group in columns for pair in references(results, group))
    heads = [_label(results, g[0], whole=len(g) > 1) for g in columns]
    rows = []
    for method, reference in sorted(pairs, key=lambda pair: pair[1] != REFERENCE):
        found = [results.comparison(method, reference, group) for group in columns]
        if any(found):
            rows.append([f"`{method}`", f"`{reference}`", *(_gain_cell(line) for line in found)])
    if rows:
        yield ["gain in AP, 95 % interval", "over", *heads]
        yield from rows


def _gain_cell(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return NONE
    gain, low, high = (100 * line[key] for key in ("gain", "low", "high"))
    return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"


def cost_rows(results: Results) -> Iterator[list[str]]:
    """Parameters and, if any was measured, the times of `cost.py` as ratios to `REFERENCE`'s.

    A method that shares the training of another, and has no times of its own, has no row.
    """
    rows, timed = [], False
    for method in results.methods:
        counts = [n for c in results.columns for n in results.values(method, c, "parameters")]
        times = [results.time_ratio(method, f"{what}_ratio") for what in ("training", "inference")]
        if METHODS[method].trained_as in results.methods and not any(times):
            continue
        timed = timed or any(times)
        cells = [NONE if time is None else f"{time:.2f}" for time in times]
        rows.append([f"`{method}`", f"{statistics.mean(counts) / 1e6:.2f}", *cells])
    if rows:
        over = f"time over `{REFERENCE}`'s"
        rows.insert(0, ["cost", "parameters, millions", f"training {over}", f"inference {over}"])
        yield from rows if timed else (row[:2] for row in rows)


def _label(results: Results, column: Column, whole: bool = False) -> str:
    lengths = len(results.lengths) > 1
    if whole:
        return f"all, {column.length:g}x" if lengths else "all"
    return f"{column.data}, {column.epochs} epochs" if lengths else column.data


def _table(rows: Iterable[list[str]]) -> str:
    rows = list(rows)
    if not rows:
        return ""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
