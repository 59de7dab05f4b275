"""The command lines of all tools, without running the tools."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from helpers.paths import TOOLS

SCRIPTS = sorted(
    str(path.relative_to(TOOLS))
    for path in TOOLS.rglob("*.py")
    if "argparse.ArgumentParser(" in path.read_text()
)


class _Parser(Exception):
    """Carries a tool's parser out of the tool."""


def parser_of(script: str, arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser that a tool makes for a command line; the tool by its path in tools/."""
    path = TOOLS / script
    spec = importlib.util.spec_from_file_location(f"{Path(script).stem}_parser", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def parse_args(parser, *args, **kwargs):
        raise _Parser(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", parse_args):
        try:
            getattr(module, "parse_args", getattr(module, "main", None))(list(arguments))
        except _Parser as caught:
            return caught.args[0]
    raise AssertionError(f"{script} parses no command line")
