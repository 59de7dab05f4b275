"""Write the misalignment report of one or several detectors, one HTML file.

    python tools/analysis/misalignment_report.py CONFIG CHECKPOINT
    python tools/analysis/misalignment_report.py CONFIG CHECKPOINT CONFIG CHECKPOINT --out r.html

The report opens with a verdict in words. It holds, per detector, the correlation of score and IoU,
the AP of a ranking by IoU, the calibration, the better boxes that NMS suppresses, the distance
between the best locations of the two tasks, and images with scored boxes; it defines each term. It
needs no network, and is at most 8 MB long. Any mmdet detector can be measured; NMS and locations
are measured for one-stage detectors only. Each detector is measured on the split of its own config,
and all must have the same classes. Detectors measured on the same images are compared with
intervals. The charts need plotly: pip install "misalign_det[report]".
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import torch
from mmdet.models.detectors.base import BaseDetector

from misalign_det.analysis.nms_comparison import configured_nms
from misalign_det.analysis.picture_names import numbered_apart
from misalign_det.analysis.report.html_report import Source, plotting_library, write_report
from misalign_det.analysis.report.measurement import measure
from misalign_det.analysis.report.verdict import one_line
from misalign_det.apis.cli import (
    add_common_arguments,
    errors_in_one_line,
    load_config,
    pair_detectors,
)
from misalign_det.apis.detector import load_detector
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import InputError


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the detectors and write the report."""
    args = parse_args(arguments)
    measured, sources, first = [], [], None
    with errors_in_one_line("misalignment_report.py"), tensors_only(args.trust_checkpoint):
        plotting_library()  # says before the work if it is missing
        for name, (config, checkpoint) in zip(args.names, args.pairs):
            args.config, args.checkpoint = config, checkpoint
            cfg = load_config(args)
            check_config(cfg, modes=(args.split,))
            print(f"==> {name}", flush=True)
            model = load_detector(cfg, checkpoint, args.device)
            found = measure(
                model, cfg, args.split, num_worst=args.num_worst, resamples=args.resamples
            )
            if first and found.classes != first.classes:
                raise InputError(
                    f"{name} has the classes {found.classes}, {args.names[0]} {first.classes}: "
                    "only detectors with the same classes can be compared."
                )
            first = first or found
            sources.append(Source(config, checkpoint, args.split, nms_of(model)))
            measured.append(found)
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        names = numbered_apart(args.names)
        write_report(args.out, names, measured, sources, args.command)
    for name, found in zip(names, measured):
        print(f"{name}: {one_line(found)}")
    print(f"The report: {Path(args.out).resolve()}")


if __name__ == "__main__":
    main()
