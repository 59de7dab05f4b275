"""Detect on images, folders, videos and webcams.

    python tools/predict.py CONFIG CHECKPOINT image.jpg
    python tools/predict.py CONFIG CHECKPOINT folder 'more/**/*.png' film.mp4 0 --out-dir found

INPUT is an image, a folder (its images and those of its subfolders), a glob pattern, a video, or
the number of a webcam, which runs until Ctrl-C. CONFIG is a file, or the name of a config of this
package. The output folder then has

- predictions.json: detections in COCO's format, [{image_id, file_name, category_id, category_name,
  bbox, score}]. bbox is left, top, width and height in pixels. Image ids count images and frames
  from 1, category ids count the detector's classes from 1; a frame of a video also has its number,
  frame, from 0. All detections of the model are in it: what test_cfg.score_thr and max_per_img of
  the config let through, whatever --score-thr is.
- pictures/NAME.jpg: each image with its boxes, the highest score on top; NAME.mp4: each video. Only
  boxes from --score-thr on are drawn.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch

from misalign_det.analysis.output_files import output_file, output_folder
from misalign_det.analysis.picture_names import distinct_names, numbered_apart
from misalign_det.apis.cli import add_common_arguments, errors_in_one_line, load_config
from misalign_det.apis.inference.inferencer import Inferencer, detector_classes
from misalign_det.apis.inference.runs import (
    Detections,
    detect_images,
    detect_video,
    picture_threshold,
)
from misalign_det.apis.inference.sources import Sources, find_sources
from misalign_det.engine.checkpoint import read_checkpoint, tensors_only
from misalign_det.errors import InputError
from misalign_det.utils.text import shorten

PICTURES, RESULTS = "pictures", "predictions.json"  # in the output folder
MOST_BYTES = 200  # of a name, to which a number and a suffix are added; file systems allow 255


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Detect on images, folders, videos and webcams")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, folder (with its subfolders), glob pattern, video, or number of a webcam",
    )
    parser.add_argument("--out-dir", default="predictions", help="folder to write to (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=1, help="images per step (%(default)s)")
    parser.add_argument(
        "--score-thr",
        type=float,
        help="draw detections from this score on (default: 0.3, and 0.65 where the head's score is "
        "a geometric mean, which is higher); predictions.json has all",
    )
    parser.add_argument("--classes", nargs="+", help="keep only detections of these classes")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--no-pictures", action="store_true", help="write predictions.json, no pictures or videos"
    )
    add_common_arguments(parser)
    args = parser.parse_args(arguments)
    if args.batch_size < 1 or not 0 <= (args.score_thr or 0) <= 1:
        parser.error("--batch-size must be at least 1 and --score-thr between 0 and 1")
    return args


def check_classes(wanted: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse names that the detector does not have.

    Args:
        wanted: from the command line.
        classes: the detector's.

    Raises:
        InputError: names the unknown classes and the detector's.
    """
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise InputError(
            f"--classes: the detector has no class {shorten(map(repr, unknown))}. Its classes are "
            f"{shorten(classes, 100)}."
        )


def file_names(paths: Sequence[str]) -> list[str]:
    """As `distinct_names`, with the end of each name that is longer than a file's may be.

    Args:
        paths: of images or videos.
    """
    ends = (os.fsencode(name)[-MOST_BYTES:] for name in distinct_names(paths))
    return numbered_apart([end.decode(errors="ignore") for end in ends])


def output_files(sources: Sources, out_dir: Path) -> tuple[list[Path], list[Path]]:
    """The picture of each image, and the video of each video and webcam.

    Args:
        sources: from `find_sources`.
        out_dir: where they are written.

    Raises:
        InputError: one of them is an input, which it would replace.
    """
    pictures = [out_dir / PICTURES / f"{name}.jpg" for name in file_names(sources.images)]
    names = [*file_names(sources.videos), *(f"webcam{number}" for number in sources.webcams)]
    films = [out_dir / f"{name}.mp4" for name in names]
    inputs = {os.path.realpath(path) for path in (*sources.images, *sources.videos)}
    for path in (*pictures, *films):
        if os.path.realpath(path) in inputs:
            raise InputError(
                f"--out-dir {out_dir}: {path} is one of the inputs, and would be replaced. Choose "
                "another folder."
            )
    return pictures, films


def prepare_folder(out_dir: Path, outputs: tuple[Sequence[Path], Sequence[Path]] | None) -> None:
    """Make the output folder, and check that the files can be written.

    Args:
        out_dir: from the command line.
        outputs: from `output_files`; None for no pictures and videos.

    Raises:
        InputError: one of them cannot.
    """
    pictures, films = outputs or ((), ())
    output_folder(out_dir / PICTURES if pictures else out_dir)
    for path in (out_dir / RESULTS, *pictures, *films):
        if path.is_dir():
            raise InputError(
                f"--out-dir {out_dir}: {path} is a folder, where a file is to be written. Choose "
                "another --out-dir."
            )
    output_file(out_dir / RESULTS, "--out-dir")


def run(
    inferencer: Inferencer,
    sources: Sources,
    outputs: tuple[Sequence[Path], Sequence[Path]] | None,
    detections: Detections,
    args: argparse.Namespace,
) -> list[str]:
    """Detect on all sources.

    Args:
        inferencer: loaded.
        sources: from `find_sources`.
        outputs: from `output_files`; None for no pictures and videos.
        detections: the results are added to it.
        args: `batch_size` and `score_thr`.

    Returns:
        Images that cannot be used.
    """
    cameras, rest = [*sources.videos, *sources.webcams], (args.batch_size, args.score_thr)
    pictures, films = outputs or (None, [None] * len(cameras))
    unusable = []
    if sources.images:
        unusable = detect_images(inferencer, sources.images, detections, pictures, *rest)
    for source, film in zip(cameras, films):
        detect_video(inferencer, source, detections, film, *rest)
    return unusable


def main(arguments: Sequence[str] | None = None) -> None:
    """Detect as the command line says."""
    args = parse_args(arguments)
    with errors_in_one_line("predict.py"), tensors_only(args.trust_checkpoint):
        out_dir = Path(args.out_dir)
        sources = find_sources(args.inputs, leave_out=str(out_dir / PICTURES))
        outputs = None if args.no_pictures else output_files(sources, out_dir)
        cfg = load_config(args)
        classes = detector_classes(cfg, read_checkpoint(args.checkpoint))
        check_classes(args.classes or (), classes)
        prepare_folder(out_dir, outputs)
        inferencer = Inferencer(cfg, args.checkpoint, device=args.device, show_progress=False)
        if args.score_thr is None:
            args.score_thr = picture_threshold(inferencer.model)
        detections = Detections(classes, args.classes)
        try:
            unusable = run(inferencer, sources, outputs, detections, args)
        finally:  # after Ctrl-C or an error, what was found so far
            if detections.num_images:
                detections.save(out_dir / RESULTS)
                print(
                    f"{len(detections.results)} detections on {detections.num_images} images and "
                    f"frames, in {args.out_dir}"
                )
        if not detections.num_images:
            raise InputError(f"none of the images can be used: {shorten(unusable)}.")
    if unusable:
        print(f"{len(unusable)} images cannot be used: {shorten(unusable, 20)}")


if __name__ == "__main__":
    main()
