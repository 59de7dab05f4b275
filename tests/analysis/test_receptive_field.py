"""Receptive fields of networks whose fields are known by counting."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

from misalign_det.analysis.receptive_field import (
    BRANCHES,
    CUT,
    ReceptiveField,
    draw_receptive_fields,
    effective_field,
    feature_fields,
    head_kernels,
    receptive_fields,
)
from misalign_det.errors import InputError


class Levels(nn.Module):
    """A backbone of two levels: strides 8 and 128, one convolution each."""

    def __init__(self, channels):
        super().__init__()
        fine, coarse = nn.Conv2d(channels, 8, 16, 8, 4), nn.Conv2d(channels, 8, 128, 128, 64)
        self.convs = nn.ModuleList([fine, coarse])

    def forward(self, x):
        return [conv(x) for conv in self.convs]


def detector(channels, stacked=1):
    torch.manual_seed(0)
    head = MODELS.build(ConfigDict(
        type="FCOSHead", num_classes=2, in_channels=8, feat_channels=8, stacked_convs=stacked,
        strides=[8, 128], regress_ranges=((-1, 64), (64, 1e8)), norm_cfg=None))  # fmt: skip
    model = nn.Module()
    model.backbone, model.neck, model.bbox_head = Levels(channels), nn.Identity(), head
    model.extract_feat = model.backbone
    return model.eval()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels(channels):
    model = detector(channels)
    image = torch.rand(1, channels, 128, 160, generator=torch.Generator().manual_seed(0))
    # The second column of stride 128 is centred at 192, beyond the image.
    fields = receptive_fields(model, [(image, [(20.0, 20.0), (150.0, 100.0)])], radius=96)
    expected = [(branch, stride) for stride in (8, 128) for branch in BRANCHES]
    assert [(f.branch, f.stride) for f in fields] == expected
    assert [f.feature for f in fields[::2]] == [16, 128]
    # A tower of one convolution and the output: five cells of the level.
    assert [f.theoretical for f in fields[::2]] == [16 + 4 * 8, 128 + 4 * 128]
    for field in fields:
        assert field.gradient.shape == (192, 192) and field.gradient.max() == 1
        assert field.effective == pytest.approx(np.sqrt((field.gradient > CUT).sum()))
    assert 0 < fields[0].effective <= 48
    assert pytest.approx(0.0455) == CUT  # two standard deviations of a Gaussian hold the rest


def test_counted_fields():
    assert feature_fields(detector(5), channels=5) == [16, 128]
    assert feature_fields(detector(3)) == [16, 128]
    assert feature_fields(detector(3), width=200) == [16, 128]
    assert head_kernels(detector(3, stacked=3).bbox_head, 8) == dict(
        classification=9, regression=9)  # fmt: skip


def test_a_window_lies_around_its_location():
    model = detector(1)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    window = effective_field(model, nn.functional.pad(image, (0, 64, 0, 64)), [(8.0, 8.0)], 40)[
        "classification", 0]  # fmt: skip
    # Column 1 of stride 8 is centred at 12; it reads 24 pixels to either side, 12 of them inside.
    rows, columns = np.nonzero(window)
    assert rows.min() == columns.min() == 40 - 12
    assert 40 + 16 <= columns.max() < 40 + 24


@pytest.mark.parametrize(("theoretical", "marks"), [(20, 2), (64, 1), (900, 1)])
def test_the_legend_names_what_is_drawn(theoretical, marks):
    shared = dict(stride=8, feature=8, theoretical=theoretical, effective=9.0)
    fields = [ReceptiveField(branch=b, gradient=np.eye(64), **shared) for b in BRANCHES]
    (legend,) = draw_receptive_fields(fields).legends
    assert len(legend.get_texts()) == marks


def test_no_image():
    with pytest.raises(InputError, match="no image"):
        receptive_fields(detector(3), [])


def test_a_bound_of_activations_hides_no_part_of_the_field():
    """ReLU6 has no gradient where it is at its bound, as sums of many residuals are."""
    model = detector(3)
    expected = feature_fields(model, width=512)

    class Bounded(Levels):
        def __init__(self):
            super().__init__(3)
            self.act = nn.ReLU6()

        def forward(self, x):
            return [self.act(100 * conv(x)) for conv in self.convs]

    model.backbone = Bounded()
    assert feature_fields(model, width=512) == expected == [16, 128]
