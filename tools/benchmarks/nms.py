"""Compare the time of CLBalancedNMS with mmcv's NMS, through `batched_nms` on the same boxes.

    python tools/benchmarks/nms.py
    python tools/benchmarks/nms.py --num-boxes 1000 --num-classes 80 --repeats 200

prints one line per number of boxes and classes: the medians (both are measured in turn in one
run), their ratio, and the kernel launches and synchronisations of both on a GPU. The boxes are
generated: clusters around objects of 12 to 312 pixels in 1333x800. From 10,000 boxes on,
`batched_nms` calls an NMS once per class; with `--split-thr 1000000` it calls CLBalancedNMS once
for all classes, which it separates itself. Without a GPU, launches and syncs are counted on the
simulated device, which is slow, with at most 200 boxes, equally many per class, and the same calls
as for all boxes.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from launch_counts import HEADER, Cost, add_no_counts, count_calls, footnote
from mmcv.ops import batched_nms

from misalign_det.apis.cli import add_renamed_option, errors_in_one_line
from misalign_det.apis.detector import check_device
from misalign_det.utils.benchmark import machine, median, time_in_turn

SIMULATED = 200  # boxes at most on the simulated device


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Time CLBalancedNMS beside mmcv's NMS")
    parser.add_argument("--num-boxes", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--num-classes", type=int, nargs="+", default=[1, 3, 80])
    parser.add_argument("--iou-threshold", type=float, default=0.6)
    parser.add_argument(
        "--split-thr", type=int, default=10000, help="of CLBalancedNMS (%(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    add_no_counts(parser)
    add_renamed_option(parser, "--boxes", "--num-boxes")
    add_renamed_option(parser, "--classes", "--num-classes")
    args = parser.parse_args(arguments)
    if min(args.repeats, args.threads, *args.num_boxes, *args.num_classes) < 1:
        parser.error("--repeats, --threads, --num-boxes and --num-classes must be at least 1")
    return args


def clustered_boxes(
    num: int, classes: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """About 20 boxes per object, like the output of a dense detector before NMS.

    Returns:
        Boxes (num, 4) xyxy, scores (num,), labels (num,).
    """
    generator = torch.Generator().manual_seed(seed)
    objects = max(num // 20, 1)
    centre = torch.rand(objects, 2, generator=generator) * torch.tensor([1333.0, 800.0])
    extent = torch.rand(objects, 2, generator=generator) ** 2 * 300 + 12
    owner = torch.randint(0, objects, (num,), generator=generator)
    centre = centre[owner] + torch.randn(num, 2, generator=generator) * extent[owner] * 0.12
    half = extent[owner] * (torch.randn(num, 2, generator=generator) * 0.15).exp() / 2
    labels = torch.randint(0, classes, (objects,), generator=generator)[owner]
    boxes = torch.cat([centre - half, centre + half], dim=1)
    return boxes, torch.rand(num, generator=generator), labels


def both(
    num: int, classes: int, args: argparse.Namespace, device: str, most: int | None = None
) -> dict[str, Callable]:
    """mmcv's NMS and CLBalancedNMS on the same boxes, by name.

    Args:
        num: number of boxes.
        classes: number of classes.
        args: with ``split_thr`` and ``iou_threshold``.
        device: of the boxes.
        most: use at most this many boxes, with the calls that ``batched_nms`` makes for ``num``.
    """
    split = {"nms": 10000, "CLBalancedNMS": args.split_thr}
    if most is not None and num > most:
        boxes, scores, _ = clustered_boxes(most, classes)
        labels = torch.arange(most) % classes
        split = {kind: 1 if num >= least else most + 1 for kind, least in split.items()}
    else:
        boxes, scores, labels = clustered_boxes(num, classes)
    boxes, scores, labels = (part.to(device) for part in (boxes, scores, labels))
    return {
        kind: partial(batched_nms, boxes, scores, labels, dict(
            type=kind, iou_threshold=args.iou_threshold, split_thr=split_thr))
        for kind, split_thr in split.items()
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    args = parse_args(arguments)
    with errors_in_one_line("nms.py"):
        check_device(args.device)
    torch.set_num_threads(args.threads)
    most = None if torch.cuda.is_available() else SIMULATED
    print(f"{machine(args.device)}; IoU {args.iou_threshold}")
    print(
        f"{'boxes':>7} {'classes':>8} {'mmcv nms':>12} {HEADER} {'CLBalancedNMS':>14} {HEADER} "
        f"{'ratio':>6}"
    )
    for num in args.num_boxes:
        for classes in args.num_classes:
            calls = both(num, classes, args, args.device)
            plain, ours = map(median, time_in_turn(calls.values(), args.repeats, args.device))
            costs = dict.fromkeys(calls, Cost())
            if not args.no_counts:
                costs = count_calls(partial(both, num, classes, args, most=most), args.device,
                                    calls, warm_up=False)  # fmt: skip
            print(
                f"{num:>7} {classes:>8} {1e3 * plain:>9.2f} ms {costs['nms']} "
                f"{1e3 * ours:>11.2f} ms {costs['CLBalancedNMS']} {ours / plain:>6.2f}",
                flush=True,
            )
    print(footnote(not args.no_counts, f"at most {SIMULATED} boxes"))


if __name__ == "__main__":
    main()
