"""Time CLBalancedNMS beside mmcv's own NMS, both through `batched_nms` on the same boxes.

    python tools/benchmarks/nms.py
    python tools/benchmarks/nms.py --boxes 1000 --classes 80 --repeats 200

prints one line for each number of boxes and classes: the medians, taken in turn in one run, their
ratio, and the kernel launches and host waits of both on a GPU. The boxes are made up: clusters
around objects of 12 to 312 pixels in 1333x800. From 10,000 boxes on `batched_nms` calls any NMS
once a class; `--split-thr 1000000` has CLBalancedNMS called once for all, since it separates the
classes itself. The simulated device, which counts where there is no GPU, is slow: with more boxes
than `--count-to` nothing is counted on it.
"""

import argparse
import math
from functools import partial

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
import torch
from launch_counts import HEADER, Cost, add_no_counts, count_calls, footnote
from mmcv.ops import batched_nms

from misalign_det.engine.benchmarking import machine, median, time_in_turn


def parse_args(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Time CLBalancedNMS beside mmcv's NMS")
    parser.add_argument("--boxes", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 3, 80])
    parser.add_argument("--iou-threshold", type=float, default=0.6)
    parser.add_argument("--split-thr", type=int, default=10000, help="of CLBalancedNMS's config")
    parser.add_argument("--repeats", type=int, default=15, help="of each pair (%(default)s)")
    parser.add_argument("--count-to", type=int, default=5000, metavar="BOXES",
                        help="counted on the simulated device (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    add_no_counts(parser)
    return parser.parse_args(arguments)


def clustered_boxes(num, classes, seed=0):
    """About 20 boxes an object, as a dense detector leaves them before NMS.

    Returns:
        tuple[Tensor, Tensor, Tensor]: boxes (num, 4) xyxy, scores (num,), labels (num,).
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


def both(num, classes, args, device):
    """mmcv's NMS and CLBalancedNMS on the same boxes, by name."""
    boxes, scores, labels = (part.to(device) for part in clustered_boxes(num, classes))
    split = {"nms": 10000, "CLBalancedNMS": args.split_thr}
    return {
        kind: partial(batched_nms, boxes, scores, labels, dict(
            type=kind, iou_threshold=args.iou_threshold, split_thr=split_thr))
        for kind, split_thr in split.items()
    }  # fmt: skip


def main(arguments=None):
    """Print the table."""
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    most = math.inf if torch.cuda.is_available() else args.count_to
    print(f"{machine(args.device)}; IoU {args.iou_threshold}")
    print(f"{'boxes':>7} {'classes':>8} {'mmcv nms':>12} {HEADER} {'CLBalancedNMS':>14} {HEADER} "
          f"{'ratio':>6}")
    for num in args.boxes:
        for classes in args.classes:
            make = partial(both, num, classes, args)
            calls = make(args.device)
            plain, ours = map(median, time_in_turn(calls.values(), args.repeats, args.device))
            costs = dict.fromkeys(calls, Cost())
            if num <= most and not args.no_counts:
                costs = count_calls(make, args.device, calls)
            print(f"{num:>7} {classes:>8} {1e3 * plain:>9.2f} ms {costs['nms']} "
                  f"{1e3 * ours:>11.2f} ms {costs['CLBalancedNMS']} {ours / plain:>6.2f}",
                  flush=True)
    print(footnote(not args.no_counts))


if __name__ == "__main__":
    main()
