"""Time, launches, synchronisations and peak memory of label assignment, beside mmdet's.

    python tools/benchmarks/assignment.py
    python tools/benchmarks/assignment.py --num-objects 50 500 --sizes small --repeats 20
    python tools/benchmarks/assignment.py --num-objects 1 7 --num-images 2
    python tools/benchmarks/assignment.py --assigners IACAssigner MaxIoUAssigner --num-anchors 9 \
        --img-shape 2000 2000 --num-objects 5 500 --sizes small --repeats 1 --no-counts

Images of 800x1333 (22,400 locations on five levels), 80 classes. The predictions imitate a
half-trained detector: jittered boxes around the nearest object, and slightly higher logits of the
right class. FCOS's targets are an assignment without predictions. PAA's reassignment fits
scikit-learn's mixture object by object; its first step is not measured. With several
images (``--num-images``) this package's assigners and FCOS's targets take all images at once, and
mmdet's assigners one after the other, as its heads call them.

Without a GPU, launches and syncs are counted on the simulated device, which is slow: with small
objects only, and with at most ``--count-to`` of them. Launches hardly depend on the sizes.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from launch_counts import HEADER, Cost, add_no_counts, count_calls, footnote
from mmdet.models.dense_heads import FCOSHead, PAAHead
from mmdet.models.task_modules.assigners import (
    ATSSAssigner,
    MaxIoUAssigner,
    SimOTAAssigner,
    TaskAlignedAssigner,
)
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from misalign_det.apis.cli import add_renamed_option
from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth
from misalign_det.utils.benchmark import machine, median, peak_memory, spread, time_in_turn

STRIDES = (8, 16, 32, 64, 128)
OURS = ("JLAAssigner", "SpatialAlignAssigner")
THEIRS = ("IACAssigner", "MaxIoUAssigner", "ATSSAssigner", "TaskAlignedAssigner", "SimOTAAssigner",
          "PAA reassignment", "FCOS targets")  # fmt: skip
SIDES = {"small": (12, 48), "large": (96, 400)}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Time label assignment")
    parser.add_argument(
        "--num-objects", type=int, nargs="+", default=[1, 7, 50, 200, 500], help="per image"
    )
    parser.add_argument("--num-images", type=int, default=1, help="images of a batch (%(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--img-shape", type=int, nargs=2, default=[800, 1333], metavar=("H", "W"))
    parser.add_argument("--num-classes", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--assigners", nargs="+", choices=[*OURS, *THEIRS], metavar="NAME", help="default: all"
    )
    parser.add_argument(
        "--num-anchors",
        type=int,
        default=1,
        help="per location, for IACAssigner and MaxIoUAssigner",
    )
    parser.add_argument(
        "--without-paa", action="store_true", help="it takes seconds with 500 objects"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--count-to",
        type=int,
        default=50,
        metavar="OBJECTS",
        help="counted on the simulated device (%(default)s)",
    )
    add_no_counts(parser)
    add_renamed_option(parser, "--gts", "--num-objects")
    add_renamed_option(parser, "--images", "--num-images")
    add_renamed_option(parser, "--image", "--img-shape")
    add_renamed_option(parser, "--classes", "--num-classes")
    add_renamed_option(parser, "--anchors", "--num-anchors")
    return parser.parse_args(arguments)


class Scene:
    """One image: locations, objects, predictions."""

    def __init__(
        self,
        image: Sequence[int],
        num_gts: int,
        sides: tuple[float, float],
        classes: int,
        device: str,
        seed: int = 0,
    ) -> None:
        height, width = image
        generator = torch.Generator().manual_seed(seed)
        self.sizes = [(-(-height // s), -(-width // s)) for s in STRIDES]
        points = [
            torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1)
            .reshape(-1, 2).add(0.5).mul(s)
            for (h, w), s in zip(self.sizes, STRIDES)
        ]  # fmt: skip
        self.counts = [len(level) for level in points]
        self.points = torch.cat(points)
        self.strides = torch.cat([torch.full((n,), float(s))
                                  for n, s in zip(self.counts, STRIDES)])  # fmt: skip
        low, high = sides
        extent = low + torch.rand(num_gts, 2, generator=generator) * (high - low)
        centre = torch.rand(num_gts, 2, generator=generator) * torch.tensor([width, height])
        gts = torch.cat([centre - extent / 2, centre + extent / 2], 1).clamp(min=0)
        gts[:, 2].clamp_(max=width)
        gts[:, 3].clamp_(max=height)
        self.gts = InstanceData(
            bboxes=gts, labels=torch.randint(0, classes, (num_gts,), generator=generator)
        )
        nearest = torch.cdist(self.points, centre).argmin(1)
        noise = torch.randn(len(self.points), 4, generator=generator) * 0.15
        self.bboxes = gts[nearest] + noise * extent[nearest].repeat(1, 2)
        self.logits = torch.randn(len(self.points), classes, generator=generator) - 4
        rows = torch.arange(len(self.points))
        self.logits[rows, self.gts.labels[nearest]] += 2
        for name in ("points", "strides", "bboxes", "logits"):
            setattr(self, name, getattr(self, name).to(device))
        self.gts = self.gts.to(device)
        half = self.strides[:, None] * 4
        self.anchors = torch.cat([self.points - half, self.points + half], 1)

    def theirs(
        self, assigner: Any, priors: torch.Tensor, *args: Any, scores: torch.Tensor | None = None
    ) -> Callable:
        """A function that runs one of mmdet's assigners."""
        pred = InstanceData(priors=priors)
        if scores is not None:
            pred.scores, pred.bboxes = scores, self.bboxes
        return partial(assigner.assign, pred, *args, self.gts)

    def by_iou(self, name: str, num_anchors: int) -> Callable:
        """A function that runs IACAssigner, or the MaxIoUAssigner on which it is based."""
        assigner = TASK_UTILS.build(
            dict(type=name, pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
        )
        half = self.strides[:, None] * 4
        anchors = [torch.cat([self.points - half * scale, self.points + half * scale], 1)
                   for scale in (2 ** (i / 3) for i in range(num_anchors))]  # fmt: skip
        pred = InstanceData(priors=torch.cat(anchors))
        if name == "IACAssigner":
            pred.scores = self.logits.sigmoid().repeat(num_anchors, 1)
        return partial(assigner.assign, pred, self.gts)

    def paa(self) -> Callable:
        """A function that runs PAA's mixture step on its candidates, with random losses."""
        head = PAAHead(
            self.logits.shape[1],
            32,
            feat_channels=32,
            anchor_generator=dict(
                type="AnchorGenerator",
                ratios=[1.0],
                octave_base_scale=8,
                scales_per_octave=1,
                strides=list(STRIDES),
            ),
        )
        first = MaxIoUAssigner(0.1, 0.1, min_pos_iou=0, ignore_iof_thr=-1)
        assigned = first.assign(InstanceData(priors=self.anchors), self.gts).gt_inds
        pos = (assigned > 0).nonzero().squeeze(1)
        losses = torch.rand(len(pos), generator=torch.Generator().manual_seed(1)).to(pos.device)
        label = torch.full_like(assigned, head.num_classes)
        label[pos] = self.gts.labels[assigned[pos] - 1]
        ones = torch.ones(len(assigned), device=pos.device)
        return partial(
            head.paa_reassign,
            losses,
            label,
            ones,
            ones[:, None].expand(-1, 4),
            pos,
            assigned[pos] - 1,
            list(self.anchors.split(self.counts)),
        )

    def peer(self, name: str, num_anchors: int) -> Callable:
        """A function that runs an assigner for one image."""
        if name in ("IACAssigner", "MaxIoUAssigner"):
            return self.by_iou(name, num_anchors)
        if name == "ATSSAssigner":
            return self.theirs(ATSSAssigner(topk=9), self.anchors, self.counts)
        if name == "PAA reassignment":
            return self.paa()
        point_priors = torch.cat([self.points, self.strides[:, None].expand(-1, 2)], 1)
        assigner = dict(TaskAlignedAssigner=partial(TaskAlignedAssigner, topk=13),
                        SimOTAAssigner=SimOTAAssigner)[name]()  # fmt: skip
        return self.theirs(assigner, point_priors, scores=self.logits.sigmoid())


def batch_assigner(scenes: Sequence[Scene], **config: Any) -> Callable:
    """A function that runs one of this package's batch assigners."""
    first = scenes[0]
    logits, bboxes = (torch.stack([getattr(s, name) for s in scenes])
                      for name in ("logits", "bboxes"))  # fmt: skip
    gts = BatchGroundTruth.from_instances([s.gts for s in scenes])
    assigner = TASK_UTILS.build(config)
    return partial(assigner.assign_batch, first.points, first.strides, logits, bboxes, gts)


def fcos_targets(scenes: Sequence[Scene]) -> Callable:
    """A function that computes FCOS's targets, by regress ranges and center sampling."""
    first = scenes[0]
    head = FCOSHead(
        first.logits.shape[1], 32, feat_channels=32, center_sampling=True, norm_on_bbox=True
    )
    points = list(first.points.split(first.counts))
    return partial(head.get_targets, points, [s.gts for s in scenes])


def all_peers(
    args: argparse.Namespace, num_gts: int, sizes: str, device: str
) -> dict[str, Callable]:
    """A function per assigner, by name; this package's first."""
    scenes = [
        Scene(args.img_shape, num_gts, SIDES[sizes], args.num_classes, device, seed)
        for seed in range(args.num_images)
    ]
    made = {}
    for name in args.assigners or [*OURS, *THEIRS]:
        if name in OURS:
            made[name] = batch_assigner(scenes, type=name)
        elif name == "FCOS targets":
            made[name] = fcos_targets(scenes)
        elif name != "PAA reassignment" or not args.without_paa:
            made[name] = partial(
                _call_all, [scene.peer(name, args.num_anchors) for scene in scenes]
            )
    return made


def _call_all(functions: Sequence[Callable]) -> None:
    for function in functions:
        function()


def counted(
    args: argparse.Namespace, num_gts: int, sizes: str, peers: dict[str, Callable]
) -> dict[str, Cost]:
    """Launches and synchronisations of all assigners."""
    if args.no_counts or (num_gts > args.count_to and not torch.cuda.is_available()):
        return dict.fromkeys(peers, Cost())
    make = partial(all_peers, args, num_gts, sizes)
    return count_calls(make, args.device, peers, warm_up=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: time and launches over TaskAlignedAssigner's, syncs, and peak memory."""
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    height, width = args.img_shape
    print(
        f"{machine(args.device)}; {args.num_images} x {width}x{height}, {args.num_classes} classes"
    )
    print(
        f"{'objects':>14} {'assigner':<22} {'time':>10} {'spread':>7} {'/ TaskAligned':>14} "
        f"{HEADER} {'/ TaskAligned':>14} {'peak memory':>12}"
    )
    simulated = {}
    for sizes in args.sizes:
        for num in args.num_objects:
            peers = all_peers(args, num, sizes, args.device)
            times = dict(zip(peers, time_in_turn(peers.values(), args.repeats, args.device)))
            if torch.cuda.is_available():
                costs = counted(args, num, sizes, peers)
            else:
                costs = simulated.get(num) or counted(args, num, "small", peers)
                simulated[num] = costs
            base = times.get("TaskAlignedAssigner")
            cost = costs.get("TaskAlignedAssigner", Cost())
            for name, taken in times.items():
                memory = peak_memory(peers[name], args.device) / 2**20
                ratio = f"{median(taken) / median(base):.2f}" if base else "-"
                print(
                    f"{num:>8} {sizes} {name:<22} {1e3 * median(taken):>7.1f} ms "
                    f"{100 * spread(taken):>5.0f} % {ratio:>14} "
                    f"{costs[name]} {costs[name].over(cost):>14} {memory:>8.1f} MiB",
                    flush=True,
                )
    print(footnote(not args.no_counts, "objects of 12 to 48 pixels"))


if __name__ == "__main__":
    main()
