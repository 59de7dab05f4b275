"""What an exported file says of itself."""

import json
from argparse import Namespace
from collections.abc import Iterator

from mmdet.models.detectors import SingleStageDetector
from mmengine.config import Config

from ...errors import InputError
from ...version import __version__
from ..inference.inferencer import tested_dataset


def _kind(step: dict) -> str:
    """The name of a step's class, without its scope; new-style configs give the class itself."""
    kind = step["type"]
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]


def _steps(cfg: Config) -> Iterator[dict]:
    """The steps of the test pipeline, after loading and before packing."""
    for step in tested_dataset(cfg)["pipeline"]:
        if not _kind(step).startswith(("Load", "InferencerLoader", "Pack")):
            yield step


def resize_to(cfg: Config, scale: tuple[int, int]) -> None:
    """Let the test pipeline resize to another size.

    Args:
        cfg: changed in place.
        scale: width and height.

    Raises:
        InputError: the pipeline has no ``Resize``, or there is none.
    """
    steps = [step for step in _steps(cfg) if _kind(step).endswith("Resize")]
    if not steps:
        raise InputError("--img-scale: the test pipeline of the config has no Resize.")
    for step in steps:
        step["scale"] = scale


def describe(cfg: Config, model: SingleStageDetector, args: Namespace) -> dict[str, str]:
    """Metadata of an exported file.

    Args:
        cfg: config of the detector.
        model: the detector, with ``dataset_meta``.
        args: of the export.

    Returns:
        ``classes``, in the order of the labels, and ``preprocessing``, the steps of the test
        pipeline that the images have to pass outside, are JSON; the rest is text.
    """
    outputs = (
        "detections (B, K, 5): xyxy in pixels of the input, score; labels (B, K), -1: none"
        if args.nms
        else "boxes (B, N, 4): xyxy in pixels of the input; scores (B, N, C)"
    )
    return {
        "producer": f"misalign_det {__version__}",
        "config": str(args.config),
        "classes": json.dumps(list(model.dataset_meta["classes"])),
        "input": "images (B, 3, H, W), float32, 0 to 255, BGR, resized; normalised inside",
        "preprocessing": json.dumps([_plain(step) for step in _steps(cfg)]),
        "outputs": outputs,
    }


def _plain(step: dict) -> dict:
    return {key: _kind(step) if key == "type" else value for key, value in step.items()}
