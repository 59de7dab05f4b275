"""Rows, results and table of tests/matrix.sh, which calls this file. It needs no packages.

    python3 tests/helpers/matrix.py rows                 name, Python, torch and stack of each row
    python3 tests/helpers/matrix.py todo ROW STEPS [ARGUMENTS]
    python3 tests/helpers/matrix.py record ROW STEP STATUS SECONDS LOG CLONE [ARGUMENTS]
    python3 tests/helpers/matrix.py table                written into tests/README.md

STEPS are words in one argument; ARGUMENTS those of pytest, in one, too. A result is a line of
tests/matrix.jsonl.
"""

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
STEPS = ("environment", "suite", "quickstart")
BEGIN, END = "<!-- matrix: bash tests/matrix.sh --table -->\n", "<!-- end -->"
# Of an environment's Python: name and version of what a result depends on.
VERSIONS = """
import json, platform
from importlib import metadata
found = {"Python": platform.python_version()}
for name, distributions in {
    "torch": ["torch"], "NumPy": ["numpy"], "mmcv": ["onedl-mmcv", "mmcv"],
    "mmengine": ["onedl-mmengine", "mmengine"], "mmdet": ["onedl-mmdetection", "mmdet"],
}.items():
    for distribution in distributions:
        try:
            found[name] = metadata.version(distribution)
            break
        except metadata.PackageNotFoundError:
            pass
print(json.dumps(found))
"""


class Row(NamedTuple):
    """A stack, and what setup_environment.sh says where it cannot work."""

    name: str
    python: str
    torch: str
    stack: str = "onedl"
    refusal: str | None = None


ROWS = (
    Row("openmmlab-py310", "3.10", "2.1.2", "openmmlab"),
    Row("openmmlab-py311", "3.11", "2.1.2", "openmmlab"),
    Row("torch2.4-py311", "3.11", "2.4.1"),
    Row("torch2.4-py312", "3.12", "2.4.1"),
    Row("torch2.7-py311", "3.11", "2.7.1"),
    Row("torch2.7-py312", "3.12", "2.7.1"),
    Row("torch2.13-py311", "3.11", "2.13.0"),
    Row("torch2.13-py312", "3.12", "2.13.0"),
    Row("torch2.13-py313", "3.13", "2.13.0", refusal="Python 3.10 to 3.12 with its headers"),
    Row("torch2.14-py311", "3.11", "2.14.1"),
)


def read_results(folder=TESTS):
    """All results, the oldest first."""
    path = Path(folder) / "matrix.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_done(results, row, step, arguments=""):
    """Whether a step has passed with these arguments of pytest, or was refused as it should."""
    of_row = [result for result in results if result["row"] == row]
    if any(result["result"] == "refused" for result in of_row[-1:]):
        return True
    same = [r for r in of_row if r["step"] == step and r.get("arguments", "") == arguments]
    return bool(same) and same[-1]["result"] == "passed"


def closing_words(step, text):
    """What a log says of its step: the counts of pytest, an AP, an error."""
    lines = [line.strip("= ") for line in text.splitlines() if line.strip("= ")]
    patterns = {
        "environment": r"^error: (.*)",
        "suite": r"^(\d+ (?:passed|failed|error).*?)(?: in [\d.]+s.*)?$",
        "quickstart": r"(AP .*)",
    }
    found = [match[1] for line in lines if (match := re.search(patterns[step], line))]
    return found[-1] if found else (lines or [""])[-1]


def make_result(row, step, status, seconds, text, clone, arguments=""):
    """The result of a step, without the paths of this machine.

    Args:
        row: a `Row`.
        step: one of `STEPS`.
        status: its exit status.
        seconds: how long it took.
        text: its log.
        clone: folder where it ran.
        arguments: of pytest.
    """
    refused = status and step == "environment" and row.refusal and row.refusal in text
    result = {"row": row.name, "step": step, "seconds": seconds}
    result["result"] = "refused" if refused else "failed" if status else "passed"
    if step == "suite" and arguments:
        result["arguments"] = arguments
    if step == "environment" and not status:
        said = "mmcv was compiled" if "==> Compiling " in text else "mmcv was in the cache"
    else:
        said = closing_words(step, text)
    result["said"] = said.replace(f"{clone}/", "").replace(str(Path.home()), "~")
    return result


def output(*command, **kwargs):
    """Output of a command; empty where it fails."""
    return subprocess.run(command, capture_output=True, text=True, **kwargs).stdout.strip()


def record(row, step, status, seconds, log, clone, arguments=""):
    """Append a result, with commit, date and versions, render the table, print the result."""
    text = Path(log).read_text(errors="replace")
    result = make_result(row, step, int(status), int(seconds), text, clone, arguments)
    result["date"] = datetime.date.today().isoformat()
    result["commit"] = output("git", "rev-parse", "--short", "HEAD", cwd=clone)
    python = Path(clone) / ".venv/bin/python"
    result["versions"] = json.loads((python.exists() and output(python, "-c", VERSIONS)) or "{}")
    with open(TESTS / "matrix.jsonl", "a") as file:
        file.write(json.dumps(result) + "\n")
    write_table()
    print(f"    {result['result']}: {result['said']}")


def cell(results, row, step):
    """A cell of the table: the last result of the whole step, else the last of a part."""
    of_row = [result for result in results if result["row"] == row.name]
    refused = of_row and of_row[-1]["result"] == "refused"
    same = [result for result in of_row if result["step"] == step]
    whole = [result for result in same if not result.get("arguments")]
    if not same or (refused and step != "environment"):
        return "–" if refused else "not run"
    last = (whole or same)[-1]
    time = f"{last['seconds']} s" if last["seconds"] < 100 else f"{round(last['seconds'] / 60)} min"
    part = "" if whole else f" a part, `{last['arguments']}`"
    when = f"{last['date']}, `{last['commit']}`, {time}"
    return f"{last['result']}{part} ({when}): {last['said']}".replace("|", "\\|")


def render(results):
    """The table."""
    lines = [f"| row | runs on | {' | '.join(STEPS)} |", "| --- | --- | --- | --- | --- |"]
    for row in ROWS:
        own = [r["versions"] for r in results if r["row"] == row.name and "mmdet" in r["versions"]]
        planned = {"Python": row.python, "torch": row.torch, "stack": row.stack}
        runs_on = ", ".join(f"{k} {v}" for k, v in (own[-1] if own else planned).items())
        cells = [cell(results, row, step) for step in STEPS]
        lines.append(f"| `{row.name}` | {runs_on} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_table(folder=TESTS):
    """Put the table into README.md."""
    page = Path(folder) / "README.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    table = render(read_results(folder))
    page.write_text(f"{before}{begin}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main(command, name="", *rest):
    """One of the commands above."""
    rows = {row.name: row for row in ROWS}
    if command in ("todo", "record") and name not in rows:
        sys.exit(f"error: there is no row {name!r}: {', '.join(rows)}")
    if command == "rows":
        print("\n".join(f"{row.name} {row.python} {row.torch} {row.stack}" for row in ROWS))
    elif command == "todo":
        steps, arguments = rest[0].split(), (rest[1:] or ("",))[0]
        if set(steps) - set(STEPS):
            sys.exit(f"error: the steps are {', '.join(STEPS)}")
        results = read_results()
        print(*(s for s in steps
                if not is_done(results, name, s, arguments if s == "suite" else "")))  # fmt: skip
    elif command == "record":
        record(rows[name], *rest)
    else:
        write_table()


if __name__ == "__main__":
    main(*sys.argv[1:])
