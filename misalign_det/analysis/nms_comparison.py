"""The detections of a split under several kinds of NMS, from one pass of the network."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.structures import InstanceData

from ..apis.detector import batches
from ..errors import InputError
from .dense_outputs import dense_head


def configured_nms(model: SingleStageDetector) -> dict[str, Any]:
    """A copy of the detector's ``test_cfg.nms``.

    Raises:
        InputError: the detector is not a one-stage detector, or has no NMS.
    """
    head = dense_head(model, needs="nms")
    nms = head.test_cfg.get("nms")
    if not nms:
        raise InputError(f"{type(head).__name__}: test_cfg.nms is empty, nothing is suppressed.")
    return dict(nms)


def detections_under(
    model: SingleStageDetector,
    cfg: Config,
    split: str,
    suppressions: Sequence[Mapping[str, Any]],
    progress: bool = True,
) -> list[list[dict[str, Any]]]:
    """The detections of a split under each of several ``test_cfg.nms``.

    The network runs once per image; only what follows its outputs is repeated.

    Args:
        model: one of mmdet's one-stage detectors, from
            :func:`~misalign_det.apis.detector.load_detector`.
        cfg: the config with the dataloader of the split.
        split: ``'val'`` or ``'test'``.
        suppressions: values of ``test_cfg.nms``.
        progress: whether a progress bar is shown.

    Returns:
        Per NMS one dict per image, in the order of the dataset: ``img_id``, the index in the
        dataset, and ``pred_instances`` with the arrays ``bboxes`` ``(D, 4)``, xyxy in pixels of the
        original image, ``scores`` and ``labels`` ``(D,)``.

    Raises:
        InputError: the detector is not a one-stage detector, the dataloader shuffles, or an NMS
            rejects its options or the boxes.
    """
    head = dense_head(model, needs="nms")
    dataset, loader = batches(model, cfg, split, progress)
    configs = [_with_nms(head.test_cfg, nms) for nms in suppressions]
    found: list[list[dict[str, Any]]] = [[] for _ in suppressions]
    first = 0
    for batch in loader:
        for index, sample in enumerate(batch["data_samples"], first):
            check_order(dataset, index, sample.img_id)
        try:
            suppressed = _detect(model, batch, configs)
        except ValueError as error:  # of an NMS: its options, or the boxes that it gets
            raise InputError(str(error)) from error
        for kept, instances in zip(found, suppressed):
            kept += [
                dict(img_id=index, pred_instances=_arrays(one))
                for index, one in enumerate(instances, first)
            ]
        first += len(batch["data_samples"])
    return found


def check_order(dataset: BaseDataset, index: int, image_id: int | str) -> None:
    """Check that a dataloader gives the images in the order of its dataset.

    Args:
        dataset: of the dataloader.
        index: number of the images that the dataloader gave before.
        image_id: of the image that it gave.

    Raises:
        InputError: the dataset has another image at this index.
    """
    expected = dataset.get_data_info(index)["img_id"]
    if image_id != expected:
        raise InputError(
            f"image {image_id!r} comes where the dataset has {expected!r}: the split's dataloader "
            "must take the images in order (sampler.shuffle=False, no batch_sampler that sorts)."
        )


@torch.no_grad()
def _detect(
    model: SingleStageDetector, batch: dict[str, Any], configs: Sequence[ConfigDict]
) -> list[list[InstanceData]]:
    """The detections of each image under each config."""
    outputs = model.bbox_head(model.extract_feat(batch["inputs"]))
    metas = [sample.metainfo for sample in batch["data_samples"]]
    return [
        model.bbox_head.predict_by_feat(
            *outputs, batch_img_metas=metas, cfg=copy.deepcopy(config), rescale=True
        )
        for config in configs
    ]


def _arrays(instances: InstanceData) -> dict[str, Any]:
    return {key: instances[key].cpu().numpy() for key in ("bboxes", "scores", "labels")}


def _with_nms(test_cfg: ConfigDict, nms: Mapping[str, Any]) -> ConfigDict:
    test_cfg = copy.deepcopy(test_cfg)
    test_cfg.nms = dict(nms)
    return test_cfg
