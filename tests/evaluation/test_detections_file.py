"""Detections on file: tensors and arrays load, code does not."""

import importlib.util
import json
import os
import pickle

import numpy as np
import pytest
import torch
from helpers.evaluation_cases import detections, evaluate
from helpers.paths import ROOT

from misalign_det.errors import CheckpointError, InputError
from misalign_det.evaluation.detections_file import load_detections


def write(path, content, protocol=None):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [None, 2])  # 2 is mmengine's
def test_tensors_and_arrays(tmp_path, protocol):
    found = detections()
    found[1]["pred_instances"] = {k: v.numpy() for k, v in found[1]["pred_instances"].items()}
    found[2].update(scale_factor=np.float64(0.5), labels=torch.zeros(0, dtype=torch.long))
    back = load_detections(write(tmp_path / "a.pkl", found, protocol))
    for mine, theirs in zip(back, found):
        assert mine["img_id"] == theirs["img_id"]
        for key, value in theirs["pred_instances"].items():
            assert np.array_equal(mine["pred_instances"][key], value)


def boxes(count, labels=None):
    kept = count if labels is None else labels
    return dict(bboxes=np.zeros((count, 4)), scores=np.zeros(count), labels=np.zeros(kept, int))


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_refused_unless_trusted(tmp_path):
    sample = dict(img_id=1, pred_instances=boxes(1), extra=RunsCode(tmp_path / "ran"))
    path = write(tmp_path / "bad.pkl", [sample])
    with pytest.raises(CheckpointError, match="trust-checkpoint"):
        load_detections(path)
    assert not (tmp_path / "ran").exists()
    load_detections(path, trust=True)
    assert (tmp_path / "ran").exists()


def test_what_asks_for_other_names_is_refused(tmp_path):
    """Whatever is not on the list, and a tensor's content is read as a checkpoint's."""
    for name in (b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ctorch.storage\n_load\n"):
        path = tmp_path / "asks.pkl"
        path.write_bytes(name + b"(S'true'\ntR.")
        with pytest.raises(CheckpointError, match="and asks for"):
            load_detections(path)
    inner = pickle.dumps(RunsCode(tmp_path / "ran"))
    path.write_bytes(pickle.dumps(Loads(inner)))
    with pytest.raises((CheckpointError, InputError)):
        load_detections(path)
    assert not (tmp_path / "ran").exists()


class Loads:
    """Pickled as torch's storages are, with any content."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


@pytest.mark.parametrize(
    "content",
    [dict(img_id=1), [1], [dict(img_id=1)], [dict(pred_instances={})],
     [dict(img_id=1, pred_instances=boxes(1)), dict(img_id=2)],
     (dict(img_id=1, pred_instances=boxes(1)),),
     [dict(img_id=1, pred_instances={})], [dict(img_id=1, pred_instances=None)],
     [dict(img_id=1, pred_instances=dict(bboxes=[], labels=[]))],
     [dict(img_id=1, pred_instances=dict(boxes(1), scores=0.5))],
     [dict(img_id=1, pred_instances=boxes(2, labels=1))]],
)  # fmt: skip
def test_every_entry_must_be_an_images(tmp_path, content):
    with pytest.raises(InputError, match="not a list of detections"):
        load_detections(write(tmp_path / "a.pkl", content))


def test_other_files_are_named(tmp_path):
    (tmp_path / "text.pkl").write_text("no pickle")
    whole = write(tmp_path / "whole.pkl", detections()).read_bytes()
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    write(tmp_path / "other.pkl", dict(a=1))
    (tmp_path / "empty.pkl").touch()
    for name, message in [
        ("none.pkl", "no file"),
        ("text.pkl", "cannot be read"),
        ("cut.pkl", "cannot be read"),
        ("empty.pkl", "cannot be read"),
        ("other.pkl", "tools/test.py --out"),
    ]:
        with pytest.raises(InputError, match=message):
            load_detections(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"I am text\n",  # ValueError
        b"\x80\x09aaa",  # protocol 9: ValueError
        b"X\x02\x00\x00\x00\xff\xff.",  # UnicodeDecodeError
        b"\x8e" + b"\xff" * 7 + b"\x00",  # a text of 2 ** 56 bytes
        b"\x8e" + b"\xff" * 6 + b"\x00\x00",
        b"h\x05.",  # KeyError
        b'[{"a": 1}]',
        b"\xff\xd8\xff\xe0 a photograph",
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_bytes_that_are_no_pickle_are_named_in_one_line(tmp_path, content, trust):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(
        InputError, match="a.pkl cannot be read as a pickle of detections: ."
    ) as end:
        load_detections(tmp_path / "a.pkl", trust)
    assert "\n" not in str(end.value)


def test_figures_that_are_not_known_are_null(tmp_path, ann_file, capsys):
    path = write(tmp_path / "found.pkl", [dict(img_id=1, pred_instances=boxes(0))])
    out = tmp_path / "out.json"
    arguments = [str(path), "--ann-file", ann_file, "--out", str(out)]
    misalignment_tool().main([*arguments, "--classes", "cat", "dog"])
    found = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert found["spearman"] is None and found["correct"] == 0


def misalignment_tool():
    spec = importlib.util.spec_from_file_location(
        "misalignment", ROOT / "tools/analysis/misalignment.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_prints_what_the_metric_says(tmp_path, ann_file, capsys):
    found = detections()
    path = write(tmp_path / "found.pkl", found)
    expected = evaluate(found, ann_file)
    capsys.readouterr()
    module = misalignment_tool()
    arguments = [str(path), "--ann-file", ann_file, "--out", str(tmp_path / "out.json")]
    # No emu lies in the file: it does not tell whether the detector knows one.
    with pytest.raises(SystemExit, match="'emu' has no object.*Give --classes"):
        module.main(arguments)
    module.main([*arguments, "--classes", "cat", "dog", "emu"])
    header, *rows = capsys.readouterr().out.strip().splitlines()[-5:]
    assert header.split()[:2] == ["Spearman", "Pearson"]
    assert [row.split()[0] for row in rows] == ["all", "cat", "dog", "emu"]
    assert float(rows[0].split()[1]) == pytest.approx(expected["misalignment/spearman"], abs=1e-3)
    assert float(rows[0].split()[-1]) == pytest.approx(expected["misalignment/headroom"], abs=1e-3)
