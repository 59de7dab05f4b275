"""Time of a training step and of inference of a study's methods, as ratios to FCOS's.

    python tools/study/cost.py main --data bccd hit-uav

The detectors of seed 0, with their last checkpoints, run in turn, so that all are under the same
load. Inference takes images of the split one by one: preprocessing, network, decoding, NMS and
voting count. A training step takes a batch of the training split as at the end of the training:
preprocessing, losses, gradients and the optimizer step count. Loading images does not. The lines
are appended to RESULTS_DIR/STUDY.jsonl, where render.py finds them. Methods whose checkpoints are
not in OUT_DIR are left out, with a note; the exit status is 1 where only FCOS's is there.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import misalign_det.apis  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from compose import BACKBONES, Run
from grid import DATA, STUDIES
from jobs import Job, check_data, make_jobs, parse, run_again
from methods import REFERENCE
from mmdet.apis import init_detector
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from records import RESULTS, append, device_name
from torch import nn

from misalign_det.apis.cli import errors_in_one_line
from misalign_det.engine.hooks.channels_last_hook import to_channels_last
from misalign_det.errors import InputError
from misalign_det.utils.benchmark import median, time_in_turn


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Time of training and inference over FCOS's")
    parser.add_argument("study", choices=list(STUDIES), help="declared in tools/study/grid.py")
    parser.add_argument("--data", nargs="+", choices=list(DATA), help="(default: the study's)")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="effnet-lite0")
    parser.add_argument(
        "--num-images", type=int, default=16, help="images of inference (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=9,
        help="passes over the images, and training steps (default: %(default)s)",
    )
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--out-dir", default="work_dirs/study", help="checkpoints and detections (%(default)s)"
    )
    parser.add_argument(
        "--results-dir", default=str(RESULTS), help="result lines (default: tools/study/results)"
    )
    args = parser.parse_args(arguments)
    if min(args.num_images, args.repeats) < 1:
        parser.error("--num-images and --repeats must be at least 1")
    return args


def trained(args: argparse.Namespace, data: str) -> dict[str, tuple[Run, Job]]:
    """The methods that have a checkpoint of the data set's usual length and seed 0.

    Raises:
        InputError: the reference has none, or it alone has one.
    """
    methods = dict.fromkeys((REFERENCE, *STUDIES[args.study].methods))
    runs = [Run(name, data, 0, DATA[data].epochs, args.backbone) for name in methods]
    jobs = {
        run: job for job in make_jobs(runs, args.split, Path(args.out_dir)) for run in job.tests
    }
    lost = [run.method for run in runs if not jobs[run].trained]
    if REFERENCE in lost or len(lost) == len(runs) - 1:
        lacking = REFERENCE if REFERENCE in lost else f"any of {', '.join(lost)}"
        raise InputError(
            f"nothing was measured: {args.out_dir} has no checkpoint of {lacking} on {data}. Leave "
            f"it out with --data, or train: {run_again(args, '--data', data, '--seeds 0')}"
        )
    if lost:
        print(f"left out on {data}, without a checkpoint: {', '.join(lost)}", file=sys.stderr)
    return {run.method: (run, jobs[run]) for run in runs if run.method not in lost}


def images(run: Run, split: str, number: int) -> list[dict[str, Any]]:
    """Batches of one image, evenly spaced in the split."""
    dataset = DATASETS.build(copy.deepcopy(parse(run, split).test_dataloader.dataset))
    step = max(1, len(dataset) // number)
    return [pseudo_collate([dataset[i]]) for i in range(0, len(dataset), step)][:number]


def load(run: Run, job: Job, device: str) -> nn.Module:
    """A run's detector with its checkpoint, in the memory layout of `ChannelsLastHook`."""
    checkpoint = job.folder / (job.trained or {})["checkpoint"]
    detector = init_detector(parse(run, job.split), str(checkpoint), device=device)
    return to_channels_last(detector)


def inference(
    run: Run, job: Job, batches: Sequence[dict[str, Any]], device: str
) -> Callable[[], None]:
    """A function that detects on all images once."""
    detector = load(run, job, device)

    def detect() -> None:
        for batch in batches:
            detector.test_step(copy.deepcopy(batch))

    return torch.inference_mode()(detect)


def training(run: Run, job: Job, device: str) -> Callable[[], None]:
    """A function that makes one training step, always on the same batch, as in the last epoch."""
    detector = load(run, job, device).train()
    cfg = parse(job.training, None)
    optim_wrapper = build_optim_wrapper(detector, cfg.optim_wrapper)
    optim_wrapper.initialize_count_status(detector, 0, 1)
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    size = min(cfg.train_dataloader.batch_size, len(dataset))
    batch = pseudo_collate([dataset[i] for i in range(size)])
    hub = MessageHub.get_current_instance()  # as RuntimeInfoHook does
    hub.update_info_dict(dict(epoch=run.epochs - 1, iter=run.epochs - 1, max_iters=run.epochs))

    return lambda: detector.train_step(copy.deepcopy(batch), optim_wrapper)


def measure(
    args: argparse.Namespace, data: str, found: dict[str, tuple[Run, Job]]
) -> list[dict[str, Any]]:
    """The lines of a data set, of the methods that are `trained`."""
    batches = images(found[REFERENCE][0], args.split, args.num_images)
    detect = [inference(run, job, batches, args.device) for run, job in found.values()]
    detection = time_in_turn(detect, args.repeats, args.device)
    # Methods that are tested with another one's checkpoint have its training.
    roots = {job.training: (run, job) for run, job in reversed(found.values())}
    steps = [training(run, job, args.device) for run, job in roots.values()]
    step = dict(zip(roots, time_in_turn(steps, args.repeats, args.device)))

    lines = []
    own, *_ = found  # the reference is the first
    reference = median(detection[0]), median(step[found[own][1].training])
    for (method, (run, job)), taken in zip(found.items(), detection):
        test, train = median(taken), median(step[job.training])
        lines.append(
            dict(
                kind="cost",
                method=method,
                reference=REFERENCE,
                data=data,
                backbone=args.backbone,
                epochs=run.epochs,
                split=args.split,
                config=job.hashes[method],
                inference_ratio=round(test / reference[0], 3),
                inference_ms=round(1000 * test / len(batches), 1),
                training_ratio=round(train / reference[1], 3),
                training_ms=round(1000 * train, 1),
                device=device_name(args.device),
                threads=torch.get_num_threads(),
            )
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and append the lines."""
    args = parse_args(arguments)
    with errors_in_one_line("cost.py"):
        register_all_modules()
        MMLogger.get_instance("cost", log_level="ERROR")
        found = {data: trained(args, data) for data in args.data or STUDIES[args.study].data}
        check_data([each[REFERENCE][0] for each in found.values()], args.split)
        for data, methods in found.items():
            lines = measure(args, data, methods)
            append(Path(args.results_dir) / f"{args.study}.jsonl", *lines)
            for line in lines:
                print(
                    f"{data} {line['method']}: inference {line['inference_ms']} ms an image, "
                    f"{line['inference_ratio']:.2f} of {REFERENCE}'s, training "
                    f"{line['training_ms']} ms a step, {line['training_ratio']:.2f}"
                )


if __name__ == "__main__":
    main()
