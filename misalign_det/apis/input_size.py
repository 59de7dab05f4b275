"""The size to which a config's pipelines resize images, and the options that change it."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.transforms import Resize
from mmengine.config import Config

from ..datasets.transforms import transform_class
from ..utils import leaf_datasets


def describe_input_size(cfg: Config, splits: Sequence[str]) -> str | None:
    """Say to which size images are resized, where the config says so in ``Resize`` steps.

    Args:
        cfg: a detection config.
        splits: those of ``'train'``, ``'val'`` and ``'test'`` that matter.

    Returns:
        One line with the options for another size; None where no pipeline has such a step. Steps
        that choose a size at random have other keys, and are not named.

    Example:
        >>> step = dict(type='Resize', scale=(320, 240), keep_ratio=True)
        >>> dataset = dict(type='CocoDataset', pipeline=[step])
        >>> cfg = Config(dict(val_dataloader=dict(dataset=dataset)))
        >>> describe_input_size(cfg, ['val'])[:63]
        'Images are resized to fit 320x240 (portrait: 240x320). Another '
    """
    sizes: dict[str, list[str]] = {}
    options: list[str] = []
    for split in splits:
        dataset = (cfg.get(f"{split}_dataloader") or {}).get("dataset")
        for key, leaf in leaf_datasets(dataset or {}, f"{split}_dataloader.dataset"):
            for i, step in enumerate(leaf.get("pipeline") or ()):
                size = _size(step)
                if size:
                    splits_of_size = sizes.setdefault(size, [])
                    splits_of_size += [split] if split not in splits_of_size else []
                    options.append(f"'{key}.pipeline.{i}.scale=(WIDTH,HEIGHT)'")
    if not sizes:
        return None
    if len(sizes) == 1:
        said = f"Images are resized to {next(iter(sizes))}."
    else:
        each = [f"to {size} in {' and '.join(names)}" for size, names in sizes.items()]
        said = f"Images are resized {', '.join(each)}."
    return f"{said} Another size: --cfg-options {' '.join(options)}"


def _size(step: Any) -> str | None:
    """The size that a step of a pipeline resizes to; None if it resizes to no fixed one."""
    if not isinstance(step, Mapping) or not step.get("scale"):
        return None
    kind = transform_class(step)
    if not (isinstance(kind, type) and issubclass(kind, Resize)):
        return None
    scale = step["scale"]
    width, height = (scale, scale) if isinstance(scale, int) else scale
    if not step.get("keep_ratio"):
        return f"{width}x{height}"
    # mmcv fits the long side of an image to the larger number, whichever side it is.
    long, short = max(width, height), min(width, height)
    return f"fit {long}x{short}" + (f" (portrait: {short}x{long})" if long > short else "")
