"""The tools by their names, for an environment without a clone.

    python -m misalign_det                 the list of tools
    python -m misalign_det train CONFIG    as python tools/train.py CONFIG in a clone
    torchrun --nproc-per-node 2 -m misalign_det train CONFIG --launcher pytorch

A wheel has no folder tools/; its copy of the tools, which mim uses too, is no package.
"""

import ast
import difflib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# Benchmarks and studies are not among them: they belong to a clone, where they write.
FOLDERS = (".", "analysis", "dataset_converters")


def find_tools(package: Path = PACKAGE) -> dict[str, Path]:
    """Name and file of each tool, from the clone or from the installed wheel.

    Args:
        package: folder of the package.
    """
    clone = package.parent
    root = clone / "tools" if (clone / "pyproject.toml").is_file() else package / ".mim/tools"
    paths = [path for folder in FOLDERS for path in sorted((root / folder).glob("*.py"))]
    return {path.stem: path for path in paths if "__main__" in path.read_text(encoding="utf-8")}


def list_tools(tools: dict[str, Path]) -> str:
    """The usage, and what each tool does, by the first line of its docstring."""
    lines = ["usage: python -m misalign_det TOOL [ARGUMENT ...]    (TOOL --help: its options)", ""]
    for name, path in tools.items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"    {name:20} {docstring.partition(chr(10))[0]}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Run a tool in this process, as if it had been started by the path of its file."""
    tools = find_tools()
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(list_tools(tools))
        return
    if name not in tools:
        near = difflib.get_close_matches(name, tools, n=3, cutoff=0.5)
        sys.exit(
            f"error: there is no tool {name!r}. "
            + (f"Near matches: {', '.join(near)}" if near else f"The tools: {', '.join(tools)}")
        )
    sys.argv = [str(tools[name]), *rest]
    sys.path[0] = str(tools[name].parent)  # where a tool's helpers are
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
