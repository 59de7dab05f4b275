"""AP of each training on bootstrap resamples of the images: what intervals are computed from.

A line per result in RESULTS_DIR/resamples.jsonl, so that intervals can be computed again, and new
methods compared with earlier ones, without the detections.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compose import Run
from evaluate import split_of
from jobs import Job, check_data
from records import KEYS, append, read
from tables import Results

from misalign_det.evaluation.detections_file import load_detections
from misalign_det.evaluation.paired_bootstrap import ResampledAP, resampled_ap

FILE = "resamples.jsonl"
UNIT = 1e-5  # of the draws in the file: AP from 0 to 1, with the digits of the result lines
# A training made again on another device has another AP.
_KEYS = (*KEYS, "config", "AP", "resamples")


class Resamples:
    """The lines of the file, and those that are added to it.

    Args:
        results_dir: with the file; it is made with its first line.
        results: of the study and split.
        resamples: number of resamples; lines of another number are not read.
    """

    def __init__(self, results_dir: Path, results: Results, resamples: int) -> None:
        self.path = results_dir / FILE
        self.results = results
        self.resamples = resamples
        self._kept = {
            (_run_of(line), line["config"], line["AP"]): line["draws"]
            for line in read(self.path, _KEYS)
            if (line["split"], line["resamples"]) == (results.split, resamples)
        }

    def has(self, run: Run) -> bool:
        """Whether there is a line of a run's result."""
        return self._key(run) in self._kept

    def of(self, run: Run) -> ResampledAP:
        """AP of a run, one training.

        Raises:
            KeyError: there is no line of its result.
        """
        draws = np.array(self._kept[self._key(run)], dtype=float) * UNIT  # None becomes NaN
        return ResampledAP(np.array([self.results.ap(run)]), draws[None])

    def add(self, tests: Sequence[tuple[Run, Job]]) -> list[Run]:
        """Compute the lines of tested runs from their detections, and append them.

        Args:
            tests: runs and their jobs.

        Returns:
            The runs whose detections have another AP than their result, and so are of another
            training.

        Raises:
            InputError: the annotations of a split are missing.
        """
        check_data([run for run, _ in tests], self.results.split)
        others = []
        for run, job in tests:
            detections = job.test_file(run, ".pkl")
            coco, classes = split_of(job.test_file(run, ".py"))
            trainings = [load_detections(detections)]
            found = resampled_ap(coco, trainings, classes, self.resamples, seed_of(run.data))
            ap = self.results.ap(run)
            if abs(found.mean - ap) > UNIT:
                others.append(run)
                continue
            draws = [None if np.isnan(draw) else round(draw / UNIT) for draw in found.draws[0]]
            line = dict(
                kind="resamples",
                method=run.method,
                data=run.data,
                backbone=run.backbone,
                epochs=run.epochs,
                seed=run.seed,
                split=self.results.split,
                config=self.results.config(run),
                AP=ap,
                resamples=self.resamples,
                draws=draws,
            )
            append(self.path, line)
            self._kept[self._key(run)] = draws
        return others

    def _key(self, run: Run) -> tuple[Run, str, float]:
        return run, self.results.config(run), self.results.ap(run)


def seed_of(*words: object) -> int:
    """A seed that depends on some words alone."""
    return zlib.crc32(" ".join(map(str, words)).encode())


def _run_of(line: dict) -> Run:
    return Run(line["method"], line["data"], line["seed"], line["epochs"], line["backbone"])
