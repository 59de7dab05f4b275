"""Export a detector to ONNX or torch.export, and check the file against torch on images.

    python tools/export.py CONFIG CHECKPOINT --out model.onnx
    python tools/export.py CONFIG CHECKPOINT --out model.onnx --nms --images folder
    python tools/export.py CONFIG CHECKPOINT --out model.pt2 --format torch

The file takes images (B, 3, H, W), float32, 0 to 255, in the channel order of OpenCV (BGR), of any
number and size. Normalisation and padding are inside; resizing is outside, and the size to resize
to stands in the file's metadata. It gives boxes (B, N, 4), xyxy in pixels of these images, and
scores (B, N, C), of all locations; with --nms detections (B, K, 5), boxes and score, and labels
(B, K), -1 where an image has less than K. It is written only if boxes (over the longer side of the
image) and scores agree with the detector's to 1e-4, on real images. Box voting and mmdet's NMS can
be inside; CLBalancedNMS, soft NMS and mmcv's own deformable convolutions cannot, and are refused.
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
from mmengine.config import Config
from mmengine.registry import init_default_scope

from misalign_det.analysis.output_files import output_file
from misalign_det.apis.cli import add_common_arguments, errors_in_one_line, load_config
from misalign_det.apis.detector import build_dataset
from misalign_det.apis.export.comparison import compare
from misalign_det.apis.export.detector_graph import DetectorGraph, example_input
from misalign_det.apis.export.formats import (
    DEFAULT_OPSET,
    OPSETS,
    load_onnx,
    load_program,
    required,
    write_onnx,
    write_program,
)
from misalign_det.apis.export.metadata import describe, resize_to
from misalign_det.apis.export.nms_graph import NMSGraph
from misalign_det.apis.inference.inferencer import Inferencer
from misalign_det.apis.inference.sources import find_sources, read_image
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import InputError

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
DENSE = ("boxes", "scores")  # outputs without NMS


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Export a detector, checked against torch")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument("--out", required=True, help="file to write: *.onnx, or *.pt2 for torch")
    parser.add_argument(
        "--format", choices=SUFFIXES, default="onnx", help="onnx, or torch.export (%(default)s)"
    )
    parser.add_argument(
        "--opset", type=int, default=DEFAULT_OPSET, help="of ONNX, 16 to 20 (%(default)s)"
    )
    parser.add_argument("--nms", action="store_true", help="put NMS into the file (ONNX)")
    parser.add_argument(
        "--img-scale",
        type=int,
        nargs=2,
        metavar=("W", "H"),
        help="size that images are resized to (default: the test pipeline's)",
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="images to check with (default: the validation set's)"
    )
    parser.add_argument(
        "--num-images", type=int, default=4, help="images to check with (%(default)s)"
    )
    add_common_arguments(parser)
    args = parser.parse_args(arguments)
    if not args.out.endswith(SUFFIXES[args.format]):
        parser.error(f"--out {args.out}: --format {args.format} ends in {SUFFIXES[args.format]}")
    if args.opset not in OPSETS:
        parser.error(f"--opset {args.opset}: it is one of {OPSETS.start} to {OPSETS.stop - 1}")
    if args.nms and args.format == "torch":
        parser.error("--nms: only ONNX has an operator for it; torch.export takes none")
    if os.path.isdir(args.out):
        parser.error(f"--out {args.out} is a folder; name a file")
    if args.num_images < 1 or min(args.img_scale or [1]) < 1:
        parser.error("--num-images and both numbers of --img-scale must be at least 1")
    return args


def image_paths(args: argparse.Namespace, cfg: Config) -> list[str]:
    """The images to check with, evenly spread over those of the folder or the validation set.

    Raises:
        InputError: there are none, or the validation set is missing.
    """
    if args.images:
        paths = find_sources([args.images]).images
    else:
        if not cfg.get("val_dataloader"):
            raise InputError("the config has no validation set. Give images by --images FOLDER.")
        init_default_scope(cfg.get("default_scope", "mmdet"))
        try:
            dataset = build_dataset(cfg, "val")
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename}, of the validation set, is missing. Give images to check with "
                "by --images FOLDER."
            ) from error
        except (ValueError, KeyError, TypeError, AssertionError) as error:  # of a damaged file
            raise InputError(
                f"the validation set cannot be read ({type(error).__name__}: {error}). Give images "
                "to check with by --images FOLDER."
            ) from error
        paths = [str(dataset.get_data_info(i)["img_path"]) for i in range(len(dataset))]
    step = max(len(paths) // args.num_images, 1)
    spread = paths[::step][: args.num_images]
    others = (path for path in paths if path not in spread)  # where some of these cannot be read
    read = (path for path in itertools.chain(spread, others) if read_image(path) is not None)
    readable = list(itertools.islice(read, args.num_images))
    if not readable:
        raise InputError("there is no image to check with. Give some with --images FOLDER.")
    return readable


def export(args: argparse.Namespace, cfg: Config, paths: Sequence[str]) -> str:
    """Write the file and check it.

    Returns:
        What was checked, in a sentence.
    """
    if args.img_scale:
        resize_to(cfg, tuple(args.img_scale))
    inferencer = Inferencer(cfg, args.checkpoint, device="cpu", show_progress=False)
    model = inferencer.model
    graph = (NMSGraph if args.nms else DetectorGraph)(model).eval().requires_grad_(False)
    metadata = describe(cfg, model, args)
    out = Path(args.out)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        written = os.path.join(folder, out.name)
        items = [inferencer.pipeline(path) for path in paths]
        if args.nms:  # every box and score, before NMS decides between them
            write_onnx(graph.graph, example_input(), written, DENSE, metadata, args.opset)
            compare(graph.graph, load_onnx(written), items)
        if args.format == "onnx":
            names = ("detections", "labels") if args.nms else DENSE
            write_onnx(graph, example_input(), written, names, metadata, args.opset)
            exported = load_onnx(written)
        else:
            write_program(graph, example_input(), written, metadata)
            exported = load_program(written)
        difference = compare(graph, exported, items)
        os.replace(written, out)
    left_out = ""
    if difference.undetermined:
        left_out = (
            f". Left out, since rounding decides between nearly equal scores: the detections of "
            f"{difference.undetermined} inputs; their boxes and scores before NMS agree"
        )
    return (
        f"{out}: boxes within {difference.boxes:.1e} of the image and scores within "
        f"{difference.scores:.1e} of torch's on {difference.number} images{left_out}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Export as the command line says."""
    args = parse_args(arguments)
    with errors_in_one_line("export.py"), tensors_only(args.trust_checkpoint):
        if args.format == "onnx":
            required("onnx")
            required("onnxruntime")
        cfg = load_config(args)
        output_file(args.out)
        text = export(args, cfg, image_paths(args, cfg))
    kind = f"ONNX, opset {args.opset}" if args.format == "onnx" else "torch.export"
    print(f"{text} ({kind}, NMS {'inside' if args.nms else 'outside'})")


if __name__ == "__main__":
    main()
