"""One small data set, written to a folder in each format."""

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (64, 48)
# {image: (split, boxes)}; a box is a class and (x1, y1, x2, y2) in pixels. "e" has no objects.
IMAGES = {
    "a": ("train", [("nut", (0, 0, 16, 12)), ("bolt", (32, 24, 64, 48))]),
    "b": ("train", [("bolt", (8, 6, 24, 30))]),
    "c": ("train", [("nut", (16, 12, 48, 36))]),
    "d": ("val", [("bolt", (4, 3, 60, 45))]),
    "e": ("val", []),
    "f": ("test", [("nut", (20, 10, 40, 40)), ("nut", (0, 0, 8, 6))]),
}
CLASSES = ["nut", "bolt"]


def write_image(path, size=SIZE, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **kwargs)


def xml_of(name, boxes, origin=1, size=SIZE):
    """The text of a VOC file; ``origin`` is the coordinate of the first pixel."""
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = f"{name}.jpg"
    sides = ET.SubElement(root, "size")
    for side, value in zip(("width", "height"), size):
        ET.SubElement(sides, side).text = str(value)
    for label, bbox in boxes:
        item = ET.SubElement(root, "object")
        ET.SubElement(item, "name").text = label
        place = ET.SubElement(item, "bndbox")
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), bbox):
            ET.SubElement(place, side).text = str(value + origin)
    return ET.tostring(root, encoding="unicode")


def yolo_of(boxes):
    """The text of a YOLO file."""
    lines = []
    for label, (x1, y1, x2, y2) in boxes:
        centre = ((x1 + x2) / 2 / SIZE[0], (y1 + y2) / 2 / SIZE[1])
        sides = ((x2 - x1) / SIZE[0], (y2 - y1) / SIZE[1])
        lines.append(" ".join(map(str, [CLASSES.index(label), *centre, *sides])))
    return "\n".join(lines) + "\n"


def coco_of(names, first_id=1, project=False, **kwargs):
    """A COCO dictionary; with ``project`` the categories have Roboflow's additional one."""
    above = {"supercategory": "parts"} if project else {}
    content = {
        "images": [
            {"id": i, "file_name": f"{name}.jpg", "width": SIZE[0], "height": SIZE[1]}
            for i, name in enumerate(names)
        ],
        "annotations": [],
        "categories": [{"id": i, "name": name, **above} for i, name in enumerate(CLASSES, 1)],
        **kwargs,
    }
    if project:
        content["categories"].insert(0, {"id": 0, "name": "parts", "supercategory": "none"})
    for i, name in enumerate(names):
        for label, (x1, y1, x2, y2) in IMAGES[name][1]:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + first_id,
                    "image_id": i,
                    "category_id": CLASSES.index(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    return content


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def names_of(split):
    return [name for name, (own, _) in IMAGES.items() if own == split]


def _coco(root):
    for name in IMAGES:
        write_image(root / f"images/{name}.jpg")
    for split in ("train", "val", "test"):
        write_text(root / f"annotations/instances_{split}.json", coco_of(names_of(split)))


def _roboflow_coco(root):
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for name in names_of(split):
            write_image(root / folder / f"{name}.jpg")
        content = coco_of(names_of(split), first_id=0, project=True)
        write_text(root / folder / "_annotations.coco.json", content)


def _voc(root):
    for name, (_, boxes) in IMAGES.items():
        write_image(root / f"JPEGImages/{name}.jpg")
        write_text(root / f"Annotations/{name}.xml", xml_of(name, boxes))
    for split in ("train", "val", "test"):
        write_text(root / f"ImageSets/Main/{split}.txt", "\n".join(names_of(split)))
    write_text(root / "ImageSets/Main/nut_train.txt", "a 1\nb -1\n")


def _roboflow_voc(root):
    for name, (split, boxes) in IMAGES.items():
        folder = root / {"val": "valid"}.get(split, split)
        write_image(folder / f"{name}.jpg")
        write_text(folder / f"{name}.xml", xml_of(name, boxes, origin=0))


def _yolo(root):
    for name, (split, boxes) in IMAGES.items():
        write_image(root / f"images/{split}/{name}.jpg")
        if boxes:
            write_text(root / f"labels/{split}/{name}.txt", yolo_of(boxes))
    write_text(root / "classes.txt", "\n".join(CLASSES))


def _roboflow_yolo(root):
    """Its paths begin with "..", though the folders are beside the file."""
    folders = {"train": "train", "val": "valid", "test": "test"}
    for name, (split, boxes) in IMAGES.items():
        write_image(root / folders[split] / f"images/{name}.jpg")
        write_text(root / folders[split] / f"labels/{name}.txt", yolo_of(boxes))
    paths = [f"{split}: ../{folder}/images" for split, folder in folders.items()]
    write_text(root / "data.yaml", "\n".join([*paths, "nc: 2", f"names: {CLASSES}"]))
    write_text(root / "README.roboflow.txt", "5 images\n")


def _cvat(root):
    document = ET.Element("annotations")
    labels = ET.SubElement(ET.SubElement(ET.SubElement(document, "meta"), "task"), "labels")
    for label in CLASSES:
        ET.SubElement(ET.SubElement(labels, "label"), "name").text = label
    for name, (split, boxes) in IMAGES.items():
        write_image(root / f"images/{name}.jpg")
        width, height = map(str, SIZE)
        image = ET.SubElement(document, "image", name=f"{name}.jpg", subset=split.title(),
                              width=width, height=height)  # fmt: skip
        for label, bbox in boxes:
            ET.SubElement(image, "box", label=label,
                          **dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, bbox))))  # fmt: skip
    write_text(root / "annotations.xml", ET.tostring(document, encoding="unicode"))


def _labelme(root):
    for name, (split, boxes) in IMAGES.items():
        write_image(root / split / f"{name}.jpg")
        shapes = [
            {"label": label, "points": [bbox[2:], bbox[:2]], "shape_type": "rectangle"}
            for label, bbox in boxes
        ]
        write_text(root / split / f"{name}.json", {
            "imagePath": f"{name}.jpg", "imageWidth": SIZE[0], "imageHeight": SIZE[1],
            "imageData": None, "shapes": shapes,
        })  # fmt: skip


def _csv(root):
    with open(root / "boxes.csv", "w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["filename", "class", "xmin", "ymin", "xmax", "ymax", "split", "video"])
        for name, (split, boxes) in IMAGES.items():
            write_image(root / f"images/{name}.jpg")
            for label, bbox in boxes or [("", ["", "", "", ""])]:
                writer.writerow([f"{name}.jpg", label, *bbox, split, f"video {name in 'abc'}"])


WRITERS = {
    "COCO": _coco,
    "Roboflow COCO": _roboflow_coco,
    "VOC": _voc,
    "Roboflow VOC": _roboflow_voc,
    "YOLO": _yolo,
    "Roboflow YOLO": _roboflow_yolo,
    "CVAT": _cvat,
    "LabelMe": _labelme,
    "CSV": _csv,
}


def write_folder(root, kind) -> Path:
    """Write the data set in a format, one of :data:`WRITERS`; returns the folder."""
    root.mkdir(parents=True, exist_ok=True)
    WRITERS[kind](root)
    return root


def boxes_in(content) -> dict[str, list]:
    """{image: boxes}, as in :data:`IMAGES`, of a COCO dictionary."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {image["id"]: [] for image in content["images"]}
    for box in content["annotations"]:
        x, y, w, h = box["bbox"]
        bbox = tuple(round(value, 6) for value in (x, y, x + w, y + h))
        found[box["image_id"]].append((names[box["category_id"]], bbox))
    return {Path(i["file_name"]).stem: found[i["id"]] for i in content["images"]}
