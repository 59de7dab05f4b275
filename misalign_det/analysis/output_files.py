"""Make the folders of what a tool writes, and find out before the work if it cannot be written."""

import tempfile
from pathlib import Path

from ..errors import InputError


def output_file(path: str | Path, option: str = "--out") -> Path:
    """Make the folder of a file that is to be written, and check that it can be.

    A file that is there already stays as it is.

    Args:
        path: of the file.
        option: that names it, for the message.

    Returns:
        The path.

    Raises:
        InputError: it is a folder, or nothing can be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder. Name a file.")
    if not path.exists():
        _make(path.parent, f"{option} {path}")
        return path
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise InputError(f"{option} {path}: {error.strerror}. Name another file.") from error
    return path


def output_folder(folder: str | Path, option: str = "--out-dir") -> Path:
    """Make a folder, and check that files can be written to it.

    Args:
        folder: its path; folders above it are made, too.
        option: that names it, for the message.

    Returns:
        The path.

    Raises:
        InputError: it is a file, or in one, or nothing can be written there.
    """
    _make(Path(folder), f"{option} {folder}")
    return Path(folder)


def _make(folder: Path, what: str) -> None:
    try:
        file = next((p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), None)
        if file:
            raise InputError(f"{what}: {file} is a file, not a folder. Choose another place.")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{what}: nothing can be written there: {error.strerror}. Choose another place."
        ) from error
