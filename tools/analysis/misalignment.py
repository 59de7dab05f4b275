"""Do a detector's scores say how good its boxes are? From its detections on file.

    python tools/test.py CONFIG CHECKPOINT --out detections.pkl
    python tools/analysis/misalignment.py detections.pkl --ann-file instances_val2017.json
    python tools/analysis/misalignment.py detections.pkl --ann-file val.json --config CONFIG

The detector's classes are those that --classes, its config or its checkpoint name; without either
the categories of the annotation file, where those can only be the same. Any detector of mmdet's can
write the detections. The figures are explained where they are computed:
misalign_det/evaluation/misalignment_metric.py. Live, they come from the config:
test_evaluator = dict(type='MisalignmentMetric', ann_file=...).
"""

import argparse
import json
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
from mmengine.evaluator import Evaluator

from misalign_det.apis.class_names import add_class_arguments, chosen_classes
from misalign_det.apis.cli import errors_in_one_line
from misalign_det.evaluation.coco_ap import load_annotations
from misalign_det.evaluation.detections_file import load_detections
from misalign_det.evaluation.misalignment_metric import MisalignmentMetric

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


def parse_args(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Scores beside IoU, from detections on file")
    parser.add_argument("detections", metavar="FILE.pkl", help="from tools/test.py --out")
    parser.add_argument("--ann-file", required=True, help="annotations in COCO's format")
    add_class_arguments(parser)
    parser.add_argument("--score-thr", type=float, default=0.0, help="leave out boxes below it")
    parser.add_argument("--out", metavar="FILE.json", help="write the figures to a file")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a pickle that holds more than arrays and tensors; loading it "
        "runs any code it holds",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    """Print a table: a row over all classes, then one a class."""
    args = parse_args(arguments)
    with errors_in_one_line("misalignment.py"):
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
        Path(args.out).write_text(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
