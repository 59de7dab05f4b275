"""What is said of the size of the images, and whether the options that it names change it."""

import re
import shlex

import numpy as np
import pytest
from helpers.data_folders import write_folder
from helpers.paths import CONFIGS
from mmengine.config import Config

from misalign_det.apis import cli
from misalign_det.apis.input_size import describe_input_size
from misalign_det.datasets.transforms import transform_class
from misalign_det.utils import walk

SPLITS = ("train", "val", "test")
FIT = "Images are resized to fit 320x240 (portrait: 240x320)"
SMALL = CONFIGS / "misalign_effnet-lite0_fpn_12e_bccd.py"


def sizes(cfg):
    return [
        tuple(step.scale)
        for key, step in walk(cfg)
        if re.search(r"_dataloader\..*pipeline\.\d+$", key)
        and getattr(transform_class(step), "__name__", "") == "Resize"
    ]


def options(cfg, line):
    (words,) = re.findall(r" Another size: --cfg-options (.*)$", line)
    words = words.replace("(WIDTH,HEIGHT)", "(640,480)")
    return ["--cfg-options", *shlex.split(words)]


def wrapped(cfg):
    dataset = cfg.train_dataloader.dataset
    parts = [dict(dataset), dict(dataset)]
    cfg.train_dataloader.dataset = dict(
        type="RepeatDataset", times=2, dataset=dict(type="ConcatDataset", datasets=parts)
    )
    return cfg


@pytest.mark.parametrize("change", [lambda cfg: cfg, wrapped])
def test_the_options_change_it_everywhere(change, tmp_path):
    cfg = change(Config.fromfile(SMALL))
    line = describe_input_size(cfg, SPLITS)
    assert line.startswith(f"{FIT}. Another size: --cfg-options 't")
    assert "\n" not in line
    path = tmp_path / "mine.py"
    cfg.dump(path)
    arguments = parser().parse_args([str(path), *options(cfg, line)])
    changed = cli.load_config(arguments)
    assert len(sizes(changed)) >= 3 and set(sizes(changed)) == {(640, 480)}


def parser():
    made = cli.argparse.ArgumentParser()
    made.add_argument("config")
    cli.add_common_arguments(made)
    return made


def test_sizes_that_differ():
    cfg = Config.fromfile(SMALL)
    cfg.merge_from_dict(
        {
            "train_dataloader.dataset.pipeline.2.scale": 512,
            "train_dataloader.dataset.pipeline.2.keep_ratio": False,
        }
    )
    line = describe_input_size(cfg, SPLITS)
    assert line.startswith(
        "Images are resized to 512x512 in train, to fit 320x240 (portrait: 240x320) in val and test"
    )
    assert describe_input_size(cfg, ["test"]).startswith(f"{FIT}. ")


@pytest.mark.parametrize("scale", [(100, 60), (60, 100), (80, 80)])
@pytest.mark.parametrize("size", [(48, 64), (64, 48), (90, 40)])
def test_images_have_the_size_that_is_said(scale, size):
    """Whichever of the two numbers is the larger, and whichever side of the image."""
    step = dict(type="Resize", scale=scale, keep_ratio=True)
    dataset = dict(type="CocoDataset", pipeline=[step])
    line = describe_input_size(Config(dict(val_dataloader=dict(dataset=dataset))), ["val"])
    width, height = map(int, re.search(r"to fit (\d+)x(\d+)", line).groups())
    portrait = re.search(r"portrait: (\d+)x(\d+)", line)
    if portrait and size[0] > size[1]:
        width, height = map(int, portrait.groups())
    image = np.zeros((*size, 3), np.uint8)
    new = transform_class(step)(**{k: v for k, v in step.items() if k != "type"})({"img": image})
    factor = min(width / size[1], height / size[0])
    assert new["img"].shape[:2] == tuple(int(side * factor + 0.5) for side in size)


def test_steps_without_a_fixed_size():
    cfg = Config.fromfile(CONFIGS / "spatial-align_rfahead_r101_fpn_ms-2x_coco.py")
    line = describe_input_size(cfg, SPLITS)
    assert line.startswith("Images are resized to fit 1333x800 (portrait: 800x1333). ")
    assert "train_dataloader" not in line  # its size is chosen at random
    assert describe_input_size(cfg, ["train"]) is None
    step = dict(type="Resize", scale_factor=0.5)
    dataset = dict(type="CocoDataset", pipeline=[step])
    assert describe_input_size(Config(dict(val_dataloader=dict(dataset=dataset))), SPLITS) is None
    assert describe_input_size(Config(), SPLITS) is None


def test_the_line_is_logged_with_data(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(cli, "print_log", lambda text, logger: lines.append(text))
    root = write_folder(tmp_path / "parts", "VOC")
    words = [str(SMALL), "--work-dir", str(tmp_path / "run")]
    cli.load_config(parser().parse_args(words), training=True)
    assert lines == []
    cli.load_config(parser().parse_args([*words, "--data", str(root)]), training=True)
    (line,) = lines
    assert line.startswith(f"{FIT}. ") and "'train_dataloader" in line
    arguments = [*words, "--data", str(root), *options(None, line)]
    cli.load_config(parser().parse_args(arguments))
    assert lines[1].startswith("Images are resized to fit 640x480 (portrait: 480x640). ")
    assert "'train_dataloader" not in lines[1]
