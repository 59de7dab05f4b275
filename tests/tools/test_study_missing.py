"""What tools/study says where detections, checkpoints or data sets are missing, before any work."""

import json
import re
import shlex

import compare
import cost
import pytest
import run
from compose import Run, root_variable
from grid import DATA
from jobs import check_data, make_jobs
from records import append, read

from misalign_det.errors import InputError

VARIABLES = {
    "bccd": "MISALIGN_DET_BCCD",
    "hit-uav": "MISALIGN_DET_HIT_UAV",
    "cards": "MISALIGN_DET_CARDS",
    "shapes": "MISALIGN_DET_SHAPES",
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    for data, variable in VARIABLES.items():
        monkeypatch.setenv(variable, str(tmp_path / "data" / data))
    return Study(tmp_path)


class Study:
    """Results, detections and checkpoints of the study `main` on the data set `shapes`."""

    def __init__(self, folder):
        self.out, self.results = folder / "out", folder / "results"
        self.lines = self.results / "main.jsonl"

    def job(self, method):
        (job,) = make_jobs([Run(method, "shapes", 0, 8)], "val", self.out)
        return job

    def result(self, *methods):
        for method in methods:
            line = dict(kind="result", method=method, data="shapes", backbone="effnet-lite0")
            line |= dict(
                epochs=8, seed=0, split="val", AP=0.5, config=self.job(method).hashes[method]
            )
            append(self.lines, line)

    def train(self, *methods):
        for method in methods:
            folder = self.job(method).folder
            folder.mkdir(parents=True)
            (folder / "epoch_8.pth").touch()
            (folder / "trained.json").write_text(json.dumps(dict(checkpoint="epoch_8.pth")))

    def detect(self, *methods):
        self.train(*methods)
        for method in methods:
            job = self.job(method)
            file = job.test_file(job.training, ".pkl")
            file.parent.mkdir()
            file.touch()
            job.test_file(job.training, ".json").write_text(
                json.dumps(dict(config=job.hashes[method]))
            )

    def resampled(self, *methods):
        """AP on resamples, kept as from an earlier comparison."""
        for line in read(self.lines):
            if line["method"] in methods:
                line |= dict(kind="resamples", images="a", resamples=300, draws=[50000] * 300)
                append(self.results / "resamples.jsonl", line)

    def call(self, tool, *options):
        folders = ["--out-dir", str(self.out), "--results-dir", str(self.results)]
        tool.main(["main", *options, *folders])

    def refused(self, tool, *options):
        before = self.lines.read_bytes() if self.lines.is_file() else b""
        with pytest.raises(SystemExit) as end:
            self.call(tool, *options)
        said = str(end.value)
        assert said.startswith(f"{tool.__name__}.py: error: ") and "\n" not in said
        assert (self.lines.read_bytes() if self.lines.is_file() else b"") == before
        return said


def command_of(text):
    """The options of the command of run.py in a message, which that tool takes."""
    words = re.search(r"python tools/study/run\.py ([^;]+)", text)[1]
    return run.parse_args(shlex.split(words))


class TestCompare:
    def test_no_result(self, study):
        said = study.refused(compare)
        assert "has no result on val: first run" in said
        assert command_of(said).results_dir == str(study.results)
        options = command_of(study.refused(compare, "--backbone", "r18"))
        assert (options.backbone, options.out_dir) == ("r18", str(study.out))

    def test_one_method_alone(self, study):
        study.result("fcos")
        assert "has results of fcos alone on val" in study.refused(compare)

    def test_no_detections(self, study, capsys):
        study.result("fcos", "atss")
        said = study.refused(compare)
        assert "nothing was compared" in said and "shapes fcos 8e seed 0 on val" in said
        options = command_of(said)
        assert (options.study, options.split, options.out_dir) == ("main", "val", str(study.out))
        # In the folder of these results run.py would find nothing missing.
        assert options.results_dir == "work_dirs/my_results"
        assert "left out" not in capsys.readouterr().err

    def test_detections_of_one_method_alone(self, study):
        study.result("fcos", "atss")
        study.resampled("fcos")
        assert "shapes atss 8e seed 0 on val" in study.refused(compare)

    def test_some_pairs(self, study, capsys):
        study.result("fcos", "atss", "jla_triplehead")
        study.resampled("fcos", "atss")
        study.call(compare)
        printed, said = capsys.readouterr()
        assert "atss over fcos: +0.0" in printed
        assert "left out, without the detections of its result: shapes jla_triplehead" in said
        assert "1 of 2 pairs were compared." in said and command_of(said).study == "main"
        assert [line["method"] for line in read(study.lines) if line["kind"] == "comparison"] == [
            "atss"
        ]
        study.resampled("jla_triplehead")
        study.call(compare)
        assert capsys.readouterr().err == ""

    def test_no_data_set(self, study):
        study.result("fcos", "atss")
        study.detect("fcos", "atss")
        assert "environment variable MISALIGN_DET_SHAPES" in study.refused(compare)


class TestCost:
    DEVICE = ("--data", "shapes", "--device", "cpu")

    def test_no_checkpoint(self, study):
        said = study.refused(cost, *self.DEVICE)
        assert "nothing was measured" in said and "no checkpoint of fcos on shapes" in said
        options = command_of(said)
        assert options.data == ["shapes"] and options.seeds == [0]

    def test_the_reference_alone(self, study):
        study.train("fcos")
        assert "no checkpoint of any of atss, paa" in study.refused(cost, *self.DEVICE)

    def test_no_data_set(self, study):
        study.train("fcos", "atss")
        said = study.refused(cost, *self.DEVICE)
        assert "environment variable MISALIGN_DET_SHAPES" in said

    def test_the_last_data_set_is_looked_for_first(self, study):
        study.train("fcos", "atss")
        said = study.refused(cost, "--data", "shapes", "bccd", "--device", "cpu")
        assert "no checkpoint of fcos on bccd" in said


@pytest.mark.parametrize("data", DATA)
def test_a_missing_data_set_is_named_with_its_variable(study, data, tmp_path):
    assert root_variable(data) == VARIABLES[data]
    said = study.refused(run, "--data", data, "--device", "cpu")
    assert f"{data}: there is no annotation file {tmp_path}/data/{data}/" in said
    assert f"environment variable {VARIABLES[data]} " in said and "--cfg-options" not in said
    assert "configs/study_data.md" in said


def test_a_missing_test_split_is_named_before_the_training(study, tmp_path):
    folder = tmp_path / "data/shapes/annotations"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text("{}")
    check_data([Run("fcos", "shapes", 0, 8)], "val")
    with pytest.raises(InputError, match="instances_test.json. Set the .* MISALIGN_DET_SHAPES"):
        check_data([Run("fcos", "shapes", 0, 8)], "test")
    (folder / "instances_test.json").write_text("{")
    with pytest.raises(InputError, match="instances_test.json is not valid JSON"):
        check_data([Run("fcos", "shapes", 0, 8)], "test")
