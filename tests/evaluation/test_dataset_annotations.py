"""The objects of a dataset as COCO annotations, for any format."""

import pytest

from misalign_det.errors import InputError
from misalign_det.evaluation.dataset_annotations import annotations_of, image_paths


class Given:
    """A dataset of two images of the same id, as a ConcatDataset may hold."""

    metainfo = dict(classes="disc")

    def __init__(self, *instances):
        self.instances = instances

    def __len__(self):
        return len(self.instances)

    def get_data_info(self, index):
        return dict(img_id="same", img_path=f"/d/{index}.jpg", instances=self.instances[index])


def item(bbox, ignored=0):
    return dict(bbox=bbox, bbox_label=0, ignore_flag=ignored)


def test_ids_are_indices():
    first = [item([1, 2, 4, 8]), item([0, 0, 5, 5], 1)]
    coco = annotations_of(Given(first, [], [item([0, 0, 2, 3])]))
    assert coco.getImgIds() == [0, 1, 2] and coco.cats == {0: dict(id=0, name="disc")}
    first, region, last = coco.dataset["annotations"]
    assert (first["bbox"], first["area"], first["iscrowd"], first["image_id"]) == (
        [1, 2, 3, 6], 18, 0, 0)  # fmt: skip
    assert (region["iscrowd"], region["image_id"]) == (1, 0)
    assert (last["image_id"], last["category_id"]) == (2, 0)
    assert len({a["id"] for a in coco.dataset["annotations"]}) == 3
    assert image_paths(Given([], [])) == ["/d/0.jpg", "/d/1.jpg"]


@pytest.mark.parametrize("instances", [(), ([], []), ([item([0, 0, 5, 5], 1)],)])
def test_a_split_without_objects_is_named(instances):
    with pytest.raises(InputError, match=f"none of the {len(instances)} images"):
        annotations_of(Given(*instances))
