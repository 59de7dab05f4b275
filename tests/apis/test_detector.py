"""Loading a detector, its input from a dataset, and finding an image in it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny_detectors import make_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from misalign_det.apis import detector
from misalign_det.apis.detector import (
    check_device,
    detect,
    find_image,
    ground_truth,
    load_detector,
    network_input,
)
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import CheckpointError, InputError


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def fcos(tmp_path_factory):
    config, checkpoint = make_detector(tmp_path_factory.mktemp("fcos"), "FCOSHead")
    return Config.fromfile(config), checkpoint


def test_a_detector_is_loaded_from_one_read(fcos, monkeypatch):
    cfg, checkpoint = fcos
    reads, real = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: reads.append(a[0]) or real(*a, **k))
    model = load_detector(cfg, checkpoint)
    assert reads == [checkpoint]
    assert not model.training and model.cfg is cfg
    saved = real(checkpoint)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_detections_of_one_image_of_a_dataset(fcos):
    """As mmdet gives them, in pixels of the file, and no graph is built."""
    model = load_detector(*fcos)
    graphs = []
    model.bbox_head.register_forward_hook(lambda *args: graphs.append(torch.is_grad_enabled()))
    meta = dict(img_shape=(64, 64), ori_shape=(32, 32), scale_factor=(2.0, 2.0))
    sample = DetDataSample(metainfo=dict(meta, pad_shape=(64, 64), batch_input_shape=(64, 64)))
    with torch.no_grad():
        model.bbox_head.conv_reg.bias.fill_(1.0)  # a ReLU makes the untrained head's boxes points
    item = dict(inputs=torch.zeros(3, 64, 64, dtype=torch.uint8), data_samples=sample)
    found = detect(model, [None, item], 1)
    assert len(found) == 5
    assert found.bboxes.max() <= 32 and (found.scores.diff() <= 0).all()
    assert graphs == [False]


def test_code_in_a_checkpoint_does_not_run(fcos, tmp_path):
    cfg, checkpoint = fcos
    path = str(tmp_path / "unsafe.pth")
    torch.save({**torch.load(checkpoint), "extra": Touch(tmp_path / "ran")}, path)
    with pytest.raises(CheckpointError, match="unsafe.pth was refused.*io.open"):
        load_detector(cfg, path)
    with pytest.raises(CheckpointError), tensors_only():
        load_detector(cfg, path)
    assert not (tmp_path / "ran").exists()
    load_detector(cfg, path, trust=True)
    assert (tmp_path / "ran").exists()
    with tensors_only(trust=True):
        load_detector(cfg, path)


def test_code_in_a_checkpoint_that_the_model_loads_does_not_run(fcos, tmp_path, monkeypatch):
    """A detector that is distilled loads its teacher while it is built."""
    cfg, checkpoint = fcos
    teacher = tmp_path / "teacher.pth"
    torch.save({"extra": Touch(tmp_path / "ran")}, teacher)

    def build(model_cfg):
        torch.load(teacher, weights_only=False)

    monkeypatch.setattr(detector, "MODELS", SimpleNamespace(build=build))
    with pytest.raises(CheckpointError, match="a checkpoint that the config names was refused"):
        load_detector(cfg, checkpoint)
    assert not (tmp_path / "ran").exists()


def test_a_missing_checkpoint_is_said_before_the_model_is_built(fcos, monkeypatch):
    monkeypatch.setattr(MODELS, "build", lambda *a: pytest.fail("built"))
    with pytest.raises(CheckpointError, match="there is no checkpoint nowhere.pth"):
        load_detector(fcos[0], "nowhere.pth")


def test_devices(fcos, monkeypatch):
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(InputError, match=f"--device {device}: torch finds no GPU.*--device cp"):
            check_device(device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    check_device("cuda:1")
    with pytest.raises(InputError, match="--device cuda:2: torch finds 2 GPUs"):
        check_device("cuda:2")
    with pytest.raises(InputError, match="--device gpu: "):
        check_device("gpu")
    with pytest.raises(InputError, match="--device gpu: "):
        load_detector(fcos[0], fcos[1], "gpu")


class Images:
    """A dataset of image paths."""

    def __init__(self, *paths, ids=None):
        self.paths, self.ids = paths, ids or [f"id{i}" for i in range(len(paths))]

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, i):
        return {"img_path": self.paths[i], "img_id": self.ids[i]}


def test_images_are_found_by_name_end_of_path_stem_and_id():
    images = Images(
        "d/a/1.jpg",
        "d/b/1.jpg",
        "d/b/21.jpg",
        "d/b/v1.2.png",
        "d/c/noend",
        ids=[10, 11, 12, 1, "x"],
    )
    assert find_image(images, None) == 0
    assert find_image(images, "d/b/1.jpg") == find_image(images, "b/1.jpg") == 1
    assert find_image(images, "b/1") == find_image(images, "./b/1.jpg") == 1
    assert find_image(images, "21.jpg") == find_image(images, "21") == 2
    assert find_image(images, "v1.2") == 3 and find_image(images, "noend") == 4
    near = Images("d/21.jpg", "d/1.jpg")
    assert find_image(near, "1.jpg") == find_image(near, "1") == 1
    assert find_image(images, "12") == 2 and find_image(images, "x") == 4


def test_a_name_of_several_images_lists_their_paths():
    images = Images("d/a/1.jpg", "d/b/1.jpg", "d/a/1.jpg")
    for name in ("1.jpg", "1"):
        with pytest.raises(InputError, match=f"2 images are called '{name}': d/a/1.jpg, d/b/1.jpg"):
            find_image(images, name)
    assert find_image(images, "a/1.jpg") == 0  # one file, twice in the set
    many = Images(*(f"{i}/1.jpg" for i in range(8)))
    with pytest.raises(InputError, match="8 images .* 4/1.jpg and 3 more. Give the path of one"):
        find_image(many, "1.jpg")
    parts = Images("a.jpg", "b.jpg", ids=[5, 5])  # two sets, each with its own ids
    with pytest.raises(InputError, match="2 images are called '5': a.jpg, b.jpg"):
        find_image(parts, "5")


def test_an_unknown_name_says_what_names_look_like():
    with pytest.raises(
        InputError, match="no image 'x' among the 1 .* 'a.jpg' or an image id such as 'id0'"
    ):
        find_image(Images("d/a.jpg"), "x")
    with pytest.raises(InputError, match="no image 'x' among the 0 of this split.$"):
        find_image(Images(), "x")


def test_ground_truth_leaves_ignored_objects_out():
    box = dict(bbox=[1, 2, 3, 4], bbox_label=2, ignore_flag=0)
    found = ground_truth(dict(instances=[box, {**box, "ignore_flag": 1}]))
    assert found.bboxes.tolist() == [[1, 2, 3, 4]] and found.labels.tolist() == [2]
    assert ground_truth(dict(instances=[])).bboxes.shape == (0, 4)
    assert ground_truth(dict(img_id=1)).bboxes.shape == (0, 4)  # unlabelled
    without_flag = dict(bbox=[1, 2, 3, 4], bbox_label=2)
    assert ground_truth(dict(instances=[without_flag])).labels.tolist() == [2]


class Loader:
    """A dataset of one image, at half its size."""

    def __init__(self, pixels, *steps):
        self.pixels, self.pipeline = pixels, SimpleNamespace(transforms=steps)

    def __getitem__(self, index):
        sample = DetDataSample(metainfo=dict(scale_factor=(0.5, 0.25), img_shape=(2, 2)))
        return dict(inputs=self.pixels, data_samples=sample)

    def get_data_info(self, index):
        return dict(instances=[dict(bbox=[0, 4, 8, 12], bbox_label=1, ignore_flag=0)])


def model_with(**preprocessor):
    init_default_scope("mmdet")
    model = nn.Module()
    model.data_preprocessor = MODELS.build(
        dict(type="DetDataPreprocessor", pad_size_divisor=4, **preprocessor)
    )
    model.cfg = Config(dict(model=dict(data_preprocessor=preprocessor)))
    return model


PIXELS = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2) * 20


def test_network_input():
    data = network_input(model_with(mean=[0.0] * 3, std=[10.0] * 3), Loader(PIXELS), 0)
    assert data.inputs.shape == (1, 3, 4, 4)  # padded
    torch.testing.assert_close(data.inputs[0, :, :2, :2], PIXELS / 10)
    assert data.gt_instances.bboxes.tolist() == [[0, 1, 4, 3]]
    assert data.gt_instances.labels.tolist() == [1]
    np.testing.assert_array_equal(data.image, PIXELS.permute(1, 2, 0).flip(-1))
    assert data.image.dtype == np.uint8 and data.meta["scale_factor"] == (0.5, 0.25)


@pytest.mark.parametrize("pixels", [PIXELS.float(), PIXELS.half()])
def test_float_images_are_shown_as_they_are(pixels):
    data = network_input(model_with(), Loader(pixels), 0)
    np.testing.assert_array_equal(data.image, PIXELS.permute(1, 2, 0).flip(-1))
    assert data.image.dtype == np.uint8


def test_images_that_a_pipeline_leaves_in_rgb():
    rgb = PIXELS.permute(1, 2, 0)
    to_rgb, plain = SimpleNamespace(to_rgb=True), SimpleNamespace(to_rgb=False)
    loader = Loader(PIXELS, SimpleNamespace(), to_rgb)
    wrapped = Loader(PIXELS)
    del wrapped.pipeline
    wrapped.datasets = [SimpleNamespace(dataset=SimpleNamespace(datasets=[loader]))]
    converting = dict(mean=[0.0] * 3, std=[1.0] * 3, rgb_to_bgr=True)
    for model, dataset, argument, expected in (
        (model_with(), loader, None, rgb),
        (model_with(), wrapped, None, rgb),
        (model_with(), loader, False, rgb.flip(-1)),
        (model_with(), Loader(PIXELS, plain), None, rgb.flip(-1)),
        (model_with(), Loader(PIXELS, plain), True, rgb),
        (model_with(**converting), Loader(PIXELS), None, rgb),
    ):
        data = network_input(model, dataset, 0, argument)
        np.testing.assert_array_equal(data.image, expected)


def test_one_channel():
    data = network_input(model_with(mean=[0.0], std=[1.0]), Loader(PIXELS[:1]), 0)
    assert data.inputs.shape == (1, 1, 4, 4)
    assert data.image.tolist() == [[[0] * 3, [20] * 3], [[40] * 3, [60] * 3]]
