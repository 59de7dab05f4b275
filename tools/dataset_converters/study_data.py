"""Make a data set of the studies, in COCO format, from its public repository.

    git clone --depth 1 https://github.com/suojiashun/HIT-UAV-Infrared-Thermal-Dataset
    python tools/dataset_converters/study_data.py hit-uav HIT-UAV-Infrared-Thermal-Dataset

It writes annotations/instances_{train,val,test}.json and the images, where the config of the data
set looks for them. Which images are in which split is in study_splits.json; configs/study_data.md
describes the data sets.
"""

import argparse
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from misalign_det.errors import InputError

SPLITS = Path(__file__).with_name("study_splits.json")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Source:
    """A public data set, with Pascal VOC's annotation files, and what the studies make of it.

    Attributes:
        url, commit: of the repository.
        folders: in it, with annotation files and images.
        classes: in the order of the config.
        out_dir: where the config looks for the data set, unless it is told otherwise.
        image_dir: where in it the config looks for the images.
        quality: of the JPEG files that are written; None where the files are copied.
        longest_side: larger images are made as small as this.
    """

    url: str
    commit: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    out_dir: str
    image_dir: str = "images"
    quality: int | None = None
    longest_side: int = 640


SOURCES = {
    "bccd": Source(
        "https://github.com/Shenggan/BCCD_Dataset",
        "d272fb14cdff6e473fafeeeba32aba5f560e9e43",
        ("BCCD/Annotations", "BCCD/JPEGImages"),
        ("RBC", "WBC", "Platelets"),
        "data/bccd",
        "VOC2007/JPEGImages",
    ),
    "hit-uav": Source(
        "https://github.com/suojiashun/HIT-UAV-Infrared-Thermal-Dataset",
        "f8100db7ce3ab602005dd9f32854bb57d4de9b87",
        ("normal_xml/Annotations", "normal_xml/JPEGImages"),
        ("Bicycle", "Car", "OtherVehicle", "Person"),
        "data/hit_uav",
        quality=90,
    ),
    "cards": Source(
        "https://github.com/EdjeElectronics/"
        "TensorFlow-Object-Detection-API-Tutorial-Train-Multiple-Objects-Windows-10",
        "c1645825822622fc75919b6be253779d49678f55",
        ("images/train", "images/test"),
        ("ace", "jack", "king", "nine", "queen", "ten"),
        "data/cards",
        quality=90,
    ),
}


@dataclass
class Picture:
    """An image of a split.

    Attributes:
        size: (width, height) that its annotation file says.
        boxes: class, x1, y1, x2, y2.
    """

    file: Path
    size: tuple[int, int]
    boxes: list[tuple[str, float, float, float, float]]


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(SOURCES), help="the data set")
    parser.add_argument("root", type=Path, help="folder of the clone of its repository")
    parser.add_argument("--out-dir", help="folder to write to (default: where the config looks)")
    return parser.parse_args(arguments)


def find_pictures(source: Source, root: Path, splits: dict[str, Any]) -> dict[str, list[Picture]]:
    """The images of each split with their boxes.

    Raises:
        InputError: the folder is not the repository's, or its images or boxes are not those of the
            studies.
    """
    clone = f"a clone of {source.url} (commit {source.commit[:12]})"
    for folder in source.folders:
        if not (root / folder).is_dir():
            raise InputError(f"{root} has no folder {folder}: give the folder of {clone}")
    there = [file for folder in source.folders for file in sorted((root / folder).iterdir())]
    images = {file.stem: file for file in there if file.suffix.lower() in IMAGE_SUFFIXES}
    labels = {file.stem: file for file in there if file.suffix == ".xml"}
    names = [name for split in splits.values() for name in split["images"]]
    missing = [f"{name}.jpg" for name in names if name not in images]
    missing += [f"{name}.xml" for name in names if name not in labels]
    if missing:
        raise InputError(
            f"{root} lacks {len(missing)} of the {2 * len(names)} files, such as {missing[0]}: "
            f"give the folder of {clone}, complete"
        )
    found = {}
    for split, content in splits.items():
        found[split] = [read_boxes(labels[n], images[n], source) for n in content["images"]]
        boxes = sum(len(picture.boxes) for picture in found[split])
        if boxes != content["boxes"]:
            raise InputError(
                f"{root} has {boxes} boxes in the {split} split, the studies {content['boxes']}: "
                f"it is another version; give the folder of {clone}"
            )
    return found


def read_boxes(file: Path, image: Path, source: Source) -> Picture:
    """Read an annotation file; coordinates stay as they are, and boxes without area are left out.

    Raises:
        InputError: it is not in Pascal VOC's format, or has a class that the studies have not.
    """
    try:
        root = ET.parse(file).getroot()
        size = (int(root.findtext("size/width", "")), int(root.findtext("size/height", "")))
        boxes = [
            (
                node.findtext("name", ""),
                *(
                    float(node.findtext(f"bndbox/{k}", ""))
                    for k in ("xmin", "ymin", "xmax", "ymax")
                ),
            )
            for node in root.iter("object")
        ]
    except (ET.ParseError, ValueError) as error:
        raise InputError(f"{file} is not in Pascal VOC's format ({error}); clone again") from error
    others = {box[0] for box in boxes} - set(source.classes)
    if others:
        raise InputError(
            f"{file} has the class {min(others)!r}, which the studies have not: it is another "
            f"version; clone {source.url} at commit {source.commit[:12]}"
        )
    return Picture(image, size, [box for box in boxes if box[3] > box[1] and box[4] > box[2]])


def scaled(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    """A size with the longest side at most as long.

    Example:
        >>> scaled((960, 540), 640)
        (640, 360)
    """
    factor = min(1, longest_side / max(size))
    return round(size[0] * factor), round(size[1] * factor)


def write_image(picture: Picture, file: Path, source: Source) -> None:
    """Write an image as the studies have it.

    Raises:
        InputError: it cannot be read, or is not of the size that its annotation file says.
    """
    try:
        with Image.open(picture.file) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise InputError(f"{picture.file} cannot be read ({error}); clone again") from error
    if image.size != picture.size:
        raise InputError(
            f"{picture.file} has {' x '.join(map(str, image.size))} pixels, its annotation file "
            f"says {' x '.join(map(str, picture.size))}; clone again"
        )
    if source.quality is None:
        shutil.copyfile(picture.file, file)
        return
    size = scaled(image.size, source.longest_side)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.save(file, "JPEG", quality=source.quality)


def coco_splits(source: Source, pictures: dict[str, list[Picture]]) -> dict[str, dict[str, Any]]:
    """The annotations of each split; ids count on from split to split."""
    found, image_id, box_id = {}, 0, 0
    for split, each in pictures.items():
        images, annotations = [], []
        for picture in each:
            image_id += 1
            width, height = scaled(picture.size, source.longest_side)
            across, down = width / picture.size[0], height / picture.size[1]
            name = f"{picture.file.stem}.jpg"
            images.append(dict(id=image_id, file_name=name, width=width, height=height))
            for label, x1, y1, x2, y2 in picture.boxes:
                box_id += 1
                x, y, w, h = x1 * across, y1 * down, (x2 - x1) * across, (y2 - y1) * down
                annotations.append(
                    dict(
                        id=box_id,
                        image_id=image_id,
                        category_id=source.classes.index(label) + 1,
                        bbox=[round(value, 2) for value in (x, y, w, h)],
                        area=round(w * h, 2),
                        iscrowd=0,
                    )
                )
        found[split] = dict(
            info=dict(url=source.url, commit=source.commit),
            images=images,
            annotations=annotations,
            categories=[dict(id=i, name=name) for i, name in enumerate(source.classes, 1)],
        )
    return found


def make(data: str, root: Path, out_dir: Path) -> list[str]:
    """Make a data set; the annotation files are written last.

    Returns:
        Lines that say what was written.

    Raises:
        InputError: the folder to write to has annotations; see also `find_pictures`.
    """
    from misalign_det.utils.json_file import write_json

    source, splits = SOURCES[data], json.loads(SPLITS.read_text(encoding="utf-8"))[data]
    there = sorted(out_dir.glob("annotations/instances_*.json"))
    if there:
        raise InputError(f"{there[0]} is there already: remove it, or choose another --out-dir")
    pictures = find_pictures(source, root, splits)
    try:
        (out_dir / source.image_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {out_dir}: {error.strerror}; choose another --out-dir"
        ) from error
    for picture in (picture for each in pictures.values() for picture in each):
        write_image(picture, out_dir / source.image_dir / f"{picture.file.stem}.jpg", source)
    lines = []
    for split, content in coco_splits(source, pictures).items():
        path = out_dir / f"annotations/instances_{split}.json"
        write_json(str(path), content)
        lines.append(
            f"{path}: {len(content['images'])} images, {len(content['annotations'])} boxes"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the data set, and print what was written."""
    args = parse_args(arguments)
    from misalign_det.apis.error_reporting import errors_in_one_line

    with errors_in_one_line("study_data.py"):
        print(
            "\n".join(make(args.data, args.root, Path(args.out_dir or SOURCES[args.data].out_dir)))
        )


if __name__ == "__main__":
    main()
