"""The config of a run: bases of this repository and a few lines, as a file that can be read."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid import DATA, Study
from methods import METHODS, Method
from mmengine.config import Config

from misalign_det.errors import InputError

BASES = Path(__file__).resolve().parents[2] / "configs/_base_"
SCHEDULE = BASES / "schedules/adamw_12e.py"
BACKBONES = {
    "effnet-lite0": {},
    # ImageNet weights, which need a network; as in mmdet's ResNets, stem, first stage and all
    # batch norms stay as they are.
    "r18": {
        "model.backbone.init_cfg": dict(
            _delete_=True, type="Pretrained", checkpoint="torchvision://resnet18"
        ),
        "model.backbone.frozen_stages": 1,
        "model.backbone.norm_cfg.requires_grad": False,
        "model.backbone.norm_eval": True,
    },
}
# What the figures of a run depend on.
PARTS = (
    *("model", "train_dataloader", "test_dataloader", "test_evaluator", "optim_wrapper"),
    *("param_scheduler", "train_cfg", "custom_hooks", "randomness"),
)
# Arguments of a head that are read in testing only.
TEST_ARGUMENTS = {"score_mode", "score_alpha"}
# Of PARTS, what changes no figure.
IGNORED = {"num_workers", "persistent_workers", "palette", "val_begin", "val_interval"}


@dataclass(frozen=True)
class Run:
    """A method on a data set with a seed and a length.

    Attributes:
        method, data: names in `grid.METHODS` and `grid.DATA`.
        backbone: one of `BACKBONES`.
    """

    method: str
    data: str
    seed: int
    epochs: int
    backbone: str = "effnet-lite0"

    def __str__(self) -> str:
        return f"{self.data} {self.method} {self.epochs}e seed {self.seed}"

    @property
    def trained_as(self) -> "Run":
        """The run whose checkpoint is tested."""
        parent = METHODS[self.method].trained_as
        return (
            Run(parent, self.data, self.seed, self.epochs, self.backbone).trained_as
            if parent
            else self
        )


def runs_of(study: Study, backbone: str = "effnet-lite0") -> list[Run]:
    """All runs of a study, by seed first, so that every method has a result early."""
    return [
        Run(method, data, seed, max(1, round(DATA[data].epochs * length)), backbone)
        for seed in study.seeds
        for length in study.lengths
        for data in study.data
        for method in study.methods
    ]


def model_base(method: Method, backbone: str) -> Path:
    """The file of a method's model."""
    return BASES / f"models/{method.base}_{backbone}_fpn.py"


def check_bases(names: list[str], backbone: str) -> None:
    """Check that the methods can be trained.

    Raises:
        InputError: model bases are missing; the message names the methods that have theirs.
    """
    missing = {n: model_base(METHODS[n], backbone).name for n in names}
    missing = {n: base for n, base in missing.items() if not (BASES / "models" / base).is_file()}
    if missing:
        there = " ".join(name for name in names if name not in missing) or "(none)"
        raise InputError(
            f"configs/_base_/models lacks {', '.join(sorted(set(missing.values())))}, of the "
            f"methods {', '.join(missing)}. Add it, or run the others: --methods {there}"
        )


def root_variable(data: str) -> str:
    """The environment variable that says in which folder a data set is."""
    text = (BASES / f"datasets/{data}_detection.py").read_text()
    (found,) = set(re.findall(r"\{\{\$(\w+):", text))
    return found


def config_text(run: Run, split: str | None = None) -> str:
    """The text of a run's config.

    Args:
        run: what is trained or tested.
        split: `'val'` or `'test'`, tested by `test_dataloader`; None for training.
    """
    method, data = METHODS[run.method], DATA[run.data]
    model = model_base(method, run.backbone)
    bases = [
        model,
        BASES / f"datasets/{run.data}_detection.py",
        SCHEDULE,
        BASES / "default_runtime.py",
        BASES / "channels_last.py",
    ]
    for base in bases:
        if not base.is_file():
            raise InputError(f"there is no {base.relative_to(BASES.parents[1])} for {run.method}.")
    options = {
        **BACKBONES[run.backbone],
        **method.options,
        **{key: round(run.epochs * share) for key, share in method.epoch_shares.items()},
        "model.bbox_head.num_classes": data.num_classes,
        **_length(run.epochs),
        "randomness.seed": run.seed,
        "default_hooks.checkpoint": dict(interval=max(1, run.epochs // 6), max_keep_ckpts=1),
    }
    lines = [
        f"# {run}{f', {split} split' if split else ''}; written by tools/study/run.py.",
        "_base_ = [",
        *(f"    {str(base)!r}," for base in bases),
        "]",
        "custom_imports = dict(imports=['misalign_det'])",
        *(f"{key} = {_as_call(value)}" for key, value in nested(options).items()),
    ]
    if split is None:
        lines.append("val_cfg = val_dataloader = val_evaluator = None")
        lines.append("test_cfg = test_dataloader = test_evaluator = None")
    elif split == "val":
        lines.append("test_dataloader = {{_base_.val_dataloader}}")
        lines.append("test_evaluator = {{_base_.val_evaluator}}")
    elif data.test_folder:
        file = "annotations/instances_test.json"
        dataset = dict(ann_file=file, data_prefix=dict(img=data.test_folder))
        lines.append(f"test_dataloader = {_as_call(dict(dataset=dataset))}")
        root = Config.fromfile(BASES / f"datasets/{run.data}_detection.py").data_root
        lines.append(f"test_evaluator = dict(ann_file={root + file!r})")
    return "\n".join(lines) + "\n"


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as dicts in dicts; later options go into, or replace, earlier ones.

    Example:
        >>> nested({'a.b': dict(c=1), 'a.b.d': 2})
        {'a': {'b': {'c': 1, 'd': 2}}}
    """
    whole: dict[str, Any] = {}
    for key, value in options.items():
        *parents, last = key.split(".")
        part = whole
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = dict(value) if isinstance(value, dict) else value
    return whole


def _length(epochs: int) -> dict[str, Any]:
    """The options of a schedule of another length; none for the schedule's own."""
    schedule = _schedule()
    usual = schedule.max_epochs
    options: dict[str, Any] = {"max_epochs": epochs, "train_cfg.max_epochs": epochs}
    if epochs != usual:
        options["param_scheduler"] = [
            {k: epochs if k in ("end", "T_max") and s.by_epoch else v for k, v in s.items()}
            for s in schedule.param_scheduler
        ]
    return options


@functools.cache
def _schedule() -> Config:
    return Config.fromfile(SCHEDULE)


def _as_call(value: Any, indent: str = "") -> str:
    """A value as configs are written, `dict(key=value)`, dicts in dicts on lines of their own."""
    if isinstance(value, dict):
        inner = [f"{key}={_as_call(item, indent + '    ')}" for key, item in value.items()]
        if any(isinstance(item, dict) for item in value.values()):
            lines = "".join(f"{indent}    {item},\n" for item in inner)
            return f"dict(\n{lines}{indent})"
        return f"dict({', '.join(inner)})"
    if isinstance(value, list):
        return f"[{', '.join(_as_call(item, indent) for item in value)}]"
    return repr(value)


def config_hash(cfg: Config) -> str:
    """Twelve digits of a hash of what the figures of a config's run depend on, paths left out.

    Args:
        cfg: a run's config, for training or testing; its `data_root` may be anywhere.
    """
    root = cfg.data_root.rstrip("/")

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            kept = {k: plain(v) for k, v in value.items() if k not in IGNORED}
            return {k: v for k, v in sorted(kept.items()) if v is not None}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, str) and f"{value}/".startswith(f"{root}/"):
            return value[len(root) :].strip("/")
        return value

    parts = plain({key: cfg.get(key) for key in PARTS})
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]


def training_hash(cfg: Config) -> str:
    """The hash of what a checkpoint depends on: `config_hash` without testing.

    `BoxVotingHead` trains as the head that it stands for.
    """
    cfg = Config(dict(cfg.to_dict(), test_dataloader=None, test_evaluator=None))
    if "test_cfg" in cfg.model:
        cfg.model.test_cfg = None
    head = cfg.model.bbox_head
    for name in TEST_ARGUMENTS & set(head):
        head.pop(name)
    if head.type == "BoxVotingHead":
        head.type = head.pop("head_type")
    return config_hash(cfg)
