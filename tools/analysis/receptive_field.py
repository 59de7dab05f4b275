"""Theoretical and effective receptive field of a one-stage detector, per branch and level.

    python tools/analysis/receptive_field.py CONFIG CHECKPOINT --out-dir FOLDER

prints a table and writes receptive_field.json and receptive_field.png. The theoretical field is
computed from kernels and strides, f(R_l) in "Toward Minimal Misalignment at Minimal Cost in
One-Stage and Anchor-Free Object Detection" (arXiv 2112.08902). The effective field is measured by
gradients at the centres of objects of the first images, as the side of the square of equal area.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import torch
from mmengine.utils import track_iter_progress
from torch import Tensor

from misalign_det.analysis.dense_outputs import dense_head
from misalign_det.analysis.output_files import output_folder
from misalign_det.analysis.receptive_field import draw_receptive_fields, receptive_fields
from misalign_det.apis.cli import (
    add_common_arguments,
    add_renamed_option,
    errors_in_one_line,
    load_config,
)
from misalign_det.apis.detector import (
    NetworkInput,
    build_dataset,
    load_detector,
    network_input,
)
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.utils.json_file import json_text


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure receptive fields")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument("--out-dir", required=True, help="folder of the picture and the table")
    parser.add_argument("--num-images", type=int, default=4, help="images measured (%(default)s)")
    parser.add_argument(
        "--num-objects", type=int, default=2, help="objects measured in each of them (%(default)s)"
    )
    parser.add_argument(
        "--radius",
        type=int,
        default=192,
        help="half the side of the window of gradients in pixels (%(default)s)",
    )
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    add_renamed_option(parser, "--show-dir", "--out-dir")
    args = parser.parse_args(arguments)
    if min(args.num_images, args.num_objects, args.radius) < 1:
        parser.error("--num-images, --num-objects and --radius must be at least 1")
    return args


def measured_points(data: NetworkInput, num: int) -> list[tuple[float, float]]:
    """x and y of the centres of the first objects; without an object, of the image's centre."""
    boxes = data.gt_instances.bboxes[:num]
    if len(boxes) == 0:
        height, width = data.meta["img_shape"][:2]
        return [(width / 2, height / 2)]
    return [(x, y) for x, y in ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the receptive fields, print and draw them."""
    args = parse_args(arguments)
    with errors_in_one_line("receptive_field.py"), tensors_only(args.trust_checkpoint):
        folder = output_folder(args.out_dir)
        cfg = load_config(args)
        check_config(cfg, modes=(args.split,), evaluators=False)
        model = load_detector(cfg, args.checkpoint, args.device)
        dense_head(model)
        dataset = build_dataset(cfg, args.split)

        def images() -> Iterator[tuple[Tensor, list[tuple[float, float]]]]:
            for index in track_iter_progress(range(min(args.num_images, len(dataset)))):
                data = network_input(model, dataset, index)
                yield data.inputs, measured_points(data, args.num_objects)

        fields = receptive_fields(model, images(), args.radius)
        print(f"\n{'stride':>6} {'branch':<15} {'R_l':>10} {'f(R_l)':>10} {'effective':>10}")
        for field in fields:
            print(
                f"{field.stride:>6} {field.branch:<15} {field.feature:>7} px "
                f"{field.theoretical:>7} px {field.effective:>7.0f} px"
            )
        table = [{k: v for k, v in vars(field).items() if k != "gradient"} for field in fields]
        (folder / "receptive_field.json").write_text(json_text(table, indent=1))
        title = f"{type(model.bbox_head).__name__}, {Path(args.config).stem}"
        draw_receptive_fields(fields, title).savefig(folder / "receptive_field.png", dpi=110)
        print(folder / "receptive_field.png")


if __name__ == "__main__":
    main()
