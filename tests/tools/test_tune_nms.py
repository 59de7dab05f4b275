"""tune_nms.py: figures of any dataset, and no verdict where there can be none."""

import json
import re

import pytest
from helpers.tiny_detectors import make_detector, tool
from mmengine.config import Config

from misalign_det.evaluation.paired_bootstrap import APDifference


@pytest.fixture(scope="module")
def module():
    return tool("analysis", "tune_nms")


@pytest.mark.parametrize(
    "low, high, shared, said",
    [
        (0.01, 0.02, 0, "It helps."),
        (-0.02, -0.01, 0, "It harms"),
        (-0.01, 0.02, 0, "not distinguishable"),
        (0.0, 0.02, 0, "not distinguishable"),
        (-0.02, 0.0, 0, "not distinguishable"),
        (0.01, 0.02, 3, "3 of these 9 images,.* no verdict"),
    ],
)
def test_verdict(module, low, high, shared, said):
    assert re.search(said, module.verdict(APDifference(0.5, 0.6, low, high, 9), shared, 9))


class Paths:
    def __init__(self, *paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return dict(img_path=str(self.paths[index]))


def test_common_images_are_common_files(module, tmp_path):
    """Equal names in other folders are other images; a link is the same."""
    for name in ("a/0.jpg", "b/0.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a/0.jpg")
    first = Paths(tmp_path / "a/0.jpg")
    assert module.common_images([first, Paths(tmp_path / "b/0.jpg")]) == 0
    assert module.common_images([first, Paths(tmp_path / "link.jpg", tmp_path / "b/0.jpg")]) == 1
    assert module.common_images([first, Paths(tmp_path / "b/../a/0.jpg")]) == 1
    # A set that a ConcatDataset has twice: all of its images are known.
    twice = Paths(*[tmp_path / "a/0.jpg"] * 2)
    assert module.common_images([first, twice]) == 2
    assert module.common_images([twice, first]) == 1


def test_suppressions_in_words(module):
    assert module.describe(dict(type="nms", iou_threshold=0.6)) == "nms, IoU 0.6"
    assert module.describe(dict(iou_thr=0.5)) == "nms, IoU 0.5"
    assert module.describe(dict(type="soft_nms")) == "soft_nms, IoU 0.3"
    own = dict(type="CLBalancedNMS", iou_threshold=0.6)
    assert module.describe(own) == "CLBalancedNMS, IoU 0.6"
    options = ["--gamma", "2", "--sigma", "0.1", "--output-score", "own"]
    agnostic = dict(iou_threshold=0.7, class_agnostic=True)
    (tried,) = module.candidates(module.parse_args(["c", "m", *options]), agnostic)
    assert tried["iou_threshold"] == 0.7 and tried["class_agnostic"] is True
    assert module.describe(tried) == "gamma 2, sigma 0.1, own score"
    assert len(module.candidates(module.parse_args(["c", "m"]), agnostic)) == 3 * 3 * 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    tool("dataset_converters", "shapes").make_set(folder, train=1, val=4, size=(96, 96), seed=3)
    return folder


SMALL = ["--gamma", "0.3", "--sigma", "0.05", "--output-score", "own", "--device", "cpu"]


def test_the_same_images_twice_give_figures_and_no_verdict(module, data, tmp_path, capsys):
    pair = make_detector(tmp_path, "FCOSHead", spread=0.3)
    out = tmp_path / "r.json"
    module.main([*pair, *SMALL, "--out", str(out), "--cfg-options", f"data_root={data}"])
    text = capsys.readouterr().out
    assert "4 of the 4 images of test are also images of val" in text
    assert "no verdict" in text and "It helps" not in text and "keep the plain" not in text
    rows = json.loads(out.read_text())
    assert [row["nms"]["type"] for row in rows] == ["nms", "CLBalancedNMS"] * 2
    assert all(0 <= row["coco/bbox_mAP"] <= row["coco/bbox_mAP_50"] <= 1 for row in rows)


def test_any_evaluator_and_wrapper_and_nothing_found(module, data, tmp_path, capsys):
    """Another metric, no evaluator at all, the test set a ConcatDataset, and no detection."""
    config, checkpoint = make_detector(tmp_path, "FCOSHead", threshold=1.0)
    cfg = Config.fromfile(config)
    leaf = cfg.val_dataloader.dataset.to_dict()
    leaf["data_root"] = str(data)
    cfg.val_dataloader.dataset = leaf
    cfg.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[leaf, dict(leaf, indices=1)])
    cfg.val_evaluator = [dict(type="VOCMetric"), dict(type="CocoMetric", prefix="x")]
    cfg.test_evaluator = None
    cfg.dump(tmp_path / "concat.py")
    module.main([str(tmp_path / "concat.py"), checkpoint, *SMALL])
    text = capsys.readouterr().out
    assert "+0.0 AP (+0.0 to +0.0 on resamples of the 5 images) on test" in text


def test_a_split_without_objects_is_refused_before_the_pass(module, data, tmp_path, capsys):
    pair = make_detector(tmp_path, "FCOSHead")
    path = data / "annotations/instances_val.json"
    content = dict(json.loads(path.read_text()), annotations=[])
    (data / "annotations/none.json").write_text(json.dumps(content))
    options = [f"data_root={data}", "test_dataloader.dataset.ann_file=annotations/none.json"]
    with pytest.raises(SystemExit, match="none of the 4 images"):
        module.main([*pair, *SMALL, "--cfg-options", *options])
    assert "on val" not in capsys.readouterr().out
