"""Split a COCO dictionary by image, or by groups of images that stay together; seeded."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import InputError


def deal_ids(groups: Sequence[Sequence[Any]], numbers: Sequence[int], seed: int = 0) -> list[set]:
    """Deal groups of ids to parts.

    The groups are shuffled, and dealt to one part after the other; a part has one group at least,
    and ends where the next one would take it further from its number than it is.

    Args:
        groups: ids that stay together; with one id each, every part gets exactly its number.
        numbers: of ids, per part; the last part gets what remains and has no number.
        seed: of the order; the same groups and seed give the same parts.

    Returns:
        One set of ids more than there are numbers.

    Example:
        >>> [len(part) for part in deal_ids([[i] for i in range(10)], [2, 1])]
        [2, 1, 7]
    """
    order = list(groups)
    random.Random(seed).shuffle(order)
    parts: list[set] = [set() for _ in range(len(numbers) + 1)]
    part = 0
    for group in order:
        while part < len(numbers) and not _has_room(len(parts[part]), len(group), numbers[part]):
            part += 1
        parts[part] |= set(group)
    return parts


def _has_room(size: int, more: int, number: int) -> bool:
    if not size:
        return number > 0
    return abs(size + more - number) < abs(size - number)


def sort_ids(ids: Sequence[Any]) -> list[Any]:
    """Ids in an order; a file may have both numbers and strings, which have none between them."""
    return sorted(ids, key=lambda i: (str(type(i)), i))


def part_of(content: Mapping[str, Any], ids: set) -> dict[str, Any]:
    """The images with these ids and their annotations, with all other keys of the dictionary.

    Args:
        content: COCO dictionary; not changed.
        ids: of images.
    """
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in ids],
        "annotations": [box for box in content["annotations"] if box["image_id"] in ids],
    }


def split_content(
    content: Mapping[str, Any],
    fractions: Mapping[str, float],
    seed: int = 0,
    group: Callable[[Mapping[str, Any]], Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Split a COCO dictionary.

    Args:
        content: COCO dictionary.
        fractions: of the images, per split; they sum up to 1. The first split gets what remains of
            the others; if its fraction is 0, the last one that has a fraction.
        seed: of the split.
        group: gives the group of an image, whose images stay in one split; default: each image is a
            group of its own.

    Returns:
        {split: COCO dictionary}, in the order of ``fractions``.

    Raises:
        InputError: the fractions do not sum up to 1, or a split would have no image.

    Example:
        >>> content = dict(images=[dict(id=i) for i in range(5)], annotations=[], categories=[])
        >>> parts = split_content(content, {'train': 0.8, 'val': 0.2})
        >>> {split: len(part['images']) for split, part in parts.items()}
        {'train': 4, 'val': 1}
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        shown = ", ".join(f"{value:g}" for value in fractions.values())
        raise InputError(f"the fractions {shown} of a split do not sum up to 1.")
    groups: dict[Any, list] = defaultdict(list)
    by_id = {image["id"]: image for image in content["images"]}
    for number, image_id in enumerate(sort_ids(list(by_id))):
        groups[number if group is None else group(by_id[image_id])].append(image_id)
    names = [name for name in fractions if fractions[name]]
    taker = names[0 if fractions[next(iter(fractions))] else -1]
    others = [name for name in names if name != taker]
    numbers = [max(1, round(fractions[name] * len(by_id))) for name in others]
    *held_out, rest = deal_ids(list(groups.values()), numbers, seed)
    ids = {taker: rest, **dict(zip(others, held_out))}
    for name, chosen in ids.items():
        if not chosen:
            raise InputError(
                f"the {len(by_id)} images, in {len(groups)} groups, are too few for a "
                f"{name} split of {fractions[name]:g}."
            )
    return {name: part_of(content, ids[name]) for name in names}


def group_by(images: Sequence[Mapping[str, Any]], rule: str) -> Callable[[Mapping[str, Any]], Any]:
    """The function that gives an image's group.

    Args:
        images: of a COCO dictionary.
        rule: a key that every image has (a column of a CSV file), else a regular expression that is
            searched in ``file_name``; its first group counts, or all that it matches.

    Raises:
        InputError: it is neither, does not match each file name, or has values that are no numbers
            and no strings.

    Example:
        >>> images = [dict(file_name='day1_01.jpg'), dict(file_name='day2_01.jpg')]
        >>> [group_by(images, r'(\\w+)_')(image) for image in images]
        ['day1', 'day2']
    """
    if images and all(rule in image for image in images):
        for image in images:
            if isinstance(image[rule], (list, dict)):
                raise InputError(
                    f"--group {rule}: {image[rule]!r} of {image.get('file_name')} is no number and "
                    "no string."
                )
        return lambda image: image[rule]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise InputError(f"--group {rule} is no key of the images and no regular expression: "
                         f"{error}.") from None  # fmt: skip
    without = [image["file_name"] for image in images if not pattern.search(image["file_name"])]
    if without:
        raise InputError(
            f"--group {rule} is no key of the images and does not match {len(without)} of "
            f"{len(images)} file names, such as {without[0]}."
        )

    def group(image: Mapping[str, Any]) -> Any:
        match = pattern.search(image["file_name"])
        return match and match[1 if pattern.groups else 0]

    return group
