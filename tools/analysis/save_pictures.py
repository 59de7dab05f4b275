"""Save pictures of detections beside the ground truth.

    python tools/analysis/save_pictures.py CONFIG CHECKPOINT --out-dir FOLDER
    python tools/analysis/save_pictures.py CONFIG CHECKPOINT --out-dir FOLDER --num-images 20

writes one PNG per image (left: ground truth, right: detections, above: a caption) and overview.png
with all of them. The images are evenly spaced in the split, so they are the same each time. If the
dataset has several folders, their names are part of the files' names. Boxes of higher score are
drawn over those of lower score.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.dataset import BaseDataset
from torch import nn

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import cv2
import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

from misalign_det.analysis.output_files import output_folder
from misalign_det.analysis.picture_names import numbered_apart, picture_names
from misalign_det.apis.cli import (
    add_common_arguments,
    add_renamed_option,
    errors_in_one_line,
    load_config,
)
from misalign_det.apis.detector import build_dataset, detect, ground_truth, load_detector
from misalign_det.apis.inference.runs import picture_threshold
from misalign_det.datasets.preflight import InputError, check_config
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.utils import class_names, to_rgb_image

MIN_WIDTH = 640  # smaller images are enlarged, so that labels can be read
BAND = 34  # height of the caption in pixels


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Save detections beside the ground truth")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument("--out-dir", required=True, help="folder of the pictures")
    parser.add_argument("--num-images", type=int, default=8, help="images to draw (%(default)s)")
    parser.add_argument(
        "--score-thr",
        type=float,
        help="draw detections above this score (default: 0.3, and 0.65 where the head's score is a "
        "geometric mean)",
    )
    parser.add_argument(
        "--split",
        choices=["val", "test"],
        default="val",
        help="dataset to draw (%(default)s)",
    )
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    add_renamed_option(parser, "--num", "--num-images")
    args = parser.parse_args(arguments)
    if args.num_images < 1 or not 0 <= (args.score_thr or 0) <= 1:
        parser.error("--num-images must be at least 1 and --score-thr between 0 and 1")
    return args


def picture(
    visualizer: DetLocalVisualizer,
    image: np.ndarray,
    truth: InstanceData,
    detections: InstanceData,
    score_thr: float,
    title: str,
) -> np.ndarray:
    """Draw one image twice, with ground truth and with detections, below a caption.

    Args:
        visualizer: with the dataset's meta.
        image: (H, W) or (H, W, n), RGB; see `to_rgb_image`.
        truth, detections: boxes xyxy in pixels of `image`.
        score_thr: detections above it are drawn and counted.
        title: start of the caption.

    Returns:
        RGB, uint8 (BAND + s * H, 2 * s * W, 3), with the smallest integer s for which s * W is at
        least MIN_WIDTH.
    """
    image = to_rgb_image(image)
    scale = max(1, -(-MIN_WIDTH // image.shape[1]))
    shown = detections[detections.scores > score_thr]
    shown = shown[shown.scores.argsort(stable=True)]  # the last one is drawn on top
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    sample = DetDataSample()
    # mmdet draws no boxes if the sum of their corners is not positive.
    sample.gt_instances = InstanceData(
        bboxes=truth.bboxes.clamp(min=0) * scale, labels=truth.labels
    )
    sample.pred_instances = InstanceData(
        bboxes=shown.bboxes.clamp(min=0) * scale, labels=shown.labels, scores=shown.scores
    )
    visualizer.add_datasample(title, large, sample, pred_score_thr=-1)
    pair = visualizer.get_image().copy()
    middle = pair.shape[1] // 2
    pair[:, middle - 1 : middle + 1] = 255
    band = np.full((BAND, pair.shape[1], 3), 255, np.uint8)
    for x, text in (
        (8, f"{title}   ground truth: {len(truth)} objects"),
        (middle + 8, f"detections with score > {score_thr:g}: {len(shown)}"),
    ):
        cv2.putText(band, text, (x, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([band, pair])


def overview(pictures: Sequence[np.ndarray], columns: int = 2, width: int = 720) -> np.ndarray:
    """All pictures in one, each `width` pixels wide; empty cells of the last row are white."""
    small = [
        cv2.resize(p, (width, round(p.shape[0] * width / p.shape[1])), interpolation=cv2.INTER_AREA)
        for p in pictures
    ]
    height = max(p.shape[0] for p in small)
    cells = [
        np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in small
    ]
    columns = min(columns, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def pixels(dataset: BaseDataset, index: int) -> np.ndarray:
    """The image in a file, RGB; InputError if it cannot be read."""
    path = dataset.get_data_info(index)["img_path"]
    image = mmcv.imread(str(path), channel_order="rgb")
    if image is None:
        raise InputError(f"{path} cannot be read as an image.")
    return image


def save_pictures(
    model: nn.Module,
    dataset: BaseDataset,
    out_dir: str | Path,
    num: int = 8,
    score_thr: float | None = None,
) -> list[Path]:
    """Detect on `num` images of a dataset and save the pictures.

    Args:
        model: from `load_detector`, or mmdet's `init_detector`.
        dataset: its images and annotations are drawn.
        out_dir: created if it does not exist.
        num: number of images.
        score_thr: detections above it are drawn; None for `picture_threshold`.

    Returns:
        The files, overview.png last.

    Raises:
        InputError: the dataset is empty.
    """
    if not len(dataset):
        raise InputError("the dataset has no images to draw")
    if score_thr is None:
        score_thr = picture_threshold(model)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    visualizer = DetLocalVisualizer(name="pictures", line_width=2)
    visualizer.dataset_meta = dict(
        dataset.metainfo, classes=class_names(dataset.metainfo["classes"])
    )
    names = numbered_apart(["overview", *picture_names(dataset)])[1:]
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(num, len(dataset))).astype(int))
    pictures, files = [], []
    for index in chosen:
        index = int(index)
        truth = ground_truth(dataset.get_data_info(index))
        found = detect(model, dataset, index)
        pictures.append(
            picture(visualizer, pixels(dataset, index), truth, found, score_thr, names[index])
        )
        files.append(out_dir / f"{names[index]}.png")
        mmcv.imwrite(pictures[-1][..., ::-1], str(files[-1]))
    files.append(out_dir / "overview.png")
    mmcv.imwrite(overview(pictures)[..., ::-1], str(files[-1]))
    return files


def main(arguments: Sequence[str] | None = None) -> None:
    """Save pictures as the command line says."""
    args = parse_args(arguments)
    with errors_in_one_line("save_pictures.py"), tensors_only(args.trust_checkpoint):
        output_folder(args.out_dir)
        cfg = load_config(args)
        check_config(cfg, modes=(args.split,), evaluators=False)
        model = load_detector(cfg, args.checkpoint, args.device)
        dataset = build_dataset(cfg, args.split)
        files = save_pictures(model, dataset, args.out_dir, args.num_images, args.score_thr)
    print(f"{len(files)} pictures; all images in one: {files[-1]}")


if __name__ == "__main__":
    main()
