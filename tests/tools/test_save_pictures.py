"""Pictures of detections beside the ground truth, from a config and a checkpoint."""

import importlib.util
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.structures import InstanceData


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
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"dataset_meta": cfg.metainfo.to_dict()}},
        folder / "tiny.pth",
    )
    return [
        str(folder / "tiny.py"),
        str(folder / "tiny.pth"),
        "--device",
        "cpu",
        "--cfg-options",
        f"data_root={folder / 'shapes'}",
    ]


def test_one_picture_an_image_and_an_overview(run, tmp_path, capsys):
    save_pictures.main([*run, "--out-dir", str(tmp_path), "--num-images", "3", "--score-thr", "0"])
    names = ["000000.png", "000002.png", "000004.png", "overview.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert str(tmp_path / "overview.png") in capsys.readouterr().out
    for name in names[:3]:  # 160 x 120, enlarged four times, twice side by side, below a caption
        assert cv2.imread(str(tmp_path / name)).shape == (480 + save_pictures.BAND, 1280, 3)
    assert cv2.imread(str(tmp_path / names[3])).shape[1] == 2 * 720


def test_more_than_there_are(run, tmp_path):
    save_pictures.main([*run, "--out-dir", str(tmp_path), "--num-images", "50"])
    assert len(list(tmp_path.iterdir())) == 5 + 1


def test_boxes_lie_where_they_belong():
    visualizer = DetLocalVisualizer(name="test-pictures", line_width=2)
    visualizer.dataset_meta = {"classes": ("a",), "palette": [(255, 0, 0)]}
    image = np.zeros((60, 320, 3), np.uint8)
    truth = InstanceData(bboxes=torch.tensor([[20.0, 10, 60, 50]]), labels=torch.tensor([0]))
    found = InstanceData(
        bboxes=torch.tensor([[200.0, 10, 260, 50], [100.0, 10, 150, 50]]),
        labels=torch.tensor([0, 0]),
        scores=torch.tensor([0.9, 0.1]),
    )
    made = save_pictures.picture(visualizer, image, truth, found, 0.3, "x.jpg")
    assert made.shape == (60 * 2 + save_pictures.BAND, 2 * 640, 3)
    red = (made[save_pictures.BAND :, :, 0] > 150) & (made[save_pictures.BAND :, :, 1] < 100)
    left, right = red[:, :630], red[:, 650:]
    columns = np.flatnonzero(left[70])  # a row through the boxes: left and right edge
    assert abs(columns.min() - 40) <= 3 and abs(columns.max() - 120) <= 3
    columns = np.flatnonzero(right[70]) + 10
    assert abs(columns.min() - 400) <= 3 and abs(columns.max() - 520) <= 3, "only the one above 0.3"


def test_what_scores_higher_lies_on_top_and_is_counted():
    """Three boxes at one place, mmdet's order: the highest score first."""
    visualizer = DetLocalVisualizer(name="test-order", line_width=6)
    visualizer.dataset_meta = {
        "classes": ("a", "b", "c"),
        "palette": [(255, 0, 0), (0, 255, 0), (0, 0, 255)],
    }
    image = np.full((60, 320), 0.0, np.float32)  # one channel of floats
    truth = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    box = [200.0, 10, 260, 50]
    found = InstanceData(
        bboxes=torch.tensor([box, box, box]),
        labels=torch.tensor([0, 1, 2]),
        scores=torch.tensor([0.9, 0.5, 0.2]),
    )
    captions = []

    def text(band, what, *rest):
        captions.append(what)

    for order in ([0, 1, 2], [2, 0, 1]):
        made = save_pictures.picture(visualizer, image, truth, found[order], 0.3, "x.jpg")
        row = made[save_pictures.BAND + 90, 640:]
        edge = row[395:406]
        assert (edge[:, 0] > 150).any() and not (edge[:, 1] > 150).any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save_pictures.cv2, "putText", text)
        shown, thresholds = [], []
        patch.setattr(
            visualizer,
            "add_datasample",
            lambda name, image, sample, pred_score_thr: (
                shown.append(sample),
                thresholds.append(pred_score_thr),
            ),
        )
        for threshold, count in ((0.3, 2), (0.2, 2), (0.0, 3), (0.95, 0)):
            save_pictures.picture(visualizer, image, truth, found, threshold, "x.jpg")
            assert captions[-1].endswith(f": {count}")
            assert (shown[-1].pred_instances.scores > thresholds[-1]).sum() == count
    assert (shown[2].pred_instances.scores.diff() > 0).all()


def test_boxes_beyond_the_left_border_are_drawn():
    """mmdet draws none of an image's boxes where the sum of their corners is negative."""
    visualizer = DetLocalVisualizer(name="test-border", line_width=4)
    visualizer.dataset_meta = {"classes": ("a",), "palette": [(255, 0, 0)]}
    nothing = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    found = InstanceData(
        bboxes=torch.tensor([[-300.0, 10, 60, 50]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.9]),
    )
    image = np.zeros((60, 320, 3), np.uint8)
    made = save_pictures.picture(visualizer, image, nothing, found, 0.3, "x.jpg")
    assert (made[save_pictures.BAND :, 650:, 0] > 150).any()  # beside the white line between


def test_files_of_equal_names_in_several_folders(run, tmp_path):
    """cam0/0.png, cam1/0.png and one called overview: a picture each."""
    data = Path(run[-1].partition("=")[2])
    content = json.loads((data / "annotations/instances_val.json").read_text())
    folder = tmp_path / "data"
    images = content["images"][:3]
    for image, name in zip(images, ("cam0/0.png", "cam1/0.png", "overview.png")):
        source = next(data.rglob(image["file_name"]))
        (folder / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "val" / name).write_bytes(source.read_bytes())
        image["file_name"] = name
    ids = {image["id"] for image in images}
    objects = [a for a in content["annotations"] if a["image_id"] in ids]
    (folder / "ann.json").write_text(json.dumps(dict(content, images=images, annotations=objects)))
    options = [
        f"val_dataloader.dataset.{key}"
        for key in (f"data_root={folder}/", "ann_file=ann.json", "data_prefix.img=val/")
    ]
    save_pictures.main(
        [
            *run[:-1],
            *options,
            f"val_evaluator.ann_file={folder}/ann.json",
            "--out-dir",
            str(tmp_path / "out"),
        ]
    )
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["cam0_0.png", "cam1_0.png", "overview.png", "overview_2.png"]


def test_ignored_objects_are_not_ground_truth():
    info = {
        "instances": [
            {"bbox": [1, 2, 3, 4], "bbox_label": 1, "ignore_flag": 0},
            {"bbox": [5, 6, 7, 8], "bbox_label": 0, "ignore_flag": 1},
        ]
    }
    truth = save_pictures.ground_truth(info)
    assert truth.bboxes.tolist() == [[1, 2, 3, 4]] and truth.labels.tolist() == [1]
    assert save_pictures.ground_truth({"instances": []}).bboxes.shape == (0, 4)


def test_bad_input_ends_with_one_line(run, tmp_path):
    for arguments, message in (
        ([run[0], "no.pth", *run[2:]], "no.pth"),
        (["no_such_config", *run[1:]], "no_such_config"),
        ([*run[:4], "--cfg-options", "data_root=/nowhere"], "there is no annotation file"),
    ):
        with pytest.raises(SystemExit) as caught:
            save_pictures.main([*arguments, "--out-dir", str(tmp_path)])
        assert re.match("save_pictures.py: error: ", str(caught.value))
        assert message in str(caught.value)
    assert json.dumps([p.name for p in tmp_path.iterdir()]) == "[]"
