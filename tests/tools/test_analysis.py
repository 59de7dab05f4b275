"""loss_maps.py, receptive_field.py and tune_nms.py on this package's heads and mmdet's own."""

import importlib.util
import json
from pathlib import Path

import cv2
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
COMMON = "num_classes=6, in_channels=8, feat_channels=8, stacked_convs=1"
POINTS = f"{COMMON}, strides=[8, 16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=2)"
CODER = (
    "bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1] * 4)"
)
SCALES = "scales_per_octave={}, octave_base_scale=4, strides=[8, 16, 32, 64, 128]"
ANCHORS = "anchor_generator=dict(type='AnchorGenerator', ratios={}, " + SCALES + ")"
FOCAL = "loss_cls=dict(type='FocalLoss', use_sigmoid=True)"
MAX_IOU = "dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)"
REST = "allowed_border=-1, pos_weight=-1, debug=False"
HEADS = {
    "RFAHead": (f"{POINTS}, rfa_position='first'", "assigner=dict(type='SpatialAlignAssigner')"),
    "TripleHead": (
        POINTS.replace("stacked_convs=1", "stacked_convs=2"),
        "assigner=dict(type='JLAAssigner')",
    ),
    "FCOSHead": (f"{POINTS}, norm_on_bbox=True, center_sampling=True", "assigner=None"),
    "RetinaHead": (
        f"{COMMON}, {CODER}, {FOCAL}, {ANCHORS.format('[0.5, 1.0, 2.0]', 3)}",
        f"assigner={MAX_IOU}, sampler=dict(type='PseudoSampler'), {REST}",
    ),
    "ATSSHead": (
        f"{COMMON}, {CODER}, {FOCAL}, {ANCHORS.format('[1.0]', 1)}, "
        "norm_cfg=dict(type='GN', num_groups=2), "
        "loss_bbox=dict(type='GIoULoss'), "
        "loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True)",
        f"assigner=dict(type='ATSSAssigner', topk=9), {REST}",
    ),
}
CONFIG = """
_base_ = ['{root}/configs/_base_/datasets/shapes_detection.py',
          '{root}/configs/_base_/default_runtime.py']
model = dict(
    type='FCOS', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, base_channels=8, style='pytorch'),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, start_level=1,
              add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(type='{head}', {arguments}),
    train_cfg=dict({train}),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0, max_per_img=5,
                  nms=dict(type='nms', iou_threshold=0.6)))
"""


def tool(folder, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    tool("dataset_converters", "shapes").make_set(folder, train=1, val=6, size=(160, 128), seed=3)
    return folder


@pytest.fixture(params=HEADS)
def detector(request, tmp_path, data):
    """Arguments for a small untrained detector with one of the heads."""
    register_all_modules()
    arguments, train = HEADS[request.param]
    text = CONFIG.format(root=ROOT, head=request.param, arguments=arguments, train=train)
    (tmp_path / "tiny.py").write_text(text)
    cfg = Config.fromfile(tmp_path / "tiny.py")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if request.param == "TripleHead":  # its refinement starts as the identity
        torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.01)
    meta = {"dataset_meta": cfg.metainfo.to_dict()}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, tmp_path / "tiny.pth")
    common = ["--device", "cpu", "--show-dir", str(tmp_path / "out")]
    options = ["--cfg-options", f"data_root={data}"]
    return [str(tmp_path / "tiny.py"), str(tmp_path / "tiny.pth"), *common], options, tmp_path


def image_with_objects(data):
    content = json.loads((data / "annotations/instances_val.json").read_text())
    counts = {image["id"]: 0 for image in content["images"]}
    for annotation in content["annotations"]:
        counts[annotation["image_id"]] += 1
    most = max(counts, key=counts.get)
    name = next(image["file_name"] for image in content["images"] if image["id"] == most)
    return name, counts[most]


@pytest.mark.slow
def test_loss_maps_of_every_supported_head(detector, data, capsys):
    arguments, options, folder = detector
    name, count = image_with_objects(data)
    module = tool("analysis", "loss_maps")
    positives = 0
    for gt in range(min(2, count)):
        module.main([*arguments, "--image", name, "--gt", str(gt), *options])
        text = capsys.readouterr().out
        lines = [line for line in text.splitlines() if line.strip().startswith("stride")]
        assert len(lines) == 5
        positives += sum(int(line.split("box,")[1].split()[0]) for line in lines)
        picture = folder / "out" / f"loss_maps_{Path(name).stem}_{gt}.png"
        assert cv2.imread(str(picture)).std() > 10
    assert positives > 0


@pytest.mark.slow
def test_receptive_fields_of_every_supported_head(detector, capsys):
    arguments, options, folder = detector
    module = tool("analysis", "receptive_field")
    module.main([*arguments, "--num-images", "2", "--num-objects", "1", *options])
    table = json.loads((folder / "out/receptive_field.json").read_text())
    assert [row["stride"] for row in table[::2]] == [8, 16, 32, 64, 128]
    # ResNet-18's stage 5 sees 435 px; each 3x3 convolution of the pyramid adds twice its stride.
    assert [row["feature"] for row in table[4::2]] == [435 + 64, 499 + 64, 563 + 128]
    for row in table:
        convs = (row["theoretical"] - row["feature"]) / (2 * row["stride"])
        assert convs == 2 + ("TripleHead" in Path(arguments[0]).read_text())
        assert 0 < row["effective"] <= 2 * 192
    assert (folder / "out/receptive_field.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["TripleHead"], indirect=True)
def test_nms_is_chosen_on_one_split_and_reported_on_another(detector, capsys):
    (config, checkpoint, *_), options, folder = detector
    out = folder / "r.json"
    arguments = ["--gamma", "0.3", "1", "--sigma", "0.1", "--output-score", "own"]
    tool("analysis", "tune_nms").main(
        [config, checkpoint, "--device", "cpu", *arguments, "--out", str(out), *options]
    )
    text = capsys.readouterr().out
    assert "on val" in text and "on test" in text and "AP on test" in text
    rows = json.loads(out.read_text())
    assert [row["split"] for row in rows] == ["val"] * 3 + ["test"] * 2
    best = max(rows[1:3], key=lambda row: row["coco/bbox_mAP"])
    assert rows[4]["nms"] == best["nms"] and rows[3]["nms"]["type"] == "nms"


@pytest.mark.parametrize("name", ["loss_maps"])
@pytest.mark.parametrize(
    "extra, message",
    [
        (["--image", "nothing.jpg"], "no image 'nothing.jpg'"),
        (["--image", "WITH_OBJECTS", "--gt", "99"], "--gt 99: the image has"),
    ],
)
def test_wrong_image_and_object_are_named(tmp_path, data, name, extra, message, capsys):
    arguments, train = HEADS["FCOSHead"]
    text = CONFIG.format(root=ROOT, head="FCOSHead", arguments=arguments, train=train)
    (tmp_path / "tiny.py").write_text(text)
    cfg = Config.fromfile(tmp_path / "tiny.py")
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "tiny.pth")
    extra = [image_with_objects(data)[0] if part == "WITH_OBJECTS" else part for part in extra]
    with pytest.raises(SystemExit) as stop:
        tool("analysis", name).main(
            [str(tmp_path / "tiny.py"), str(tmp_path / "tiny.pth"), "--show-dir", str(tmp_path),
             "--device", "cpu", *extra, "--cfg-options", f"data_root={data}"]
        )  # fmt: skip
    assert message in str(stop.value) + capsys.readouterr().err
