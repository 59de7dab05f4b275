"""Refuse options that change nothing: find out whether anything reads a key of a config."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import mmdet.registry
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from ..errors import InputError
from ..models.dense_heads import BoxVotingHead
from ..models.post_processing.box_voting import OPTIONS as VOTING_OPTIONS
from ..utils import argument_names, find_type, is_type, leaf_datasets, walk
from .option_hints import (
    has_key,
    keys_in_source,
    new_name,
    same_key_elsewhere,
    text_for_number,
    wrong_value,
)

_NEAR = 0.6  # difflib's ratio from which a name is suggested for an unknown one
_SLIP = 0.8  # the ratio from which a new key is probably a typing error where any key is allowed

# Top-level keys read by mmengine's runners (besides their arguments), by mmdet's tools, and by
# those of this package.
_TOP = (
    "activation_checkpointing compile custom_imports efficient_conv_bn_eval find_unused_parameters "
    "init_weights_for_test_or_val model_wrapper_cfg runner_type strategy sync_bn "
    "tta_model tta_pipeline preflight"
).split()
# Keys that a builder removes from a config before the rest becomes arguments: mmengine's
# registries, optimizer builder and weight initialisation; mmcv's layers and `batched_nms`; mmdet's
# heads. Also older names of arguments.
_BUILDERS = frozenset(
    "type _scope_ _delete_ priority constructor paramwise_cfg convert_to_iter_based by_epoch "
    "requires_grad fallback_on_stride deformable_groups scale_factor upsample_kernel bg_cls_weight "
    "override layer class_agnostic split_thr max_num iou_thr".split()
)
# Arguments that the caller passes; they do not come from a config.
_GIVEN = frozenset("boxes scores dets params runner dataloader".split())
_LOADER = (
    "dataset sampler batch_sampler worker_init_fn collate_fn num_batch_per_epoch "
    "disable_subprocess_warning"
).split()
_SPLITS = ("train", "val", "test")
# What mmengine builds from a part of a config without `type`.
_DEFAULT_TYPES = {
    "train_cfg": (EpochBasedTrainLoop, IterBasedTrainLoop),
    "val_cfg": (ValLoop,),
    "test_cfg": (TestLoop,),
    "optim_wrapper": (OptimWrapper,),
    "log_processor": (LogProcessor,),
    "randomness": (Runner.set_randomness,),
    "env_cfg.mp_cfg": (set_multi_processing,),
    **{f"{split}_dataloader": (DataLoader,) for split in _SPLITS},
}
# Parts without `type` whose keys are all known, and further keys of the parts above.
_FIXED = {
    "preflight": ("enabled", "extra_categories"),
    "model.test_cfg.box_voting": VOTING_OPTIONS,
    "auto_scale_lr": ("enable", "base_batch_size"),
    "custom_imports": ("imports", "allow_failed_imports"),
    "optim_wrapper": ("loss_scale", "dtype", "use_fsdp"),  # for --amp, which sets the type later
    "env_cfg": ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"),
    "env_cfg.dist_cfg": "backend init_backend port timeout init_method group_name".split(),
    "compile": "fullgraph dynamic backend mode options disable".split(),
    "optim_wrapper.clip_grad": (
        "type max_norm norm_type clip_value error_if_nonfinite foreach".split()
    ),
    **{f"{split}_dataloader": _LOADER for split in _SPLITS},
}
_KNOWN = ("mmdet", "mmengine", "misalign_det")  # whose classes are read for their keys
# Parts without `type` that are not checked: what is in them goes by names that the user chooses, or
# to another library.
_FREE = ("custom_keys", "metainfo", "init_kwargs", "backend_args", "path_mapping")


@functools.cache
def top_level_keys() -> frozenset[str]:
    """The keys of a config that mmengine's runner, mmdet's tools or this package's read."""
    return frozenset({*inspect.signature(Runner.__init__).parameters, *_TOP} - {"self", "cfg"})


def check_options(before: Config, after: Config, options: Mapping) -> list[str]:
    """Check that something reads each option.

    Args:
        before: the config without the options.
        after: the config with them; its ``type`` entries decide which keys exist.
        options: dotted keys and values.

    Returns:
        Notes on options that probably change nothing.

    Raises:
        InputError: options that certainly change nothing; one line each, with the nearest key.
    """
    notes: list[str] = []
    faults: list[str] = []
    for path, value in _flat(options):
        try:
            note = _check(before, after, path)
            notes += [note] if note else []
        except InputError as error:
            faults.append(str(error))
            continue
        wrong = wrong_value(path, value)
        if not wrong and has_key(before, path.split(".")):
            wrong = text_for_number(path, value, _at(before, path.split(".")))
        faults += [wrong] if wrong else []
    if faults:
        raise InputError("\n".join(faults))
    return notes


def check_paths(cfg: Config, options: Mapping) -> None:
    """Check that mmengine can set each option.

    Args:
        cfg: the config without the options.
        options: dotted keys and values.

    Raises:
        InputError: an option is inside a value that is not a dict, or past the end of a list.
    """
    for path, _ in _flat(options):
        place, parts = cfg, path.split(".")
        for i, part in enumerate(parts):
            head = ".".join(parts[:i])
            if isinstance(place, (list, tuple)):
                if not part.isdigit() or int(part) >= len(place):
                    raise InputError(
                        f"--cfg-options {path}: {head} is a list of {len(place)}; "
                        f"{part!r} is not an index of it (from 0)."
                    )
                if i == len(parts) - 1 or isinstance(place, tuple):
                    raise InputError(
                        f"--cfg-options {path}: an entry of the list {head} cannot be "
                        f"replaced alone; give the whole list: '{head}=[...]'."
                    )
                place = place[int(part)]
            elif isinstance(place, (Mapping, Config)):
                if part not in place:
                    break
                place = place[part]
            elif place is None:  # mmengine does not replace it by a dict
                raise InputError(
                    f"--cfg-options {path}: {head} is None; set it as a whole in a config file."
                )
            else:
                raise InputError(f"--cfg-options {path}: {head} is {place!r} and has no keys.")


def _flat(options: Mapping, head: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; dicts are flattened unless they replace the old value."""
    for key, value in options.items():
        if isinstance(value, Mapping) and value and "_delete_" not in value:
            yield from _flat(value, f"{head}{key}.")
        else:
            yield f"{head}{key}", value


def _check(before: Config, after: Config, path: str) -> str | None:
    """A note on one option, or None; raises InputError."""
    parts = path.split(".")
    if parts[0] not in top_level_keys():
        return _check_variable(before, parts)
    place = before
    for i, part in enumerate(parts):
        if isinstance(place, (list, tuple)):
            place = place[int(part)]
        elif part in place:
            place = place[part]
        elif i:
            return _check_new(before, after, place, parts, i)
        elif len(parts) > 1:  # read, but not in the config so far
            return _check_new(before, after, {}, parts, 1)
        else:
            return None
    return None


def _check_variable(before: Config, parts: list[str]) -> str | None:
    """Check an option for a top-level key that nothing reads after the file has been parsed."""
    path, name = ".".join(parts), parts[0]
    rest = "".join(f".{part}" for part in parts[1:])
    read = top_level_keys()
    keys = [(p, p.rsplit(".", 1)[-1], v) for p, v in walk(before) if p.split(".")[0] in read]
    if name in before:
        value = before[name]
        many = isinstance(value, (Mapping, list, tuple)) and len(value) > 0
        inner = [p for p, last, v in keys if v == value and (many or last == name)]
        if not inner:
            return (
                f"--cfg-options {path}: {name} is a variable of the config file, which no part of "
                "mmdet or this package reads. It has an effect only if your own code reads it."
            )
        what = f"{name} is a variable that is used only while the config file is parsed"
    elif new_name(path):
        raise InputError(
            f"--cfg-options {path}: {name} is a key of mmdet 2. In mmdet 3 it is {new_name(path)}."
        )
    else:
        inner = _near(name, read) or [p for p, last, _ in keys if last == name]
        inner = inner or [p for p, last, _ in keys if _near(name, [last])]
        what = f"nothing reads a key {name!r}"
    advice = _advice([f"{p}{rest}" for p in inner])
    advice = advice or " If your own code reads it, put it into the config file."
    raise InputError(f"--cfg-options {path}: {what}.{advice}")


def _check_new(
    before: Config, after: Config, place: Mapping, parts: list[str], i: int
) -> str | None:
    """Check an option for a key that the config does not have, inside `place`, which it has."""
    head, name, rest = ".".join(parts[:i]), parts[i], "".join(f".{p}" for p in parts[i + 1 :])
    path, merged = ".".join(parts), _at(after, parts[:i])
    if head == "default_hooks":
        added = merged[name]
        if added is None or (isinstance(added, Mapping) and "type" in added):
            return None
        names, closed, owner = set[str](), True, head
    else:
        names, closed, owner = _readers(after, head)
    if name in names or name in ("type", "_scope_", "_delete_"):
        inside = rest and isinstance(merged.get(name), Mapping)
        return _check_new(before, after, {}, parts, i + 1) if inside else None
    offered = names - _BUILDERS - _GIVEN
    near = _near(name, {*offered, *place} - {"type"}, _NEAR if closed else _SLIP)
    if rest:  # the keys below must exist as well
        near = [n for n in near if has_key(place.get(n), parts[i + 1 :])]
    inner = [key for key, _ in leaf_datasets(place, head) if key != head]
    inner += [f"{head}.{key}" for key, part in place.items() if has_key(part, [name])]
    found = [f"{head}.{n}{rest}" for n in near] or [f"{key}.{name}{rest}" for key in inner]
    advice = _advice(found or same_key_elsewhere(before, parts))
    if closed:
        shown = ", ".join(sorted(offered))
        known = f" It takes {shown}." if shown else ""
        if name == "box_voting":
            known = " BoxVotingHead reads it: bbox_head=dict(type='BoxVotingHead', head_type=...)."
        raise InputError(
            f"--cfg-options {path}: nothing reads it; {owner} has no {name!r}.{advice or known}"
        )
    if advice or head.rsplit(".", 1)[-1] not in _FREE:
        advice = advice or " Any key can be given there, and may have no effect."
        return f"--cfg-options {path}: a new key; the config does not have it.{advice}"
    return None


def _readers(cfg: Config, head: str) -> tuple[set[str], bool, str]:
    """Keys that a part of a config may have, whether they are all, and what reads them."""
    part = _at(cfg, head.split("."))
    found = _types(part.get("type"), head) or list(_DEFAULT_TYPES.get(head, ()))
    names: set[str] = {*_FIXED.get(head, ())}
    if BoxVotingHead in found:  # it passes everything else on
        found, names = _types(part.get("head_type"), head), {"head_type"}
    closed = bool(found or names)
    for kind in found:
        taken, complete = argument_names(kind)
        names.update(taken)
        closed &= complete
    owner = f"{head} ({found[0].__name__})" if part.get("type") and found else head
    if not closed and not found:
        asked, reader = _asked(cfg, head)
        names, closed, owner = asked, bool(asked), f"{head} (of {reader})" if reader else head
    return (names | (_BUILDERS if found else set())) - {"self"}, closed, owner


def _asked(cfg: Config, head: str) -> tuple[set[str], str]:
    """Keys that classes read from a part without ``type``, and the name of the first of them.

    None where it is not known whether they are all: of a two-stage detector's ``rcnn``, or of
    classes of other packages.
    """
    above, _, last = head.rpartition(".")
    owner = _at(cfg, above.split(".")) if above else {}
    name, kinds = last, list[Callable]()
    if last == "filter_cfg":
        kinds = _types(owner.get("type"), above)
    elif last == "paramwise_cfg":
        kinds = _types(owner.get("constructor", "DefaultOptimWrapperConstructor"), above)
    elif last == "test_cfg" or head.endswith("test_cfg.rpn"):
        name = "(?:test_)?cfg"
        model = owner if last == "test_cfg" else _at(cfg, above.split(".")[:-1])
        parts = ("bbox_head", "mask_head") if last == "test_cfg" else ("rpn_head",)
        dense, *others = (model.get(part) or {} for part in parts)
        if is_type(dense.get("head_type", dense.get("type")), BaseDenseHead, mmdet.registry.MODELS):
            given = [dense.get("head_type"), *(p.get("type") for p in (dense, model, *others))]
            kinds = [kind for each in given for kind in _types(each, above)]
    if not all(kind.__module__.split(".")[0] in _KNOWN for kind in kinds):
        return set(), ""
    names = {key for kind in kinds for key in keys_in_source(kind, name)}
    return names, kinds[0].__name__ if names else ""


def _types(kind: Any, head: str) -> list[Callable]:
    """What a ``type`` may refer to in any registry; few names are in more than one."""
    if kind is None:
        return []
    found = []
    if isinstance(kind, str) and head.rsplit(".", 1)[-1] == "nms":  # mmcv's `batched_nms`
        found = [getattr(importlib.import_module("mmcv.ops.nms"), kind, None)]
    for registry in vars(mmdet.registry).values() if not any(found) else ():
        if isinstance(registry, Registry):
            found.append(find_type(kind, registry))
    return list({id(f): f for f in found if callable(f)}.values())


def _at(cfg: Config, parts: list[str]) -> Any:
    for part in parts:
        cfg = cfg[int(part)] if isinstance(cfg, (list, tuple)) else cfg[part]
    return cfg


def _near(name: str, known: Iterable[str], cutoff: float = _SLIP) -> list[str]:
    return difflib.get_close_matches(name, sorted({str(k) for k in known}), n=2, cutoff=cutoff)


def _advice(paths: list[str]) -> str:
    return f" Did you mean {' or '.join(dict.fromkeys(paths[:3]))}?" if paths else ""
