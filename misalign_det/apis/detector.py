"""Load a trained detector, and images of a dataset as its input."""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmengine.utils import ProgressBar
from torch import Tensor

from ..engine.checkpoint import load_checkpoint, read_checkpoint, tensors_only
from ..errors import InputError
from ..utils import tensor_to_rgb_image


def load_detector(
    cfg: Config, checkpoint: str, device: str = "cpu", trust: bool | None = None
) -> BaseDetector:
    """Like mmdet's ``init_detector``, but a checkpoint that does not fit is refused.

    Args:
        cfg: config of the detector.
        checkpoint: file or URL.
        device: where the model is to run.
        trust: load checkpoints that contain more than tensors; their code then runs. Default: as
            the enclosing :func:`~misalign_det.engine.checkpoint.tensors_only` block; False without
            one.

    Returns:
        The model in eval mode, as mmdet's ``inference_detector`` takes it.

    Raises:
        CheckpointError: the file is missing, unsafe, damaged or of another architecture.
        InputError: there is no such device.

    Example::

        from mmdet.apis import inference_detector
        from mmengine.config import Config
        from misalign_det.apis.detector import load_detector

        model = load_detector(Config.fromfile('config.py'), 'epoch_12.pth')
        result = inference_detector(model, 'image.jpg').pred_instances
    """
    check_device(device)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    with tensors_only(trust):
        read_checkpoint(checkpoint)
        # Inside the block, because some detectors load a teacher's checkpoint when they are built.
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        load_checkpoint(model, checkpoint)
    model.cfg = cfg
    return model.to(device).eval()


def check_device(device: str) -> None:
    """Refuse a device that torch does not have.

    Args:
        device: ``'cpu'``, ``'cuda:0'`` and so on.

    Raises:
        InputError: there is no such device; the message says which there are.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        found = f"torch finds {count} GPUs" if count else "torch finds no GPU that it can use"
        raise InputError(f"--device {device}: {found}. --device cpu needs none.")


def batches(
    model: BaseDetector, cfg: Config, split: str, progress: bool = True
) -> tuple[BaseDataset, Iterator[dict]]:
    """A split's dataset, and its batches as the model's layers take them.

    Args:
        model: from :func:`load_detector`.
        cfg: config with the split's dataloader.
        split: ``'val'`` or ``'test'``.
        progress: whether to show a progress bar.

    Returns:
        The dataset, and an iterator over dicts with ``inputs`` ``(N, C, H, W)`` and
        ``data_samples``.

    Raises:
        InputError: the config has no dataloader for the split.
    """
    if not cfg.get(f"{split}_dataloader"):
        known = [name for name in ("val", "test") if cfg.get(f"{name}_dataloader")]
        raise InputError(
            f"the config has no {split}_dataloader. "
            + (f"It has one of --split {known[0]}." if known else "Give a config that has one.")
        )
    loader = Runner.build_dataloader(copy.deepcopy(cfg[f"{split}_dataloader"]))

    def preprocessed() -> Iterator[dict]:
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
    kept = [item for item in info.get("instances", ()) if not item.get("ignore_flag")]
    return InstanceData(
        bboxes=torch.tensor([i["bbox"] for i in kept], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([i["bbox_label"] for i in kept], dtype=torch.int64),
    )


@dataclass
class NetworkInput:
    """One image as input of the network.

    Attributes:
        inputs: normalised and padded, ``(1, C, H, W)``.
        image: the same pixels without padding, uint8 RGB, ``(h, w, 3)``; see
            :func:`~misalign_det.utils.tensor_to_rgb_image`.
        gt_instances: ``bboxes`` ``(G, 4)``, xyxy in pixels of the input, and ``labels`` ``(G,)``.
        meta: mmdet's metainfo.
    """

    inputs: Tensor
    image: np.ndarray
    gt_instances: InstanceData
    meta: dict


def build_dataset(cfg: Config, split: str) -> BaseDataset:
    """The dataset of a split's dataloader.

    Args:
        cfg: config with the dataloader.
        split: ``'val'`` or ``'test'``.
    """
    return DATASETS.build(cfg[f"{split}_dataloader"]["dataset"])


def network_input(
    model: BaseDetector, dataset: BaseDataset, index: int, rgb: bool | None = None
) -> NetworkInput:
    """Run one image through the dataset's pipeline and the model's preprocessor.

    Args:
        model: from :func:`load_detector`.
        dataset: from :func:`build_dataset`.
        index: of the image in the dataset.
        rgb: whether the pipeline's images are RGB, not BGR. Default: True if a step of it has
            ``to_rgb=True`` (mmcv's ``Normalize``) or the model's config ``rgb_to_bgr=True``.
    """
    item = dataset[index]
    batch = model.data_preprocessor(pseudo_collate([item]), False)
    meta = batch["data_samples"][0].metainfo
    truth = ground_truth(dataset.get_data_info(index))
    factor = torch.tensor(meta["scale_factor"], dtype=torch.float32).repeat(2)
    device = batch["inputs"].device
    rgb = _leaves_rgb(model, dataset) if rgb is None else rgb
    return NetworkInput(
        inputs=batch["inputs"],
        image=tensor_to_rgb_image(item["inputs"], rgb),
        gt_instances=InstanceData(
            bboxes=(truth.bboxes * factor).to(device), labels=truth.labels.to(device)
        ),
        meta=meta,
    )


@torch.no_grad()
def detect(model: BaseDetector, dataset: BaseDataset, index: int) -> InstanceData:
    """Detections on one image of a dataset, loaded by the dataset's pipeline.

    Args:
        model: in eval mode.
        dataset: from :func:`build_dataset`.
        index: of the image in the dataset.

    Returns:
        On the CPU: ``bboxes`` ``(D, 4)``, xyxy in pixels of the original image, ``scores`` and
        ``labels`` ``(D,)``.
    """
    (sample,) = model.test_step(pseudo_collate([dataset[index]]))
    return sample.pred_instances.cpu()


def _leaves_rgb(model: BaseDetector, dataset: Any) -> bool:
    preprocessor = getattr(model, "cfg", {}).get("model", {}).get("data_preprocessor") or {}
    while not hasattr(dataset, "pipeline") and dataset is not None:
        parts = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
        dataset = parts[0]
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", [])
    return bool(preprocessor.get("rgb_to_bgr")) or any(
        getattr(step, "to_rgb", False) is True for step in steps
    )


def find_image(dataset: BaseDataset, name: str | None) -> int:
    """Index of an image by file name, by the end of its path, or by id.

    Args:
        dataset: from :func:`build_dataset`.
        name: ``'0001.jpg'``, ``'cam1/0001.jpg'``, the same without the suffix, or an id. None for
            the first image.

    Returns:
        Index in the dataset.

    Raises:
        InputError: no image has that name, or several have; the message lists their paths.
    """
    if name is None:
        return 0
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    paths = [str(info["img_path"]) for info in infos]
    stems = [os.path.splitext(path)[0] for path in paths]
    end = f"/{name.removeprefix('./')}"
    ways = (
        lambda i: paths[i] == name,
        lambda i: f"/{paths[i]}".endswith(end),
        lambda i: f"/{stems[i]}".endswith(end),
        lambda i: str(infos[i]["img_id"]) == name,
    )
    for way in ways:
        found = {paths[i]: i for i in reversed(range(len(paths))) if way(i)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            listed = sorted(found)
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            raise InputError(
                f"{len(listed)} images are called {name!r}: {', '.join(listed[:5])}{more}. Give "
                "the path of one, or an ending of it that no other path has."
            )
    hint = ""
    if paths:
        hint = (
            f" Give a file name such as {os.path.basename(paths[0])!r} or an image id such as "
            f"{infos[0]['img_id']!r}."
        )
    raise InputError(f"no image {name!r} among the {len(paths)} of this split.{hint}")
