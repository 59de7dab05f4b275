"""The files below a data folder: images by name and their sizes, splits in names of folders."""

import glob
import hashlib
import os
import os.path as osp
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from pathlib import Path

from ...errors import InputError
from .image_size import read_size
from .records import Counts, common_tail, first_split, nearest, split_of_folder, splits_agree

MISSING_IMAGES, UNREADABLE_IMAGES = "missing images", "unreadable images"
UNREADABLE_FILES = "unreadable annotations"
UNANNOTATED = "images without an annotation file"
RUN_RECORD = "data/*/data.json"  # in a work dir, of what was made of the data of --data
_RECORD_KEYS = (b'"root":', b'"classes":', b'"ann_files":', b'"image_folders":')
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpe")
_ANNOTATION_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".names", ".labels")
_IMAGE = "image"  # stands for all suffixes of images
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
        unreadable: the images that could not be opened so far.

    Raises:
        InputError: there is no such folder, or no image in it.
    """

    def __init__(self, root: str, only: str | None = None, work_dir: str | None = None) -> None:
        self.root = root
        if not osp.isdir(root):
            raise InputError(f"there is no folder {root}.")
        self.images: list[str] = []
        self.sizes: dict[str, tuple[int, int]] = {}
        self.unreadable: set[str] = set()
        self._annotations: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[tuple[str, str], list[str]] = defaultdict(list)
        number_of_bytes = 0
        for path in sorted(_walk(root, work_dir)):
            suffix = osp.splitext(path)[1].lower()
            if suffix in IMAGE_SUFFIXES:
                try:
                    number_of_bytes += osp.getsize(self.full(path))
                except OSError:  # a link to a file that is gone: the image is missing
                    continue
                self.images.append(path)
                self._by_name[osp.basename(path)].append(path)
                self._by_stem[_stem(path), _IMAGE].append(path)
            elif suffix in _ANNOTATION_SUFFIXES and only in (None, osp.join(root, path)):
                self._annotations[suffix].append(path)
                if only is None or suffix != ".txt":
                    self._by_stem[_stem(path), suffix].append(path)
        if not self.images:
            raise InputError(f"{root}: there are no images ({', '.join(IMAGE_SUFFIXES)}) in it.")
        self.small = len(self.images) <= _DECODED_IMAGES and number_of_bytes <= _DECODED_BYTES
        self._folders = {osp.dirname(path) for path in self.images}
        self._splits = {split_of_folder(path) for path in self.images}

    def annotations(self, *suffixes: str) -> list[str]:
        """Relative paths of the files with a suffix such as ``'.xml'``, sorted."""
        return sorted(path for suffix in suffixes for path in self._annotations.get(suffix, ()))

    def image_named(self, name: str, near: str, split: str | None = None) -> str | None:
        """The image that an annotation names, the first if several fit; see :meth:`find_image`."""
        return next(iter(self._find(name, near, split)[0]), None)

    def find_image(self, name: str, near: str, split: str | None = None) -> tuple[str | None, str]:
        """The one image that an annotation names.

        Args:
            name: file name, with or without leading folders; or without its suffix.
            near: relative path of the annotation file. Of several images of the name, the one in
                the most similar folder is taken.
            split: that the annotation is of. Of several images, those in a folder of it come first.

        Returns:
            Relative path, None if there is none; and an empty text. If the image is in another
            folder than the annotation says, the text is the path that was looked for: the image may
            be another one, of which there are other annotations.

        Raises:
            InputError: several images fit alike.
        """
        found, elsewhere = self._find(name, near, split)
        if len(found) > 1 and not elsewhere:
            raise two_fit(f"{self.full(near)}: {name}", found)
        return (found[0], elsewhere) if len(found) == 1 else (None, "")

    def _find(self, name: str, near: str, split: str | None) -> tuple[list[str], str]:
        """The images that fit best; and the path that was looked for, if they are elsewhere."""
        name = name.replace("\\", "/")
        base, place = osp.basename(name), osp.normpath(osp.join(osp.dirname(near), name))
        folders = [word for word in osp.dirname(name).split("/") if word not in ("", ".", "..")]
        found = self._by_name.get(base, [])
        for path in (place, osp.normpath(name)):
            if folders and path in found:
                return [path], ""
        found = found or self._by_stem.get((base, _IMAGE), [])
        common = {path: common_tail(folders, path) for path in found}
        most = max(common.values(), default=0)
        found = [path for path in found if common[path] == most]
        split = split or split_of_folder(name) or split_of_folder(near)
        found = nearest([p for p in found if split and split_of_folder(p) == split] or found, near)
        if not found:
            return [], ""
        other_split = split in self._splits and not splits_agree(split, split_of_folder(found[0]))
        if folders:
            elsewhere = most < len(folders) and not 0 < most == found[0].count("/")
            if elsewhere and other_split:
                return [], ""
        else:
            own = osp.dirname(near)
            below = not own or found[0].startswith(f"{own}/")
            elsewhere = other_split or (own in self._folders and not below)
        return found, place if elsewhere else ""

    def has_image(self, annotations: str) -> bool:
        """Whether an image anywhere has the stem of an annotation file."""
        return (_stem(annotations), _IMAGE) in self._by_stem

    def image_of(self, annotations: str, name: str = "") -> str | None:
        """The image with the stem of an annotation file, in the most similar folder.

        Args:
            annotations: relative path of the annotation file.
            name: of the image in that file; of several images, those of this name come first.

        Returns:
            Relative path; None if there is none, or another annotation file is nearer to it.

        Raises:
            InputError: several images fit alike.
        """
        stem, suffix = _stem(annotations), osp.splitext(annotations)[1].lower()
        found = self._by_stem.get((stem, _IMAGE), [])
        named = [path for path in found if osp.basename(path) == osp.basename(name)]
        found = [
            image
            for image in nearest(named or found, annotations, of_stem=True)
            if annotations in self._nearest_of(image, suffix)
        ]
        if len(found) > 1:
            raise two_fit(self.full(annotations), found)
        return found[0] if found else None

    def annotations_of(
        self, image: str, suffix: str = ".txt", among: Container[str] | None = None
    ) -> list[str]:
        """The annotation files with the stem of an image to which no other image is nearer.

        Args:
            image: relative path.
            suffix: of the annotation files.
            among: the images that count; default: all.

        Returns:
            Relative paths; several if they fit alike.
        """
        images = [i for i in self._by_stem[_stem(image), _IMAGE] if among is None or i in among]
        return [
            path
            for path in self._nearest_of(image, suffix)
            if image in nearest(images, path, of_stem=True)
        ]

    def _nearest_of(self, image: str, suffix: str) -> list[str]:
        """The annotation files of an image's stem that are nearest to it."""
        found = self._by_stem.get((_stem(image), suffix), [])
        return nearest(found, image, images=False, of_stem=True)

    def text_of(self, image: str) -> str | None:
        """The text file with the stem of an image, the first of :meth:`annotations_of`."""
        return next(iter(self.annotations_of(image)), None)

    def pair_texts(
        self, images: Sequence[str], are_labels: Callable[[str], bool], listed: Collection[str] = ()
    ) -> tuple[dict[str, str | None], list[str]]:
        """The text file of each image.

        Args:
            images: relative paths.
            are_labels: whether the file at a path has labels.
            listed: folders and images that are images in any case.

        Returns:
            {image: its text file, None if it has none}; and the images that are left out: those of
            folders without labels in which one has the name of a labelled image elsewhere, such as
            masks and pictures with drawn boxes.

        Raises:
            InputError: two files of labels fit an image alike, or two images one file.
        """
        texts: dict[str, str | None] = {}
        first: dict[str, str] = {}
        copied, chosen = set(), set(images)  # copied: folders
        for image in images:
            found = self.annotations_of(image, among=chosen)
            labels = [text for text in found if found[1:] and are_labels(self.full(text))]
            if len(labels) > 1:
                raise two_fit(self.full(image), labels)
            text = texts[image] = next(iter(labels or found), None)
            if text and osp.dirname(first.setdefault(text, image)) != osp.dirname(image):
                raise two_fit(self.full(text), [first[text], image])
            if text is None and self._nearest_of(image, ".txt"):
                copied.add(osp.dirname(image))
        copied -= {osp.dirname(image) for image, text in texts.items() if text}
        copied -= set(listed)
        copies = [image for image in images if osp.dirname(image) in copied and image not in listed]
        for image in copies:
            del texts[image]
        return texts, copies

    def count_unannotated(
        self, annotated: Iterable[str], counts: Counts, kind: str = UNANNOTATED, suffix: str = ""
    ) -> None:
        """Count the images without annotations that are in a folder with annotated ones.

        Args:
            annotated: relative paths of images.
            counts: counts the others.
            kind: of what is counted.
            suffix: of annotation files; an image with one is counted already, since that one could
                not be read. Nor is an image of the same name as an annotated one counted.
        """
        stems = {osp.splitext(path)[0] for path in annotated}
        folders = {osp.dirname(stem) for stem in stems}
        for path in self.images:
            known = osp.splitext(path)[0] in stems or path in self.unreadable
            if osp.dirname(path) in folders and not known:
                if not (suffix and self.annotations_of(path, suffix)):
                    counts.add(kind, path, split=first_split(split_of_folder(path)))

    def full(self, path: str) -> str:
        """The path of a relative path."""
        return osp.join(self.root, path)

    def size(self, path: str, counts: Counts, split: str | None = None) -> tuple[int, int] | None:
        """Read the size of an image as it is loaded, which turns it as its EXIF orientation says.

        Args:
            path: relative path of the image.
            counts: counts the image if it cannot be opened or, in a small folder, decoded.
            split: of the image.

        Returns:
            (width, height); None if it cannot be opened or decoded.
        """
        if path not in self.sizes:
            try:
                self.sizes[path] = read_size(self.full(path), self.small)
            except Exception:  # decoders raise errors of any type
                counts.add(UNREADABLE_IMAGES, path, split=split)
                self.unreadable.add(path)
                return None
        return self.sizes[path]

    def fingerprint(self) -> str:
        """A hash that changes when a file is added, removed or changed."""
        digest = hashlib.sha256()
        annotations = [path for paths in self._annotations.values() for path in paths]
        for path in sorted([*self.images, *annotations]):
            try:
                status = os.stat(self.full(path))
            except OSError:  # a link to a file that is gone
                continue
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def two_fit(what: str, found: Sequence[str]) -> InputError:
    """The error for two files that fit another one alike.

    Args:
        what: the other file, for the message.
        found: relative paths of the files.
    """
    return InputError(
        f"{what} fits both {found[0]} and {found[1]}. Take one of them out of the folder, or give "
        "the folders names that show what belongs together, such as train_images and train_labels."
    )


def _walk(root: str, work_dir: str | None = None) -> Iterable[str]:
    """Relative paths of files; a folder that is linked into itself is read once.

    The folders of other runs hold boxes of their time, and pictures: they are left out.
    """
    seen = {osp.realpath(work_dir)} if work_dir else set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = osp.realpath(folder)
        if real in seen or (folder != root and _is_work_dir(folder)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name[0] != "." and name != "work_dirs"]
        head = osp.relpath(folder, root)
        for name in names:
            if not name.startswith("."):
                yield name if head == "." else f"{head}/{name}"


def _is_work_dir(folder: str) -> bool:
    """Whether a run has written a record in a folder; other programs' data.json are none."""
    for path in glob.glob(f"{glob.escape(folder)}/{RUN_RECORD}"):
        if osp.isfile(path):
            content = Path(path).read_bytes()
            if all(key in content for key in _RECORD_KEYS):
                return True
    return False


def _stem(path: str) -> str:
    return osp.splitext(osp.basename(path))[0]
