"""One pass over a split, evaluated under several non-maximum suppressions."""

import contextlib
import copy
import io
import logging
from collections.abc import Sequence

import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from torch import nn

from .detector import batches, dense_predictor


def evaluate_under(
    model: nn.Module,
    cfg,
    split: str,
    suppressions: list[dict],
    progress: bool = True,
    dump_to: Sequence[str] | None = None,
) -> list[dict[str, float]]:
    """The metrics of a detector under each of several ``test_cfg.nms``.

    The network runs once an image; only what follows its outputs is repeated.

    Args:
        model: a one-stage detector of mmdet's, as
            :func:`~misalign_det.engine.detector.load_detector` gives it.
        cfg: mmengine's ``Config`` with the dataloader and evaluator of the split.
        split: ``'val'`` or ``'test'``.
        suppressions: values of ``test_cfg.nms``.
        progress: whether a bar is shown.
        dump_to: a file, ``.pkl``, under each suppression for its detections.

    Returns:
        What the split's evaluator says under each suppression.

    Raises:
        InputError: the detector is not a one-stage one.
    """
    head = dense_predictor(model)
    dataset, loader = batches(model, cfg, split, progress)
    evaluators = []
    with _quiet():
        for index in range(len(suppressions)):
            metrics = copy.deepcopy(cfg[f"{split}_evaluator"])
            metrics = metrics if isinstance(metrics, list) else [metrics]
            if dump_to:
                metrics.append(dict(type="DumpDetResults", out_file_path=str(dump_to[index])))
            evaluator = Evaluator(metrics)
            evaluator.dataset_meta = dataset.metainfo
            evaluators.append(evaluator)
    configs = [_with_nms(head.test_cfg, nms) for nms in suppressions]
    for batch in loader:
        _detect(model, batch, configs, evaluators)
    with _quiet():
        return [evaluator.evaluate(len(dataset)) for evaluator in evaluators]


@torch.no_grad()
def _detect(model, batch, configs, evaluators):
    samples = batch["data_samples"]
    outputs = model.bbox_head(model.extract_feat(batch["inputs"]))
    for config, evaluator in zip(configs, evaluators):
        found = model.bbox_head.predict_by_feat(
            *outputs,
            batch_img_metas=[sample.metainfo for sample in samples],
            cfg=copy.deepcopy(config),
            rescale=True,
        )
        evaluator.process(model.add_pred_to_datasample(samples, found), batch)


def _with_nms(test_cfg, nms: dict):
    test_cfg = copy.deepcopy(test_cfg)
    test_cfg.nms = dict(nms)
    return test_cfg


@contextlib.contextmanager
def _quiet():
    """Without pycocotools' and mmengine's tables, one a suppression."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
