"""Where the tools write is checked before their work, and its folder is made."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
from helpers.tiny_detectors import tool

FILE = {  # a command line of which nothing exists, but for the place
    "tune_nms": ["no_config", "no.pth", "--out"],
    "misalignment_report": ["no_config", "no.pth", "--out"],
    "misalignment": ["no.pkl", "--ann-file", "no.json", "--out"],
    "compare_ap": ["no.pkl", "no.pkl", "--ann-file", "no.json", "--out"],
    "test": ["no_config", "no.pth", "--out"],
}
FOLDER = {
    "save_pictures": ["no_config", "no.pth", "--out-dir"],
    "loss_maps": ["no_config", "no.pth", "--out-dir"],
    "receptive_field": ["no_config", "no.pth", "--out-dir"],
    "figures": ["detections", "no_config", "no.pth", "--out-dir"],
}


def said(name, words, monkeypatch):
    """The error with which a tool ends; test.py takes its words from the command line only."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    with pytest.raises(SystemExit) as end:
        tool("", "test").main() if name == "test" else tool("analysis", name).main(words)
    return str(end.value)


@pytest.mark.parametrize("name", [*FILE, *FOLDER])
def test_a_place_below_a_file_is_said_first(name, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("x")
    words = FILE.get(name) or FOLDER[name]
    place = str(file / "r.pkl" if name in FILE else file)
    message = f"{name}.py: error: {words[-1]} {place}: {file} is a file, not a folder."
    assert said(name, [*words, place], monkeypatch).startswith(message)
    assert file.read_text() == "x"


def test_only_the_process_that_writes_the_detections_checks_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    words = [*FILE["test"], str(tmp_path / "a/r.pkl")]
    assert "no_config" in said("test", words, monkeypatch)
    assert not (tmp_path / "a").exists()


@pytest.fixture
def detections(tmp_path):
    """Detections in a file, and the annotations that they equal."""
    box = [2.0, 3.0, 10.0, 12.0]
    content = dict(
        images=[dict(id=i, file_name=f"{i}.jpg", width=64, height=64) for i in range(3)],
        categories=[dict(id=1, name="a")],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=1, bbox=box, area=120.0, iscrowd=0)
            for i in range(3)
        ],
    )
    (tmp_path / "ann.json").write_text(json.dumps(content))
    found = dict(
        bboxes=torch.tensor([[2.0, 3.0, 12.0, 15.0]]),
        scores=torch.tensor([0.9]),
        labels=torch.from_numpy(np.array([0])),
    )
    rows = [dict(img_id=i, pred_instances=found) for i in range(3)]
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(rows))
    return str(tmp_path / "d.pkl"), ["--ann-file", str(tmp_path / "ann.json"), "--classes", "a"]


@pytest.mark.parametrize("name", ["misalignment", "compare_ap"])
def test_the_folder_of_the_figures_is_made(name, detections, tmp_path):
    path, options = detections
    out = tmp_path / "new/folder/r.json"
    tool("analysis", name).main(
        [path] * (1 + (name == "compare_ap")) + [*options, "--out", str(out)]
    )
    assert json.loads(out.read_text())
