"""One pass over a split under several non-maximum suppressions."""

import copy

import torch
from torch import nn

from ..apis.detector import batches, dense_predictor
from ..errors import InputError


def plain_suppression(model: nn.Module) -> dict:
    """The detector's own ``test_cfg.nms``.

    Raises:
        InputError: it is no one-stage detector, or suppresses nothing.
    """
    head = dense_predictor(model)
    nms = head.test_cfg.get("nms")
    if not nms:
        raise InputError(f"{type(head).__name__}: test_cfg.nms is empty, nothing is suppressed.")
    return dict(nms)


def detections_under(
    model: nn.Module, cfg, split: str, suppressions: list[dict], progress: bool = True
) -> list[list[dict]]:
    """The detections of a split under each of several ``test_cfg.nms``.

    The network runs once an image; only what follows its outputs is repeated.

    Args:
        model: a one-stage detector of mmdet's, as
            :func:`~misalign_det.apis.detector.load_detector` gives it.
        cfg: mmengine's ``Config`` with the dataloader of the split.
        split: ``'val'`` or ``'test'``.
        suppressions: values of ``test_cfg.nms``.
        progress: whether a bar is shown.

    Returns:
        Of each suppression a dict an image, in the order of the dataset: ``img_id``, the place in
        the dataset from 0, and ``pred_instances`` with ``bboxes`` ``(D, 4)``, xyxy in pixels of the
        original image, ``scores`` and ``labels`` ``(D,)``, arrays.

    Raises:
        InputError: the detector is not a one-stage one, the dataloader shuffles, or a suppression
            refuses its options or the boxes.
    """
    head = dense_predictor(model)
    dataset, loader = batches(model, cfg, split, progress)
    configs = [_with_nms(head.test_cfg, nms) for nms in suppressions]
    found = [[] for _ in suppressions]
    place = 0
    for batch in loader:
        for i, sample in enumerate(batch["data_samples"]):
            check_place(dataset, place + i, sample.img_id)
        try:
            suppressed = _detect(model, batch, configs)
        except ValueError as error:  # of a suppression: its options, or what the model hands it
            raise InputError(str(error)) from error
        for kept, instances in zip(found, suppressed):
            kept += [dict(img_id=place + i, pred_instances=_arrays(one))
                     for i, one in enumerate(instances)]  # fmt: skip
        place += len(batch["data_samples"])
    return found


def check_place(dataset, place: int, image_id) -> None:
    """A loader's sample must be the dataset's at its place.

    Raises:
        InputError: the dataloader takes the images in another order.
    """
    expected = dataset.get_data_info(place)["img_id"]
    if image_id != expected:
        raise InputError(
            f"image {image_id!r} comes where the dataset has {expected!r}: the split's dataloader "
            "must take the images in order (sampler.shuffle=False, no batch_sampler that sorts)."
        )


@torch.no_grad()
def _detect(model, batch, configs):
    """Instances of each image under each config."""
    outputs = model.bbox_head(model.extract_feat(batch["inputs"]))
    metas = [sample.metainfo for sample in batch["data_samples"]]
    return [
        model.bbox_head.predict_by_feat(
            *outputs, batch_img_metas=metas, cfg=copy.deepcopy(config), rescale=True
        )
        for config in configs
    ]


def _arrays(instances) -> dict:
    return {key: instances[key].cpu().numpy() for key in ("bboxes", "scores", "labels")}


def _with_nms(test_cfg, nms: dict):
    test_cfg = copy.deepcopy(test_cfg)
    test_cfg.nms = dict(nms)
    return test_cfg
