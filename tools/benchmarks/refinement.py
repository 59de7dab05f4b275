"""Compare a trained TripleHead that refines all boxes with one that refines only detectable ones.

    python tools/benchmarks/refinement.py CONFIG CHECKPOINT
    python tools/benchmarks/refinement.py CONFIG CHECKPOINT --peer PEER_CONFIG PEER_CHECKPOINT \\
        --cfg-options val_dataloader.dataset.pipeline.1.scale="(1333,800)"

For images of the validation split, one by one and both ways in turn: the time of the network
(backbone, neck and head), the share of locations that can be detected, the share that is computed
for them, and the largest difference between the detections. With a peer, such as FCOS, also the
ratios to it. An untrained head detects nothing and would refine nothing. Kernel launches and host
synchronisations are those of the last image.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import islice

from mmengine.structures import InstanceData
from torch import nn

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from launch_counts import HEADER, Cost, add_no_counts, count_calls, footnote
from mmengine.config import Config

from misalign_det.apis.cli import (
    add_common_arguments,
    add_renamed_option,
    errors_in_one_line,
    load_config,
)
from misalign_det.apis.config_lookup import resolve_config
from misalign_det.apis.detector import batches, load_detector
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import InputError
from misalign_det.models.dense_heads.sparse_refinement import detectable, seen_by_output
from misalign_det.utils.benchmark import machine, time_in_turn


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Time TripleHead's sparse refinement")
    parser.add_argument("config", help="config of a TripleHead, or its name")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    parser.add_argument("--peer", nargs=2, metavar=("CONFIG", "CHECKPOINT"))
    parser.add_argument("--num-images", type=int, default=20, help="images measured (%(default)s)")
    parser.add_argument("--device", default="cpu")
    add_no_counts(parser)
    add_common_arguments(parser)
    add_renamed_option(parser, "--images", "--num-images")
    return parser.parse_args(arguments)


def network(detector: nn.Module, inputs: torch.Tensor, sparse: bool = False) -> tuple:
    """Outputs of the head."""
    detector.bbox_head.sparse_refinement = sparse
    return detector.bbox_head(detector.extract_feat(inputs))


def networks(
    calls: Sequence[tuple[nn.Module, bool]], inputs: torch.Tensor, device: str
) -> dict[str, Callable]:
    """One function per row of the table, by its name.

    Args:
        calls: per row, a detector and whether it refines sparsely.
        inputs: one image, normalised, (1, C, H, W).
        device: detectors on another device are copied to it.
    """
    moved = {}
    for model, _ in calls:
        here = next(model.parameters()).device.type == torch.device(device).type
        moved.setdefault(model, model if here else deepcopy(model).to(device))
    return {
        name: partial(network, moved[model], inputs.to(device), sparse)
        for name, (model, sparse) in zip(("all refined", "sparse", "peer"), calls)
    }


def share(levels: Sequence[torch.Tensor]) -> float:
    """Share of true values over all levels."""
    return (sum(level.sum() for level in levels) / sum(level.numel() for level in levels)).item()


def difference(found: Sequence[list[InstanceData]]) -> float:
    """Largest difference between two lists of detections in pixels; inf if they do not match."""
    (dense,), (sparse,) = found
    if not torch.equal(dense.labels, sparse.labels):
        return float("inf")
    return (dense.bboxes - sparse.bboxes).abs().max().item() if len(dense) else 0.0


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    args = parse_args(arguments)
    with errors_in_one_line("refinement.py"), tensors_only(args.trust_checkpoint):
        cfg = load_config(args)
        cfg.val_dataloader.batch_size = 1
        ours = load_detector(cfg, args.checkpoint, args.device)
        head = ours.bbox_head
        if not hasattr(head, "sparse_refinement"):
            raise InputError(f"{type(head).__name__} has no sparse_refinement; TripleHead has.")
        calls = [(ours, False), (ours, True)]
        if args.peer:
            peer = Config.fromfile(resolve_config(args.peer[0]))
            calls.append((load_detector(peer, args.peer[1], args.device), False))
        _, loader = batches(ours, cfg, "val", progress=False)
        times, shares, differences = [[] for _ in calls], [], []
        for batch in islice(loader, args.num_images):
            inputs, metas = batch["inputs"], [s.metainfo for s in batch["data_samples"]]
            functions = networks(calls, inputs, args.device)
            steps = list(functions.values())
            for taken, (seconds,) in zip(times, time_in_turn(steps, 1, args.device)):
                taken.append(seconds)
            dense, sparse = steps[0](), steps[1]()
            where = [detectable(level.sigmoid(), head.test_cfg) for level in dense[0]]
            shares.append((share(where), share([seen_by_output(level) for level in where])))
            differences.append(
                difference(
                    [head.predict_by_feat(*outs, batch_img_metas=metas) for outs in (dense, sparse)]
                )
            )
        costs = {}
        if not args.no_counts:
            costs = count_calls(partial(networks, calls, inputs), args.device, functions)
    print(f"{machine(args.device)}; {len(shares)} images, the last of {tuple(inputs.shape[2:])}")
    medians = [1e3 * statistics.median(taken) for taken in times]
    print(f"{'':<12} {'time':>12} {'ratio':>6} {HEADER}")
    for name, value in zip(functions, medians):
        print(
            f"{name:<12} {value:>9.1f} ms {value / medians[-1 if args.peer else 0]:>6.3f} "
            f"{costs.get(name, Cost())}"
        )
    print(footnote(not args.no_counts))
    found, computed = (statistics.mean(column) for column in zip(*shares))
    print(f"detectable {found:.0%} of the locations, computed for them {computed:.0%}")
    print(f"largest difference {max(differences):.1e} pixels")


if __name__ == "__main__":
    main()
