"""Convert annotated images to COCO format, with a seeded split by image or by group.

    python tools/dataset_converters/to_coco.py INPUT --out-dir data/mine
    python tools/dataset_converters/to_coco.py frames/ --out-dir data/mine --fractions 0.7 0.3 0 \\
        --group '(video[0-9]+)_'

INPUT is a folder in COCO, Pascal VOC, YOLO, CVAT, LabelMe, CSV or Roboflow layout, or one
annotation file. It writes annotations/instances_{train,val,test}.json and images/, which is the
layout that `tools/train.py CONFIG --data data/mine` reads, and says what it left out.
"""

import argparse
from collections.abc import Sequence

FORMATS = ("auto", "coco", "roboflow", "voc", "cvat", "yolo", "labelme", "csv")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", help="folder with images and annotations, or an annotation file")
    parser.add_argument("--out-dir", required=True, help="folder to write to")
    parser.add_argument(
        "--format", choices=FORMATS, default="auto", help="of the annotations (default: recognised)"
    )
    parser.add_argument(
        "--fractions",
        nargs=3,
        type=float,
        metavar=("TRAIN", "VAL", "TEST"),
        help="split anew: share of the images in each split (default: the splits of the input; "
        "0.8 0.1 0.1 where it has only one)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument(
        "--group",
        metavar="RULE",
        help="split anew, and keep images of a group in one split, such as the frames of a video: "
        "a column of a CSV file, a key of COCO's images, or a regular expression that is searched "
        "in the file name",
    )
    parser.add_argument(
        "--copy-images", action="store_true", help="copy the images (default: symbolic links)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert, and print what was found and left out."""
    args = parse_args(arguments)
    # Here, since these imports take seconds.
    from misalign_det.apis.error_reporting import errors_in_one_line
    from misalign_det.datasets.formats.export import export_coco

    with errors_in_one_line("to_coco.py"):
        lines = export_coco(
            args.input,
            args.out_dir,
            kind=args.format,
            fractions=args.fractions,
            seed=args.seed,
            group=args.group,
            copy_images=args.copy_images,
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
