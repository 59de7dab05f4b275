"""Pictures of detections beside the ground truth, from a config and a checkpoint."""

import importlib.util
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.structures import InstanceData

ROOT = Path(__file__).resolve().parents[2]


def tool(folder, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


save_pictures = tool("analysis", "save_pictures")
shapes = tool("dataset_converters", "shapes")

CONFIG = """
_base_ = ['{root}/configs/_base_/datasets/shapes_detection.py',
          '{root}/configs/_base_/default_runtime.py']
data_preprocessor = dict(type='DetDataPreprocessor', pad_size_divisor=32)
model = dict(
    type='FCOS', data_preprocessor=data_preprocessor,
    backbone=dict(type='ResNet', depth=18, base_channels=8, style='pytorch'),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, start_level=1,
              add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(type='FCOSHead', num_classes=6, in_channels=8, feat_channels=8, stacked_convs=1,
                   strides=[8, 16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=2)),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0, max_per_img=5,
                  nms=dict(type='nms', iou_threshold=0.6)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Arguments for a small untrained detector and a set of five images."""
    register_all_modules()
    folder = tmp_path_factory.mktemp("run")
    shapes.make_set(folder / "shapes", train=1, val=5, size=(160, 120))
    (folder / "tiny.py").write_text(CONFIG.format(root=ROOT))
    cfg = Config.fromfile(folder / "tiny.py")
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": cfg.metainfo.to_dict()}},
               folder / "tiny.pth")
    return [str(folder / "tiny.py"), str(folder / "tiny.pth"), "--device", "cpu",
            "--cfg-options", f"data_root={folder / 'shapes'}"]


def test_one_picture_an_image_and_an_overview(run, tmp_path, capsys):
    save_pictures.main([*run, "--out-dir", str(tmp_path), "--num", "3", "--score-thr", "0"])
    names = ["000000.png", "000002.png", "000004.png", "overview.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert str(tmp_path / "overview.png") in capsys.readouterr().out
    for name in names[:3]:  # 160 x 120, enlarged four times, twice side by side, below a caption
        assert cv2.imread(str(tmp_path / name)).shape == (480 + save_pictures.BAND, 1280, 3)
    assert cv2.imread(str(tmp_path / names[3])).shape[1] == 2 * 720


def test_more_than_there_are(run, tmp_path):
    save_pictures.main([*run, "--out-dir", str(tmp_path), "--num", "50"])
    assert len(list(tmp_path.iterdir())) == 5 + 1


def test_boxes_lie_where_they_belong():
    visualizer = DetLocalVisualizer(name="test-pictures", line_width=2)
    visualizer.dataset_meta = {"classes": ("a",), "palette": [(255, 0, 0)]}
    image = np.zeros((60, 320, 3), np.uint8)
    truth = InstanceData(bboxes=torch.tensor([[20.0, 10, 60, 50]]), labels=torch.tensor([0]))
    found = InstanceData(bboxes=torch.tensor([[200.0, 10, 260, 50], [100.0, 10, 150, 50]]),
                         labels=torch.tensor([0, 0]), scores=torch.tensor([0.9, 0.1]))
    made = save_pictures.picture(visualizer, image, truth, found, 0.3, "x.jpg")
    assert made.shape == (60 * 2 + save_pictures.BAND, 2 * 640, 3)
    red = (made[save_pictures.BAND:, :, 0] > 150) & (made[save_pictures.BAND:, :, 1] < 100)
    left, right = red[:, :630], red[:, 650:]
    columns = np.flatnonzero(left[70])  # a row through the boxes: left and right edge
    assert abs(columns.min() - 40) <= 3 and abs(columns.max() - 120) <= 3
    columns = np.flatnonzero(right[70]) + 10
    assert abs(columns.min() - 400) <= 3 and abs(columns.max() - 520) <= 3, "only the one above 0.3"


def test_ignored_objects_are_not_ground_truth():
    info = {"instances": [{"bbox": [1, 2, 3, 4], "bbox_label": 1, "ignore_flag": 0},
                          {"bbox": [5, 6, 7, 8], "bbox_label": 0, "ignore_flag": 1}]}
    truth = save_pictures.ground_truth(info)
    assert truth.bboxes.tolist() == [[1, 2, 3, 4]] and truth.labels.tolist() == [1]
    assert save_pictures.ground_truth({"instances": []}).bboxes.shape == (0, 4)


def test_bad_input_ends_with_one_line(run, tmp_path):
    for arguments, message in (
            ([run[0], "no.pth", *run[2:]], "no.pth"),
            (["no_such_config", *run[1:]], "no_such_config"),
            ([*run[:4], "--cfg-options", "data_root=/nowhere"], "there is no annotation file")):
        with pytest.raises(SystemExit) as caught:
            save_pictures.main([*arguments, "--out-dir", str(tmp_path)])
        assert re.match("save_pictures.py: error: ", str(caught.value))
        assert message in str(caught.value)
    assert json.dumps([p.name for p in tmp_path.iterdir()]) == "[]"
