"""Confidence interval of the gain in AP of one detector over another, from their detections.

    python tools/test.py CONFIG CHECKPOINT --out detections.pkl
    python tools/analysis/compare_ap.py fcos.pkl ours.pkl --ann-file test.json
    python tools/analysis/compare_ap.py fcos_*.pkl --with ours_*.pkl --ann-file test.json

prints both AP and the 95 % interval of the gain by a paired bootstrap over the images. If the
interval contains 0, other images may turn the gain into a loss. With several seeds per detector,
the mean AP over the seeds is compared. All must have the same classes, from --classes, --config or
--checkpoint; without these they are the categories of the annotation file, where no other classes
are possible. mmdet's own tools/test.py --out writes the same files.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
from misalign_det.analysis.output_files import output_file
from misalign_det.apis.class_names import add_class_arguments, chosen_classes
from misalign_det.apis.cli import errors_in_one_line
from misalign_det.evaluation.coco_ap import load_annotations
from misalign_det.evaluation.detections_file import load_detections
from misalign_det.evaluation.paired_bootstrap import ap_difference
from misalign_det.utils.json_file import json_text


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="The gain in AP and its confidence interval")
    parser.add_argument(
        "first",
        nargs="+",
        metavar="FILE.pkl",
        help="from tools/test.py --out: the baseline and the other detector; or, before --with, "
        "all seeds of the baseline",
    )
    parser.add_argument(
        "--with",
        dest="second",
        nargs="+",
        metavar="FILE.pkl",
        help="all seeds of the other detector",
    )
    parser.add_argument("--ann-file", required=True, help="annotations in COCO's format")
    add_class_arguments(parser)
    parser.add_argument("--resamples", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument("--confidence", type=float, default=0.95, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")
    parser.add_argument("--out", metavar="FILE.json", help="write the figures to a file")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load pickles that hold more than arrays and tensors; this runs any code in them",
    )
    args = parser.parse_args(arguments)
    if args.second is None:
        if len(args.first) != 2:
            parser.error("give two files, or several before and after --with")
        args.first, args.second = args.first[:1], args.first[1:]
    if args.resamples < 1 or not 0 < args.confidence < 1:
        parser.error("--resamples must be at least 1 and --confidence between 0 and 1")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both AP, the gain and its interval."""
    args = parse_args(arguments)
    with errors_in_one_line("compare_ap.py"):
        if args.out:
            output_file(args.out)
        coco = load_annotations(args.ann_file)
        first, second = (
            [load_detections(path, args.trust_checkpoint) for path in paths]
            for paths in (args.first, args.second)
        )
        classes = chosen_classes(args, coco, [*first, *second])
        found = ap_difference(
            coco, first, second, classes, args.resamples, args.confidence, args.seed, progress=True
        )
        print(f"AP {100 * found.first:.1f} -> {100 * found.second:.1f}: {found}")
        if found.low <= 0 <= found.high:
            print("The interval contains 0: on other images the sign may change.")
        if args.out:
            Path(args.out).write_text(json_text(asdict(found)))


if __name__ == "__main__":
    main()
