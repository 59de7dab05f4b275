"""The objects of one of mmdet's datasets as COCO annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmengine.dataset import BaseDataset

from ..errors import InputError
from ..utils import class_names
from .coco_ap import index_annotations

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see coco_ap.py
    from mmdet.datasets.api_wrappers import COCO


def annotations_of(dataset: BaseDataset) -> COCO:
    """The objects of a dataset as COCO annotations.

    The id of an image is its index in the dataset: image ids may repeat in a ``ConcatDataset``.
    Ignored objects (crowd regions, VOC's difficult objects) are crowd regions.

    Args:
        dataset: one of mmdet's, or a wrapper with ``get_data_info`` and ``metainfo``.

    Raises:
        InputError: the dataset has no images, or no object that is not ignored.
    """
    classes = class_names(dataset.metainfo["classes"])
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        for item in dataset.get_data_info(index).get("instances", ()):
            x0, y0, x1, y1 = (float(value) for value in item["bbox"])
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
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
            images=[dict(id=index) for index in range(len(dataset))],
            categories=[dict(id=label, name=name) for label, name in enumerate(classes)],
            annotations=annotations,
        )
    )


def image_paths(dataset: BaseDataset) -> list[str]:
    """The image files of a dataset, in its order."""
    return [str(dataset.get_data_info(index)["img_path"]) for index in range(len(dataset))]
