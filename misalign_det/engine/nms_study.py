"""One pass over a split, evaluated under several non-maximum suppressions."""

import contextlib
import copy
import io
import logging

import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from torch import nn

from .annotation_checks import InputError


def evaluate_under(
    model: nn.Module, cfg, split: str, suppressions: list[dict], progress: bool = True
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

    Returns:
        What the split's evaluator says under each suppression.

    Raises:
        InputError: the detector is not a one-stage one.
    """
    head = getattr(model, "bbox_head", None)
    if not hasattr(head, "predict_by_feat") or not hasattr(model, "extract_feat"):
        raise InputError(
            f"{type(model).__name__} has no dense head whose outputs can be suppressed in several "
            "ways. Take a one-stage detector."
        )
    loader = Runner.build_dataloader(copy.deepcopy(cfg[f"{split}_dataloader"]))
    evaluators = []
    with _quiet():
        for _ in suppressions:
            evaluator = Evaluator(copy.deepcopy(cfg[f"{split}_evaluator"]))
            evaluator.dataset_meta = loader.dataset.metainfo
            evaluators.append(evaluator)
    configs = [_with_nms(head.test_cfg, nms) for nms in suppressions]
    bar = ProgressBar(len(loader.dataset)) if progress else None
    for batch in loader:
        samples = _detect(model, batch, configs, evaluators)
        if bar:
            bar.update(len(samples))
    if bar:
        print()
    with _quiet():
        return [evaluator.evaluate(len(loader.dataset)) for evaluator in evaluators]


@torch.no_grad()
def _detect(model, batch, configs, evaluators):
    batch = model.data_preprocessor(batch, False)
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
    return samples


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
