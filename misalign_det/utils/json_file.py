"""Reading and writing large JSON files, with error messages that say what to do."""

import gc
import json
import math
import os
import os.path as osp
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import InputError


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, which would repeatedly scan the objects of a large file."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_json(path: str, where: str, root: str | None = None) -> Any:
    """Parse a JSON file.

    Args:
        path: path of the file.
        where: what names the file, for messages: the dataset's key, or an argument.
        root: the dataset's ``data_root``, for messages, if a dataset's config names the file.

    Returns:
        The parsed content.

    Raises:
        InputError: there is no such file, it is not JSON, or it is that of a dataset and not in
            plain UTF-8, the only encoding that pycocotools reads.
    """
    if not osp.isfile(path):
        advice = ""
        if root is not None:
            advice = (
                f" (data_root is {root!r}). Set the root with --cfg-options data_root=FOLDER or "
                "the environment variable named at the head of the data config."
            )
        raise InputError(f"{where}: there is no annotation file {path}{advice}")
    try:
        with open(path, "rb") as file:
            data = file.read()
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: {path} is not valid JSON ({error}; the file has {osp.getsize(path)} bytes). "
            "Perhaps it was cut off while it was copied; fetch or export it again."
        ) from None
    encoding = json.detect_encoding(data)
    if root is not None and encoding != "utf-8":
        called = "UTF-8 with a byte order mark" if encoding == "utf-8-sig" else encoding.upper()
        raise InputError(
            f"{where}: {path} is in {called}, which pycocotools does not read. Save it in plain "
            "UTF-8."
        )
    return content


def json_text(content: Any, indent: int | None = 2) -> str:
    """JSON of figures; those that are NaN or infinite, which JSON does not have, become null.

    Args:
        content: of dicts, lists, tuples, texts and numbers.
        indent: of ``json.dumps``.
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Write a JSON file, which other processes see only when it is complete.

    Args:
        path: of the file; its folder is made.
        content: of the file.

    Raises:
        InputError: it cannot be written.
    """
    folder = osp.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            json.dump(content, file)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}. Choose another folder (--work-dir, --out-dir)."
        ) from error
