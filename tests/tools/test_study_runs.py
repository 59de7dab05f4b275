"""tools/study/run.py with stand-ins for train.py and test.py, and once with the real ones."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import Process

import pytest
from children import Children
from compose import Run
from helpers.paths import HELPERS, ROOT
from jobs import training_seconds
from records import append, read

PROGRAM = [sys.executable, HELPERS / "study_tools.py", "run"]


@pytest.fixture
def study(environ, tmp_path):
    return StudyRuns(environ, tmp_path)


class StudyRuns:
    """Runs of the study `main` on the data set `shapes`, in a folder of their own."""

    def __init__(self, environ, folder):
        self.folder, self.lines = folder, folder / "results/main.jsonl"
        self.calls = folder / "calls"
        self.environ = {
            key: value for key, value in environ.items() if key not in ("FAIL", "HOLD")
        } | {"CALLS": str(self.calls), "PYTHONPATH": str(ROOT)}

    def start(self, *methods, program=PROGRAM, options=(), **environ):
        words = [*program, "main", "--data", "shapes", "--seeds", "0", "--methods", *methods]
        words += ["--out-dir", self.folder / "out", "--results-dir", self.folder / "results"]
        return subprocess.Popen(
            list(map(str, [*words, "--device", "cpu", *options])),
            env={**self.environ, **environ},
            text=True,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *methods, status=0, **kwargs):
        process = self.start(*methods, **kwargs)
        text, _ = process.communicate(timeout=1800)
        assert process.returncode == status, text
        return text

    def called(self, forget=True):
        found = self.calls.read_text().splitlines() if self.calls.exists() else []
        if forget:
            self.calls.unlink(missing_ok=True)
        return found

    def results(self):
        return {line["method"]: line for line in read(self.lines)}

    def wait_for(self, glob, process):
        deadline = time.monotonic() + 6000
        while not list(self.folder.glob(glob)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.slow
def test_runs_once_and_shares_trainings(study):
    text = study.run("fcos", "iac-dc-clnms_retinanet", options=["--jobs", "1"])
    assert "2 trainings and their tests, 1 at a time" in text
    assert study.called() == [
        "train fcos from 0 threads 1", "end fcos", "test fcos-val",
        "train iac-dc_retinanet from 0 threads 1", "end iac-dc_retinanet",
        "test iac-dc-clnms_retinanet-val"]  # fmt: skip
    lines = study.results()
    assert set(lines) == {"fcos", "iac-dc-clnms_retinanet"}
    line = lines["fcos"]
    assert line["AP"] == line["AP50"] == line["APs"] == 0 and line["per_class"]["disc"] == 0
    assert (line["data"], line["seed"], line["epochs"], line["split"]) == ("shapes", 0, 8, "val")
    assert line["train_seconds"] == 40 and line["jobs"] == 1  # 80 steps of half a second
    assert 3e6 < line["parameters"] < 4e6 and len(line["config"]) == 12
    assert {"python", "torch", "mmcv", "mmengine", "mmdet", "misalign_det"} == set(line["versions"])
    assert line["device"] and len(line["commit"]) == 12 and line["dirty"] in (True, False)
    raw = study.lines.read_text()
    assert os.uname().nodename not in raw
    assert str(study.folder) not in raw and str(ROOT) not in raw

    assert "all 2 runs have a result" in study.run("fcos", "iac-dc-clnms_retinanet")
    assert study.called() == []
    # Without its line, a run is read from its detections again.
    study.lines.unlink()
    study.run("fcos")
    assert study.called() == [] and set(study.results()) == {"fcos"}
    # On another split the training is there.
    study.run("fcos", options=["--split", "test"])
    assert study.called() == ["test fcos-test"]


@pytest.mark.slow
def test_the_list_says_what_is_missing(study):
    study.run("fcos")
    text = study.run("fcos", "atss", options=["--list"])
    assert "shapes fcos 8e seed 0: done, AP 0.0\n" in text
    assert "shapes atss 8e seed 0: missing\n" in text and "2 runs: 1 done, 1 missing" in text
    assert study.called()[-1] == "test fcos-val"
    line = dict(study.results()["fcos"], config="0" * 12)
    append(study.lines, line)
    text = study.run("fcos", options=["--list"])
    assert "shapes fcos 8e seed 0: config changed since its result" in text
    study.run("fcos")
    assert study.results()["fcos"]["config"] != line["config"]


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(study):
    text = study.run("atss", "fcos", FAIL="atss", status=1, options=["--jobs", "1"])
    assert "shapes atss 8e seed 0 failed: exit status 1" in text
    assert "atss does not train today" in text and "1 of 2 failed" in text
    assert set(study.results()) == {"fcos"}
    (record,) = map(json.loads, (study.folder / "out/failures.jsonl").read_text().splitlines())
    assert record["run"] == "shapes atss 8e seed 0" and "does not train" in record["error"]
    study.called()
    study.run("atss", "fcos", options=["--jobs", "1"])
    assert study.called() == ["train atss from 0 threads 1", "end atss", "test atss-val"]
    assert set(study.results()) == {"fcos", "atss"}


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", ["Ctrl-C", "SIGTERM as a background job"])
def test_the_children_are_ended_and_the_next_call_goes_on(study, ended_by):
    in_background, hold = ended_by != "Ctrl-C", study.folder / "go"
    # A child inherits an ignored SIGINT, as a shell gives it to background jobs; these tests, too,
    # may run in one.
    before = signal.signal(
        signal.SIGINT, signal.SIG_IGN if in_background else signal.default_int_handler
    )
    try:
        process = study.start("fcos", "atss", options=["--jobs", "2"], HOLD=str(hold))
    finally:
        signal.signal(signal.SIGINT, before)
    study.wait_for("out/shapes/fcos*/epoch_1.pth", process)
    study.wait_for("out/shapes/atss*/epoch_1.pth", process)
    process.send_signal(signal.SIGTERM if in_background else signal.SIGINT)
    text, _ = process.communicate(timeout=1800)
    assert process.returncode == 130 and "run.py: interrupted" in text
    called = study.called()  # both were asked to end, not killed, and did
    assert {"stopped fcos", "stopped atss"} <= {*called} and "end" not in " ".join(called)
    hold.touch()
    assert not study.lines.exists()
    assert "interrupted" in study.run("fcos", options=["--list"])
    study.run("fcos", "atss", options=["--jobs", "2"])
    starts = [call.split()[1:4] for call in study.called() if call.startswith("train")]
    assert len(starts) == 2 and all(int(epoch) == 1 for _, _, epoch in map(tuple, starts))
    assert set(study.results()) == {"fcos", "atss"}


@pytest.mark.slow
def test_a_folder_that_a_child_still_trains_in_is_left_alone(study):
    """The child of a killed run.py trains on; another run.py must not train in its folder."""
    hold = study.folder / "go"
    process = study.start("fcos", options=["--jobs", "1"], HOLD=str(hold))
    study.wait_for("out/shapes/fcos*/epoch_1.pth", process)
    process.kill()
    process.wait()
    text = study.run("fcos")
    assert "left out, another process works in" in text and not study.lines.exists()
    hold.touch()
    with next(study.folder.glob("out/shapes/fcos*/lock")).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for the end of the child
    assert study.called()[-1] == "end fcos"
    study.run("fcos")  # finds the whole training
    assert study.called() == ["train fcos from 8 threads 1", "end fcos", "test fcos-val"]
    assert set(study.results()) == {"fcos"}


def test_mistakes_are_one_line_before_any_training(study):
    assert "main has no vfnet; it has fcos" in study.run("vfnet", status=2)
    study.environ["MISALIGN_DET_SHAPES"] = str(study.folder / "nowhere")
    text = study.run("fcos", status=1)
    assert "run.py: error: shapes: there is no annotation file" in text
    assert "Traceback" not in text and study.called() == []


def test_a_child_has_its_share_of_the_cores(monkeypatch):
    from run import environment

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = environment("cpu", jobs=2, cores=8)
    assert found["OMP_NUM_THREADS"] == "4" and found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert environment("cuda:1", 14, 8)["OMP_NUM_THREADS"] == "1"
    assert environment("cuda:1", 14, 8)["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert environment("cuda:1", 1, 8)["CUDA_VISIBLE_DEVICES"] == "6"


def write_lines(path, writer, count):
    for number in range(count):
        append(path, dict(kind="result", method=f"{writer}", seed=number, text="x" * 5000))


def test_lines_of_several_writers_stay_whole(tmp_path):
    path = tmp_path / "results/lines.jsonl"
    writers = [Process(target=write_lines, args=(path, w, 40)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read(path)) == 160 and len(path.read_text().splitlines()) == 160


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "lines.jsonl"
    first, second = (dict(kind="result", method=m, seed=0, AP=0.1) for m in "ab")
    append(path, first, second)
    path.write_text(path.read_text()[:-20])
    assert read(path) == [first]
    append(path, second)
    assert read(path) == [first, second]
    append(path, dict(second, AP=0.3))  # a later line of a run replaces the earlier one
    assert [line["AP"] for line in read(path)] == [0.1, 0.3]


def test_seconds_of_a_resumed_training(tmp_path):
    assert training_seconds(tmp_path) is None
    for name, steps in (("a", range(1, 5)), ("b", range(3, 11))):
        logs = tmp_path / name / "vis_data"
        logs.mkdir(parents=True)
        rows = [dict(loss=1, step=step, time=9.0 if step == 1 else 2.0) for step in steps]
        (logs / "scalars.json").write_text("\n".join(map(json.dumps, [*rows, dict(step=9)])))
    assert training_seconds(tmp_path) == 20


def test_no_child_starts_after_the_stop(tmp_path):
    from children import Stopped

    children = Children({})
    children.stop()
    with pytest.raises(Stopped):
        children.call(["touch", tmp_path / "started"], tmp_path / "log", 0)
    assert not (tmp_path / "started").exists()


def test_a_run_is_named():
    assert str(Run("fcos", "bccd", 1, 12)) == "bccd fcos 12e seed 1"


@pytest.mark.slow
def test_with_the_real_tools(study):
    program = [sys.executable, ROOT / "tools/study/run.py"]
    study.run("fcos", "iac-dc-clnms_retinanet", program=program)
    lines = study.results()
    assert set(lines) == {"fcos", "iac-dc-clnms_retinanet"}
    assert all(0 <= line["AP"] <= 1 and line["train_seconds"] > 0 for line in lines.values())
    before = study.lines.read_text()
    assert "all 2 runs" in study.run("fcos", "iac-dc-clnms_retinanet", program=program)
    assert study.lines.read_text() == before
    compare = [sys.executable, ROOT / "tools/study/compare.py", "main", "--resamples", "5"]
    compare += ["--out-dir", study.folder / "out", "--results-dir", study.folder / "results"]
    subprocess.run(list(map(str, compare)), env=study.environ, check=True, cwd=study.folder)
    (gain,) = (line for line in read(study.lines) if line["kind"] == "comparison")
    assert (gain["method"], gain["reference"]) == ("iac-dc-clnms_retinanet", "fcos")
    found = lines["iac-dc-clnms_retinanet"]["AP"] - lines["fcos"]["AP"]
    assert gain["gain"] == pytest.approx(found, abs=1e-4)
    cost = [sys.executable, ROOT / "tools/study/cost.py", *compare[2:3], "--data", "shapes"]
    cost += ["--num-images", "2", "--repeats", "1", *compare[5:]]
    said = subprocess.run(
        list(map(str, cost)), env=study.environ, check=True, cwd=study.folder, capture_output=True
    ).stderr.decode()
    assert "left out on shapes, without a checkpoint: atss, paa" in said
    costs = [line for line in read(study.lines) if line["kind"] == "cost"]
    assert {line["method"] for line in costs} == set(lines)
    for line in costs:
        assert line["config"] == lines[line["method"]]["config"]
        for what in ("inference", "training"):
            fcos = next(line for line in costs if line["method"] == "fcos")[f"{what}_ms"]
            assert line[f"{what}_ms"] > 0
            # Both are rounded, the times to a tenth of a millisecond.
            assert line[f"{what}_ratio"] == pytest.approx(line[f"{what}_ms"] / fcos, rel=0.01)
