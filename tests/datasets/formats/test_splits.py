"""Splits by image and by group: seeded, complete, of the sizes that are asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from misalign_det.datasets.formats.splits import deal_ids, group_by, split_content
from misalign_det.errors import InputError


def content(number, names="img_{}.jpg"):
    images = [{"id": i, "file_name": names.format(i)} for i in range(number)]
    boxes = [{"id": i, "image_id": i // 2} for i in range(2 * number)]
    return {"images": images, "annotations": boxes, "categories": [{"id": 1}]}


@given(st.lists(st.integers(1, 9), min_size=3, max_size=30), st.integers(0, 99))
def test_groups_are_whole_and_every_part_has_one(sizes, seed):
    groups, start = [], 0
    for size in sizes:
        groups.append(list(range(start, start + size)))
        start += size
    numbers = [max(1, start // 10), max(1, start // 5)]
    parts = deal_ids(groups, numbers, seed)
    assert sorted(i for part in parts for i in part) == list(range(start))
    assert sum(len({i in part for i in group}) for group in groups for part in parts) == 3 * len(groups)  # fmt: skip  # noqa: E501
    for part, number in zip(parts, numbers):
        assert part and len(part) < number + max(sizes)


def test_images_are_split_in_the_fractions_with_their_boxes():
    parts = split_content(content(50), {"train": 0.7, "val": 0.2, "test": 0.1}, seed=3)
    assert [len(part["images"]) for part in parts.values()] == [35, 10, 5]
    seen = []
    for part in parts.values():
        ids = [image["id"] for image in part["images"]]
        assert [box["image_id"] for box in part["annotations"]] == [
            i for i in ids for _ in range(2)
        ]
        assert part["categories"] == [{"id": 1}]
        seen += ids
    assert sorted(seen) == list(range(50))


def test_the_seed_alone_decides():
    whole, fractions = content(50), {"train": 0.5, "val": 0.5}
    backwards = {**whole, "images": whole["images"][::-1]}

    def val(content, seed):
        part = split_content(content, fractions, seed)["val"]
        return {image["id"] for image in part["images"]}

    assert val(whole, 1) == val(backwards, 1) != val(whole, 2)


def test_frames_of_a_video_stay_together():
    whole = content(40, names="v{}.jpg")
    for image in whole["images"]:
        image["file_name"] = f"video{image['id'] % 8}_frame{image['id']}.jpg"
    rule = group_by(whole["images"], r"(video\d+)_")
    parts = split_content(whole, {"train": 0.75, "val": 0.25}, group=rule)
    videos = [{i["file_name"].split("_")[0] for i in part["images"]} for part in parts.values()]
    assert [len(names) for names in videos] == [6, 2] and not videos[0] & videos[1]


def test_a_group_may_be_a_key():
    images = [{"id": i, "file_name": "x", "video": i % 2} for i in range(4)]
    assert [group_by(images, "video")(image) for image in images] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [("(", "no regular expression"), (r"img_\d\.", "does not match 2 of 12 file names")],
)
def test_a_group_that_does_not_fit(rule, message):
    with pytest.raises(InputError, match=message):
        group_by(content(12)["images"], rule)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [((0.5, 0.1), "0.5, 0.1 of a split do not sum up to 1"), ((1.5, -0.5), "do not sum up"),
     ((0.01, 0.99), "too few for a train split")],
)  # fmt: skip
def test_fractions_that_do_not_fit(fractions, message):
    with pytest.raises(InputError, match=message):
        split_content(content(2), dict(zip(("train", "val"), fractions)))


def test_a_split_of_nothing_is_left_out():
    assert list(split_content(content(4), {"train": 0.5, "val": 0.5, "test": 0})) == [
        "train",
        "val",
    ]


@pytest.mark.parametrize("value", [["day1"], {"day": 1}])
def test_groups_are_numbers_or_strings(value):
    images = [dict(file_name="a.jpg", day=1), dict(file_name="b.jpg", day=value)]
    with pytest.raises(InputError, match=r"--group day: .* of b.jpg is no number and no string"):
        group_by(images, "day")


@pytest.mark.parametrize(
    ("fractions", "numbers"),
    [
        ((0, 0.5, 0.5), {"val": 4, "test": 5}),
        ((0, 1, 0), {"val": 9}),
        ((0, 0.3, 0.7), {"val": 3, "test": 6}),
        ((0.5, 0.5, 0), {"train": 5, "val": 4}),
        ((0.5, 0, 0.5), {"train": 5, "test": 4}),
    ],
)
@pytest.mark.parametrize("group", [None, lambda image: image["id"] // 2])
def test_no_image_is_lost_where_a_split_gets_nothing(fractions, numbers, group):
    parts = split_content(content(9), dict(zip(("train", "val", "test"), fractions)), group=group)
    ids = [image["id"] for part in parts.values() for image in part["images"]]
    assert list(parts) == list(numbers) and sorted(ids) == list(range(9))
    if group is None:
        assert {name: len(part["images"]) for name, part in parts.items()} == numbers
