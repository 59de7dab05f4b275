"""Registries of the scope ``misalign_det``; mmengine looks for them under this name.

Everything else of this package is registered with mmdet, where configs find it without a scope.
"""

from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmengine.registry import Registry

# For names that mmdet has already: see :class:`~misalign_det.datasets.transforms.LoadImageOrSkip`.
TRANSFORMS = Registry("transform", parent=MMDET_TRANSFORMS, scope="misalign_det")
