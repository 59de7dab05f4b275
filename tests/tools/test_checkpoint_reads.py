"""A tool reads its checkpoint from disk once: before the data is checked, and under the guard."""

import sys

import pytest
import torch
from helpers.tiny_detectors import tool
from mmdet.registry import MODELS
from mmengine.config import Config


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    """Untrained weights of the tiny config's model."""
    path = tmp_path / "weights.pth"
    model = MODELS.build(Config.fromfile(tiny_config).model)
    torch.save({"state_dict": model.state_dict()}, path)
    return str(path)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("test", ["{checkpoint}"]),
        ("test", ["{checkpoint}", "--tta"]),
        ("train", ["--cfg-options", "load_from={checkpoint}"]),
    ],
)
def test_one_call_of_torch_load(
    name, arguments, tiny_config, checkpoint, environ, tmp_path, monkeypatch
):
    monkeypatch.setenv("MISALIGN_DET_SHAPES", environ["MISALIGN_DET_SHAPES"])
    monkeypatch.chdir(tmp_path)
    reads, load = [], torch.load

    def counted(file, *args, **kwargs):
        reads.append(str(file))
        return load(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", counted)
    arguments = [argument.format(checkpoint=checkpoint) for argument in arguments]
    command = [f"{name}.py", str(tiny_config), *arguments]
    monkeypatch.setattr(sys, "argv", command)
    tool("", name).main()
    assert reads == [checkpoint]
