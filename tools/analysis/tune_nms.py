"""Choose CLBalancedNMS's gamma and sigma on one split and report them on another.

    python tools/analysis/tune_nms.py CONFIG CHECKPOINT
    python tools/analysis/tune_nms.py CONFIG CHECKPOINT --gamma 0.3 1 --sigma 0.05 0.1 --out r.json

The network runs once over each split. The validation split is evaluated under the config's own NMS
and under CLBalancedNMS with every pair of gamma and sigma; the pair of largest AP is then held
against the config's own NMS on the test split, with the interval of the gain over resamples of its
images (see compare_ap.py). Works for any one-stage detector of mmdet.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import torch

from misalign_det.engine.checkpoint_io import tensors_only
from misalign_det.engine.command_line import (
    add_common_arguments,
    errors_in_one_line,
    load_config,
)
from misalign_det.engine.detector import build_dataset, load_detector
from misalign_det.engine.nms_study import evaluate_under
from misalign_det.engine.preflight import check_config
from misalign_det.evaluation.ap_difference import ap_difference
from misalign_det.evaluation.coco_ap import load_annotations
from misalign_det.evaluation.detections_file import load_detections

METRICS = ("coco/bbox_mAP", "coco/bbox_mAP_50", "coco/bbox_mAP_75")


def parse_args(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Choose gamma and sigma of CLBalancedNMS")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument("--gamma", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--output-score", nargs="+", default=["own", "best"],
                        choices=["own", "best", "selection"])
    parser.add_argument("--choose-on", choices=["val", "test"], default="val")
    parser.add_argument("--report-on", choices=["val", "test"], default="test")
    parser.add_argument("--out", metavar="FILE.json", help="write all figures to a file")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    return parser.parse_args(arguments)


def candidates(args, iou_threshold):
    """CLBalancedNMS under every combination of the options."""
    grid = itertools.product(args.gamma, args.sigma, args.output_score)
    return [
        dict(type="CLBalancedNMS", iou_threshold=iou_threshold, gamma=gamma, sigma=sigma,
             output_score=score)
        for gamma, sigma, score in grid
    ]


def describe(nms):
    """A suppression in a few words."""
    if nms["type"] != "CLBalancedNMS":
        return f"{nms['type']}, IoU {nms['iou_threshold']}"
    return f"gamma {nms['gamma']:g}, sigma {nms['sigma']:g}, {nms['output_score']} score"


def print_rows(title, suppressions, figures):
    """A table of AP, AP50 and AP75 in percent."""
    print(f"{title:<40} {'AP':>6} {'AP50':>6} {'AP75':>6}")
    for nms, found in zip(suppressions, figures):
        print(f"{describe(nms):<40} " + " ".join(f"{100 * found[m]:>6.1f}" for m in METRICS))


def verdict(difference):
    """What the interval allows to say."""
    if difference.low > 0:
        return "It helps."
    if difference.high < 0:
        return "It harms: keep the plain NMS."
    return "That is not told apart from no gain: keep the plain NMS."


def main(arguments=None):
    """Choose, report, and say so if it does not help."""
    args = parse_args(arguments)
    with errors_in_one_line("tune_nms.py"), tensors_only(args.trust_checkpoint):
        cfg = load_config(args)
        check_config(cfg, modes=tuple({args.choose_on, args.report_on}))
        model = load_detector(cfg, args.checkpoint, args.device)
        plain = dict(model.bbox_head.test_cfg.nms)
        tried = [plain, *candidates(args, plain["iou_threshold"])]
        chosen_on = evaluate_under(model, cfg, args.choose_on, tried)
        print_rows(f"on {args.choose_on}", tried, chosen_on)
        best = max(range(1, len(tried)), key=lambda i: chosen_on[i][METRICS[0]])
        pair = [plain, tried[best]]
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, f"{name}.pkl") for name in ("plain", "balanced")]
            reported = evaluate_under(model, cfg, args.report_on, pair, dump_to=files)
            found = [[load_detections(file)] for file in files]
        print_rows(f"on {args.report_on}", pair, reported)
        dataset = build_dataset(cfg, args.report_on)
        coco = load_annotations(dataset.ann_file)
        difference = ap_difference(coco, *found, dataset.metainfo["classes"])
    print(f"CLBalancedNMS with {describe(tried[best])}: {difference} on {args.report_on}. "
          f"{verdict(difference)}")
    if args.out:
        rows = [
            dict(split=split, nms=dict(nms), **{m: found[m] for m in METRICS})
            for split, group in ((args.choose_on, zip(tried, chosen_on)),
                                 (args.report_on, zip(pair, reported)))
            for nms, found in group
        ]
        Path(args.out).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
