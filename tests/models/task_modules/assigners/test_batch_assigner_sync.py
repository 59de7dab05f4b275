"""Host-device synchronisations of label assignment: one, which reads the number of pairs."""

from functools import partial

import pytest
import torch
from helpers.assignment_scenes import Scene
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth


def prepare(device, config, num_gts, per_image=False):
    """A call of ``assign_batch``, or of ``assign``, on a random image that is on the device."""
    scene = Scene(0, num_gts, 3)
    objects = InstanceData(bboxes=scene.gts, labels=scene.labels).to(device)
    points, strides, logits, bboxes = (
        part.to(device) for part in (scene.points, scene.strides, scene.logits, scene.bboxes)
    )
    assigner = TASK_UTILS.build(config)
    if not per_image:
        gts = BatchGroundTruth.from_instances([objects])
        args = points, strides, logits[None], bboxes[None], gts
        return partial(assigner.assign_batch, *args)
    priors = torch.cat([points, strides[:, None].expand(-1, 2)], dim=1)
    predicted = InstanceData(priors=priors, scores=logits, bboxes=bboxes)
    return partial(assigner.assign, predicted, objects)


def synchronisations(simulated_cuda, assign):
    """Their reasons, one entry each."""
    with simulated_cuda.count() as counts:
        assign()
    return sorted(reason for (reason, _), number in counts.syncs.items() for _ in range(number))


def assert_equal(found, expected):
    for name in ("losses", "weights"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name))
    torch.testing.assert_close(found.means.cpu(), expected.means, rtol=1e-4, atol=1e-6)
    for name in ("rescued", "ignored", "ambiguous"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name))


@pytest.mark.cuda
@pytest.mark.parametrize("num_gts", [0, 1, 50])
@pytest.mark.parametrize(
    "config",
    [
        dict(type="JLAAssigner"),
        dict(type="JLAAssigner", weighted_until=0, per_gt_reweight=1.0, center_radius=1.5),
        dict(type="JLAAssigner", ambiguous="ignore", separation="density_peak"),
        dict(type="JLAAssigner", separation="crossing", precisions_init="sample"),
        dict(type="SpatialAlignAssigner"),
        dict(type="SpatialAlignAssigner", level_mode="regress_range", fitness="softmax"),
    ],
    ids=str,
)
def test_one_synchronisation_without_triton(config, num_gts, simulated_cuda, without_triton):
    assign = prepare("cuda", config, num_gts)
    assert_equal(assign(), prepare("cpu", config, num_gts)())
    if simulated_cuda is not None:
        expected = ["nonzero"]
        if "level_mode" in config:  # the ranges are copied to the device
            expected = ["new_tensor of host data", "nonzero"]
        assert synchronisations(simulated_cuda, assign) == expected
        # mmdet's form too, where GTs that lose their last location are given another one.
        if "per_gt_reweight" not in config:  # of this package's heads alone
            assign = prepare("cuda", config, num_gts, per_image=True)
            assert synchronisations(simulated_cuda, assign) == expected


@pytest.mark.cuda
@pytest.mark.parametrize("num_gts", [1, 15])
@pytest.mark.parametrize(
    "config",
    [
        dict(type="JLAAssigner"),
        dict(type="JLAAssigner", ambiguous="ignore", separation="density_peak"),
        dict(type="JLAAssigner", weighted_until=0, separation="crossing", precisions_init="sample"),
        dict(type="SpatialAlignAssigner"),
    ],
    ids=str,
)
def test_one_synchronisation_with_triton(config, num_gts, simulated_cuda):
    """Mixture and ambiguity are four kernels and two fills, however many objects there are."""
    assign = prepare("cuda", config, num_gts)
    if simulated_cuda is None:
        found = assign()
    else:
        with simulated_cuda.count() as counts:
            found = assign()
        assert {reason for reason, _ in counts.syncs} == {"nonzero"} and counts.num_syncs == 1
        kernels = counts.launches_by_operator()
        for name in ("split", "location", "weight", "rescue"):
            assert kernels[f"triton.{name}_kernel"] == 1
        lines = counts.launches_by_line()
        assert sum(n for line, n in lines.items() if "/ambiguity" in line) == 2
        assert not any(name in line for line in lines for name in ("mixture.py", "matching.py"))
    assert_equal(found, prepare("cpu", config, num_gts)())
