"""From what the user typed to a config file: a path, or the bare name of a packaged config."""

import difflib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigNotFoundError
from ..utils.old_names import RenamedWarning

PACKAGE = Path(__file__).resolve().parents[1]

# The BCCD schedule of 36 epochs, as options of the one of 12.
OPTIONS_36E = {
    "train_cfg.max_epochs": 36,
    "train_cfg.val_interval": 12,
    "param_scheduler.1.end": 36,
    "param_scheduler.1.milestones": [24, 33],
}
_COCO = ("r50", "r101", "x101-64x4d")
# Old name -> name of today.
RENAMED_CONFIGS = {
    "plain_retinanet_r18_fpn_12e_bccd": "retinanet_r18_fpn_12e_bccd",
    "plain_retinanet_r50_fpn_12e_voc0712": "retinanet_r50_fpn_12e_voc0712",
    **{f"plain_retinanet_{net}_fpn_1x_coco": f"retinanet_{net}_fpn_12e_coco" for net in _COCO},
    **{
        f"{method}_retinanet_{net}_fpn_1x_coco": f"{method}_retinanet_{net}_fpn_12e_coco"
        for method in ("iac", "iac-dc", "iac-dc-clnms")
        for net in _COCO
    },
}
# Old names that now need options, too: name -> (name of today, options).
REPLACED_CONFIGS = {
    "plain_retinanet_r18_fpn_36e_bccd": ("retinanet_r18_fpn_12e_bccd", OPTIONS_36E),
    **{
        f"{method}_r18_fpn_36e_bccd": (f"{method}_r18_fpn_12e_bccd", OPTIONS_36E)
        for method in (
            "atss",
            "dc_retinanet",
            "fcos",
            "gfl",
            "iac-dc_retinanet",
            "iac_retinanet",
            "jla_fcos",
            "jla_triplehead",
            "rfa_fcos",
            "spatial-align_fcos",
            "spatial-align_rfahead",
        )
    },
}


class FoundConfig(NamedTuple):
    """A config as the user named it.

    Attributes:
        path: a file that exists.
        options: dotted keys and values to merge into it: of an old name, else empty.
        name: what the run is called; an old name stays, so that ``--resume`` finds its work dir.
    """

    path: str
    options: Mapping[str, Any]
    name: str


def packaged_configs() -> dict[str, Path]:
    """The configs that come with the package, those of `_base_` left out.

    Returns:
        Name without ".py" to file; from the clone, or from the installed wheel.
    """
    clone = PACKAGE.parent / "configs"
    folder = clone if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE / ".mim/configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def find_config(config: str, known: Mapping[str, Path] | None = None) -> FoundConfig:
    """The file of a config, and the options that an old name stands for.

    Args:
        config: a path, or the name of a packaged config with or without folder and ".py". A config
            that was renamed or replaced is also found by its old name, with a warning.
        known: names and files; by default `packaged_configs()`.

    Raises:
        ConfigNotFoundError: neither a file nor a known name.

    Example:
        >>> find_config('configs/fcos.py', known={'fcos': Path('/x/fcos.py')}).path
        '/x/fcos.py'
    """
    for path in (config, f"{config}.py"):
        if Path(path).is_file():
            return FoundConfig(path, {}, Path(path).stem)
    known = packaged_configs() if known is None else known
    name = Path(config).name.removesuffix(".py")
    if name in known:
        return FoundConfig(str(known[name]), {}, name)
    new, options = REPLACED_CONFIGS.get(name) or (RENAMED_CONFIGS.get(name, ""), {})
    if new in known:
        _warn(name, new, options)
        return FoundConfig(str(known[new]), options, name)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    listing = "\n".join(f"    {match}" for match in near or known)
    kind = "Near matches" if near else "The configs of this package"
    raise ConfigNotFoundError(
        f"there is no config {config!r}: no such file, and no config of this package has that "
        f"name. {kind}:\n{listing or '    (none)'}"
    )


def resolve_config(config: str, known: Mapping[str, Path] | None = None) -> str:
    """The file of a config, for those who need its model or data alone: see :func:`find_config`."""
    return find_config(config, known).path


def _warn(old: str, new: str, options: Mapping[str, Any]) -> None:
    text = f"the config {old} is now called {new}"
    if options:
        words = " ".join(f"{key}={_as_option(value)}" for key, value in options.items())
        text = f"the config {old} is now {new} with --cfg-options {words}"
    warnings.warn(f"{text}.", RenamedWarning, stacklevel=3)


def _as_option(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
