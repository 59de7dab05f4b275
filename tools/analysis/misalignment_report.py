"""Write the misalignment report of one or several detectors, one HTML file.

    python tools/analysis/misalignment_report.py CONFIG CHECKPOINT
    python tools/analysis/misalignment_report.py CONFIG CHECKPOINT CONFIG CHECKPOINT --out r.html

The report opens with a verdict in words. It holds, per detector, the correlation of score and IoU,
the AP of a ranking by IoU, the calibration, the better boxes that NMS suppresses, the distance
between the best locations of the two tasks, and images with scored boxes; it defines each term. It
needs no network, and is at most 8 MB long. Any mmdet detector can be measured; NMS and locations
are measured for one-stage detectors only. Each detector is measured on the split of its own config,
and all must have the same classes. Detectors measured on the same images are compared with
intervals. Figures refer to the annotation file of the split's evaluator, and to the dataset's own
objects where there is none or it does not fit the dataset. The charts need plotly:
pip install "misalign_det[report]".
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import torch
from mmdet.models.detectors.base import BaseDetector
from mmengine.config import Config

from misalign_det.analysis.nms_comparison import configured_nms
from misalign_det.analysis.output_files import output_file
from misalign_det.analysis.picture_names import numbered_apart
from misalign_det.analysis.report.html_report import Source, plotting_library, write_report
from misalign_det.analysis.report.measurement import measure
from misalign_det.analysis.report.verdict import one_line
from misalign_det.analysis.several_detectors import load_configs, load_detectors
from misalign_det.apis.cli import add_common_arguments, errors_in_one_line, pair_detectors
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import InputError
from misalign_det.utils import dataset_classes, leaf_datasets


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Write the misalignment report")
    parser.add_argument(
        "detectors",
        nargs="+",
        metavar="CONFIG CHECKPOINT",
        help="one or several detectors, each as config and checkpoint",
    )
    parser.add_argument(
        "--names", nargs="+", help="names of the detectors (default: names of the configs)"
    )
    parser.add_argument(
        "--out", default="misalignment_report.html", help="HTML file (default: %(default)s)"
    )
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--num-worst", type=int, default=6, help="images shown per detector")
    parser.add_argument(
        "--resamples",
        type=int,
        default=200,
        help="resamples of the images, for intervals; 0 leaves them out (default: %(default)s)",
    )
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    args = parser.parse_args(arguments)
    pair_detectors(parser, args)
    if args.resamples < 0:
        parser.error("--resamples must be at least 0")
    args.command = shlex.join(["misalignment_report.py", *(arguments or sys.argv[1:])])
    return args


def nms_of(model: BaseDetector) -> str:
    """The detector's NMS with its options; '' without one."""
    try:
        return ", ".join(f"{key} {value}" for key, value in configured_nms(model).items())
    except InputError:
        return ""


def check(cfg: Config, split: str) -> None:
    """Check a split's data; an evaluator that does not fit them is left out, with a note.

    Args:
        cfg: changed in place.
        split: ``'val'`` or ``'test'``.

    Raises:
        InputError: the data cannot be used.
    """
    try:
        check_config(cfg, modes=(split,))
    except InputError as error:
        check_config(cfg, modes=(split,), evaluators=False)
        cfg[f"{split}_evaluator"] = None
        print(f"The figures refer to the objects of the dataset, since {error}")


def check_classes(cfgs: Sequence[Config], names: Sequence[str], split: str) -> None:
    """Check that all detectors have a split to be measured on, and the same classes.

    Args:
        cfgs: of the detectors.
        names: theirs, for messages.
        split: ``'val'`` or ``'test'``.

    Raises:
        InputError: names the first that has not.
    """
    found = []
    for name, cfg in zip(names, cfgs):
        data = (cfg.get(f"{split}_dataloader") or {}).get("dataset") or {}
        leaves = [leaf for _, leaf in leaf_datasets(data)]
        if not leaves:
            raise InputError(
                f"{name}: the config has no {split}_dataloader. Choose another --split, or a "
                "config that has one."
            )
        found.append(dataset_classes(leaves[0]))
        if found[-1] != found[0]:
            raise InputError(
                f"{name} has the classes {found[-1]}, {names[0]} {found[0]}: "
                "only detectors with the same classes can be compared."
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the detectors and write the report."""
    args = parse_args(arguments)
    measured, sources = [], []
    with errors_in_one_line("misalignment_report.py"), tensors_only(args.trust_checkpoint):
        plotting_library()  # says before the work if it is missing
        output_file(args.out)
        cfgs = load_configs(args, partial(check, split=args.split))
        check_classes(cfgs, args.names, args.split)
        models = load_detectors(args, cfgs)
        for name, cfg, model, (config, checkpoint) in zip(args.names, cfgs, models, args.pairs):
            print(f"==> {name}", flush=True)
            found = measure(
                model, cfg, args.split, num_worst=args.num_worst, resamples=args.resamples
            )
            sources.append(Source(config, checkpoint, args.split, nms_of(model)))
            measured.append(found)
        names = numbered_apart(args.names)
        write_report(args.out, names, measured, sources, args.command)
    for name, found in zip(names, measured):
        print(f"{name}: {one_line(found)}")
    print(f"The report: {Path(args.out).resolve()}")


if __name__ == "__main__":
    main()
