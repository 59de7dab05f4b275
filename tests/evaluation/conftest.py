"""Annotations that the tests of the evaluation share."""

import json

import pytest


@pytest.fixture
def ann_file(tmp_path):
    """Two images with objects of two classes, one without; no emu anywhere."""
    objects = [(1, 3, [0, 0, 10, 10]), (1, 3, [20, 0, 10, 10]), (1, 8, [40, 0, 20, 20]),
               (2, 3, [5, 5, 30, 30]), (2, 8, [50, 50, 10, 30])]  # fmt: skip
    content = dict(
        images=[dict(id=i, file_name=f"{i}.jpg", width=100, height=100) for i in (1, 2, 3)],
        categories=[dict(id=3, name="cat"), dict(id=8, name="dog"), dict(id=9, name="emu")],
        annotations=[
            dict(id=i + 1, image_id=image, category_id=category, bbox=box, iscrowd=0,
                 area=box[2] * box[3])
            for i, (image, category, box) in enumerate(objects)
        ],
    )  # fmt: skip
    path = tmp_path / "ann.json"
    path.write_text(json.dumps(content))
    return str(path)
