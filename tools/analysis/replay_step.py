"""Run a training step again whose loss was not finite.

    python tools/analysis/replay_step.py CONFIG work_dirs/NAME/non_finite_step_1234.pth

prints each loss beside the recorded one. `RecordInvalidLossHook` saves such steps.
"""

import argparse
from collections.abc import Sequence

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from misalign_det.apis.cli import add_common_arguments, errors_in_one_line, load_config
from misalign_det.apis.detector import check_device
from misalign_det.engine.checkpoint import check_checkpoint, tensors_only
from misalign_det.engine.hooks.record_invalid_loss_hook import image_names, read_record, replay


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Run a saved training step again")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("record", help="non_finite_step_N.pth of the run's work dir")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add_common_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the step and print both losses."""
    args = parse_args(arguments)
    with errors_in_one_line("replay_step.py"), tensors_only(args.trust_checkpoint):
        cfg = load_config(args)
        init_default_scope(cfg.get("default_scope", "mmdet"))
        check_device(args.device)
        record = read_record(args.record)
        model = MODELS.build(cfg.model)
        check_checkpoint(model, args.record)
        print("Images:", ", ".join(image_names(record)))
        found = replay(model, record, args.device)
    print(f"{'':<24} {'recorded':>12} {'now':>12}")
    for name, value in found.items():
        print(f"{name:<24} {record['losses'].get(name, float('nan')):>12.5g} {value:>12.5g}")


if __name__ == "__main__":
    main()
