"""The benchmarks run and print their tables; their figures are not judged here."""

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT
from helpers.tiny_detectors import make_detector
from launch_counts import Cost, can_count, count_calls, footnote
from mmcv.ops import batched_nms

needs_counts = pytest.mark.skipif(not can_count(), reason="without a GPU they take torch 2.2")


def tool(name):
    path = ROOT / "tools" / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def columns(lines, names):
    """Rows of a table as dicts of words; the words of a header name the columns."""
    rows = []
    for line in lines:
        words = [w for w in line.split() if w not in ("ms", "%", "MiB", "M")]
        assert len(words) == len(names), (words, names)
        rows.append(dict(zip(names, words)))
    return rows


def numbers(device):
    """Three kernels and one synchronisation."""
    x = torch.arange(4.0).to(device)
    return {"sum": lambda: (x * 2 + 1).sum().item(), "nothing": lambda: x[1:].view(3, 1)}


@needs_counts
def test_a_call_of_known_cost():
    assert count_calls(numbers) == {"sum": Cost(3, 1), "nothing": Cost(0, 0)}


@needs_counts
def test_the_simulated_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert footnote(simulated_on="one box").endswith("the simulated CUDA device, one launch an "
                                                     "operator; one box")  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A Card")
    assert footnote(simulated_on="one box").endswith("one call on A Card, by torch's profiler")


def test_a_gpu_counts_what_was_timed(monkeypatch):
    """Functions that work on it are not built a second time."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("launch_counts.launches_and_syncs", lambda function: (function(), 0))
    built = []

    def make(device):
        built.append(device)
        return {"call": lambda: 5}

    assert count_calls(make, "cuda:1", {"call": lambda: 7}) == {"call": Cost(7, 0)}
    assert count_calls(make, "cpu", {"call": lambda: 7}) == {"call": Cost(5, 0)}
    assert built == ["cuda"]


def test_columns_of_a_cost():
    assert str(Cost(12, 3)).split() == ["12", "3"] and str(Cost()).split() == ["-", "-"]
    assert Cost(15, 3).over(Cost(12, 9)) == "1.25" and Cost(15, 3).over(Cost()) == "-"


NMS = "boxes classes plain launches syncs ours our_launches our_syncs ratio".split()


@needs_counts
def test_nms(capsys):
    module = tool("nms")
    module.main(["--num-boxes", "50", "200", "--num-classes", "1", "3", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    rows = columns(lines[2:-1], NMS)
    found = [(row["boxes"], row["classes"]) for row in rows]
    assert found == [("50", "1"), ("50", "3"), ("200", "1"), ("200", "3")]
    assert all(float(row["plain"]) > 0 and float(row["ratio"]) > 0 for row in rows)
    assert lines[-1] == footnote(simulated_on="at most 200 boxes")

    def plain(device):
        boxes, scores, labels = (part.to(device) for part in module.clustered_boxes(200, 3))
        cfg = dict(type="nms", iou_threshold=0.6)
        return {"nms": lambda: batched_nms(boxes, scores, labels, cfg)}

    cost = count_calls(plain)["nms"]
    assert (rows[3]["launches"], rows[3]["syncs"]) == (str(cost.launches), str(cost.syncs))
    assert int(rows[3]["our_launches"]) > 0 and cost.launches > 5


def test_fewer_boxes_take_the_way_of_many():
    """From 10,000 on class by class, all classes alike."""
    module = tool("nms")
    args = module.parse_args(["--split-thr", "1000000"])
    calls = {}
    for num in (100, 9999, 10000):
        parts = [call.args for call in module.both(num, 4, args, "cpu", most=120).values()]
        assert [len(boxes) for boxes, *_ in parts] == [min(num, 120)] * 2
        calls[num] = [len(boxes) < cfg["split_thr"] for boxes, _, _, cfg in parts]
        if num > 120:
            assert parts[0][2].bincount().tolist() == [30] * 4
    assert calls == {100: [True, True], 9999: [True, True], 10000: [False, True]}


def test_nms_without_counts(capsys):
    tool("nms").main(["--num-boxes", "50", "--num-classes", "1", "--repeats", "1", "--no-counts"])
    lines = capsys.readouterr().out.splitlines()
    (row,) = columns(lines[2:-1], NMS)
    assert row["launches"] == row["our_syncs"] == "-" and lines[-1].endswith("not counted")


@pytest.mark.parametrize(
    "options, said",
    [
        (["--device", "cuda:99"], "nms.py: error: --device cuda:99: torch finds"),
        (["--repeats", "0"], "must be at least 1"),
        (["--num-boxes", "0"], "must be at least 1"),
    ],
)
def test_what_nms_cannot_time_is_named(capsys, options, said):
    with pytest.raises(SystemExit) as end:
        tool("nms").main(options)
    printed = capsys.readouterr()
    assert said in f"{end.value}{printed.err}" and printed.out == ""


ASSIGNMENT = ("objects sizes assigner time spread ratio launches syncs launches_ratio "
              "memory").split()  # fmt: skip


@needs_counts
def test_assignment(capsys):
    arguments = ["--num-objects", "1", "3", "--sizes", "large", "--img-shape", "96", "128"]
    tool("assignment").main([*arguments, "--num-classes", "3", "--repeats", "1", "--count-to", "1"])
    lines = capsys.readouterr().out.splitlines()[2:]
    lines = [line.replace("FCOS targets", "FCOS").replace("PAA reas", "PAA") for line in lines]
    rows = columns(lines[:-1], ASSIGNMENT)
    assert len(rows) == 2 * 9 and {row["objects"] for row in rows} == {"1", "3"}
    assert all(float(row["memory"]) >= 0 for row in rows)
    counted = [row for row in rows if row["objects"] == "1" or torch.cuda.is_available()]
    assert all(int(row["launches"]) > 0 and int(row["syncs"]) >= 0 for row in counted)
    base = next(row for row in rows if row["assigner"] == "TaskAlignedAssigner")
    for row in counted[:9]:
        ratio = int(row["launches"]) / int(base["launches"])
        assert float(row["launches_ratio"]) == pytest.approx(ratio, abs=0.0051)
    if not torch.cuda.is_available():
        assert {row["launches"] for row in rows[9:]} == {"-"}


def test_assigners_by_name_with_more_anchors(capsys):
    """Twice the anchors, twice the pairs; without TaskAligned there is no ratio to it."""
    arguments = "--num-objects 40 --sizes small --img-shape 64 96 --repeats 1 --no-counts".split()
    memory = []
    for anchors in ("1", "2"):
        tool("assignment").main(
            [*arguments, "--assigners", "MaxIoUAssigner", "--num-anchors", anchors]
        )
        (row,) = columns(capsys.readouterr().out.splitlines()[2:-1], ASSIGNMENT)
        assert row["assigner"] == "MaxIoUAssigner" and row["ratio"] == "-"
        memory.append(float(row["memory"]))
    assert memory[1] == pytest.approx(2 * memory[0], rel=0.3)


@needs_counts
def test_mixture(capsys):
    tool("mixture").main(["--num-objects", "1", "4", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    names = "objects batched spread launches syncs sklearn faster equal".split()
    rows = columns(lines[2:-1], names)
    assert [row["objects"] for row in rows] == ["1", "4"]
    assert all(float(row["equal"]) == 100 and int(row["launches"]) > 0 for row in rows)


@pytest.mark.cuda
def test_mixture_on_a_gpu(capsys):
    tool("mixture").main(
        ["--num-objects", "4", "--repeats", "1", "--device", "cuda", "--no-counts"]
    )
    machine, _, row, _ = capsys.readouterr().out.splitlines()
    assert machine.startswith(torch.cuda.get_device_name()) and "100.00 %" in row


@needs_counts
@pytest.mark.slow
def test_step(capsys, monkeypatch):
    module = tool("step")
    small = dict(module.SCALES["r18"], shape=(3, 64, 96), batch=2)
    monkeypatch.setitem(module.SCALES, "r18", small)
    module.main(["--repeats", "1", "--num-boxes", "50", "--operators", "2"])
    tables = capsys.readouterr().out.split("\n\n")
    names = ["FCOS", *module.SCALES["r18"]["others"], *module.PEERS]
    for table in tables[1:]:
        header, *lines = table.splitlines()[1:]
        assert "launches  syncs  / FCOS" in header
        assert [line[:24].strip() for line in lines[: len(names)]] == names
        counts = [line[header.index("launches") - 1 :].split()[:3] for line in lines[: len(names)]]
        assert all(int(launches) > 100 and int(syncs) > 0 for launches, syncs, _ in counts)
        assert [row[2] for row in counts] == [f"{int(n) / int(counts[0][0]):.2f}"
                                              for n, *_ in counts]  # fmt: skip
        assert lines.pop(len(names)).startswith("launches, syncs")
        assert [line.split(": ")[0] for line in lines[len(names) :]] == names
        assert all(line.count("%") == 2 for line in lines[len(names) :])
    assert len(tables) == 3


@pytest.mark.slow
def test_counts_of_steps_alone(capsys):
    arguments = [
        "--img-shape",
        "256",
        "256",
        "--batch-size",
        "1",
        "--num-objects",
        "2",
        "--modes",
        "infer",
    ]
    tool("step").main([*arguments, "--counts-only", "--models", "RFAHead + SpatialAlign"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[0] == "inference, r18 at 256x256, batch 1, 2 objects"
    assert lines[1].split() == ["model", "launches", "syncs", "/", "FCOS"]
    assert [line[:24].strip() for line in lines[2:4]] == ["FCOS", "RFAHead + SpatialAlign"]
    assert [len(line[24:].split()) for line in lines[2:4]] == [3, 3]
    assert lines[4] == footnote(simulated_on="images of 64x64") and len(lines) == 5


@needs_counts
@pytest.mark.slow
def test_variants(capsys):
    small = ["--img-shape", "64", "96", "--batch-size", "2", "--repeats", "1"]
    tool("variants").main([*small, "--variants", "plain", "bfloat16, channels last"])
    tables = capsys.readouterr().out.split("\n\n")
    for table in tables[1:3]:
        *lines, last = table.splitlines()[2:]
        assert [line[:24].strip() for line in lines] == ["plain", "bfloat16, channels last"]
        assert all(int(line.split()[-2]) > 50 for line in lines)
        assert last.startswith("launches, syncs")
    shares, saved = tables[-1].strip().splitlines()
    assert shares.count("%") == 5 and saved.count("%") == 1


@needs_counts
@pytest.mark.slow
def test_refinement(shapes, tmp_path, capsys):
    ours = make_detector(tmp_path, "TripleHead", threshold=0.01, spread=0.3)
    peer = make_detector(tmp_path, "FCOSHead")
    data = ["--cfg-options", f"data_root={shapes}"]
    tool("refinement").main([*ours, "--peer", *peer, "--num-images", "2", *data])
    lines = capsys.readouterr().out.splitlines()[-6:]
    assert [line[:12].strip() for line in lines[:3]] == ["all refined", "sparse", "peer"]
    assert lines[2].split()[-3] == "1.000"
    launches = [int(line.split()[-2]) for line in lines[:3]]
    assert launches[0] > launches[2] > 0 and launches[1] > 0
    assert float(lines[5].split()[2]) < 1e-3
    with pytest.raises(SystemExit, match="FCOSHead has no sparse_refinement"):
        tool("refinement").main([*peer, *data])


def run_all(*arguments, cwd, status=0, path=Path(sys.executable).parent):
    environ = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    command = ["bash", ROOT / "tools/benchmarks/run_all.sh", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environ, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.mark.parametrize("options", [["--device", "cuda"], ["--quick"]])
def test_run_all_names_every_benchmark(options, tmp_path):
    """And each takes its arguments."""
    text = run_all("--dry-run", *options, "--refinement", "a b.py", "c.pth", cwd=tmp_path)
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("python ")]
    names = {path.stem for path in (ROOT / "tools/benchmarks").glob("*.py")
             if "__main__" in path.read_text()}  # fmt: skip
    assert {Path(command[1]).stem for command in commands} == names
    assert text.count("## ") == len(commands)
    for _, program, *arguments in commands:
        args = tool(Path(program).stem).parse_args(arguments)
        assert args.device == ("cuda" if "cuda" in options else "cpu")


@pytest.mark.slow
def test_run_all_prints_the_device_and_a_table(tmp_path):
    about, table = run_all("--quick", "--only", "mixture", cwd=tmp_path).split("## The mixture")
    assert "torch " in about and "mmdet " in about
    assert "equal labels" in table and footnote() in table and "failed" not in table


def test_run_all_goes_on_after_a_failure(tmp_path):
    python = tmp_path / "python"
    python.write_text("""#!/usr/bin/env bash
case $1 in
    -) echo "about $2" ;;
    *nms.py) exit 3 ;;
    *) echo "ran ${1##*/}" ;;
esac
""")
    python.chmod(0o755)
    text = run_all("--quick", cwd=tmp_path, status=1, path=tmp_path)
    assert text.startswith("about cpu\n")
    assert text.count("ran assignment.py") == 2 and "ran variants.py" in text
    assert text.endswith("\nfailed:\n  CLBalancedNMS\n")
    assert "failed" not in run_all("--quick", "--only", "step", cwd=tmp_path, path=tmp_path)
    python.write_text("#!/usr/bin/env bash\nexit 1\n")  # no such device, for one
    assert "##" not in run_all(cwd=tmp_path, status=1, path=tmp_path)


@pytest.mark.parametrize(
    "arguments, said",
    [(["--qick"], "unknown argument --qick"), (["--device"], "--device needs a device"),
     (["--only", "nsm"], "no benchmark is named nsm")],
)  # fmt: skip
def test_run_all_says_what_is_wrong(arguments, said, tmp_path):
    assert f"run_all.sh: error: {said}" in run_all(*arguments, cwd=tmp_path, status=2)
