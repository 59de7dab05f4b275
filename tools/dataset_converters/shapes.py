"""Draw the detection set "shapes": coloured figures on textured ground, in COCO format.

    python tools/dataset_converters/shapes.py --out-dir data/shapes
    python tools/dataset_converters/shapes.py --num-train 400 --num-val 100 --seed 0

writes (about ten seconds)

    data/shapes/train/000000.jpg ...                  data/shapes/val/000000.jpg ...
    data/shapes/annotations/instances_train.json      data/shapes/annotations/instances_val.json
    data/shapes/shapes.json                           the parameters that made the set

The set contains the ambiguity and the misalignment that this package is about. Objects lie inside
one another and overlap (one location, several objects), some scenes are crowded, box sizes range
over 10:1 (square root of the box's area, 14 to 150 pixels at 320x240) and aspect ratios w/h over
6:1 (0.4 to 2.5; bars reach 1:6 and 6:1). One image in 25 is empty.

Occlusion: an object is drawn only if it leaves at least `MIN_VISIBLE` of the pixels of every
earlier object visible, so every object that is drawn is annotated. A box encloses the visible
pixels (as in COCO), x, y, w, h in pixels; `area` is the number of visible pixels; `visible` is
their share of the whole figure.

An image depends only on the seed, the split, the size and its number: a larger set starts with the
images of a smaller one. An existing set with the same parameters is kept, and a folder that this
tool did not write is never overwritten.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

VERSION = 1  # to be raised when the drawing changes, so that old sets are redrawn
CLASSES = ("disc", "rectangle", "triangle", "ring", "cross", "star")
HUES = (4, 106, 58, 24, 138, 88)  # OpenCV hue (0-179) of each class, jittered per object
SIZES = (14.0, 150.0)  # sqrt(w * h) of a box in pixels at 320 x 240, log-uniform
RATIO = 2.5  # w / h is log-uniform in [1 / RATIO, RATIO]
BAR_RATIO = 6.0  # the same for the share of rectangles that are bars
MIN_VISIBLE = 0.4
STAMP = "shapes.json"
SUPERSAMPLE = 4  # figures are drawn this much larger and then averaged, for soft edges

RENAMED = {  # old names of options
    "--out": "--out-dir",
    "--train": "--num-train",
    "--val": "--num-val",
    "--size": "--img-scale",
}


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A textured background of low saturation: float32 (height, width, 3), BGR, 0-255."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    low, high = sorted(rng.uniform(40, 215, 2))
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = rng.choice(["clouds", "gradient", "stripes", "checker"])
    if kind == "clouds":
        grid = rng.random((rng.integers(3, 12), rng.integers(3, 12))).astype(np.float32)
        level = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == "gradient":
        level = (along - along.min()) / (along.max() - along.min())
    elif kind == "stripes":
        level = 0.5 + 0.5 * np.sin(2 * np.pi * along / rng.uniform(8, 60))
    else:
        cell = rng.integers(8, 40)
        level = ((x // cell + y // cell) % 2).astype(np.float32)
    tint = rng.uniform(0.88, 1.12, 3)
    ground = (low + (high - low) * level)[..., None] * tint
    return (ground + rng.normal(0, rng.uniform(3, 12), ground.shape)).astype(np.float32)


def outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Corner points of a class's figure, of any scale: float64 (N, 2), x and y."""
    turn = rng.uniform(0, 2 * np.pi)
    if name in ("disc", "ring"):
        angles, radii = np.linspace(0, 2 * np.pi, 72, endpoint=False), 1.0
    elif name == "rectangle":
        return np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    elif name == "triangle":
        angles, radii = turn + np.arange(3) * 2 * np.pi / 3, 1.0
    elif name == "star":
        angles, radii = turn + np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, 0.42, 1.0)
    else:
        arm = rng.uniform(0.26, 0.4)
        quarter = np.array([(arm, arm), (arm, 1), (-arm, 1)])
        turns = [
            np.array([(np.cos(a), -np.sin(a)), (np.sin(a), np.cos(a))])
            for a in np.arange(4) * np.pi / 2
        ]
        return np.concatenate([quarter @ matrix.T for matrix in turns])
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def figure(name: str, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Opacity of one figure that fills a width x height box: float32 (height, width), 0-1."""
    points = outline(name, rng)
    points = (points - points.min(0)) / np.ptp(points, axis=0)
    scale = np.array([width, height]) * SUPERSAMPLE
    canvas = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * (scale - 1)).astype(np.int32)], 255)
    if name == "ring":
        hole = 0.5 + (points - 0.5) * rng.uniform(0.5, 0.62)
        cv2.fillPoly(canvas, [np.round(hole * (scale - 1)).astype(np.int32)], 0)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)


def paint(label: int, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """The colours inside a figure, shaded from one side: float32 (height, width, 3), BGR."""
    hue = (HUES[label] + rng.integers(-4, 5)) % 180
    hsv = np.uint8([[[hue, rng.integers(170, 256), rng.integers(165, 256)]]])
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    shade = 1 + rng.uniform(0.1, 0.45) * slope
    return colour * shade[..., None] + rng.normal(0, 4, (height, width, 1))


def plan(rng: np.random.Generator, width: int, height: int) -> list[tuple[int, int, int, int, int]]:
    """Choose the objects of one scene: a list of (label, x, y, w, h), integers.

    Four kinds of scene: empty, sparse, nested (small objects inside large ones) and crowded (many
    objects around one point). Large objects come first, so that small ones lie on top.
    """
    kind = rng.choice(["empty", "sparse", "nested", "crowd"], p=[0.04, 0.46, 0.25, 0.25])
    count = {
        "empty": 0,
        "sparse": rng.integers(2, 7),
        "nested": rng.integers(3, 9),
        "crowd": rng.integers(9, 17),
    }[kind]
    unit = min(width / 320, height / 240)
    focus = rng.uniform(0.3, 0.7, 2) * (width, height)
    objects = []
    for _ in range(count):
        label = int(rng.integers(len(CLASSES)))
        top = SIZES[1] if kind != "crowd" else SIZES[1] / 2
        size = np.exp(rng.uniform(*np.log((SIZES[0], top))))
        bar = CLASSES[label] == "rectangle" and size > 40 and rng.random() < 0.3
        limit = BAR_RATIO if bar else RATIO
        ratio = np.exp(rng.uniform(-np.log(limit), np.log(limit)))
        w, h = np.round(unit * size * np.array([ratio**0.5, ratio**-0.5])).astype(int)
        w, h = min(w, width), min(h, height)
        spread = {"nested": 0.12, "crowd": 0.2}.get(kind)
        centre = (
            rng.normal(focus, spread * height)
            if spread
            else rng.uniform((w / 2, h / 2), (width - w / 2, height - h / 2))
        )
        x, y = np.clip(np.round(centre - (w / 2, h / 2)), 0, (width - w, height - h)).astype(int)
        objects.append((label, int(x), int(y), int(w), int(h)))
    return sorted(objects, key=lambda o: -o[3] * o[4])


def draw_scene(
    rng: np.random.Generator, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """One image and its objects.

    Returns:
        Image, uint8 (height, width, 3), BGR; owner, int16 (height, width), the number of the
        object seen at a pixel or -1; objects, a list of dicts with label, box (x, y, w, h of the
        visible pixels), area and visible, in the order of those numbers.
    """
    image = background(rng, height, width)
    owner = np.full((height, width), -1, np.int16)
    whole = []  # pixels of each figure before others covered it
    labels = []
    for label, x, y, w, h in plan(rng, width, height):
        opacity = figure(CLASSES[label], rng, w, h)
        colours = paint(label, rng, w, h)
        solid = opacity >= 0.5
        trial = owner.copy()
        trial[y : y + h, x : x + w][solid] = len(labels)
        seen = np.bincount(trial[trial >= 0], minlength=len(labels) + 1)
        if any(seen[i] < MIN_VISIBLE * whole[i] for i in range(len(labels))):
            continue
        owner = trial
        labels.append(label)
        whole.append(int(solid.sum()))
        patch = image[y : y + h, x : x + w]
        patch += opacity[..., None] * (colours - patch)
    objects = []
    for number, label in enumerate(labels):
        rows, columns = np.nonzero(owner == number)
        x, y = int(columns.min()), int(rows.min())
        box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
        objects.append(
            {
                "label": label,
                "box": box,
                "area": int(rows.size),
                "visible": round(rows.size / whole[number], 3),
            }
        )
    return np.clip(image, 0, 255).astype(np.uint8), owner, objects


def scene_rng(seed: int, split: str, number: int) -> np.random.Generator:
    """The random generator of one image, which does not depend on the number of images."""
    return np.random.default_rng([seed, ("train", "val").index(split), number])


def write_split(root: Path, split: str, count: int, params: dict) -> None:
    """Draw one split's images and its annotation file under `root`."""
    width, height = params["size"]
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number in tqdm(range(count), desc=f"shapes, {split}", unit="image"):
        image, _, objects = draw_scene(scene_rng(params["seed"], split, number), width, height)
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
    """Whether `out` contains a complete set with exactly these parameters."""
    try:
        recorded = json.loads((out / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return recorded == params and all(
        (out / "annotations" / f"instances_{split}.json").is_file()
        and sum(1 for _ in (out / split).glob("*.jpg")) == params[split]
        for split in ("train", "val")
    )


def make_set(
    out: str | Path,
    train: int = 400,
    val: int = 100,
    size: Sequence[int] = (320, 240),
    seed: int = 0,
) -> bool:
    """Write the set to `out` unless it exists already.

    The set is drawn in a folder beside `out`, which is renamed when it is complete, so that an
    interrupted run leaves no incomplete set.

    Args:
        out: folder of the set.
        train, val: number of images of each split.
        size: width, height in pixels, each at least 64.
        seed: 0 or larger.

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
    }
    if min(params["size"]) < 64:
        raise ValueError(
            f"--img-scale is {size[0]} x {size[1]}; each side must be at least 64 pixels"
        )
    if min(params["train"], params["val"]) < 1 or params["seed"] < 0:
        raise ValueError("--num-train and --num-val must be at least 1 and --seed at least 0")
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
        for split in ("train", "val"):
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
    parser.add_argument(
        "--img-scale",
        type=int,
        nargs=2,
        default=(320, 240),
        metavar=("W", "H"),
        help="image size in pixels (320 240)",
    )
    parser.add_argument("--seed", type=int, default=0)
    if any(word.partition("=")[0] in RENAMED for word in (sys.argv if argv is None else argv)):
        # Only then, since this import takes seconds.
        from misalign_det.apis.cli import add_renamed_option

        for old, new in RENAMED.items():
            add_renamed_option(parser, old, new)
    args = parser.parse_args(argv)
    try:
        made = make_set(args.out_dir, args.num_train, args.num_val, args.img_scale, args.seed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{args.out_dir}: {args.num_train} training and {args.num_val} validation images, "
        f"seed {args.seed}" + ("" if made else " (already there, kept)")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
