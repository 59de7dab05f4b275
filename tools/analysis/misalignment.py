"""Misalignment of a detector's scores and boxes, from a file of its detections.

    python tools/test.py CONFIG CHECKPOINT --out detections.pkl
    python tools/analysis/misalignment.py detections.pkl --ann-file instances_val2017.json
    python tools/analysis/misalignment.py detections.pkl --ann-file val.json --config CONFIG

prints, over all classes and per class:

- Spearman, Pearson: correlation of score and IoU over boxes with an IoU of at least 0.5 with an
  object of their class; 1 where the better box always has the higher score.
- correct, redundant, error: boxes matched with an object at IoU 0.5; boxes that reach 0.5 without a
  match; boxes with an IoU between 0.1 and 0.5.
- LaECE: calibration error; 0 where each score equals the mean IoU of the boxes with that score.
- AP: COCO's, over IoU 0.5 to 0.95. AP by IoU: the AP of the same boxes with their IoU with the best
  object of their class in place of the score, an ideal ranking. headroom: AP by IoU minus AP.

The classes come from --classes, --config or --checkpoint; without these they are the categories of
the annotation file, where no other classes are possible. Any mmdet detector can write the
detections. In a config, test_evaluator = dict(type='MisalignmentMetric', ann_file=...) gives the
same figures.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
from mmengine.evaluator import Evaluator

from misalign_det.analysis.output_files import output_file
from misalign_det.apis.class_names import add_class_arguments, chosen_classes
from misalign_det.apis.cli import errors_in_one_line
from misalign_det.evaluation.coco_ap import load_annotations
from misalign_det.evaluation.detections_file import load_detections
from misalign_det.evaluation.misalignment_metric import MisalignmentMetric
from misalign_det.utils.json_file import json_text

COLUMNS = {
    "spearman": ("Spearman", "{:.3f}"),
    "pearson": ("Pearson", "{:.3f}"),
    "correct": ("correct", "{:.0f}"),
    "redundant": ("redundant", "{:.0f}"),
    "error": ("error", "{:.0f}"),
    "laece": ("LaECE", "{:.3f}"),
    "AP": ("AP", "{:.3f}"),
    "AP_by_iou": ("AP by IoU", "{:.3f}"),
    "headroom": ("headroom", "{:.3f}"),
}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure misalignment from a file of detections")
    parser.add_argument("detections", metavar="FILE.pkl", help="from tools/test.py --out")
    parser.add_argument("--ann-file", required=True, help="annotations in COCO's format")
    add_class_arguments(parser)
    parser.add_argument(
        "--score-thr", type=float, default=0.0, help="leave out boxes with a lower score"
    )
    parser.add_argument(
        "--out",
        metavar="FILE.json",
        help="write the figures to a file; null where there is nothing to measure",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a pickle that holds more than arrays and tensors; this runs any code in it",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: one row for all classes, then one per class."""
    args = parse_args(arguments)
    with errors_in_one_line("misalignment.py"):
        if args.out:
            output_file(args.out)
        found = load_detections(args.detections, args.trust_checkpoint)
        coco = load_annotations(args.ann_file)
        classes = chosen_classes(args, coco, [found])
        evaluator = Evaluator(MisalignmentMetric(coco, score_thr=args.score_thr, classwise=True))
        evaluator.dataset_meta = dict(classes=classes)
        metrics = evaluator.offline_evaluate(found)
        metrics = {name.split("/", 1)[1]: value for name, value in metrics.items()}
        width = max(map(len, [*classes, "all"]))
        print(" " * width + "".join(f"{title:>11}" for title, _ in COLUMNS.values()))
        for row in ["all", *classes]:
            prefix = "" if row == "all" else f"{row}/"
            cells = (form.format(metrics[prefix + key]) for key, (_, form) in COLUMNS.items())
            print(f"{row:<{width}}" + "".join(f"{cell:>11}" for cell in cells))
        if args.out:
            Path(args.out).write_text(json_text(metrics))


if __name__ == "__main__":
    main()
