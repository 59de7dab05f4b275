"""Split a COCO annotation file, to choose settings on held-out images and not on a test split.

    python tools/dataset_converters/split_coco.py data/bccd/annotations/instances_train.json \\
        --num-images 55 --out-dir data/bccd_held-out

writes `instances_train_rest.json` and `instances_train_held-out.json` (55 images). The image files
are not moved, so a config needs only the two files: `ann_file` may be an absolute path. Without
--out-dir they are written beside the annotation file, where `--data data/bccd` would find three
files of training images and take none of them.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

RENAMED = {"--num": "--num-images"}  # old names of options


def split_coco(dataset: dict, num: int, seed: int = 0) -> tuple[dict, dict]:
    """Split a COCO dictionary by image.

    Args:
        dataset: with `images`, `annotations` and `categories`.
        num: number of images to hold out.
        seed: of the choice; the same ids and seed give the same images.

    Returns:
        The rest, and the held-out part.

    Raises:
        ValueError: the dictionary is not in COCO format, lists an image twice, which would be in
            both parts, or one part would have no image.
    """
    if not isinstance(dataset, dict):
        raise ValueError("not in COCO format: no dictionary.")
    lacking = [key for key in ("images", "annotations", "categories") if key not in dataset]
    if lacking:
        raise ValueError(f"not in COCO format: no {', '.join(lacking)}.")
    for key in ("id", "file_name"):
        counts = Counter(image[key] for image in dataset["images"] if key in image)
        twice = [value for value, number in counts.items() if number > 1]
        if twice:
            raise ValueError(
                f"images with {key} {twice[0]!r} are listed more than once. Merge them, or give "
                "each an id and a file of its own."
            )
    if not 0 < num < len(dataset["images"]):
        last = len(dataset["images"]) - 1
        raise ValueError(f"--num-images must be between 1 and {last} here, not {num}.")
    # Here, since this import takes seconds.
    from misalign_det.datasets.formats.splits import deal_ids, part_of, sort_ids

    ids = sort_ids([image["id"] for image in dataset["images"]])
    held_out, rest = deal_ids([[image_id] for image_id in ids], [num], seed)
    return part_of(dataset, rest), part_of(dataset, held_out)


def main(argv: Sequence[str] | None = None) -> None:
    """Split the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path, help="COCO annotation file")
    parser.add_argument("--num-images", type=int, required=True, help="images to hold out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out-dir", help="folder of the two files (default: the annotation file's)"
    )
    if any(word.partition("=")[0] in RENAMED for word in (sys.argv if argv is None else argv)):
        # Only then, since this import takes seconds.
        from misalign_det.apis.cli import add_renamed_option

        for old, new in RENAMED.items():
            add_renamed_option(parser, old, new)
    args = parser.parse_args(argv)
    try:
        content = json.loads(args.annotations.read_text(encoding="utf-8-sig"))
        parts = split_coco(content, args.num_images, args.seed)
    except OSError as error:
        parser.error(f"{args.annotations}: {error.strerror}")
    except ValueError as error:
        parser.error(f"{args.annotations}: {error}")
    except (KeyError, TypeError) as error:
        parser.error(
            f"{args.annotations}: not in COCO format: an image without 'id', or an "
            f"annotation without 'image_id' ({type(error).__name__}: {error})"
        )
    folder = Path(args.out_dir or args.annotations.parent)
    for name, dataset in zip(("rest", "held-out"), parts):
        path = folder / f"{args.annotations.stem}_{name}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dataset), encoding="utf-8")
        except OSError as error:
            parser.error(f"cannot write {path}: {error.strerror}; choose another --out-dir")
        print(f"{path}: {len(dataset['images'])} images, {len(dataset['annotations'])} boxes")


if __name__ == "__main__":
    main()
