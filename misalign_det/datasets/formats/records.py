"""What the readers of all formats return, and the count of what they leave out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")


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

    Example:
        >>> counts = Counts()
        >>> counts.add('boxes without area', 'a.xml')
        >>> counts.add('boxes without area', 'b.xml')
        >>> str(counts)
        '2 boxes without area (first: a.xml)'
    """

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, kind: str, where: str = "", number: int = 1) -> None:
        """Count one thing, or several.

        Args:
            kind: in the plural, such as ``'boxes without area'``.
            where: file in which it was found.
            number: how many.
        """
        if number:
            self.number[kind] = self.number.get(kind, 0) + number
            self.first.setdefault(kind, where)

    def __str__(self) -> str:
        texts = []
        for kind, number in self.number.items():
            first = f" (first: {self.first[kind]})" if self.first[kind] else ""
            texts.append(f"{number} {kind}{first}")
        return "; ".join(texts)
