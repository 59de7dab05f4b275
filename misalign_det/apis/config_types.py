"""Refuse types that there are not, before the work: mmengine finds most of them only later.

Of an optimizer, a collate function or the function that seeds workers it does not say so at all.
"""

import re
from collections.abc import Mapping, Sequence

import mmdet.registry as mmdet
from mmengine.config import Config
from mmengine.registry import FUNCTIONS

from ..errors import ConfigError
from ..utils import find_type, walk
from .build_errors import unknown_type

# Keys of parts, as regular expressions, and where mmengine's runner looks their type up; LOADER and
# EVALUATOR stand for those of the modes that run.
_TRAINING = {
    r"train_cfg": mmdet.LOOPS,
    r"optim_wrapper": mmdet.OPTIM_WRAPPERS,
    r"optim_wrapper\.optimizer": mmdet.OPTIMIZERS,
    r"param_scheduler(\.\d+)?": mmdet.PARAM_SCHEDULERS,
    r"(default_hooks\.\w+|custom_hooks\.\d+)": mmdet.HOOKS,
}
_ALWAYS = {
    r"model": mmdet.MODELS,
    r"visualizer": mmdet.VISUALIZERS,
    r"visualizer\.vis_backends\.\d+": mmdet.VISBACKENDS,
    r"log_processor": mmdet.LOG_PROCESSORS,
    r"LOADER\.dataset(\.dataset|\.datasets\.\d+)*": mmdet.DATASETS,
    r"LOADER\.dataset(\.dataset|\.datasets\.\d+)*\.pipeline\.\d+": mmdet.TRANSFORMS,
    r"LOADER\.(batch_)?sampler": mmdet.DATA_SAMPLERS,
    r"LOADER\.(collate_fn|worker_init_fn)": FUNCTIONS,
    r"EVALUATOR(\.\d+|\.metrics\.\d+)?": mmdet.METRICS,
}


def check_types(cfg: Config, modes: Sequence[str] = ("train", "val")) -> None:
    """Check that the types exist of what a runner builds, as far as their registries are known.

    Args:
        cfg: a config; of one with another default scope than mmdet's nothing is checked.
        modes: those of ``'train'``, ``'val'`` and ``'test'`` that are to run.

    Raises:
        ConfigError: one line for each unknown type: its key and near matches.

    Example:
        >>> check_types(Config(dict(model=dict(type='FCOS'))))
    """
    if cfg.get("default_scope", "mmdet") != "mmdet":
        return
    names = "|".join(modes)
    wanted = {**(_TRAINING if "train" in modes else {}), **_ALWAYS}
    wanted = {
        key.replace("LOADER", f"({names})_dataloader").replace("EVALUATOR", f"({names})_evaluator"):
            registry for key, registry in wanted.items()
    }  # fmt: skip
    faults = []
    for key, part in walk(cfg):
        kind = part.get("type") if isinstance(part, Mapping) else None
        # mmengine notes the scope where a config is based on one of another package
        if not isinstance(kind, str) or part.get("_scope_", "mmdet") != "mmdet":
            continue
        registry = next((r for pattern, r in wanted.items() if re.fullmatch(pattern, key)), None)
        if registry is None or find_type(kind, registry) is not None:
            continue
        if registry is mmdet.METRICS and find_type(kind, mmdet.EVALUATOR) is not None:
            continue
        faults.append(unknown_type(key, kind, registry))
    if faults:
        raise ConfigError("\n".join(faults))
