"""Choose settings by cross-validation on the training split, without a look at val or test.

    python tools/analysis/cross_validate.py iac_retinanet_r18_fpn_12e_bccd --amp --folds 4 \\
        --grid model.train_cfg.assigner.score_threshold=0.6,0.7,0.8,inf \\
               model.train_cfg.assigner.score_alpha=0.3,0.5

The images of the training annotation file are dealt into folds; for every combination of the grid
and every fold a detector is trained on the other folds and evaluated on this one. Prints a line a
combination, best first. Runs that are done stand in WORK_DIR/results.json and are not run again.
"""

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
from misalign_det.engine.annotation_checks import InputError
from misalign_det.engine.command_line import (
    add_common_arguments,
    errors_in_one_line,
    load_config,
)

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
METRIC = "coco/bbox_mAP"


def parse_args(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Cross-validation on the training split")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("--grid", nargs="+", required=True, metavar="KEY=A,B",
                        help="settings to try; every combination is")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--only", type=int, metavar="N", help="run the first N folds alone")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and the trainings")
    parser.add_argument("--amp", action="store_true", help="see tools/train.py")
    add_common_arguments(parser)
    args = parser.parse_args(arguments)
    if args.folds < 2:
        parser.error("--folds must be at least 2")
    for entry in args.grid:
        if "=" not in entry:
            parser.error(f"--grid {entry}: write KEY=A,B")
    return args


def combinations(grid):
    """Every combination, each as a tuple of 'key=value'."""
    choices = [[f"{key}={value}" for value in values.split(",")]
               for key, values in (entry.split("=", 1) for entry in grid)]
    return list(itertools.product(*choices))


def deal(dataset, folds, seed):
    """Split a COCO dictionary by image into (rest, held out) pairs, one a fold.

    Raises:
        InputError: fewer images than folds.
    """
    ids = sorted(image["id"] for image in dataset["images"])
    if len(ids) < folds:
        raise InputError(f"{len(ids)} images cannot be dealt into {folds} folds.")
    random.Random(seed).shuffle(ids)
    pairs = []
    for fold in range(folds):
        held_out = set(ids[fold::folds])
        pairs.append(tuple(
            {**dataset,
             "images": [i for i in dataset["images"] if (i["id"] in held_out) == inside],
             "annotations": [a for a in dataset["annotations"]
                             if (a["image_id"] in held_out) == inside]}
            for inside in (False, True)))
    return pairs


def training_annotations(cfg):
    """Path of the annotation file that the training loads."""
    dataset = cfg.train_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    return Path(dataset.get("data_root", ""), dataset.ann_file)


def last_metric(work_dir):
    """The metric of the last evaluation of a run."""
    logs = sorted(work_dir.glob("*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []
    found = [row[METRIC] for row in rows if METRIC in row]
    if not found:
        raise InputError(f"the run in {work_dir} has no {METRIC}; its log says why.")
    return found[-1]


def run(args, folder, name, options, files):
    """Train once; its metric."""
    work_dir = folder / name
    work_dir.mkdir(parents=True, exist_ok=True)
    rest, held_out = files
    command = [
        sys.executable, TRAIN, args.config, "--work-dir", work_dir, *(["--amp"] * args.amp),
        "--cfg-options", *options, f"randomness.seed={args.seed}",
        f"train_dataloader.dataset.ann_file={rest}", f"val_dataloader.dataset.ann_file={held_out}",
        f"val_evaluator.ann_file={held_out}",
    ]
    with (work_dir / "log.txt").open("w") as log:
        code = subprocess.run(list(map(str, command)), stdout=log, stderr=log).returncode
    if code:
        raise InputError(f"training {name} ended with {code}; see {work_dir / 'log.txt'}")
    return last_metric(work_dir)


def main(arguments=None):
    """Run what is missing, print the table."""
    args = parse_args(arguments)
    with errors_in_one_line("cross_validate.py"):
        cfg = load_config(args)
        extra = [f"{key}={value}" for key, value in (args.cfg_options or {}).items()]
        folder = Path(args.work_dir or f"work_dirs/cv_{Path(args.config).stem}").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        dataset = json.loads(training_annotations(cfg).read_text())
        files = []
        for fold, parts in enumerate(deal(dataset, args.folds, args.seed)):
            files.append([folder / f"fold{fold}_{kind}.json" for kind in ("rest", "held-out")])
            for path, part in zip(files[-1], parts):
                path.write_text(json.dumps(part))
        record = folder / "results.json"
        results = json.loads(record.read_text()) if record.is_file() else {}
        tried = combinations(args.grid)
        count = min(args.only or args.folds, args.folds)
        for fold, options in itertools.product(range(count), tried):
            key = " ".join([f"fold{fold}", *options])
            if key not in results:
                print(f"==> {key}", flush=True)
                name = key.replace(" ", "_").replace("/", "-")
                results[key] = run(args, folder, name, [*extra, *options], files[fold])
                record.write_text(json.dumps(results, indent=2))
    rows = [(options, [results[" ".join([f"fold{f}", *options])] for f in range(count)])
            for options in tried]
    for options, found in sorted(rows, key=lambda row: -statistics.mean(row[1])):
        spread = statistics.stdev(found) if len(found) > 1 else float("nan")
        each = " ".join(f"{100 * value:.1f}" for value in found)
        print(f"{100 * statistics.mean(found):5.1f} +- {100 * spread:.1f}  ({each})  "
              f"{' '.join(options)}")


if __name__ == "__main__":
    main()
