"""Find the images that COCO's files name."""

import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path

from ....errors import InputError
from ..files import FolderFiles
from ..records import Counts
from .annotation_files import split_of_file

ELSEWHERE = "images found elsewhere than their file_name says"
IN_FOLDERS = "images in another folder than most, found by their name"


def with_folders(content: dict, files: FolderFiles, path: str, counts: Counts) -> tuple[dict, Path]:
    """The content, and the folder that its file names are relative to.

    Where some of the images are in other folders than most, the file names get their folders, and
    are relative to the data folder. If all images are in one, the content is the same object.

    Args:
        content: COCO dictionary; not changed.
        files: of the data folder.
        path: of the annotation file.
        counts: counts the images in other folders.

    Raises:
        InputError: none of the images is below the data folder, or two fit one name alike.
    """
    folder = _image_folder(files, path, content["images"])
    head, there, split = osp.relpath(folder, files.root), set(files.images), split_of_file(path)
    names = {str(image["file_name"]) for image in content["images"]}
    places = {name: osp.normpath(osp.join(head, name)) for name in sorted(names)}
    taken = set(places.values()) & there
    moved = False
    for name, place in places.items():
        if place in there or osp.isfile(files.full(place)):
            continue
        found, elsewhere = files.find_image(name, path, split)
        # Of another split, or an image that has another name, it would be another image.
        if found and not elsewhere and found not in taken and f"/{found}".endswith(f"/{name}"):
            counts.add(IN_FOLDERS, f"{path}: {name} is {found}")
            places[name], moved = found, True
            taken.add(found)
    if not moved:
        return content, folder
    images = [
        {**image, "file_name": places[str(image["file_name"])]} for image in content["images"]
    ]
    return {**content, "images": images}, Path(files.root)


def _image_folder(files: FolderFiles, path: str, images: Sequence[Mapping]) -> Path:
    """The folder below which most of the images are."""
    folders: dict[str, int] = {}
    split, tie = split_of_file(path), None
    for sample in (images[:: max(1, len(images) // 100)], images):
        for image in sample if not folders else ():
            name = str(image["file_name"]).removeprefix("./")
            try:
                found, _ = files.find_image(name, path, split)
            except InputError as error:  # others may show which folder it is
                found, tie = None, error
            if found and f"/{found}".endswith(f"/{name}"):
                folder = found[: -len(name)].rstrip("/")
                folders[folder] = folders.get(folder, 0) + 1
    if not folders:
        raise tie or _not_below(files, path, images)
    return Path(files.root, max(folders, key=lambda folder: folders[folder]))


def _not_below(files: FolderFiles, path: str, images: Sequence[Mapping]) -> InputError:
    first = f", such as {images[0]['file_name']}," if images else ""
    return InputError(
        f"{files.full(path)}: its images{first} are not below {files.root}. Give the folder that "
        "has them, or correct file_name."
    )


def with_names_below(content: dict, files: FolderFiles, path: str, counts: Counts) -> dict:
    """The content with file names relative to the data folder, if any is of another kind.

    These are names of Windows, absolute ones, and those that lead out of a folder: exporters write
    where the images lay. The same object if there is none. Two names may end alike: the image is
    that of the name with more folders in common, and no one's if none has.

    Raises:
        InputError: none of the images is below the data folder, or two fit one name alike.
    """
    stated = {str(image["file_name"]): 0 for image in content["images"]}
    if not any(map(_is_foreign, stated)):
        return content
    there, split = set(files.images), split_of_file(path)
    exact: dict[str, str] = {}
    found: dict[str, list[tuple[int, str]]] = {}  # {image: names, with folders in common}
    for name in stated:
        plain = name.replace("\\", "/")
        below = osp.relpath(osp.realpath(plain), osp.realpath(files.root))
        places = [below] if plain.startswith("/") else [osp.join(osp.dirname(path), plain), plain]
        place = next((p for p in map(osp.normpath, places) if p in there), None)
        image = place or files.find_image(plain, path, split)[0]
        if place:
            exact[name] = place
        elif image:
            words, own = plain.split("/")[::-1], image.split("/")[::-1]
            found.setdefault(image, []).append((len(osp.commonprefix([words, own])), name))
    taken = set(exact.values())
    for image, names in found.items():
        most = max(names)[0]
        best = [name for common, name in names if common == most]
        if image not in taken and len(best) == 1:
            exact[best[0]] = image
            counts.add(ELSEWHERE, f"{path}: {best[0]}")
    if not exact:
        raise _not_below(files, path, content["images"])
    images = [
        {**image, "file_name": exact.get(str(image["file_name"]), image["file_name"])}
        for image in content["images"]
    ]
    return {**content, "images": images}


def _is_foreign(name: str) -> bool:
    return "\\" in name or name[:1] == "/" or name[1:2] == ":" or osp.normpath(name)[:2] == ".."
