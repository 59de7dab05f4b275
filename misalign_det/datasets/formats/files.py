"""The files below a data folder: images by name and their sizes, splits in names of folders."""

import hashlib
import os
import os.path as osp
import re
from collections import defaultdict
from collections.abc import Iterable

from PIL import Image

from ...errors import InputError
from .records import Counts

MISSING_IMAGES, UNREADABLE_IMAGES = "missing images", "unreadable images"
UNREADABLE_FILES = "unreadable annotations"
UNANNOTATED = "listed images without an annotation file"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpe")
_ANNOTATION_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".names", ".labels")
_SPLIT = re.compile(r"(trainval|train|training|val|valid|validation|test|testing)(\d{4})?")
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
# The images of a folder up to this size are decoded, which takes ten seconds or so. By number and
# bytes, not by time: the same folder gives the same splits on every machine.
_DECODED_IMAGES, _DECODED_BYTES = 2000, 256 * 2**20


class FolderFiles:
    """Images and annotation files below a folder; hidden ones and those of runs are left out.

    Args:
        root: the folder. Symbolic links are followed.
        only: the one annotation file to be read; default: all.
        work_dir: of the run, whose files are not data. Nor are those of folders ``work_dirs``.

    Attributes:
        root: the folder.
        images: paths of images relative to it, sorted.
        small: whether the images are so few that each is decoded, not only its header read.
        sizes: {path: (width, height)} of the images opened so far.

    Raises:
        InputError: there is no such folder, or no image in it.
    """

    def __init__(self, root: str, only: str | None = None, work_dir: str | None = None) -> None:
        self.root = root
        if not osp.isdir(root):
            raise InputError(f"there is no folder {root}.")
        self.images: list[str] = []
        self.sizes: dict[str, tuple[int, int]] = {}
        self._annotations: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[tuple[str, bool], list[str]] = defaultdict(list)
        for path in sorted(_walk(root, work_dir)):
            suffix = osp.splitext(path)[1].lower()
            image = suffix in IMAGE_SUFFIXES
            if image:
                self.images.append(path)
                self._by_name[osp.basename(path)].append(path)
            elif suffix in _ANNOTATION_SUFFIXES and only in (None, osp.join(root, path)):
                self._annotations[suffix].append(path)
            if image or (suffix == ".txt" and only is None):
                self._by_stem[_stem(path), image].append(path)
        if not self.images:
            raise InputError(f"{root}: there are no images ({', '.join(IMAGE_SUFFIXES)}) in it.")
        self.small = len(self.images) <= _DECODED_IMAGES and (
            sum(osp.getsize(self.full(path)) for path in self.images) <= _DECODED_BYTES
        )

    def annotations(self, *suffixes: str) -> list[str]:
        """Relative paths of the files with a suffix such as ``'.xml'``, sorted."""
        return sorted(path for suffix in suffixes for path in self._annotations.get(suffix, ()))

    def image_named(self, name: str, near: str, split: str | None = None) -> str | None:
        """The image that an annotation names.

        Args:
            name: file name, with or without leading folders; or without its suffix.
            near: relative path of the annotation file. Of several images of the name, the one in
                the most similar folder is taken.
            split: that the annotation is of. Of several images, those in a folder of it come first.

        Returns:
            Relative path; None if there is none.
        """
        name = name.replace("\\", "/")
        found = self._by_name.get(osp.basename(name), [])
        below = [path for path in found if f"/{path}".endswith(f"/{name.lstrip('./')}")]
        found = below or found or self._by_stem.get((osp.basename(name), True), [])
        of_split = [path for path in found if split and split_of_folder(path) == split]
        return _nearest(of_split or found, near)

    def image_of(self, annotations: str) -> str | None:
        """The image with the stem of an annotation file, in the most similar folder."""
        return _nearest(self._by_stem.get((_stem(annotations), True), []), annotations)

    def text_of(self, image: str) -> str | None:
        """The text file with the stem of an image, in the most similar folder."""
        folders, name = osp.split(osp.splitext(image)[0])
        parts = folders.split("/")
        found = self._by_stem.get((name, False), [])
        if "images" in parts:
            last = len(parts) - 1 - parts[::-1].index("images")
            labels = "/".join([*parts[:last], "labels", *parts[last + 1 :], f"{name}.txt"])
            if labels in found:
                return labels
        return _nearest(found, image)

    def full(self, path: str) -> str:
        """The path of a relative path."""
        return osp.join(self.root, path)

    def size(self, path: str, counts: Counts, split: str | None = None) -> tuple[int, int] | None:
        """Read the size of an image, turned as its EXIF orientation says.

        Args:
            path: relative path of the image.
            counts: counts the image if it cannot be opened or, in a small folder, decoded.
            split: of the image.

        Returns:
            (width, height); None if it cannot be opened or decoded.
        """
        if path not in self.sizes:
            try:
                with Image.open(self.full(path)) as image:
                    width, height = image.size
                    sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
                    if self.small:
                        image.load()
            except Exception:  # decoders raise errors of any type
                counts.add(UNREADABLE_IMAGES, path, split=split)
                return None
            self.sizes[path] = (height, width) if sideways else (width, height)
        return self.sizes[path]

    def fingerprint(self) -> str:
        """A hash that changes when a file is added, removed or changed."""
        digest = hashlib.sha256()
        annotations = [path for paths in self._annotations.values() for path in paths]
        for path in sorted([*self.images, *annotations]):
            status = os.stat(self.full(path))
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def split_of_folder(path: str) -> str | None:
    """The split that a folder on a path is named after, the innermost first.

    Args:
        path: of a file; its own name is not read.

    Example:
        >>> split_of_folder('valid/images/1.jpg'), split_of_folder('images/train2017/1.jpg')
        ('val', 'train')
    """
    for part in reversed(path.split("/")[:-1]):
        split = split_of_words([part])
        if split:
            return split
    return None


def first_split(*found: str | None) -> str | None:
    """The first split that is not None; images that are for training and validation are train's.

    Args:
        *found: results of :func:`split_of_folder` and :func:`split_of_words`.

    Example:
        >>> first_split(None, 'trainval', 'test')
        'train'
    """
    split = next((split for split in found if split), None)
    return "train" if split == "trainval" else split


def split_of_words(words: Iterable[str]) -> str | None:
    """The first word that is a split's name: ``'train'``, ``'val'``, ``'test'``, ``'trainval'``."""
    for word in words:
        match = _SPLIT.fullmatch(word.lower())
        if match:
            short = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
            return short.get(match[1], match[1])
    return None


def _walk(root: str, work_dir: str | None = None) -> Iterable[str]:
    """Relative paths of files; a folder that is linked into itself is read once."""
    seen = {osp.realpath(work_dir)} if work_dir else set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = osp.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name[0] != "." and name != "work_dirs"]
        head = osp.relpath(folder, root)
        for name in names:
            if not name.startswith("."):
                yield name if head == "." else f"{head}/{name}"


def _stem(path: str) -> str:
    return osp.splitext(osp.basename(path))[0]


def _nearest(paths: list[str], near: str) -> str | None:
    """The path whose folders have most names in common with those of `near`, from either end."""
    if len(paths) < 2:
        return paths[0] if paths else None
    own = near.split("/")[:-1]

    def common(path: str) -> int:
        parts = path.split("/")[:-1]
        head, tail = osp.commonprefix([parts, own]), osp.commonprefix([parts[::-1], own[::-1]])
        return len(head) + len(tail)

    return max(paths, key=common)
