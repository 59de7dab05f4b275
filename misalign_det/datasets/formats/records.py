"""What the readers of all formats return, and the count of what they leave out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
MERGED = "classes of the same name, which were merged"


@dataclass
class LabelledBox:
    """A box of an image.

    Attributes:
        label: name of its class.
        bbox: (x1, y1, x2, y2) in pixels; the left and upper border of the image is at 0.
        iscrowd: whether training and evaluation ignore it, as COCO's crowds and VOC's difficult
            objects.
        attributes: further keys of its COCO annotation.
    """

    label: str
    bbox: tuple[float, float, float, float]
    iscrowd: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class AnnotatedImage:
    """An image whose file can be opened.

    Attributes:
        path: relative to the data folder.
        size: (width, height) of the file as it is loaded.
        split: ``'train'``, ``'val'``, ``'test'``, or None if the folder names none.
        boxes: of the image.
        attributes: further keys of its COCO image.
    """

    path: str
    size: tuple[int, int]
    split: str | None = None
    boxes: list[LabelledBox] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class CocoSplit:
    """The images of one split.

    Attributes:
        content: COCO dictionary.
        images: folder that each ``file_name`` is relative to.
        file: the COCO file that has this content; None if no file has it yet.
    """

    content: dict[str, Any]
    images: Path
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.content["images"])


class Counts:
    """What is left out or changed, by kind, each with the first place where it was found.

    Attributes:
        number: {kind: how often}.
        first: {kind: the first place}.

    Example:
        >>> counts = Counts()
        >>> counts.add('boxes without area', 'a.xml')
        >>> counts.add('boxes without area', 'b.xml', split='val')
        >>> str(counts), str(counts.of_split('val'))
        ('2 boxes without area (first: a.xml)', '1 boxes without area (first: b.xml)')
    """

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self._splits: dict[str, Counts] = {}

    def add(self, kind: str, where: str = "", number: int = 1, split: str | None = None) -> None:
        """Count one thing, or several.

        Args:
            kind: in the plural, such as ``'boxes without area'``.
            where: file in which it was found.
            number: how many.
            split: that it belongs to, if it is known.
        """
        if number:
            for counts in (self, self.of_split(split)):
                counts.number[kind] = counts.number.get(kind, 0) + number
                counts.first.setdefault(kind, where)

    def of_split(self, split: str | None) -> "Counts":
        """What was counted for one split; for None or ``''``, what belongs to no known one."""
        return self._splits.setdefault(split or "", Counts())

    def only(self, kinds: Iterable[str]) -> "Counts":
        """What was counted of some kinds."""
        chosen = Counts()
        for kind in kinds:
            chosen.add(kind, self.first.get(kind, ""), self.number.get(kind, 0))
        return chosen

    def __str__(self) -> str:
        texts = []
        for kind, number in self.number.items():
            first = f" (first: {self.first[kind]})" if self.first[kind] else ""
            texts.append(f"{number} {kind}{first}")
        return "; ".join(texts)
