"""EfficientNetLite0: sizes of its outputs, its weights, what is frozen."""

import logging
import math

import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from torch.nn import functional as F

from misalign_det.engine.package_weights import load_from_package
from misalign_det.models.backbones import EfficientNetLite0

NAME = "package://efficientnet-lite0"
CHANNELS = (32, 16, 24, 40, 112, 320, 1280)
STRIDES = (2, 2, 4, 8, 16, 32, 32)
# Kernel, stride and output channels of each block, and the last block of each stage: table 1 of
# the paper, without squeeze-and-excitation.
BLOCKS = [
    (kernel, stride if i == 0 else 1, channels)
    for repeats, kernel, stride, channels in (
        (1, 3, 1, 16),
        (2, 3, 2, 24),
        (2, 5, 2, 40),
        (3, 3, 2, 80),
        (3, 5, 1, 112),
        (4, 5, 2, 192),
        (1, 3, 1, 320),
    )
    for i in range(repeats)
]
LAST_BLOCKS = (0, 2, 4, 10, 15)  # before each stride, and the last one


def reference(weights, x):
    """Outputs of the stem, each stage and the head, and logits, computed in TensorFlow's layout."""

    def conv(x, name, stride=1, groups=1):
        weight = weights[f"{name}.weight"]
        pad = []
        for size, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1]):  # width, then height
            surplus = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pad += [surplus // 2, surplus - surplus // 2]
        return F.conv2d(F.pad(x, pad), weight, stride=stride, groups=groups)

    def norm(x, name):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(
            x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-3
        )

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    outputs = [x]
    for i, (_, stride, channels) in enumerate(BLOCKS):
        block, before = f"_blocks.{i}.", x
        if i:
            x = F.relu6(norm(conv(x, block + "_expand_conv"), block + "_bn0"))
        x = conv(x, block + "_depthwise_conv", stride, groups=x.shape[1])
        x = F.relu6(norm(x, block + "_bn1"))
        x = norm(conv(x, block + "_project_conv"), block + "_bn2")
        x = x + before if stride == 1 and before.shape[1] == channels else x
        outputs += [x] if i in LAST_BLOCKS else []
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1"))
    logits = F.linear(x.mean(dim=(2, 3)), weights["_fc.weight"], weights["_fc.bias"])
    return [*outputs, x], logits


@pytest.fixture(scope="module")
def weights():
    return load_from_package(NAME)


def in_eval_mode(**kwargs):
    model = EfficientNetLite0(**kwargs)
    model.eval()  # returns nothing: mmdet's train() does not
    return model


def loaded(weights, **kwargs):
    model = in_eval_mode(**kwargs)
    model.load_state_dict(dict(weights))
    return model


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 47), (1, 1)])
def test_sizes_are_those_of_the_strides_rounded_up(size):
    model = in_eval_mode(out_indices=range(7))
    outputs = model(torch.zeros(2, 3, *size))
    assert [tuple(out.shape) for out in outputs] == [
        (2, channels, *(math.ceil(side / stride) for side in size))
        for channels, stride in zip(CHANNELS, STRIDES)
    ]


def test_the_default_outputs_have_strides_8_16_32():
    outputs = EfficientNetLite0()(torch.zeros(1, 3, 64, 64))
    assert [tuple(out.shape[1:]) for out in outputs] == [(40, 8, 8), (112, 4, 4), (320, 2, 2)]


@pytest.mark.parametrize("size", [(64, 96), (75, 49)])
def test_features_and_logits_are_those_of_the_original(weights, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected, logits = reference(weights, x)
    with torch.no_grad():
        outputs = loaded(weights, out_indices=range(7))(x)
    assert len(outputs) == len(expected) == 7
    for out, original in zip(outputs, expected):
        torch.testing.assert_close(out, original, rtol=1e-4, atol=1e-4)
    found = F.linear(outputs[-1].mean(dim=(2, 3)), weights["_fc.weight"], weights["_fc.bias"])
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.5  # a network that tells images apart


@pytest.mark.parametrize("out_indices", [(3, 4, 5), (2, 5), (6,), (0, 3)])
def test_weights_load_completely(weights, out_indices):
    model = EfficientNetLite0(out_indices=out_indices)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = model.load_state_dict(dict(weights))  # strict: refuses missing and unexpected keys
    assert not result.missing_keys and not result.unexpected_keys
    unchanged = [
        name
        for name, value in model.state_dict().items()
        if torch.equal(before[name], value) and not name.endswith("num_batches_tracked")
    ]
    assert unchanged == []


def test_a_missing_tensor_is_missed(weights):
    incomplete = {k: v for k, v in weights.items() if k != "_blocks.7._project_conv.weight"}
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.4\.2\.linear_conv\.conv\.weight"):
        EfficientNetLite0().load_state_dict(incomplete)
    with pytest.raises(RuntimeError, match="Unexpected key.*layers.1.0.conv9.weight"):
        EfficientNetLite0().load_state_dict({**weights, "layers.1.0.conv9.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    "key", ["_blocks.0._se_reduce.weight", "_blocks.16._expand_conv.weight", "_other.weight"]
)
def test_a_tensor_of_another_network_is_unexpected(weights, key):
    """Of EfficientNet-B0 or B1, for instance."""
    state_dict = {**weights, key: torch.zeros(1)}
    result = EfficientNetLite0().load_state_dict(state_dict, strict=False)
    assert result.unexpected_keys == [key] and not result.missing_keys


def test_its_own_checkpoints_load(weights, tmp_path):
    first = loaded(weights)
    torch.save({"state_dict": first.state_dict()}, tmp_path / "own.pth")
    second = in_eval_mode()
    load_checkpoint(second, str(tmp_path / "own.pth"), strict=True)
    x = torch.randn(1, 3, 40, 40)
    for one, other in zip(first(x), second(x)):
        assert torch.equal(one, other)


def detector(**backbone):
    cfg = Config.fromfile(CONFIGS / "fcos_effnet-lite0_fpn_12e_bccd.py").model
    cfg.backbone.update(backbone)
    return MODELS.build(cfg)


def test_a_detector_is_initialized_with_them_and_loads_its_own(weights, tmp_path):
    model = detector()
    model.init_weights()
    found = model.backbone.state_dict()
    for name, value in loaded(weights).state_dict().items():
        assert torch.equal(found[name], value), name
    torch.save({"state_dict": model.state_dict()}, tmp_path / "detector.pth")
    other = detector(init_cfg=None)
    load_checkpoint(other, str(tmp_path / "detector.pth"), strict=True)
    for name, value in other.backbone.state_dict().items():
        assert torch.equal(found[name], value), name
    # The original's names with a prefix, as in a checkpoint of a detector around it.
    prefixed = {f"backbone.{name}": value for name, value in weights.items()}
    result = detector(init_cfg=None).load_state_dict(prefixed, strict=False)
    assert not result.unexpected_keys
    assert not [name for name in result.missing_keys if name.startswith("backbone.")]


@pytest.fixture
def logger():
    """The current logger, without a file: an earlier test's runner may have left one that has."""
    name = "test_efficientnet_lite"
    yield MMLogger.get_instance(name)
    MMLogger._instance_dict.pop(name)


def test_initialization_is_logged_without_complaints(capsys, logger):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    detector().init_weights()
    said = "\n".join([*said, *capsys.readouterr()])
    assert f"Loads checkpoint by package backend from path: {NAME}" in said
    assert f"load model from: {NAME}" in said
    tensor = "backbone.layers.5.0.linear_conv.bn.weight - torch.Size([192]): \n"
    assert f"{tensor}PretrainedInit: load from {NAME}" in said
    assert not any(word in said for word in ("unexpected key", "missing key", "size mismatch"))


def test_what_a_training_step_changes(weights):
    """frozen_stages=3: nothing before stride 8, and no batch norm."""
    model = loaded(weights, frozen_stages=3)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    sum(out.square().mean() for out in model(torch.randn(2, 3, 64, 64))).backward()
    without_gradient = {n for n, p in model.named_parameters() if p.grad is None}
    optimizer.step()
    changed = {n for n, v in model.state_dict().items() if not torch.equal(before[n], v)}
    convolutions = {
        name
        for name, _ in model.named_parameters()
        if name.endswith(".conv.weight") and int(name.split(".")[1]) >= 3
    }
    assert changed == convolutions and len(convolutions) == 39
    assert without_gradient == {n for n, _ in model.named_parameters()} - convolutions


@pytest.mark.parametrize("stages", range(7))
@pytest.mark.parametrize("norms", [False, True])
def test_what_is_frozen_is_frozen_when_it_is_built(stages, norms):
    """Processes that train together agree before train() on what they train."""
    norm_cfg = dict(type="BN", eps=1e-3, requires_grad=norms)
    model = EfficientNetLite0(frozen_stages=stages, norm_cfg=norm_cfg)
    built = {name: p.requires_grad for name, p in model.named_parameters()}
    model.train()
    assert built == {name: p.requires_grad for name, p in model.named_parameters()}
    free = EfficientNetLite0(norm_cfg=norm_cfg).named_parameters()
    frozen = [name for name, p in free if p.requires_grad and not built[name]]
    assert model.frozen_when_built == frozen and bool(frozen) == bool(stages)


def test_more_frozen_stages_than_there_are():
    assert EfficientNetLite0(frozen_stages=7, out_indices=[6]).frozen_stages == 7
    with pytest.raises(
        ValueError, match=r"frozen_stages=5, but there are only 4 .*=\(2, 3\); give"
    ):
        EfficientNetLite0(frozen_stages=5, out_indices=[2, 3])


def test_channels_last_gives_the_same(weights):
    model = loaded(weights)
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    for one, other in zip(expected, model(x.to(memory_format=torch.channels_last))):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_an_export_gives_the_same(weights):
    model, x = loaded(weights), torch.randn(1, 3, 64, 96)
    exported = torch.export.export(model, (x,)).module()
    for one, other in zip(model(x), exported(x)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
