"""What a detector predicts on the images of a split, one image at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.dataset import BaseDataset
from mmengine.structures import InstanceData
from torch import Tensor

from ...apis.detector import ground_truth
from ..dense_outputs import read_outputs
from ..nms_comparison import check_order
from ..nms_regret import boxes_before_nms


@dataclass
class Prediction:
    """What a detector predicts on one image.

    Attributes:
        sample: of the dataloader, with the metainfo.
        gts: ``bboxes`` ``(G, 4)``, xyxy in pixels of the original image, and ``labels`` ``(G,)``.
        detections: ``bboxes``, ``scores`` and ``labels``, in the same pixels.
        candidates: the same before NMS; ``None`` without a dense head.
        outputs: of the dense head, for the whole batch.
        index: of the image in the batch.
    """

    sample: DetDataSample
    gts: InstanceData
    detections: InstanceData
    candidates: InstanceData | None
    outputs: Sequence[Any]
    index: int


def predictions(
    model: BaseDetector, head: BaseDenseHead | None, dataset: BaseDataset, loader: Iterable[dict]
) -> Iterator[Prediction]:
    """Run the network once per batch and give what it predicts image by image.

    Args:
        model: the detector.
        head: its dense head, or ``None`` where NMS is not compared.
        dataset, loader: from :func:`~misalign_det.apis.detector.batches`.
    """
    first = 0
    for batch in loader:
        samples = batch["data_samples"]
        outputs: Sequence[Any] = ()
        candidates: Sequence[InstanceData | None] = [None] * len(samples)
        if head is None:
            predicted = model.predict(batch["inputs"], samples, rescale=True)
            detections = [sample.pred_instances for sample in predicted]
        else:
            metas = [sample.metainfo for sample in samples]
            outputs = head(model.extract_feat(batch["inputs"]))
            detections = head.predict_by_feat(*outputs, batch_img_metas=metas, rescale=True)
            candidates = boxes_before_nms(head, outputs, metas)
        for i, sample in enumerate(samples):
            check_order(dataset, first + i, sample.img_id)
            gts = ground_truth(dataset.get_data_info(first + i))
            yield Prediction(sample, gts, detections[i], candidates[i], outputs, i)
        first += len(samples)


def per_location(
    head: BaseDenseHead, image: Prediction
) -> tuple[Tensor, Tensor, Tensor, Tensor, InstanceData, float]:
    """The arguments of :func:`~.spatial_gap.spatial_gaps` for an image.

    Raises:
        InputError: the boxes of the head cannot be read per location.
    """
    cls_scores, bbox_preds = image.outputs[:2]
    outputs = read_outputs(head, cls_scores, bbox_preds, image=image.index)
    factor = torch.tensor(image.sample.scale_factor, dtype=torch.float32)
    device = outputs.logits.device
    gts = InstanceData(
        bboxes=(image.gts.bboxes * factor.repeat(2)).to(device), labels=image.gts.labels.to(device)
    )
    points, strides = outputs.locations()
    return outputs.logits, outputs.bboxes, points, strides, gts, float(factor.prod().sqrt())
