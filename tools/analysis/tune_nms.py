"""Choose CLBalancedNMS's gamma and sigma on one split and report them on another.

    python tools/analysis/tune_nms.py CONFIG CHECKPOINT
    python tools/analysis/tune_nms.py CONFIG CHECKPOINT --gamma 0.3 1 --sigma 0.05 0.1 --out r.json

The network runs once over each split. The validation split is evaluated with the config's own NMS
and with CLBalancedNMS for every pair of gamma and sigma; the pair with the highest AP is compared
with the config's own NMS on the test split, with the confidence interval of the gain (see
compare_ap.py). For any mmdet one-stage detector and any dataset: the figures are COCO's AP on
the objects of the dataset, for any evaluator. If the splits have images in common, as in many
configs, the tool says so and gives no verdict.
"""

import argparse
import itertools
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import misalign_det.apis  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import torch
from mmdet.datasets.api_wrappers import COCO
from mmengine.dataset import BaseDataset

from misalign_det.analysis.nms_comparison import configured_nms, detections_under
from misalign_det.analysis.nms_regret import balanced_nms, nms_name, nms_threshold
from misalign_det.analysis.output_files import output_file
from misalign_det.apis.cli import add_common_arguments, errors_in_one_line, load_config
from misalign_det.apis.detector import build_dataset, load_detector
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import InputError
from misalign_det.evaluation.dataset_annotations import annotations_of, image_paths
from misalign_det.evaluation.paired_bootstrap import APDifference, ap_difference, coco_figures
from misalign_det.utils import class_names
from misalign_det.utils.json_file import json_text

METRICS = {"coco/bbox_mAP": "AP", "coco/bbox_mAP_50": "AP50", "coco/bbox_mAP_75": "AP75"}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Choose gamma and sigma of CLBalancedNMS")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument("--gamma", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument(
        "--output-score", nargs="+", default=["own", "best"], choices=["own", "best", "selection"]
    )
    parser.add_argument("--choose-on", choices=["val", "test"], default="val")
    parser.add_argument("--report-on", choices=["val", "test"], default="test")
    parser.add_argument("--out", metavar="FILE.json", help="write all figures to a file")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    return parser.parse_args(arguments)


def candidates(args: argparse.Namespace, own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Configs of CLBalancedNMS for every combination of the options, else as the detector's own."""
    grid = itertools.product(args.gamma, args.sigma, args.output_score)
    return [
        balanced_nms(own, gamma=gamma, sigma=sigma, output_score=score)
        for gamma, sigma, score in grid
    ]


def describe(nms: Mapping[str, Any]) -> str:
    """A short description of a ``test_cfg.nms``."""
    if nms_name(nms) != "CLBalancedNMS" or "gamma" not in nms:
        return f"{nms_name(nms)}, IoU {nms_threshold(nms)}"
    return f"gamma {nms['gamma']:g}, sigma {nms['sigma']:g}, {nms['output_score']} score"


def print_rows(
    title: str, suppressions: Sequence[Mapping[str, Any]], figures: Sequence[dict[str, float]]
) -> None:
    """Print AP, AP50 and AP75 in percent, one row per NMS."""
    print(f"{title:<40} {'AP':>6} {'AP50':>6} {'AP75':>6}")
    for nms, found in zip(suppressions, figures):
        print(f"{describe(nms):<40} " + " ".join(f"{100 * found[m]:>6.1f}" for m in METRICS))


def figures_of(
    coco: COCO, found: Sequence[list[dict[str, Any]]], classes: Sequence[str]
) -> list[dict[str, float]]:
    """AP, AP50 and AP75 of the detections of each NMS, with mmdet's keys."""
    rows = (coco_figures(coco, one, classes) for one in found)
    return [{key: row[name] for key, name in METRICS.items()} for row in rows]


def common_images(datasets: Sequence[BaseDataset]) -> int:
    """Number of images of the second dataset whose files the first one also has.

    A file that the second one has twice, as a ConcatDataset may, counts twice, as in its figures.
    """
    first, second = ([osp.realpath(path) for path in image_paths(data)] for data in datasets)
    known = set(first)
    return sum(path in known for path in second)


def verdict(difference: APDifference, shared: int, images: int) -> str:
    """A conclusion from the interval of the gain.

    Args:
        difference: on the split that is reported on.
        shared: number of its images on which gamma and sigma were chosen.
        images: number of its images.
    """
    if shared:
        return (
            f"gamma and sigma were chosen on {shared} of these {images} images, so this says "
            "nothing about other images: no verdict."
        )
    if difference.low > 0:
        return "It helps."
    if difference.high < 0:
        return "It harms: keep the plain NMS."
    return "This is not distinguishable from no gain: keep the plain NMS."


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose gamma and sigma, report them and print the verdict."""
    args = parse_args(arguments)
    with errors_in_one_line("tune_nms.py"), tensors_only(args.trust_checkpoint):
        if args.out:
            output_file(args.out)
        cfg = load_config(args)
        splits = (args.choose_on, args.report_on)
        check_config(cfg, modes=tuple(dict.fromkeys(splits)), evaluators=False)
        model = load_detector(cfg, args.checkpoint, args.device)
        plain = configured_nms(model)
        tried = [plain, *candidates(args, plain)]
        # Errors in the data are found before the network runs.
        datasets = [build_dataset(cfg, split) for split in splits]
        truth = [annotations_of(dataset) for dataset in datasets]
        names = [class_names(dataset.metainfo["classes"]) for dataset in datasets]
        if names[0] != names[1]:
            raise InputError(f"the splits {splits[0]} and {splits[1]} differ in their classes.")
        shared = common_images(datasets)
        if shared:
            print(
                f"{shared} of the {len(datasets[1])} images of {splits[1]} are also images of "
                f"{splits[0]}: the choice is reported on images that it was made on."
            )
        chosen_on = figures_of(truth[0], detections_under(model, cfg, splits[0], tried), names[0])
        print_rows(f"on {splits[0]}", tried, chosen_on)
        best = max(range(1, len(tried)), key=lambda i: chosen_on[i]["coco/bbox_mAP"])
        pair = [plain, tried[best]]
        found = detections_under(model, cfg, splits[1], pair)
        reported = figures_of(truth[1], found, names[0])
        print_rows(f"on {splits[1]}", pair, reported)
        difference = ap_difference(truth[1], found[:1], found[1:], names[0])
        print(
            f"CLBalancedNMS with {describe(tried[best])}: {difference} on {splits[1]}. "
            f"{verdict(difference, shared, len(datasets[1]))}"
        )
        if args.out:
            rows = [
                dict(split=split, nms=dict(nms, type=nms_name(nms)), **figures)
                for split, group in (
                    (splits[0], zip(tried, chosen_on)),
                    (splits[1], zip(pair, reported)),
                )
                for nms, figures in group
            ]
            Path(args.out).write_text(json_text(rows))


if __name__ == "__main__":
    main()
