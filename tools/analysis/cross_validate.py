"""Choose settings by cross-validation on the training split; val and test are not used.

    python tools/analysis/cross_validate.py iac_retinanet_r18_fpn_12e_bccd --amp --folds 4 \\
        --grid model.train_cfg.assigner.score_threshold=0.6,0.7,0.8,inf \\
               model.train_cfg.assigner.score_alpha=0.3,0.5

The images of the training annotation file are divided into folds. For every combination of the
grid and every fold, a detector is trained on the other folds and evaluated on this one. The tool
prints one line per combination, the best first. Results are kept in WORK_DIR/results.json, and
finished runs are not repeated; another config, data set or option than before needs another
--work-dir. Of the config's validation set only the pipeline is used: images and
annotations are the training set's. The training set must be one dataset in COCO format, inside any
wrapper, evaluated by CocoMetric.
"""

import argparse
import copy
import itertools
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

import misalign_det.apis  # noqa: F401  (first: it checks the environment)

# isort: split
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS

from misalign_det.analysis.experiment_record import (
    describe_experiment,
    kept_results,
    save_results,
)
from misalign_det.analysis.output_files import output_folder
from misalign_det.apis.cli import add_common_arguments, errors_in_one_line, load_config
from misalign_det.datasets.annotation_checks import coco_parts
from misalign_det.errors import InputError
from misalign_det.utils import is_type, leaf_datasets
from misalign_det.utils.json_file import read_json

TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Cross-validation on the training split")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument(
        "--grid",
        nargs="+",
        required=True,
        metavar="KEY=A,B",
        help="settings to try, in every combination",
    )
    parser.add_argument("--folds", type=int, default=4, help="number of folds (%(default)s)")
    parser.add_argument("--only", type=int, metavar="N", help="run only the first N folds")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and the trainings")
    parser.add_argument("--amp", action="store_true", help="see tools/train.py")
    add_common_arguments(parser)
    args = parser.parse_args(arguments)
    if args.folds < 2:
        parser.error("--folds must be at least 2")
    for entry in args.grid:
        if "=" not in entry:
            parser.error(f"--grid {entry}: write KEY=A,B")
        try:
            split_outside_brackets(entry.split("=", 1)[1])
        except ValueError as error:
            parser.error(f"--grid {entry}: {error}")
    if args.only is not None and args.only < 1:
        parser.error("--only must be at least 1")
    if args.launcher != "none":
        parser.error("--launcher: each training is one process here; leave it out")
    return args


def combinations(grid: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination, each as a tuple of 'key=value'."""
    choices = [
        [f"{key}={value}" for value in split_outside_brackets(values)]
        for key, values in (entry.split("=", 1) for entry in grid)
    ]
    return list(itertools.product(*choices))


def split_outside_brackets(values: str) -> list[str]:
    """Split at the commas that are in no bracket: ``[8,11],[9,11]`` are two values.

    Raises:
        ValueError: a bracket is not closed, or not opened.
    """
    parts, depth = [""], 0
    for character in values:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise ValueError("the brackets do not match")
    return parts


def deal(dataset: dict, folds: int, seed: int) -> list[tuple[dict, dict]]:
    """Split a COCO dictionary by image into pairs (rest, held out), one per fold.

    Raises:
        InputError: fewer images than folds.
    """
    # Ids may be numbers and strings, even in the same file.
    ids = sorted((i["id"] for i in dataset["images"]), key=lambda i: (isinstance(i, str), i))
    if len(ids) < folds:
        raise InputError(f"{len(ids)} images cannot be divided into {folds} folds.")
    random.Random(seed).shuffle(ids)
    pairs = []
    for fold in range(folds):
        held_out = set(ids[fold::folds])
        pairs.append(
            tuple(
                {
                    **dataset,
                    "images": [i for i in dataset["images"] if (i["id"] in held_out) == inside],
                    "annotations": [
                        a for a in dataset["annotations"] if (a["image_id"] in held_out) == inside
                    ],
                }
                for inside in (False, True)
            )
        )
    return pairs


def the_only_leaf(dataset: Mapping | None, key: str) -> Any:
    """The config of the only dataset that reads files, inside any wrappers.

    Raises:
        InputError: there is none, or there are several.
    """
    leaves = list(leaf_datasets(dataset or {}, key))
    if len(leaves) != 1:
        parts = ", ".join(where for where, _ in leaves) or "nothing"
        raise InputError(
            f"{key} ({(dataset or {}).get('type')}) holds {len(leaves)} datasets ({parts}): "
            "cross_validate.py divides the images of one dataset. Give a config with one."
        )
    return leaves[0][1]


def training_annotations(cfg: Config) -> tuple[Path, dict]:
    """Path and content of the training annotation file.

    Raises:
        InputError: there is no such file, it is not in COCO's format, or there are several.
    """
    where = "train_dataloader.dataset"
    leaf = the_only_leaf((cfg.get("train_dataloader") or {}).get("dataset"), where)
    if not is_type(leaf.get("type"), CocoDataset, DATASETS):
        raise InputError(
            f"{where} is a {leaf.get('type')}: cross_validate.py divides the images of "
            "an annotation file in COCO format."
        )
    path = Path(leaf.get("data_root") or "", leaf.get("ann_file") or "")
    content = read_json(str(path), where, leaf.get("data_root") or "")
    coco_parts(content, str(path), where)
    return path, content


def use_fold(cfg: Config, rest: Path, held_out: Path) -> Config:
    """A copy of a config that trains on one part of the training set and validates on the other.

    The validation set becomes the training set (its images, classes and storage) with the
    validation set's pipeline. Every evaluator with an annotation file reads the held-out one.

    Args:
        cfg: with the whole training set.
        rest, held_out: annotation files.
    """
    cfg = copy.deepcopy(cfg)
    train = the_only_leaf(cfg.train_dataloader.dataset, "train_dataloader.dataset")
    val = next(leaf_datasets(cfg.val_dataloader.dataset, "val_dataloader.dataset"))[1]
    # CocoMetric reads the whole fold, so that `indices` must leave no image out.
    own = ("pipeline", "filter_cfg", "indices")
    shared = {key: value for key, value in train.items() if key not in own}
    if isinstance(shared["type"], type):  # of a pure Python config; only a string can be dumped
        shared["type"] = f"{shared['type'].__module__}.{shared['type'].__qualname__}"
    cfg.val_dataloader.dataset = dict(
        copy.deepcopy(shared), pipeline=val.get("pipeline"), test_mode=True, ann_file=str(held_out)
    )
    train.ann_file = str(rest)
    for evaluator in evaluators(cfg):
        if evaluator.get("ann_file"):
            evaluator.ann_file = str(held_out)
    return cfg


def evaluators(cfg: Config) -> list:
    """The configs of the validation evaluators."""
    found = cfg.get("val_evaluator") or []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def metric_name(cfg: Config) -> str:
    """The name of COCO's AP in the log.

    Raises:
        InputError: there is no validation, or no evaluator computes COCO's AP.
    """
    if not (cfg.get("val_dataloader") or {}).get("dataset"):
        raise InputError("the config has no val_dataloader: nothing would be evaluated.")
    for evaluator in evaluators(cfg):
        if not is_type(evaluator.get("type"), CocoMetric, METRICS):
            continue
        kinds = evaluator.get("metric", "bbox")
        items = evaluator.get("metric_items")
        if "bbox" in (kinds if isinstance(kinds, (list, tuple)) else [kinds]) and (
            items is None or "mAP" in items
        ):
            return "/".join([evaluator.get("prefix") or CocoMetric.default_prefix, "bbox_mAP"])
    raise InputError(
        f"val_evaluator ({', '.join(str(e.get('type')) for e in evaluators(cfg)) or 'none'}) has "
        "no COCO AP of boxes: cross_validate.py needs a CocoMetric with metric='bbox'."
    )


def last_metric(work_dir: Path, metric: str) -> float:
    """The metric of the last evaluation of a run; 0 if the detector found nothing.

    Raises:
        InputError: the run has no evaluation.
    """
    logs = sorted(work_dir.glob("*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []
    # CocoMetric logs no values if there are no detections at all; mmengine then logs its times.
    # Other rows without a loss are of hooks, as AssignmentInspectorHook's.
    evaluations = [row for row in rows if metric in row or ("time" in row and "loss" not in row)]
    if not evaluations:
        raise InputError(f"the run in {work_dir} has no evaluation; its log says why.")
    return evaluations[-1].get(metric, 0.0)


def run(
    args: argparse.Namespace,
    config: Path,
    folder: Path,
    name: str,
    options: Sequence[str],
    metric: str,
) -> float:
    """Train once; returns the metric."""
    work_dir = folder / name
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        TRAIN,
        config,
        "--work-dir",
        work_dir,
        *(["--amp"] * args.amp),
        *(["--trust-checkpoint"] * args.trust_checkpoint),
        "--cfg-options",
        *options,
        f"randomness.seed={args.seed}",
    ]
    with (work_dir / "log.txt").open("w") as log:
        code = subprocess.run(list(map(str, command)), stdout=log, stderr=log).returncode
    if code:
        raise InputError(f"training {name} ended with {code}; see {work_dir / 'log.txt'}")
    return last_metric(work_dir, metric)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the missing trainings, and print the table."""
    args = parse_args(arguments)
    with errors_in_one_line("cross_validate.py"):
        cfg = load_config(args)
        metric = metric_name(cfg)
        _, content = training_annotations(cfg)
        pairs = deal(content, args.folds, args.seed)
        folder = args.work_dir or f"work_dirs/cv_{Path(args.config).stem}"
        folder = output_folder(folder, "--work-dir").resolve()
        given = {f"--{name}": getattr(args, name) for name in ("folds", "seed", "amp")}
        experiment = describe_experiment(cfg, content, given)
        record = folder / "results.json"
        results = kept_results(record, experiment)
        configs = []
        for fold, parts in enumerate(pairs):
            files = [folder / f"fold{fold}_{kind}.json" for kind in ("rest", "held-out")]
            for path, part in zip(files, parts):
                path.write_text(json.dumps(part))
            configs.append(folder / f"fold{fold}.py")
            use_fold(cfg, *files).dump(configs[-1])
        tried = combinations(args.grid)
        count = min(args.only or args.folds, args.folds)
        for fold, options in itertools.product(range(count), tried):
            key = " ".join([f"fold{fold}", *options])
            if key not in results:
                print(f"==> {key}", flush=True)
                name = key.replace(" ", "_").replace("/", "-")
                results[key] = run(args, configs[fold], folder, name, options, metric)
                save_results(record, results, experiment)
    rows = [
        (options, [results[" ".join([f"fold{f}", *options])] for f in range(count)])
        for options in tried
    ]
    for options, found in sorted(rows, key=lambda row: -statistics.mean(row[1])):
        spread = statistics.stdev(found) if len(found) > 1 else float("nan")
        each = " ".join(f"{100 * value:.1f}" for value in found)
        print(
            f"{100 * statistics.mean(found):5.1f} +- {100 * spread:.1f}  ({each})  "
            f"{' '.join(options)}"
        )


if __name__ == "__main__":
    main()
