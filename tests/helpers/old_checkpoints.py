"""The images that the checkpoints of tests/data/checkpoints were trained on, drawn anew."""

import json

import cv2
import numpy as np

CLASSES = ("disc", "square", "bar")
SIZE = (128, 96)  # width, height
NUM_IMAGES = 4


def write_images(root):
    """A COCO set of filled rectangles on noise: images/NUMBER.png and annotations.json."""
    rng = np.random.default_rng(0)
    width, height = SIZE
    images, annotations = [], []
    (root / "images").mkdir(parents=True)
    for i in range(NUM_IMAGES):
        picture = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
        for _ in range(i + 2):
            w, h = (int(n) for n in rng.integers(16, 60, 2))
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            label = int(rng.integers(len(CLASSES)))
            picture[y : y + h, x : x + w] = rng.integers(90, 160, 3) + 40 * label
            annotations.append(
                dict(id=len(annotations) + 1, image_id=i, category_id=label + 1, iscrowd=0,
                     bbox=[x, y, w, h], area=w * h)
            )  # fmt: skip
        cv2.imwrite(str(root / "images" / f"{i}.png"), picture)
        images.append(dict(id=i, file_name=f"{i}.png", width=width, height=height))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / "annotations.json").write_text(json.dumps(content))
