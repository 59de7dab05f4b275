"""What a dataset of mmdet's holds, whatever files it was read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from ..utils import class_names
from .coco_ap import index_annotations

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see coco_ap.py
    from mmdet.datasets.api_wrappers import COCO


def annotations_of(dataset) -> COCO:
    """The objects of a dataset in COCO's form, for any format and any wrapper.

    An image's id is its place in the dataset: ids of files may repeat in a ``ConcatDataset``.
    Ignored objects (crowds, VOC's difficult ones) are crowd regions.

    Args:
        dataset: of mmdet's, with ``get_data_info`` and ``metainfo``.

    Raises:
        InputError: there is no image, or none with an object.
    """
    classes = class_names(dataset.metainfo["classes"])
    annotations = []
    for place in range(len(dataset)):
        for item in dataset.get_data_info(place).get("instances", ()):
            x0, y0, x1, y1 = (float(value) for value in item["bbox"])
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=place,
                    category_id=int(item["bbox_label"]),
                    bbox=[x0, y0, x1 - x0, y1 - y0],
                    area=(x1 - x0) * (y1 - y0),
                    iscrowd=int(item.get("ignore_flag", 0)),
                )
            )
    if not any(not a["iscrowd"] for a in annotations):
        raise InputError(f"none of the {len(dataset)} images of the split has an annotated object.")
    return index_annotations(
        dict(
            images=[dict(id=place) for place in range(len(dataset))],
            categories=[dict(id=label, name=name) for label, name in enumerate(classes)],
            annotations=annotations,
        )
    )


def image_paths(dataset) -> list[str]:
    """The image file of each place."""
    return [str(dataset.get_data_info(place)["img_path"]) for place in range(len(dataset))]
