"""AP of each training on bootstrap resamples of the images: what intervals are computed from.

A line per result in RESULTS_DIR/resamples.jsonl, so that intervals can be computed again, and new
methods compared with earlier ones, without the detections.
"""

import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from compose import Run
from evaluate import split_of
from jobs import Job, check_data
from records import KEYS, append, read
from tables import Results

from misalign_det.errors import InputError
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
        self._images: dict[str, str] = {}
        self._kept = {
            (_run_of(line), line["config"], line["AP"]): line
            for line in read(self.path, _KEYS)
            if (line["split"], line["resamples"]) == (results.split, resamples)
        }
        for run in (run for runs in results.runs.values() for run in runs):
            if self.has(run):
                self._check_images(self._kept[self._key(run)])

    def has(self, run: Run) -> bool:
        """Whether there is a line of a run's result."""
        return self._key(run) in self._kept

    def of(self, run: Run) -> ResampledAP:
        """AP of a run, one training.

        Raises:
            KeyError: there is no line of its result.
        """
        kept = self._kept[self._key(run)]["draws"]
        draws = np.array(kept, dtype=float) * UNIT  # None becomes NaN
        return ResampledAP(np.array([self.results.ap(run)]), draws[None])

    def add(self, tests: Sequence[tuple[Run, Job]]) -> list[Run]:
        """Compute the lines of tested runs from their detections, and append them.

        Args:
            tests: runs and their jobs.

        Returns:
            The runs whose detections have another AP than their result, and so are of another
            training.

        Raises:
            InputError: the annotations of a split are missing, or have other images than those of
                the lines that are there, or in another order.
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
                **asdict(run),
                split=self.results.split,
                config=self.results.config(run),
                AP=ap,
                images=f"{seed_of(*coco.getImgIds()):08x}",
                resamples=self.resamples,
                draws=draws,
            )
            self._check_images(line)
            append(self.path, line)
            self._kept[self._key(run)] = line
        return others

    def _check_images(self, line: dict[str, Any]) -> None:
        """A resample has the same images in all lines of a data set, or gains are not paired."""
        images = self._images.setdefault(line["data"], line["images"])
        if images != line["images"]:
            raise InputError(
                f"{self.path}: AP on resamples of {_run_of(line)} is not of the same images as "
                f"that of the other methods on {line['data']}, or of another order of them. Remove "
                "the lines of one of the two annotation files, and compare again."
            )

    def _key(self, run: Run) -> tuple[Run, str, float]:
        return run, self.results.config(run), self.results.ap(run)


def seed_of(*words: object) -> int:
    """A seed that depends on some words alone."""
    return zlib.crc32(" ".join(map(str, words)).encode())


def _run_of(line: dict[str, Any]) -> Run:
    return Run(line["method"], line["data"], line["seed"], line["epochs"], line["backbone"])
