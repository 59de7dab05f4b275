"""Time, launches, syncs, memory and FLOPs of training steps and inference, also of mmdet's heads.

    python tools/benchmarks/step.py                 ResNet-18 at 320x240, batch 8, as on BCCD
    python tools/benchmarks/step.py --scale r50     ResNet-50 at 800x1333, batch 1, as on COCO
    python tools/benchmarks/step.py --modes train --amp --channels-last    as BCCD's configs train
    python tools/benchmarks/step.py --device cuda:0 --amp
    python tools/benchmarks/step.py --modes train --img-shape 2000 2000 --batch-size 1 \\
        --num-objects 5 500
    python tools/benchmarks/step.py --scale r50 --batch-size 2 --counts-only

Untrained models on random images are measured in turn in one run; ratios are to FCOS. A training
step consists of losses, gradients and optimizer step; "labels" is the share of its time in label
assignment. Inference consists of network, decoding and NMS; the score threshold is set so that as
many boxes reach NMS as in a trained detector. There is one table per number of objects. With
--repeats 0 only memory is measured. --operators 8 lists the 8 slowest operators of each model.

Kernel launches and synchronisations are those of one step on a GPU. Without a GPU they are counted
on the simulated device, which is slow, with images of a quarter of the height and width (at least
64 pixels); launches hardly depend on the size. With --counts-only nothing else is measured.
"""

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from detectors import OURS, PEERS, SCALES, build, inference, peer, training_step
from launch_counts import HEADER, Cost, add_no_counts, count_calls, footnote
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.logging import MMLogger

from misalign_det.analysis.nms_regret import boxes_before_nms
from misalign_det.apis.cli import add_renamed_option
from misalign_det.models.task_modules.assigners.batch_assigner import BatchAssigner
from misalign_det.utils.benchmark import (
    machine,
    median,
    operator_shares,
    peak_memory,
    share_of,
    spread,
    time_in_turn,
)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Time training steps and inference")
    parser.add_argument("--scale", choices=SCALES, default="r18")
    parser.add_argument(
        "--modes", nargs="+", choices=["train", "infer"], default=["train", "infer"]
    )
    parser.add_argument("--models", nargs="+", help="names, of those in the table (default: all)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--amp", action="store_true", help="float16 on a GPU, else bfloat16")
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="channels-last weights and features, as with ChannelsLastHook",
    )
    parser.add_argument("--num-boxes", type=int, default=1000, help="boxes per image before NMS")
    parser.add_argument(
        "--img-shape", type=int, nargs=2, metavar=("H", "W"), help="size of the images"
    )
    parser.add_argument("--batch-size", type=int, help="images per training step")
    parser.add_argument("--num-objects", type=int, nargs="+", help="objects per image")
    parser.add_argument(
        "--operators",
        type=int,
        default=0,
        metavar="N",
        help="list the N operators with the largest share of each model's time",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--counts-only",
        action="store_true",
        help="launches and host-device synchronisations, without times and memory",
    )
    add_no_counts(parser)
    add_renamed_option(parser, "--candidates", "--num-boxes")
    add_renamed_option(parser, "--image", "--img-shape")
    add_renamed_option(parser, "--batch", "--batch-size")
    add_renamed_option(parser, "--objects", "--num-objects")
    return parser.parse_args(arguments)


@torch.no_grad()
def let_pass(detector: nn.Module, packed: dict, candidates: int) -> None:
    """Set the score threshold so that about `candidates` boxes reach NMS."""
    detector.eval()
    cfg = detector.bbox_head.test_cfg
    cfg.score_thr = 0.0
    data = detector.data_preprocessor(packed, False)
    outputs = detector.bbox_head(detector.extract_feat(data["inputs"]))
    metas = [sample.metainfo for sample in data["data_samples"]]
    (found, *_) = boxes_before_nms(detector.bbox_head, outputs, metas)
    scores = found.scores.sort(descending=True).values
    cfg.score_thr = scores[min(candidates, len(scores)) - 1].item() if len(scores) else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table per mode and number of objects."""
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    register_all_modules()
    MMLogger.get_instance("benchmark", log_level="ERROR")
    scale = SCALES[args.scale]
    models = chosen_models(args)
    print(
        machine(args.device)
        + ", mixed precision" * args.amp
        + ", channels last" * args.channels_last
    )
    shape = (3, *(args.img_shape or scale["shape"][1:]))
    height, width = shape[1:]
    detectors = {} if args.counts_only else build_all(models, args, args.device)
    for mode, objects in itertools.product(args.modes, args.num_objects or [scale["objects"]]):
        batch = args.batch_size or scale["batch"] if mode == "train" else 1
        work = partial(prepare_all, mode, batch=batch, objects=objects, args=args)
        functions = work(detectors, shape, args.device)
        costs, note = {}, footnote(False)
        if not args.no_counts:
            costs, note = counted(work, models, functions, shape, args)
        what = "training step" if mode == "train" else "inference"
        print(f"\n{what}, {args.scale} at {width}x{height}, batch {batch}, {objects} objects")
        if args.counts_only:
            print(f"{'model':<24} {HEADER} {'/ FCOS':>7}")
            for name, cost in costs.items():
                print(f"{name:<24} {cost} {cost.over(costs['FCOS']):>7}", flush=True)
        else:
            print_times(mode, detectors, functions, costs, shape, args)
        print(note)
        if args.operators:
            for name, function in functions.items():
                shares = operator_shares(function, args.device)[: args.operators]
                print(f"{name}: " + ", ".join(f"{key} {part:.0%}" for key, part in shares))


def chosen_models(args: argparse.Namespace) -> dict[str, Any]:
    """Configs of the models in the tables, by name."""
    scale = SCALES[args.scale]
    models = {"FCOS": Config.fromfile(OURS / f"{scale['fcos']}.py").model}
    models.update({k: Config.fromfile(OURS / f"{v}.py").model for k, v in scale["others"].items()})
    models.update({name: peer(path, args.scale) for name, path in PEERS.items()})
    return {name: model for name, model in models.items()
            if name == "FCOS" or not args.models or name in args.models}  # fmt: skip


def build_all(
    models: Mapping[str, Any], args: argparse.Namespace, device: str
) -> dict[str, nn.Module]:
    """Build the detectors of these models."""
    return {name: build(model, device, args.channels_last) for name, model in models.items()}


def counted(
    work: Callable,
    models: Mapping[str, Any],
    functions: Mapping[str, Callable],
    shape: Sequence[int],
    args: argparse.Namespace,
) -> tuple[dict[str, Cost], str]:
    """Launches and synchronisations of each model, and the last line of the table."""
    if torch.cuda.is_available():
        make = lambda device: work(build_all(models, args, device), shape, device)  # noqa: E731
        return count_calls(make, args.device, functions or None), footnote()
    small = (3, *(max(64, side // 4) for side in shape[1:]))
    costs = {}
    for name, model in models.items():  # one after the other, to save memory
        make = lambda device: work(build_all({name: model}, args, device), small, device)  # noqa: E731, B023
        costs.update(count_calls(make))
    return costs, footnote(simulated_on=f"images of {small[2]}x{small[1]}")


def print_times(
    mode: str,
    detectors: Mapping[str, nn.Module],
    functions: Mapping[str, Callable],
    costs: Mapping[str, Cost],
    shape: Sequence[int],
    args: argparse.Namespace,
) -> None:
    """The table of a mode."""
    times = dict(zip(functions, time_in_turn(functions.values(), args.repeats, args.device)))
    print(
        f"{'model':<24} {'time':>10} {'spread':>7} {'/ FCOS':>7} {'labels':>7} {HEADER} "
        f"{'/ FCOS':>7} {'memory':>10} {'parameters':>11} {'GFLOPs':>7}"
    )
    for name, taken in times.items():
        memory = peak_memory(functions[name], args.device) / 2**20
        count = sum(p.numel() for p in detectors[name].parameters()) / 1e6
        clock = f"{'-':>10} {'-':>7} {'-':>7} {'-':>7}"
        if taken:
            share = f"{'-':>7}"
            if mode == "train":
                parts = labelling(detectors[name].bbox_head)
                share = f"{100 * share_of(functions[name], parts, 3):>5.1f} %"
            clock = (
                f"{1e3 * median(taken):>7.0f} ms {100 * spread(taken):>5.0f} % "
                f"{median(taken) / median(times['FCOS']):>7.2f} {share}"
            )
        cost, first = costs.get(name, Cost()), costs.get("FCOS", Cost())
        print(
            f"{name:<24} {clock} {cost} {cost.over(first):>7} {memory:>6.0f} MiB "
            f"{count:>9.2f} M {gflops(detectors[name], shape, args.device):>7.1f}",
            flush=True,
        )


def labelling(head: nn.Module) -> list[tuple[Any, str]]:
    """The methods of label assignment: pairs of object and method name.

    On a GPU their time is that of the host.
    """
    if isinstance(getattr(head, "assigner", None), BatchAssigner):
        return [(head.assigner, "assign_batch")]
    names = ("get_targets", "get_pos_loss", "paa_reassign")
    return [(head, name) for name in names if hasattr(head, name)]


def prepare_all(
    mode: str,
    detectors: Mapping[str, nn.Module],
    shape: Sequence[int],
    device: str,
    *,
    batch: int,
    objects: int,
    args: argparse.Namespace,
) -> dict[str, Callable]:
    """Functions that take one step of the mode, by the detector's name."""
    packed = demo_mm_inputs(
        batch,
        image_shapes=[shape] * batch,
        num_items=[objects] * batch,
        num_classes=SCALES[args.scale]["classes"],
        device=device,
    )
    return {name: prepare(mode, detector, packed, device, args)
            for name, detector in detectors.items()}  # fmt: skip


def prepare(
    mode: str, detector: nn.Module, packed: dict, device: str, args: argparse.Namespace
) -> Callable:
    """A function that takes one step of the mode."""
    if mode == "infer":
        let_pass(detector, packed, args.num_boxes)
        return partial(inference, detector, packed, device, args.amp)
    # On CUDA all parameters take the step at once, which is what torch chooses there.
    together = True if device.startswith("cuda") else None
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9, foreach=together)
    return partial(training_step, detector, optimizer, packed, device, args.amp)


def gflops(detector: nn.Module, shape: Sequence[int], device: str) -> float:
    """Multiply-adds of the network for one image, by mmengine's counter, in billions."""
    detector.eval()
    image = torch.zeros(1, *shape, device=device)
    found = get_model_complexity_info(detector, inputs=(image,), show_table=False, show_arch=False)
    return found["flops"] / 1e9


if __name__ == "__main__":
    main()
