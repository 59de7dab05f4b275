"""--data, as a user trains, tests and reports on a folder of their own."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.data_folders import write_folder
from helpers.paths import ROOT
from mmengine.config import Config


@pytest.mark.slow
def test_train_test_and_report_on_one_folder(environ, tiny_config, tmp_path):
    root = write_folder(tmp_path / "parts", "VOC")
    data = ["--data", root, "--work-dir", tmp_path / "run"]

    def run(script, *words):
        command = [sys.executable, ROOT / "tools" / script, *words, *data]
        done = subprocess.run(list(map(str, command)), env={**environ, "PYTHONPATH": str(ROOT)},
                              cwd=tmp_path, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    found = f"{root}: VOC, 2 classes (bolt, nut), 3 train, 2 val, 1 test images."
    assert found in run("train.py", tiny_config)
    cfg = Config.fromfile(tmp_path / "run/config.py")
    assert cfg.model.bbox_head.num_classes == 2
    converted = list((tmp_path / "run/data").iterdir())
    assert len(converted) == 1 and cfg.val_evaluator.ann_file.startswith(str(converted[0]))
    checkpoint = (tmp_path / "run/last_checkpoint").read_text()
    said = run("test.py", tiny_config, checkpoint)
    assert found in said and re.search(r"coco/bbox_mAP: -?\d", said)
    said = run("analysis/misalignment_report.py", tiny_config, checkpoint, "--split", "test")
    assert "AP " in said and (tmp_path / "misalignment_report.html").is_file()
    assert list((tmp_path / "run/data").iterdir()) == converted  # the conversion of before


@pytest.mark.slow
def test_two_processes_on_one_folder(environ, tiny_config, tmp_path):
    """Started by tools/dist_train.sh in the folder itself, where the runs are then too."""
    root = write_folder(tmp_path / "parts", "VOC")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = subprocess.run(
        ["bash", ROOT / "tools/dist_train.sh", tiny_config, "2", "--data", "."], cwd=root,
        env={**environ, "PYTHON": sys.executable, "PORT": str(port)}, timeout=1800, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(f"{root}: VOC, 2 classes (bolt, nut), 3 train, 2 val, 1 test") == 1
    work_dir = root / "work_dirs/tiny"
    (log,) = work_dir.glob("*/*.log")
    assert "GPU number: 2" in log.read_text() and "Iter(val) [1/1]" in log.read_text()
    (converted,) = (work_dir / "data").iterdir()
    names = {path.name for path in converted.iterdir()}
    assert names == {"data.json", *(f"instances_{s}.json" for s in ("train", "val", "test"))}
    cfg = Config.fromfile(work_dir / "config.py")
    assert cfg.model.bbox_head.num_classes == 2
    content = json.loads(Path(cfg.val_evaluator.ann_file).read_text())
    assert len(content["images"]) == 2
