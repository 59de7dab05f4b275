"""Draw the classification and the regression loss of every location towards one object.

    python tools/analysis/loss_maps.py CONFIG CHECKPOINT --out-dir FOLDER
    python tools/analysis/loss_maps.py CONFIG CHECKPOINT --out-dir FOLDER --image IMAGE --gt 3

writes one PNG: one row per level of the feature pyramid, the two losses side by side over the
image, the location of least loss inside the object (star, and ring in the other panel) and the
positives of the head's own label assignment (crosses). For mmdet's one-stage detectors over points
or anchors.
"""

import argparse
from collections.abc import Sequence

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import torch

from misalign_det.analysis.dense_outputs import dense_outputs, training_positives
from misalign_det.analysis.loss_maps import draw_loss_maps, losses_towards
from misalign_det.analysis.output_files import output_folder
from misalign_det.analysis.picture_names import picture_names
from misalign_det.apis.cli import (
    add_common_arguments,
    add_renamed_option,
    errors_in_one_line,
    load_config,
)
from misalign_det.apis.detector import build_dataset, find_image, load_detector, network_input
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import InputError
from misalign_det.utils import class_names


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Draw loss maps of one object")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument("--out-dir", required=True, help="folder of the picture")
    parser.add_argument("--image", help="file name or id; if not given, the first of the split")
    parser.add_argument(
        "--gt", type=int, default=0, help="index of the object in the image, from 0"
    )
    parser.add_argument(
        "--all-levels",
        action="store_true",
        help="also draw levels without positives and without a location inside the object",
    )
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    add_renamed_option(parser, "--show-dir", "--out-dir")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the loss maps and print the distance of the peaks per level."""
    args = parse_args(arguments)
    with errors_in_one_line("loss_maps.py"), tensors_only(args.trust_checkpoint):
        folder = output_folder(args.out_dir)
        cfg = load_config(args)
        check_config(cfg, modes=(args.split,), evaluators=False)
        model = load_detector(cfg, args.checkpoint, args.device)
        dataset = build_dataset(cfg, args.split)
        index = find_image(dataset, args.image)
        data = network_input(model, dataset, index)
        objects = len(data.gt_instances)
        if not 0 <= args.gt < objects:
            raise InputError(
                f"--gt {args.gt}: the image has {objects} objects, so 0 to {objects - 1}."
                if objects
                else "The image has no object. Choose another with --image."
            )
        outputs = dense_outputs(model, data.inputs)
        priors, gts = training_positives(model, data.inputs, data.gt_instances, data.meta)
        bbox, label = data.gt_instances.bboxes[args.gt], data.gt_instances.labels[args.gt].item()
        levels = losses_towards(outputs, bbox, label, priors[gts == args.gt])
        shown = levels
        if not args.all_levels:
            shown = [
                level for level in levels if len(level.positives) or level.inside.any()
            ] or levels
        name = picture_names(dataset)[index]
        title = f"{name}, object {args.gt}: {class_names(dataset.metainfo['classes'])[label]}"
        path = folder / f"loss_maps_{name}_{args.gt}.png"
        draw_loss_maps(data.image, bbox.cpu(), shown, title).savefig(path, dpi=110)
    print(title)
    for level in levels:
        gap = level.gap()
        print(
            f"  stride {level.stride:>3}: {int(level.inside.sum()):>4} locations in the box, "
            f"{len(level.positives):>3} positives, peaks "
            + ("-" if gap is None else f"{gap:.1f} strides ({gap * level.stride:.0f} px) apart")
        )
    print(f"{path}")


if __name__ == "__main__":
    main()
