"""Evaluate a detector, with the command line of mmdet 3.

    python tools/test.py CONFIG CHECKPOINT
    python tools/test.py CONFIG CHECKPOINT --data FOLDER
    python tools/test.py CONFIG CHECKPOINT --out detections.pkl --show-dir pictures --tta

CONFIG is a file, or the name of a config of this package.
"""

import argparse
import copy
from collections.abc import Sequence

from mmengine.config import Config

import misalign_det.apis  # noqa: F401  (first: it checks the environment)

# isort: split
from mmdet.datasets.transforms import PackDetInputs
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import TRANSFORMS
from mmdet.utils import setup_cache_size_limit_of_dynamo

from misalign_det.analysis.output_files import output_file
from misalign_det.apis.cli import (
    add_common_arguments,
    add_preflight_argument,
    build_runner,
    errors_in_one_line,
    load_config,
    prepare_work_dir,
)
from misalign_det.apis.config_types import check_types
from misalign_det.apis.resume import preload_checkpoint
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import check_checkpoint, tensors_only
from misalign_det.engine.distributed import collect_device, finish_processes
from misalign_det.errors import InputError
from misalign_det.utils import is_type, leaf_datasets
from misalign_det.utils.processes import is_first_process


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Test a detector")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    add_common_arguments(parser)
    parser.add_argument("--out", metavar="FILE.pkl", help="save the detections as a pickle")
    parser.add_argument("--show", action="store_true", help="show detections in a window")
    parser.add_argument(
        "--show-dir",
        metavar="FOLDER",
        help="save pictures of the detections under WORK_DIR/TIMESTAMP/FOLDER",
    )
    parser.add_argument(
        "--wait-time", type=float, default=2, help="seconds per picture with --show"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation by the config's tta_model and tta_pipeline; by a mirrored "
        "copy of each image if it has none",
    )
    add_preflight_argument(parser)
    args = parser.parse_args(arguments)
    if args.out and not args.out.endswith((".pkl", ".pickle")):
        parser.error(f"--out {args.out}: detections are saved as a pickle; name it *.pkl")
    return args


def use_test_time_augmentation(cfg: Config) -> None:
    """Wrap the model for test-time augmentation, and give every dataset its pipeline.

    Args:
        cfg: changed in place. Its `tta_model` and `tta_pipeline` are used if it has them.
            Otherwise each image is also mirrored, after the other steps of its dataset's pipeline,
            and NMS at IoU 0.5 merges the detections.

    Raises:
        InputError: there is no `tta_pipeline`, and a pipeline does not end with `PackDetInputs`.
    """
    for where, dataset in leaf_datasets(cfg.test_dataloader.dataset, "test_dataloader.dataset"):
        if "tta_pipeline" in cfg:
            dataset.pipeline = copy.deepcopy(cfg.tta_pipeline)
        else:
            dataset.pipeline = mirrored_too(dataset.get("pipeline") or [], where)
    merge = dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
    wrapper = cfg.get("tta_model") or dict(type="DetTTAModel", tta_cfg=merge)
    cfg.model = dict(**wrapper, module=cfg.model)


def mirrored_too(pipeline: Sequence[dict], where: str) -> list[dict]:
    """A pipeline that returns each image twice: unchanged and mirrored.

    Args:
        pipeline: ends with `PackDetInputs`; not changed.
        where: config key of its dataset, for the message.

    Raises:
        InputError: it does not end with `PackDetInputs`.
    """
    if not pipeline or not is_type(pipeline[-1].get("type"), PackDetInputs, TRANSFORMS):
        raise InputError(
            f"--tta: {where}.pipeline does not end with PackDetInputs. Add a tta_pipeline to the "
            "config."
        )
    keys = (
        "img_id",
        "img_path",
        "ori_shape",
        "img_shape",
        "scale_factor",
        "flip",
        "flip_direction",
    )
    flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
    pack = [dict(type="PackDetInputs", meta_keys=keys)]
    return [*copy.deepcopy(list(pipeline[:-1])), dict(type="TestTimeAug", transforms=[flips, pack])]


def main() -> None:
    """Evaluate a detector."""
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    with errors_in_one_line("test.py"), tensors_only(args.trust_checkpoint):
        if args.out and is_first_process():  # which alone writes it
            output_file(args.out)
        cfg = load_config(args)
        cfg.load_from, cfg.resume = args.checkpoint, False
        preload_checkpoint(cfg)
        prepare_work_dir(cfg)
        if args.show or args.show_dir:
            if "visualization" not in (cfg.get("default_hooks") or {}):
                raise InputError(
                    "--show and --show-dir need "
                    "default_hooks.visualization=dict(type='DetVisualizationHook')"
                )
            cfg = trigger_visualization_hook(cfg, args)
        if args.tta:
            use_test_time_augmentation(cfg)
        check_types(cfg, modes=("test",))
        check_config(cfg, modes=("test",))
        runner = build_runner(cfg)
        if args.out:
            runner.test_evaluator.metrics.append(
                DumpDetResults(args.out, collect_device=collect_device())
            )
        check_checkpoint(runner.model, args.checkpoint)
        runner.test()
        finish_processes()


if __name__ == "__main__":
    main()
