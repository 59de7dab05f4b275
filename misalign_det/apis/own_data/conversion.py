"""The COCO files of a data folder: its own, or converted ones in the work dir."""

import glob
import json
import os.path as osp
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from ...datasets.formats import DataFolder, read_folder
from ...datasets.formats.files import RUN_RECORD, FolderFiles
from ...datasets.formats.records import SPLITS, CocoSplit
from ...datasets.formats.splits import split_content
from ...errors import InputError
from ...utils.json_file import write_json

HELD_OUT = {"train": 0.8, "val": 0.2}
_RECORD = osp.basename(RUN_RECORD)
_VERSION = 3  # of the conversion; another one converts again


@dataclass
class ConvertedData:
    """A data folder as configs need it.

    Attributes:
        root: absolute path of the folder.
        classes: in the order of the labels.
        ann_files: {split: absolute path of a COCO file}.
        image_folders: {split: absolute path}.
        lines: what was found, for the user; the first says it in one line.
        converted: whether the boxes come from another format than COCO.
        warnings: what is perhaps wrong, for the user.
        state: of the folder's files.
        preferred: the order of classes that was preferred.
    """

    root: str
    classes: list[str]
    ann_files: dict[str, str]
    image_folders: dict[str, str]
    lines: list[str] = field(default_factory=list)
    converted: bool = False
    warnings: list[str] = field(default_factory=list)
    state: str = ""
    preferred: list[str] = field(default_factory=list)


def convert(
    folder: str,
    work_dir: str,
    classes: Sequence[str] | None = None,
    prefer: Sequence[str] | None = None,
) -> ConvertedData:
    """Read a folder, and write COCO files where it has none that can be used as they are.

    They are written to ``WORK_DIR/data/FOLDER-HASH/``, where the next call finds them if no file of
    the folder has changed. Without a val split a fifth of the training images is held out (seed 0);
    without a test split the val split is the test split.

    Args:
        folder: see :func:`~misalign_det.datasets.formats.read_folder`.
        work_dir: of the run.
        classes: of a trained detector, which the annotations may not exceed.
        prefer: classes whose order is taken if they are the folder's.

    Raises:
        InputError: the folder cannot be read, or most of a split cannot be used, or nothing can be
            written to the work dir.
    """
    root = osp.abspath(osp.expanduser(folder))
    if osp.realpath(work_dir) == osp.realpath(root):
        raise InputError(
            f"--work-dir {work_dir} is the folder of --data, where the files of the run would be "
            "read as data. Choose another one, which may be inside it."
        )
    files = FolderFiles(root, work_dir=work_dir)
    state = f"{_VERSION} {files.root} {files.fingerprint()}"
    name = f"{osp.basename(files.root)}-"
    parent = Path(osp.abspath(work_dir), "data")
    for record in sorted(parent.glob(f"{glob.escape(name)}*/{_RECORD}")):
        before = _read_record(record)
        if (
            before
            and before.state == state
            and (
                before.classes == list(classes)
                if classes
                else before.preferred == list(prefer or ())
            )
        ):
            return before
    data = read_folder(files.root, classes=classes, prefer=prefer, files=files)
    notes = _complete_splits(data)
    target = parent / f"{name}{sha256(f'{state} {data.classes}'.encode()).hexdigest()[:8]}"
    found = ConvertedData(
        files.root,
        data.classes,
        {},
        {},
        converted="COCO" not in data.format,
        warnings=data.warnings,
        state=state,
        preferred=list(prefer or ()),
    )
    written: dict[int, str] = {}
    for split, images in data.splits.items():
        path = str(images.file) if images.file else written.get(id(images))
        if path is None:
            path = written[id(images)] = str(target / f"instances_{split}.json")
            write_json(path, images.content)
        found.ann_files[split], found.image_folders[split] = path, str(images.images)
    found.lines = [f"{files.root}: {'; '.join([describe(data), *notes])}."]
    if str(data.counts):
        found.lines.append(f"{files.root}: left out or changed: {data.counts}.")
    if written:
        found.lines.append(f"The annotations in COCO format: {target}")
    write_json(str(target / _RECORD), asdict(found))
    return found


def _read_record(path: Path) -> ConvertedData | None:
    """What an earlier call found; None if the record is damaged, or its files are gone."""
    try:
        found = ConvertedData(**json.loads(path.read_text(encoding="utf-8")))
        there = all(map(osp.isfile, found.ann_files.values()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return found if there else None


def describe(data: DataFolder) -> str:
    """What a folder holds; a split that stands in for another one is not named."""
    first: dict[int, str] = {}
    for name, images in data.splits.items():
        first.setdefault(id(images), name)
    own = {name: data.splits[name] for name in SPLITS if name in first.values()}
    return str(DataFolder(data.format, data.classes, own, data.counts))


def _complete_splits(data: DataFolder) -> list[str]:
    """Make train, val and test splits; returns what was made of what."""
    splits, notes = data.splits, []
    whole = splits.pop("", None) or (splits.get("train") if "val" not in splits else None)
    if whole is not None:
        held = f"a fifth of the {len(whole)} images is held out as val, seed 0"
        notes.append(f"no val split: {held}" if "train" in splits else f"no splits: {held}")
        parts = split_content(whole.content, HELD_OUT)
        splits |= {name: CocoSplit(part, whole.images) for name, part in parts.items()}
    if "test" not in splits:
        notes.append("no test split: val is used")
        splits["test"] = splits["val"]
    elif "val" not in splits:
        notes.append("no val split: test is used")
        splits["val"] = splits["test"]
    return notes
