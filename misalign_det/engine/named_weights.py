"""Pretrained weights that configs name: ``torchvision://resnet50``, ``open-mmlab://``, a file.

mmengine has a list of torchvision's weights with their addresses, and imports torchvision all the
same before it reads the list. A torchvision that is not built as torch is (with CUDA or without)
cannot be imported. Here the list is enough.
"""

import difflib
import importlib
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.fileio import load
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from ..errors import CheckpointError
from .package_weights import weights_file

TORCHVISION = ("torchvision://", "modelzoo://")


def is_local(filename: str) -> bool:
    """Whether a checkpoint's name is a path, not a URL or `torchvision://resnet50`."""
    return "://" not in filename


def check_weights(filename: str) -> None:
    """Refuse weights that there are not; nothing is read or downloaded.

    Args:
        filename: as mmengine takes it: a path, a URL, ``torchvision://resnet50`` ...

    Raises:
        CheckpointError: there is no such file or name, or it needs a package that is missing.
    """
    scheme, _, name = filename.partition("://")
    if is_local(filename):
        if not os.path.isfile(os.path.expanduser(filename)):
            raise CheckpointError(f"there is no checkpoint {filename}")
    elif scheme == "package":
        weights_file(filename)
    elif filename.startswith(TORCHVISION):
        torchvision_url(filename)
    elif scheme in ("open-mmlab", "openmmlab"):
        _check_name(filename, name, {*get_external_models(), *get_deprecated_model_names()})
    elif scheme == "mmcls":
        _check_name(filename, name, get_mmcls_models())


def torchvision_url(filename: str) -> str:
    """The address of weights of torchvision.

    Args:
        filename: ``torchvision://`` or ``modelzoo://`` and a name. Names without a dot, such as
            ``resnet50``, are in mmengine's list; ``resnet50.imagenet1k_v2`` needs torchvision.

    Raises:
        CheckpointError: there is no such name, or it needs a torchvision that can be imported.

    Example:
        >>> torchvision_url('torchvision://resnet50')
        'https://download.pytorch.org/models/resnet50-0676ba61.pth'
    """
    name = filename.split("://", 1)[1]
    listed = _listed()
    if name in listed:
        return listed[name]
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # one that is built for another torch raises RuntimeError
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            reason = "is not installed"
        else:
            reason = f"cannot be imported ({' '.join(str(error).split())})"
        raise CheckpointError(
            f"{filename} is not in mmengine's list of weights.{_near(filename, listed)} Any others "
            f"need torchvision, which {reason}: {torchvision_installation()}."
        ) from error
    urls = get_torchvision_models()
    _check_name(filename, name, urls)
    return urls[name]


def torchvision_installation() -> str:
    """The command that installs the torchvision of the installed torch, 0.28.0 for torch 2.13.0."""
    found = re.match(r"2\.(\d+)\.(\d+)", torch.__version__)
    version = f"==0.{int(found[1]) + 15}.{found[2]}" if found else ""
    command = f"pip install torchvision{version}"
    # pip's own index has the build with CUDA, which a torch without CUDA cannot load
    return command if torch.version.cuda else f"{command}, a build without CUDA like this torch"


@CheckpointLoader.register_scheme(prefixes=TORCHVISION, force=True)
def load_from_torchvision(filename: str, map_location: Any = None) -> dict:
    """Download weights of torchvision; mmengine calls it for ``torchvision://`` names.

    Args:
        filename: see :func:`torchvision_url`.
        map_location: as for ``torch.load``.

    Returns:
        {parameter: tensor}.

    Raises:
        CheckpointError: see :func:`torchvision_url`.

    Example::

        backbone = dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
    """
    return CheckpointLoader.load_checkpoint(torchvision_url(filename), map_location)


@cache
def _listed() -> dict[str, str]:
    return load(str(Path(mmengine.__path__[0], "hub/torchvision_0.12.json")))


def _check_name(filename: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise CheckpointError(f"there are no weights {filename}.{_near(filename, known)}")


def _near(filename: str, known: Iterable[str]) -> str:
    scheme, _, name = filename.partition("://")
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f" Near matches: {', '.join(f'{scheme}://{match}' for match in near)}." if near else ""
