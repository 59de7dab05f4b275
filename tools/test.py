"""Evaluate: `python tools/test.py CONFIG CHECKPOINT`, with the command line of mmdet 3.

CONFIG is a file, or the bare name of a config of this package.
"""

import argparse
import copy

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo

from misalign_det.engine.checkpoint_io import check_checkpoint, tensors_only
from misalign_det.engine.command_line import (
    add_common_arguments,
    build_runner,
    errors_in_one_line,
    load_config,
)
from misalign_det.engine.distributed import finish_processes
from misalign_det.engine.preflight import check_config


def parse_args(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Test a detector")
    parser.add_argument("config", help="config file, or name of a config of this package")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    add_common_arguments(parser)
    parser.add_argument("--out", metavar="FILE.pkl", help="save the detections as a pickle")
    parser.add_argument("--show", action="store_true", help="show detections in a window")
    parser.add_argument(
        "--show-dir", metavar="FOLDER",
        help="save pictures of the detections under WORK_DIR/TIMESTAMP/FOLDER")
    parser.add_argument(
        "--wait-time", type=float, default=2, help="seconds per picture with --show")
    parser.add_argument(
        "--tta", action="store_true",
        help="test-time augmentation, as the config's tta_model and tta_pipeline say; a mirrored "
        "copy of each image where it has none")
    args = parser.parse_args(arguments)
    if args.out and not args.out.endswith((".pkl", ".pickle")):
        parser.error(f"--out {args.out}: the detections are saved as a pickle, name it *.pkl")
    return args


def use_test_time_augmentation(cfg):
    """Wrap the model for test-time augmentation.

    Args:
        cfg (mmengine.Config): changed in place; its `tta_model` and `tta_pipeline` are used if
            there are any, else each image is also taken mirrored, and NMS at 0.5 merges the two.
    """
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    if "tta_pipeline" in cfg:
        pipeline = cfg.tta_pipeline
    else:
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip",
                "flip_direction")
        flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
        pack = [dict(type="PackDetInputs", meta_keys=keys)]
        pipeline = copy.deepcopy(dataset.pipeline)
        pipeline[-1] = dict(type="TestTimeAug", transforms=[flips, pack])
    merge = dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
    wrapper = cfg.get("tta_model") or dict(type="DetTTAModel", tta_cfg=merge)
    dataset.pipeline = pipeline
    cfg.model = dict(**wrapper, module=cfg.model)


def main():
    """Test as the command line says."""
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    with errors_in_one_line("test.py"), tensors_only(args.trust_checkpoint):
        cfg = load_config(args)
        cfg.load_from = args.checkpoint
        if args.show or args.show_dir:
            cfg = trigger_visualization_hook(cfg, args)
        if args.tta:
            use_test_time_augmentation(cfg)
        check_config(cfg, modes=("test",))
        runner = build_runner(cfg)
        if args.out:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
        check_checkpoint(runner.model, args.checkpoint)
        runner.test()
        finish_processes()


if __name__ == "__main__":
    main()
