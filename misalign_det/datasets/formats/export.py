"""Write the images of a folder as a COCO data set, with a split of their own."""

import os
import os.path as osp
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.json_file import write_json
from .files import FolderFiles
from .folder import read_folder
from .records import SPLITS, CocoSplit, Counts
from .splits import group_by, split_content
from .standard import listed_once, standardise

DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)


def export_coco(
    source: str,
    out_dir: str,
    kind: str = "auto",
    fractions: Sequence[float] | None = None,
    seed: int = 0,
    group: str | None = None,
    copy_images: bool = False,
) -> list[str]:
    """Write ``annotations/instances_{train,val,test}.json`` and ``images/`` in a folder.

    Args:
        source: a folder with annotated images, or one annotation file in it or in a folder below.
        out_dir: the folder to write to; not inside the source.
        kind: one of :data:`~.folder.FORMATS`, or ``'auto'``.
        fractions: of train, val and test, over all annotated images. Default: the splits of the
            source, and where it has only one 0.8, 0.1, 0.1.
        seed: of a new split.
        group: images of a group stay in one split; see :func:`~.splits.group_by`.
        copy_images: copy the images; else ``images/`` has symbolic links to them.

    Returns:
        Lines that say what was found, written and left out.

    Raises:
        InputError: the source cannot be read or split, or nothing can be written. The folder to
            write to has the images of the source, or a split of an earlier conversion that would
            stay there.

    Example::

        export_coco('data/cells_yolo', 'data/cells', fractions=(0.7, 0.2, 0.1), group='(day[0-9]+)')
    """
    files = _open(source)
    _check_apart(files.root, out_dir)
    anew = fractions is not None or group is not None
    data = read_folder(files.root, kind, files=files, open_images=True, whole=anew)
    lines = [f"{source}: {data}."]
    contents = {
        split: _relative(images, files, data.classes, data.counts)
        for split, images in data.splits.items()
    }
    warnings = [*data.warnings]
    if anew or len(contents) < 2:
        whole = _joined(list(contents.values()))
        # Of an image in several splits, which would be in several of the new ones, too.
        whole = listed_once(whole, source, "several splits", data.counts)
        rule = group_by(whole["images"], group) if group is not None else None
        shares = dict(zip(SPLITS, fractions or DEFAULT_FRACTIONS))
        contents = split_content(whole, shares, seed, rule)
    else:
        warnings += _shared(contents)
    paths = {split: osp.join(out_dir, "annotations", f"instances_{split}.json") for split in SPLITS}
    old = [path for split, path in paths.items() if split not in contents and osp.exists(path)]
    if old:
        raise InputError(
            f"{old[0]} is there from an earlier conversion, and this one has no such split: its "
            "images may be in other splits now. Remove it, or choose another --out-dir."
        )
    _check_names(contents.values(), files.root)
    for split, content in contents.items():
        path = paths[split]
        write_json(path, content)
        numbers = f"{len(content['images'])} images, {len(content['annotations'])} boxes"
        lines.append(f"{path}: {numbers}")
        _place_images(content, files, osp.join(out_dir, "images"), copy_images)
    lines += [f"WARNING: {text}" for text in warnings]
    lines.append(f"left out or changed: {str(data.counts) or 'nothing'}")
    return lines


def _check_apart(root: str, out_dir: str) -> None:
    """Raise an InputError if what is written would be read as the source, or would replace it."""
    source, images = osp.realpath(root), osp.join(out_dir, "images")
    for folder in (out_dir, images):
        if f"{osp.realpath(folder)}/".startswith(f"{source}/"):
            raise InputError(
                f"--out-dir {out_dir}: {folder} is inside {root}, where its files would be read as "
                "those of the source. Choose a folder outside."
            )
    if f"{source}/".startswith(f"{osp.realpath(images)}/"):
        raise InputError(
            f"--out-dir {out_dir}: the images would be written to {images}, which has those of the "
            f"source, {root}. Choose another folder."
        )


def _check_names(contents: Iterable[dict[str, Any]], root: str) -> None:
    """Raise an InputError for images that are not below the source; they would be written there."""
    for content in contents:
        for image in content["images"]:
            name = image["file_name"]
            if osp.isabs(name) or name.split(os.sep)[0] == os.pardir:
                raise InputError(
                    f"the image {name} is not below {root}. Convert the folder that has all images."
                )


def _open(source: str) -> FolderFiles:
    """The files of a folder; of an annotation file, those of its folder or the one above."""
    source = osp.abspath(osp.expanduser(source))
    if not osp.isfile(source):
        return FolderFiles(source)
    folder = osp.dirname(source)
    try:
        return FolderFiles(folder, only=source)
    except InputError:  # no images there
        return FolderFiles(osp.dirname(folder), only=source)


def _relative(
    split: CocoSplit, files: FolderFiles, classes: Sequence[str], counts: Counts
) -> dict[str, Any]:
    """A split with file names relative to the source."""
    head = osp.relpath(split.images, files.root)
    images = [
        {**image, "file_name": osp.normpath(osp.join(head, image["file_name"]))}
        for image in split.content["images"]
    ]
    # What is left out of another one was counted when it was read.
    counts = counts if split.file else Counts()
    return standardise({**split.content, "images": images}, classes, counts)


def _joined(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One dictionary of several with the same categories; ids are numbered anew.

    An image of several is there several times.
    """
    joined: dict[str, Any] = {**contents[0], "images": [], "annotations": []}
    for content in contents:
        ids = {}
        for image in content["images"]:
            ids[image["id"]] = len(joined["images"]) + 1
            joined["images"].append({**image, "id": ids[image["id"]]})
        for box in content["annotations"]:
            number = len(joined["annotations"]) + 1
            joined["annotations"].append({**box, "id": number, "image_id": ids[box["image_id"]]})
    return joined


def _shared(contents: Mapping[str, dict[str, Any]]) -> list[str]:
    """A warning, if splits have images in common."""
    of_image: dict[str, list[str]] = {}
    for split, content in contents.items():
        for image in content["images"]:
            of_image.setdefault(image["file_name"], []).append(split)
    shared = [name for name, splits in of_image.items() if splits[1:]]
    if not shared:
        return []
    return [
        f"{len(shared)} images are in several splits, such as {shared[0]} in "
        f"{' and '.join(of_image[shared[0]])}. Results on them are too good; --fractions splits "
        "all images anew."
    ]


def _place_images(
    content: dict[str, Any], files: FolderFiles, folder: str, copy_images: bool
) -> None:
    """Link or copy images to a folder, with the folders that they are in."""
    for image in content["images"]:
        target = Path(folder, image["file_name"])
        source = osp.realpath(files.full(image["file_name"]))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.partial")
            partial.unlink(missing_ok=True)
            if copy_images:
                shutil.copy2(source, partial)
            else:
                os.symlink(source, partial)
            os.replace(partial, target)
        except OSError as error:
            raise InputError(
                f"cannot write {target}: {error.strerror}; choose another --out-dir"
            ) from error
