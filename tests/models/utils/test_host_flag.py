"""Assignment does not make the host wait for a GPU, but once: to learn how many edges there are.

On the CPU nothing waits; what would is counted as it is dispatched: `.item()`, `bool(tensor)` and
`.cpu()`, and every operation whose result has a size that its data decide.
"""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from helpers.assignment_scenes import Scene
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from misalign_det.models.task_modules.assigners import ambiguity, gaussian_mixture
from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth
from misalign_det.models.utils import bipartite_matching
from misalign_det.models.utils.host_flag import HostFlag, may_look

WAITS = {
    "_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique_consecutive",
    "unique_dim", "_unique2",
}  # fmt: skip


class CountWaits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for i in (args[1] if isinstance(args[1], (list, tuple)) else ())
        )
        unsized = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in WAITS or by_mask or unsized:
            self.counts[name] += 1
        return func(*args, **kwargs)


def waits_of(config, num_gts, by_image=False):
    scene = Scene(0, num_gts, 3)
    assigner = TASK_UTILS.build(config)
    objects = InstanceData(bboxes=scene.gts, labels=scene.labels)
    gts = BatchGroundTruth.from_instances([objects])
    priors = torch.cat([scene.points, scene.strides[:, None].expand(-1, 2)], dim=1)
    predicted = InstanceData(priors=priors, scores=scene.logits, bboxes=scene.bboxes)
    with CountWaits() as counter:
        if by_image:
            assigner.assign(predicted, objects)
        else:
            assigner.assign_batch(
                scene.points, scene.strides, scene.logits[None], scene.bboxes[None], gts
            )
    return counter.counts


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
def test_one_wait_to_size_the_edges(config, num_gts, monkeypatch):
    for module in (gaussian_mixture, ambiguity, bipartite_matching):  # as on a GPU
        monkeypatch.setattr(module, "may_look", lambda values: False)
    # In inference mode operations made of others are not dispatched in their parts.
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    assert waits_of(config, num_gts) == {"nonzero": 1}
    # mmdet's form too, where GTs that lose their last location are given another one.
    assert waits_of(config, num_gts, by_image=True) == {"nonzero": 1}


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
def test_with_kernels_the_same_edges_by_one_wait(config, num_gts, simulated_cuda):
    """Mixture and ambiguity are four kernels and two fills, however many objects there are."""
    scene, assigner = Scene(0, num_gts, 3), TASK_UTILS.build(config)
    given = [scene.points, scene.strides, scene.logits[None], scene.bboxes[None]]
    edges = []
    for device in ("cpu", "cuda"):
        args = [part.to(device) for part in given]
        objects = InstanceData(bboxes=scene.gts.to(device), labels=scene.labels.to(device))
        gts = BatchGroundTruth.from_instances([objects])
        if simulated_cuda is None:
            edges.append(assigner.assign_batch(*args, gts))
            continue
        with simulated_cuda.count() as counts:
            edges.append(assigner.assign_batch(*args, gts))
    if simulated_cuda is not None:
        assert {reason for reason, _ in counts.waits} == {"nonzero"} and counts.num_waits == 1
        kernels = counts.launches_by_operator()
        for name in ("split", "claim", "weight", "rescue"):
            assert kernels[f"triton.{name}_kernel"] == 1
        lines = counts.launches_by_line()
        assert sum(n for line, n in lines.items() if "/ambiguity" in line) == 2
        assert not any(name in line for line in lines for name in ("mixture.py", "matching.py"))
    expected, found = edges
    for name in ("losses", "weights"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name))
    torch.testing.assert_close(found.means.cpu(), expected.means, rtol=1e-4, atol=1e-6)
    for name in ("rescued", "ignored", "ambiguous"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name))


def test_a_wait_would_be_seen():
    flags = torch.tensor([True, False])
    for look in (
        lambda: flags.any().item(),
        lambda: bool(flags.any()),
        lambda: flags[flags],
        lambda: flags.nonzero(),
        lambda: torch.ones(2).repeat_interleave(flags.long()),
    ):
        with CountWaits() as counter:
            look()
        assert sum(counter.counts.values()) >= 1


def test_the_host_may_look_on_the_cpu_alone():
    assert may_look(torch.zeros(1)) is True
    assert may_look(SimpleNamespace(is_cuda=True)) is False


def test_a_flag_is_read_without_a_wait():
    flag = HostFlag(torch.zeros(1))
    assert flag  # until the device says otherwise
    with CountWaits() as counter:
        for value in (False, True, False):
            flag.set(torch.tensor(value))
            assert bool(flag) is value
    assert not counter.counts
