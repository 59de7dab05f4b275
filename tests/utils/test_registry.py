"""A config's type is the same as a string, as a scoped string and as a class."""

import pytest
from mmdet.registry import MODELS

from misalign_det.models import DCLoss, RFAHead, TripleHead
from misalign_det.models.dense_heads import LossAwareFCOSHead
from misalign_det.utils import find_type, is_type


@pytest.mark.parametrize("kind", ["DCLoss", "mmdet.DCLoss", DCLoss])
def test_finds_the_class(kind):
    assert find_type(kind, MODELS) is DCLoss


@pytest.mark.parametrize("kind", ["RFAHead", "mmdet.RFAHead", RFAHead])
def test_knows_derived_classes(kind):
    assert is_type(kind, LossAwareFCOSHead, MODELS)
    assert not is_type(kind, TripleHead, MODELS)


@pytest.mark.parametrize("kind", ["NoSuchHead", None, len])
def test_anything_else_is_no_such_type(kind):
    assert not is_type(kind, LossAwareFCOSHead, MODELS)
