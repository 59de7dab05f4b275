"""READMEs of the tools: each tool has a command, and each command is one that the tool takes."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import CONFIGS, ROOT, TOOLS
from helpers.tool_parsers import SCRIPTS, parser_of

READMES = [TOOLS / "README.md", TOOLS / "benchmarks/README.md"]
TEXT = "\n".join(path.read_text() for path in READMES)
LINES = re.sub(r" \\\n +", " ", TEXT)  # a command may go on in the next line
COMMANDS = re.findall(r"(?:`|\n)((?:\w+=\S+ )*(?:python|bash) tools/[^`\n]+)", LINES)
SHELL = sorted(
    str(path.relative_to(TOOLS))
    for folder in (".", "benchmarks")
    for path in TOOLS.joinpath(folder).glob("*.sh")
)


def parts(command):
    """The tool, by its path in tools/, and its arguments."""
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    return words[1].removeprefix("tools/"), words[2:]


@pytest.mark.parametrize("script", [*SCRIPTS, *SHELL])
def test_each_tool_has_a_command(script):
    assert script in {parts(command)[0] for command in COMMANDS}


@pytest.mark.parametrize("command", [c for c in COMMANDS if " tools/" in c and ".py" in c])
def test_commands_are_taken(command):
    script, arguments = parts(command)
    parser = parser_of(script)
    parser.parse_args(arguments)  # exits with status 2 where an argument is wrong
    hidden = {
        name for a in parser._actions if a.help == "==SUPPRESS==" for name in a.option_strings
    }
    assert not hidden & set(arguments)


def test_what_the_commands_name_is_there():
    for command in COMMANDS:
        assert (TOOLS / parts(command)[0]).is_file()
    name = re.search(r"^CONFIG=(\S+)$", TEXT, re.M)[1]
    assert (CONFIGS / f"{name}.py").is_file()
    for readme in READMES:
        for link in re.findall(r"\]\(([^)#]+)", readme.read_text()):
            assert (readme.parent / link).resolve().is_relative_to(ROOT)
            assert (readme.parent / link).exists()


def test_the_gallery_has_a_small_picture_of_each_tool_that_draws():
    page = (TOOLS / "README.md").read_text()
    gallery = re.search(r"## Gallery\n(.*?)\n## ", page, re.S)[1]
    shown = re.findall(r'<a href="([^"]+)"><img src="([^"]+)"', gallery)
    assert len(shown) >= 9 and all(whole == small for whole, small in shown)
    paths = [(TOOLS / path).resolve() for path, _ in shown]
    sizes = {path.name: path.stat().st_size for path in paths}
    assert {name: size for name, size in sizes.items() if size > 100_000} == {}
    assert sum(sizes.values()) < 600_000
    assert set(paths) == set((ROOT / ".github/gallery").iterdir())
    drawn = {
        script.removeprefix("analysis/") for script in SCRIPTS
        if re.search(r"savefig|imwrite|write_report", (TOOLS / script).read_text())
        and script.startswith("analysis/")
    }  # fmt: skip
    named = set(re.findall(r"`(?:\w+/)?(\w+)(?:\.py)?[` ]", gallery))
    assert drawn and {Path(name).stem for name in drawn} <= named
    assert {"predict", "shapes", "AssignmentInspectorHook"} <= named


@pytest.mark.slow
def test_mim_runs_a_tool_by_its_bare_name(tmp_path):
    """As the page says; mim's own list of packages does not have this one."""
    categories = [dict(id=1, name="disc")]
    images = [dict(id=i, file_name=f"{i}.jpg", width=9, height=9) for i in range(4)]
    content = dict(images=images, annotations=[], categories=categories)
    (tmp_path / "all.json").write_text(json.dumps(content))
    command = [sys.executable, "-m", "mim", "run", "misalign_det", "split_coco", "all.json"]
    subprocess.run([*command, "--num-images", "1"], cwd=tmp_path, check=True, timeout=300)
    assert (tmp_path / "all_held-out.json").is_file()


def test_options_named_in_the_text_exist():
    known = {"--help", "--peer"}
    for script in SCRIPTS:
        known |= {n for a in parser_of(script)._actions for n in a.option_strings}
    known |= {"--device", "--refinement", "--quick", "--only", "--dry-run"}  # run_all.sh
    others = r"pip (?:install|wheel)|docker (?:build|run)|torchrun"
    ours = re.sub(rf"\n[^\n]*\b(?:{others}) [^\n]*", "", TEXT)
    assert len(ours) < len(TEXT)
    assert set(re.findall(r"--[a-z][a-z-]+", ours)) <= known
