"""The benchmarks run and print their tables; their figures are not judged here."""

import importlib.util
from pathlib import Path

import pytest
from tiny_detectors import make_detector

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


def test_assignment(capsys):
    arguments = ["--gts", "1", "3", "--sizes", "large", "--image", "96", "128"]
    tool("assignment").main([*arguments, "--classes", "3", "--repeats", "1"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 2 * 8 and {row[0] for row in rows} == {"1", "3"}
    assert all(float(row[-2]) >= 0 for row in rows)


def test_mixture(capsys):
    tool("mixture").main(["--gts", "1", "4", "--repeats", "1"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "4"]
    assert all(float(row[-2]) == 100 for row in rows)


@pytest.mark.slow
def test_step(capsys, monkeypatch):
    module = tool("step")
    small = dict(module.SCALES["r18"], shape=(3, 64, 96), batch=2)
    monkeypatch.setitem(module.SCALES, "r18", small)
    module.main(["--repeats", "1", "--candidates", "50", "--operators", "2"])
    tables = capsys.readouterr().out.split("\n\n")
    names = ["FCOS", *module.SCALES["r18"]["others"], *module.PEERS]
    for table in tables[1:]:
        lines = table.splitlines()[2:]
        assert [line[:24].strip() for line in lines[: len(names)]] == names
        assert [line.split(": ")[0] for line in lines[len(names) :]] == names
        assert all(line.count("%") == 2 for line in lines[len(names) :])
    assert len(tables) == 3


@pytest.mark.slow
def test_variants(capsys):
    small = ["--image", "64", "96", "--batch", "2", "--repeats", "1"]
    tool("variants").main([*small, "--variants", "plain", "bfloat16, channels last"])
    tables = capsys.readouterr().out.split("\n\n")
    for table in tables[1:3]:
        rows = [line[:24].strip() for line in table.splitlines()[2:]]
        assert rows == ["plain", "bfloat16, channels last"]
    shares, saved = tables[-1].strip().splitlines()
    assert shares.count("%") == 5 and saved.count("%") == 1


@pytest.mark.slow
def test_refinement(shapes, tmp_path, capsys):
    ours = make_detector(tmp_path, "TripleHead", threshold=0.01, spread=0.3)
    peer = make_detector(tmp_path, "FCOSHead")
    data = ["--cfg-options", f"data_root={shapes}"]
    tool("refinement").main([*ours, "--peer", *peer, "--images", "2", *data])
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert [line[:12].strip() for line in lines[:3]] == ["all refined", "sparse", "peer"]
    assert lines[2].split()[-1] == "1.000"
    assert float(lines[4].split()[2]) < 1e-3
    with pytest.raises(SystemExit, match="FCOSHead has no sparse_refinement"):
        tool("refinement").main([*peer, *data])
