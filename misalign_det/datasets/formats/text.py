"""Text files as users have them: in UTF-8 or an older encoding, with a byte order mark or not."""

import codecs
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import yaml

from .records import Counts

RECODED = "files that are not UTF-8 and were read as Windows-1252"
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
GUESSES = ("cp1252", "latin-1")
_DECLARED = re.compile(rb"\s*<\?xml[^>]*encoding=[\"']([\w.-]+)")


def decode(data: bytes) -> tuple[str, str]:
    """Decode the content of a text file.

    Args:
        data: content of the file.

    Returns:
        The text without its byte order mark; and the encoding: that of the mark, else ``'utf-8'``,
        else ``'cp1252'`` or, where a byte has no character there, ``'latin-1'``.

    Example:
        >>> decode('ö'.encode('utf-8-sig')), decode('ö'.encode('latin-1'))
        (('ö', 'utf-8-sig'), ('ö', 'cp1252'))
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace"), encoding
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            pass
    return data.decode("latin-1"), "latin-1"


def read_text(path: str, counts: Counts | None = None, where: str = "") -> str:
    """Read a text file; see :func:`decode`.

    Args:
        path: of the file.
        counts: counts the file if its encoding is a guess.
        where: name of the file in the counts.

    Raises:
        OSError: the file cannot be read.
    """
    text, encoding = decode(Path(path).read_bytes())
    if counts is not None and encoding in GUESSES:
        counts.add(RECODED, where)
    return text


class _TextLoader(yaml.SafeLoader):
    """Reads each value as text but a null."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str, names: str) -> Any:
    """Parse YAML.

    Args:
        text: content of the file.
        names: key of the uppermost level whose values are read as text: ``no`` is a name there, not
            False, and ``007`` is not 7.

    Raises:
        yaml.YAMLError: it is no YAML, or has tags of another program.
        ValueError: it has a date that is in no calendar.

    Example:
        >>> parse_yaml('nc: 2\\nnames: [no, 007]', 'names')
        {'nc': 2, 'names': ['no', '007']}
    """
    content = yaml.safe_load(text)
    if isinstance(content, dict) and names in content:
        content[names] = yaml.load(text, Loader=_TextLoader)[names]
    return content


def read_xml(path: str, counts: Counts, where: str) -> ET.Element:
    """The root of an XML file, also where it has another encoding than it declares.

    Args:
        path: of the file.
        counts: counts the file if its encoding is a guess.
        where: name of the file in the counts.

    Raises:
        ET.ParseError: it is no XML.
        OSError: the file cannot be read.
    """
    try:
        return ET.parse(path).getroot()
    except (ET.ParseError, ValueError, LookupError):  # expat knows no encodings of several bytes
        data = Path(path).read_bytes()
    declared = _DECLARED.match(data)
    if declared:
        try:
            return ET.fromstring(data.decode(declared[1].decode()))
        except (ValueError, LookupError):
            pass
    text, encoding = decode(data)
    root = ET.fromstring(text)
    counts.add(RECODED, where, number=int(encoding in GUESSES))
    return root
