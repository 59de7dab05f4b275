"""A trained detector from a config and a checkpoint, and its input from a dataset."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmengine.structures import InstanceData
from mmengine.utils import ProgressBar
from torch import Tensor, nn

from .annotation_checks import InputError
from .checkpoint_io import check_checkpoint


def load_detector(cfg, checkpoint: str, device: str = "cpu") -> nn.Module:
    """Like mmdet's ``init_detector``, but a checkpoint that does not fit is refused.

    Args:
        cfg: mmengine's ``Config``.
        checkpoint: file or URL.

    Returns:
        The model in eval mode, as mmdet's ``inference_detector`` takes it.

    Raises:
        CheckpointError: the file is missing, unsafe, damaged or of another architecture.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    check_checkpoint(model, checkpoint)
    load_checkpoint(model, checkpoint, map_location="cpu")
    model.cfg = cfg
    return model.to(device).eval()


def dense_predictor(model: nn.Module) -> nn.Module:
    """The head of a one-stage detector, whose outputs can be suppressed in one way or another.

    Raises:
        InputError: a two-stage or query-based detector, or one without NMS.
    """
    if not isinstance(model, SingleStageDetector):
        raise InputError(f"{type(model).__name__} is no one-stage detector with a dense head.")
    head = model.bbox_head
    if not hasattr(head, "predict_by_feat") or "nms" not in (head.test_cfg or {}):
        raise InputError(f"{type(head).__name__} has no test_cfg.nms: nothing is suppressed.")
    return head


def batches(model: nn.Module, cfg, split: str, progress: bool = True):
    """A split's dataset, and an iterator over its batches as the model's layers take them.

    Args:
        model: from :func:`load_detector`.
        cfg: mmengine's ``Config`` with the split's dataloader.
        split: ``'val'`` or ``'test'``.
        progress: whether a bar is shown.
    """
    loader = Runner.build_dataloader(copy.deepcopy(cfg[f"{split}_dataloader"]))

    def preprocessed():
        bar = ProgressBar(len(loader.dataset)) if progress else None
        for batch in loader:
            yield model.data_preprocessor(batch, False)
            if bar:
                bar.update(len(batch["data_samples"]))
        if bar:
            print()

    return loader.dataset, preprocessed()


def ground_truth(info: dict) -> InstanceData:
    """The annotated objects of an image, without the ignored ones.

    Args:
        info: from a dataset's ``get_data_info``.

    Returns:
        ``bboxes`` ``(G, 4)``, xyxy in pixels of the original image, and ``labels`` ``(G,)``.
    """
    kept = [item for item in info["instances"] if not item["ignore_flag"]]
    return InstanceData(
        bboxes=torch.tensor([i["bbox"] for i in kept], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([i["bbox_label"] for i in kept], dtype=torch.int64),
    )


@dataclass
class NetworkInput:
    """One image as the network sees it.

    Attributes:
        inputs: normalised and padded, ``(1, 3, H, W)``.
        image: the same pixels unpadded, uint8 RGB, ``(h, w, 3)``.
        gt_instances: boxes in pixels of the input.
        meta: mmdet's metainfo.
    """

    inputs: Tensor
    image: np.ndarray
    gt_instances: InstanceData
    meta: dict


def build_dataset(cfg, split: str):
    """The dataset of a split's dataloader, ``'val'`` or ``'test'``."""
    return DATASETS.build(cfg[f"{split}_dataloader"]["dataset"])


def network_input(model: nn.Module, dataset, index: int) -> NetworkInput:
    """Run one image through the dataset's pipeline and the model's preprocessor.

    Args:
        model: with ``data_preprocessor``.
        dataset: whose pipeline leaves the image in BGR, as mmdet's do.
        index: place in the dataset.
    """
    item = dataset[index]
    pixels = item["inputs"]
    batch = model.data_preprocessor(pseudo_collate([item]), False)
    meta = batch["data_samples"][0].metainfo
    truth = ground_truth(dataset.get_data_info(index))
    factor = torch.tensor(meta["scale_factor"], dtype=torch.float32).repeat(2)
    device = batch["inputs"].device
    return NetworkInput(
        inputs=batch["inputs"],
        image=pixels.permute(1, 2, 0).flip(-1).contiguous().cpu().numpy(),
        gt_instances=InstanceData(
            bboxes=(truth.bboxes * factor).to(device), labels=truth.labels.to(device)
        ),
        meta=meta,
    )


def find_image(dataset, name: str | None) -> int:
    """Place of an image by file name, id or place.

    Raises:
        InputError: no image of that name; says what the names look like.
    """
    if name is None:
        return 0
    names = [dataset.get_data_info(i) for i in range(len(dataset))]
    for i, info in enumerate(names):
        path = str(info["img_path"])
        if name in (path, path.rsplit("/", 1)[-1], path.rsplit("/", 1)[-1].rsplit(".", 1)[0]):
            return i
    for i, info in enumerate(names):
        if name == str(info["img_id"]):
            return i
    example = str(names[0]["img_path"]).rsplit("/", 1)[-1]
    raise InputError(
        f"no image {name!r} among the {len(names)} of this split. Give a file name such as "
        f"{example!r} or an image id such as {names[0]['img_id']!r}."
    )
