"""Registries of the scope ``misalign_det``, in the module in which mmengine searches for them.

All other classes of this package are registered with mmdet, where configs find them without a
scope.
"""

from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmengine.registry import Registry

# For names that mmdet already uses: see :class:`~misalign_det.datasets.transforms.LoadImageOrSkip`.
TRANSFORMS = Registry("transform", parent=MMDET_TRANSFORMS, scope="misalign_det")
