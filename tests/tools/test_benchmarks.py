"""The benchmarks run and print their tables; their figures are not judged here."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tool(name):
    path = ROOT / "tools" / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nms(capsys):
    tool("nms").main(["--boxes", "50", "200", "--classes", "1", "3", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[2:]]
    assert [row[:2] for row in rows] == [["50", "1"], ["50", "3"], ["200", "1"], ["200", "3"]]
    assert all(float(row[2]) > 0 and float(row[-1]) > 0 for row in rows)
