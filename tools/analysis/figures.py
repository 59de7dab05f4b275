"""The papers' figures, drawn for any one-stage detector.

    python tools/analysis/figures.py assignments      CONFIG EARLY.pth LATE.pth --image NAME
    python tools/analysis/figures.py sample-quality   CONFIG CHECKPOINT [CONFIG CHECKPOINT ...]
    python tools/analysis/figures.py detections       CONFIG CHECKPOINT [CONFIG CHECKPOINT ...]
    python tools/analysis/figures.py sensitivity      CONFIG CHECKPOINT --image NAME --gt 3
    python tools/analysis/figures.py sampling-points  CONFIG CHECKPOINT --image NAME --gt 3

assignments: predicted boxes of positives (thick, purple) and of the negatives with the highest
scores (thin, green) at several checkpoints of one run. sample-quality: share of the positives whose
box reaches each IoU, one curve per detector. detections: several detectors on the same images.
These are figures 4 to 6 of "A Triple-head Network with Loss-aware Label Assignment for Object
Detection". sensitivity: class probability and box IoU over the image, figure 1 of the paper on
Dynamic Coefficient Loss and CL-balanced NMS. sampling-points: the sampling points of every
deformable layer for one object. PNG files, in --out-dir.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.models.detectors import SingleStageDetector
from mmengine.dataset import BaseDataset
from mmengine.utils import track_iter_progress
from torch import Tensor

from misalign_det.analysis.assignment.assignment_figure import draw_positives_and_negatives
from misalign_det.analysis.assignment.sample_quality import (
    draw_sample_quality,
    positive_overlaps,
    shares_above,
)
from misalign_det.analysis.dense_outputs import dense_outputs, training_positives
from misalign_det.analysis.figure_parts import score_tags, text_band
from misalign_det.analysis.output_files import output_folder
from misalign_det.analysis.palette import COLORS, GREEN, PURPLE, rgb
from misalign_det.analysis.picture_names import numbered_apart, picture_names
from misalign_det.analysis.sampling_points import draw_sampling_points, sampling_points
from misalign_det.analysis.sensitivity import draw_sensitivity
from misalign_det.analysis.several_detectors import load_configs, load_detectors
from misalign_det.apis.cli import (
    add_common_arguments,
    add_renamed_option,
    errors_in_one_line,
    pair_detectors,
)
from misalign_det.apis.detector import (
    NetworkInput,
    build_dataset,
    detect,
    find_image,
    network_input,
)
from misalign_det.apis.inference.runs import picture_threshold
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import InputError
from misalign_det.utils import class_names, to_rgb_image


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Draw the papers' figures")
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument(
        "detectors",
        nargs="+",
        metavar="CONFIG CHECKPOINT",
        help="per detector config and checkpoint; for assignments one config and its checkpoints",
    )
    parser.add_argument("--out-dir", default="figures", help="folder of the pictures")
    parser.add_argument(
        "--names", nargs="+", help="names of the detectors (default: names of the configs)"
    )
    parser.add_argument("--image", nargs="+", help="file names or ids (default: the split's first)")
    parser.add_argument(
        "--gt", type=int, default=0, help="index of the object in the image, from 0"
    )
    parser.add_argument(
        "--num-images", type=int, default=50, help="at most, for sample-quality (%(default)s)"
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        help="for detections (default: 0.3, and 0.65 where the head's score is a geometric mean)",
    )
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    add_renamed_option(parser, "--show-dir", "--out-dir")
    args = parser.parse_args(arguments)
    if args.figure == "assignments":
        if len(args.detectors) < 2:
            parser.error("assignments: give CONFIG and its checkpoints")
        config, *checkpoints = args.detectors
        args.names = args.names or [Path(checkpoint).stem for checkpoint in checkpoints]
        args.detectors = [part for checkpoint in checkpoints for part in (config, checkpoint)]
    pair_detectors(parser, args)
    if args.num_images < 1:
        parser.error("--num-images must be at least 1")
    # The names are parts of file names.
    args.names = numbered_apart([name.replace("/", "_") for name in args.names])
    return args


def detectors(
    args: argparse.Namespace,
) -> Iterator[tuple[str, SingleStageDetector, BaseDataset]]:
    """Name, model and dataset of each detector, all of them loaded before the first is given."""
    check = partial(check_config, modes=(args.split,), evaluators=False)
    cfgs = load_configs(args, check)
    for name, cfg, model in zip(args.names, cfgs, load_detectors(args, cfgs)):
        yield name, model, build_dataset(cfg, args.split)


def images(args: argparse.Namespace, dataset: BaseDataset) -> list[int]:
    """Indices of the images of --image."""
    return [find_image(dataset, name) for name in args.image or [None]]


def the_object(args: argparse.Namespace, data: NetworkInput) -> tuple[Tensor, int]:
    """Box, xyxy in pixels of the network input, and class of the object of --gt."""
    count = len(data.gt_instances)
    if not 0 <= args.gt < count:
        raise InputError(f"--gt {args.gt}: the image has {count} objects, counted from 0.")
    return data.gt_instances.bboxes[args.gt], int(data.gt_instances.labels[args.gt])


def save(folder: Path, name: str, picture: np.ndarray | Figure) -> None:
    """Write a uint8 RGB picture or a matplotlib figure as PNG, and print its path."""
    path = folder / f"{name}.png"
    if isinstance(picture, np.ndarray):
        cv2.imwrite(str(path), np.ascontiguousarray(picture[..., ::-1]))
    else:
        picture.savefig(path, dpi=110)
    print(path)


def caption(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture with a line of text above it."""
    return np.concatenate([text_band(picture.shape[1], [(text, None, 1)]), picture])


def assignments(args: argparse.Namespace, folder: Path) -> None:
    """One row per checkpoint, one column per image."""
    rows: list[list[np.ndarray]] = []
    for name, model, dataset in detectors(args):
        row = []
        for index in images(args, dataset):
            data = network_input(model, dataset, index)
            outputs = dense_outputs(model, data.inputs)
            if len(data.gt_instances):
                priors, _ = training_positives(model, data.inputs, data.gt_instances, data.meta)
            else:
                priors = torch.zeros(0, dtype=torch.long)
            priors = priors.unique()
            best = outputs.logits.amax(dim=1).clone()
            best[priors] = -float("inf")
            negative = best.topk(min(max(len(priors), 10), len(best))).indices
            picture = draw_positives_and_negatives(
                data.image,
                outputs.bboxes.cpu().numpy(),
                priors.cpu().numpy(),
                negative.cpu().numpy(),
            )
            row.append(caption(picture, f"{name}: {len(priors)} positives"))
        rows.append(row)
    grid = _grid(rows)
    legend = [("box of a positive", PURPLE, 2), ("of a negative with a high score", GREEN, 1)]
    save(folder, "assignments", np.concatenate([grid, text_band(grid.shape[1], legend)]))


def spread(count: int, most: int) -> list[int]:
    """Indices of at most ``most`` of ``count`` images, at equal distances."""
    most = min(count, most)
    return [index * count // most for index in range(most)]


def sample_quality(args: argparse.Namespace, folder: Path) -> None:
    """One curve per detector."""
    shares = []
    for name, model, dataset in detectors(args):
        print(f"==> {name}", flush=True)
        found = []
        for index in track_iter_progress(spread(len(dataset), args.num_images)):
            data = network_input(model, dataset, index)
            found.append(positive_overlaps(model, data.inputs, data.gt_instances, data.meta))
        print()
        shares.append(shares_above(torch.cat(found).numpy()))
    save(folder, "sample_quality", draw_sample_quality(args.names, shares))


def detections(args: argparse.Namespace, folder: Path) -> None:
    """One row per detector, one column per image; the first row is the ground truth."""
    rows: list[list[np.ndarray]] = []
    seen: dict[int, str] = {}
    for name, model, dataset in detectors(args):
        row, truth = [], []
        score_thr = picture_threshold(model) if args.score_thr is None else args.score_thr
        for index in images(args, dataset):
            data = network_input(model, dataset, index)
            found = detect(model, dataset, index)
            found = found[found.scores > score_thr]
            found = found[found.scores.argsort(stable=True)]  # the best one is drawn last
            factor = np.tile(data.meta["scale_factor"], 2)
            boxes = found.bboxes.cpu().numpy() * factor
            labels, scores = found.labels.tolist(), found.scores.tolist()
            drawn = _boxes(data.image, boxes, labels, scores)
            row.append(caption(drawn, f"{name}, score > {score_thr:g}"))
            gts = data.gt_instances
            objects = _boxes(data.image, gts.bboxes.cpu().numpy(), gts.labels.tolist())
            classes = class_names(dataset.metainfo["classes"])
            seen |= {label: classes[label] for label in [*labels, *gts.labels.tolist()]}
            truth.append(caption(objects, "ground truth"))
        rows += [truth, row] if not rows else [row]
    grid = _grid(rows)
    legend = [(text, *_class_style(label)) for label, text in sorted(seen.items())]
    legend.append(("number: score", None, 1))
    save(folder, "detections", np.concatenate([grid, text_band(grid.shape[1], legend)]))


def sensitivity(args: argparse.Namespace, folder: Path) -> None:
    """One picture per detector and image."""
    for name, model, dataset in detectors(args):
        names = picture_names(dataset)
        for index in images(args, dataset):
            data = network_input(model, dataset, index)
            bbox, label = the_object(args, data)
            outputs = dense_outputs(model, data.inputs)
            figure = draw_sensitivity(data.image, bbox.cpu(), outputs, label, name)
            save(folder, f"sensitivity_{name}_{names[index]}_{args.gt}", figure)


def sampling(args: argparse.Namespace, folder: Path) -> None:
    """One picture per detector and image, at the location inside the object with the best score."""
    for name, model, dataset in detectors(args):
        names = picture_names(dataset)
        for index in images(args, dataset):
            data = network_input(model, dataset, index)
            bbox, label = the_object(args, data)
            outputs = dense_outputs(model, data.inputs)
            points, _ = outputs.locations()
            inside = ((points > bbox[:2]) & (points < bbox[2:])).all(dim=1)
            if not inside.any():
                raise InputError(f"--gt {args.gt}: no location lies inside this object.")
            prior = int(outputs.logits[:, label].masked_fill(~inside, -float("inf")).argmax())
            center = tuple(points[prior].tolist())
            layers = sampling_points(model, data.inputs, *outputs.cell(prior))
            figure = draw_sampling_points(data.image, bbox.cpu(), center, layers)
            save(folder, f"sampling_points_{name}_{names[index]}_{args.gt}", figure)


def _boxes(
    image: np.ndarray, bboxes: np.ndarray, labels: Sequence[int], scores: Sequence[float] = ()
) -> np.ndarray:
    scale = max(1.0, 480 / image.shape[1])
    canvas = cv2.resize(to_rgb_image(image), None, fx=scale, fy=scale)
    corners = (bboxes * scale).round().astype(int).tolist()
    for (x0, y0, x1, y1), label in zip(corners, labels):
        color, width = _class_style(label)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), rgb(color), width)
    tags = [
        ((x0, y0), f"{score:.2f}", _class_style(label)[0])
        for (x0, y0, _, _), label, score in zip(corners, labels, scores)
    ]
    score_tags(canvas, tags[::-1])  # the best one, which comes last, has its place first
    return canvas


def _class_style(label: int) -> tuple[str, int]:
    """Colour and width of the boxes of a class; a colour that comes again is thicker."""
    return COLORS[label % len(COLORS)], 2 + label // len(COLORS) % 3


def _grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures of different sizes in rows and columns, on white."""
    height = max(picture.shape[0] for row in rows for picture in row)
    width = max(picture.shape[1] for row in rows for picture in row)
    padded = [
        [
            np.pad(
                p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), constant_values=255
            )
            for p in row
        ]
        for row in rows
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded])


FIGURES = {
    "assignments": assignments,
    "sample-quality": sample_quality,
    "detections": detections,
    "sensitivity": sensitivity,
    "sampling-points": sampling,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one kind of figure."""
    args = parse_args(arguments)
    with errors_in_one_line("figures.py"), tensors_only(args.trust_checkpoint):
        FIGURES[args.figure](args, output_folder(args.out_dir))


if __name__ == "__main__":
    main()
