"""Draw the detection set "shapes": coloured figures on textured ground, in COCO format.

    python tools/dataset_converters/shapes.py --out-dir data/shapes
    python tools/dataset_converters/shapes.py --num-train 400 --num-val 100 --num-test 100 --seed 0

writes (about ten seconds)

    data/shapes/train/000000.jpg ...                  data/shapes/val/000000.jpg ...
    data/shapes/annotations/instances_train.json      data/shapes/annotations/instances_val.json
    data/shapes/shapes.json                           the parameters that made the set

and, with --num-test, a test split likewise.

The set contains the ambiguity and the misalignment that this package is about. Objects lie inside
one another and overlap (one location, several objects), some scenes are crowded, box sizes range
over 10:1 (square root of the box's area, 14 to 150 pixels at 320x240) and aspect ratios w/h over
6:1 (0.4 to 2.5; bars reach 1:6 and 6:1). One image in 25 is empty.

Occlusion: an object is drawn only if it leaves at least `MIN_VISIBLE` of the pixels of every
earlier object visible, so every object that is drawn is annotated. A box encloses the visible
pixels (as in COCO), x, y, w, h in pixels; `area` is the number of visible pixels; `visible` is
their share of the whole figure.

An image depends only on the seed, the split, the size, --min-size and its number: a larger set
starts with the images of a smaller one. An existing set with the same parameters is kept, and a
folder that this tool did not write is never overwritten.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from shape_scenes import CLASSES, SIZES, draw_scene, scene_rng
from tqdm import tqdm

VERSION = 1  # to be raised when the drawing changes, so that old sets are redrawn
STAMP = "shapes.json"
SPLITS = ("train", "val", "test")

RENAMED = {  # old names of options
    "--out": "--out-dir",
    "--train": "--num-train",
    "--val": "--num-val",
    "--size": "--img-scale",
}


def write_split(root: Path, split: str, count: int, params: dict) -> None:
    """Draw one split's images and its annotation file under `root`."""
    width, height = params["size"]
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number in tqdm(range(count), desc=f"shapes, {split}", unit="image"):
        rng = scene_rng(params["seed"], split, number)
        image, _, objects = draw_scene(rng, width, height, params["min_size"])
        name = f"{number:06d}.jpg"
        if not cv2.imwrite(str(root / split / name), image, [cv2.IMWRITE_JPEG_QUALITY, 92]):
            raise OSError(f"cannot write {root / split / name}; is the disk full?")
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for item in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": item["label"] + 1,
                    "bbox": item["box"],
                    "area": item["area"],
                    "iscrowd": 0,
                    "visible": item["visible"],
                }
            )
    categories = [
        {"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES)
    ]
    content = {
        "info": params,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def is_current(out: Path, params: dict) -> bool:
    """Whether `out` contains a complete set with these parameters; a test split more is no harm."""
    try:
        recorded = {"min_size": SIZES[0], **json.loads((out / STAMP).read_text())}
    except (OSError, ValueError):
        return False
    return params.items() <= recorded.items() and all(
        (out / "annotations" / f"instances_{split}.json").is_file()
        and sum(1 for _ in (out / split).glob("*.jpg")) == params[split]
        for split in SPLITS
        if split in params
    )


def make_set(
    out: str | Path,
    train: int = 400,
    val: int = 100,
    size: Sequence[int] = (320, 240),
    seed: int = 0,
    test: int = 0,
    min_size: float = SIZES[0],
) -> bool:
    """Write the set to `out` unless it exists already.

    The set is drawn in a folder beside `out`, which is renamed when it is complete, so that an
    interrupted run leaves no incomplete set.

    Args:
        out: folder of the set.
        train, val: number of images of each split.
        size: width, height in pixels, each at least 64.
        seed: 0 or larger.
        test: number of images of the test split; 0 for none.
        min_size: size of the smallest objects, the square root of the box's area in pixels at
            320x240; less where others cover a part.

    Returns:
        False if the set existed already.

    Raises:
        ValueError: an argument is invalid, or `out` contains files that this tool did not write.
    """
    out = Path(out).expanduser().absolute()
    params = {
        "generator": "shapes",
        "version": VERSION,
        "seed": int(seed),
        "size": [int(s) for s in size],
        "train": int(train),
        "val": int(val),
        "min_size": float(min_size),
    }
    if test:
        params["test"] = int(test)
    if min(params["size"]) < 64:
        raise ValueError(
            f"--img-scale is {size[0]} x {size[1]}; each side must be at least 64 pixels"
        )
    if min(params["train"], params["val"]) < 1 or min(params["seed"], test) < 0:
        raise ValueError(
            "--num-train and --num-val must be at least 1, --num-test and --seed at least 0"
        )
    if not 4 <= min_size <= SIZES[1] / 2:
        raise ValueError(
            f"--min-size is {min_size:g}; it must be from 4 to {SIZES[1] / 2:g} pixels"
        )
    if is_current(out, params):
        return False
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / STAMP).is_file():
        raise ValueError(
            f"{out} exists but was not made by this tool (it has no {STAMP}); "
            "choose another --out-dir, or remove it first"
        )
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process with the same id
    partial.mkdir(parents=True)
    try:
        for split in (s for s in SPLITS if s in params):
            write_split(partial, split, params[split], params)
        (partial / STAMP).write_text(json.dumps(params))
        if is_current(out, params):  # another process has written it meanwhile
            return False
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the set; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw the generated detection set 'shapes'.")
    parser.add_argument("--out-dir", default="data/shapes", help="folder of the set (%(default)s)")
    parser.add_argument("--num-train", type=int, default=400, help="training images (%(default)s)")
    parser.add_argument("--num-val", type=int, default=100, help="validation images (%(default)s)")
    parser.add_argument("--num-test", type=int, default=0, help="test images (%(default)s)")
    parser.add_argument(
        "--img-scale",
        type=int,
        nargs=2,
        default=(320, 240),
        metavar=("W", "H"),
        help="image size in pixels (320 240)",
    )
    parser.add_argument(
        "--min-size",
        type=float,
        default=SIZES[0],
        metavar="PIXELS",
        help="size of the smallest objects, square root of the area, at 320x240 (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    if any(word.partition("=")[0] in RENAMED for word in (sys.argv if argv is None else argv)):
        # Only then, since this import takes seconds.
        from misalign_det.apis.cli import add_renamed_option

        for old, new in RENAMED.items():
            add_renamed_option(parser, old, new)
    args = parser.parse_args(argv)
    try:
        made = make_set(
            args.out_dir,
            args.num_train,
            args.num_val,
            args.img_scale,
            args.seed,
            args.num_test,
            args.min_size,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{args.out_dir}: {args.num_train} training, {args.num_val} validation and "
        f"{args.num_test} test images, seed {args.seed}"
        + ("" if made else " (already there, kept)")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
