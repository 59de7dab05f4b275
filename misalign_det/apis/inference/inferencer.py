"""mmdet's ``DetInferencer`` by the name of a config, with checkpoints loaded as tensors only."""

import copy
from typing import Any

from mmdet.apis import DetInferencer
from mmengine.config import Config, ConfigDict
from torch import nn

from ...engine.architecture import check_architecture
from ...engine.checkpoint import read_checkpoint, tensors_only
from ...errors import InputError
from ...utils import leaf_datasets
from ..class_names import configured_classes, saved_classes
from ..config_lookup import find_config
from ..detector import check_device


class Inferencer(DetInferencer):
    """mmdet's ``DetInferencer``, whose model may also be the name of a config of this package.

    mmdet's own finds only the models of packages that mmengine lists. Three more things differ: a
    checkpoint is loaded as tensors only and refused if it does not fit the model, a checkpoint
    that names no classes gets those of the config instead of COCO's, and the test data may be
    several datasets or one in a wrapper, of which the first one's pipeline is taken.

    Args:
        model: file of a config, name of a config of this package, or a config.
        weights: checkpoint, file or URL.
        trust: load a checkpoint that contains more than tensors; its code then runs.
        show_progress: whether to show mmdet's progress bar.
        **kwargs: ``device``, ``palette``, ``scope``, as mmdet's.

    Raises:
        ConfigNotFoundError: there is no such config.
        CheckpointError: the checkpoint is missing, unsafe, damaged or of another architecture.
        InputError: there is no such device, or the config has no pipeline for test images.

    Example::

        from misalign_det.apis.inference import Inferencer

        detect = Inferencer('misalign_effnet-lite0_fpn_12e_bccd', 'epoch_12.pth')
        found = detect('image.jpg', out_dir='pictures')['predictions'][0]
        print(found['bboxes'], found['scores'], found['labels'])
    """

    def __init__(
        self,
        model: str | Config | ConfigDict,
        weights: str,
        *,
        trust: bool | None = None,
        show_progress: bool = True,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("device"):
            check_device(kwargs["device"])
        if isinstance(model, str):
            found = find_config(model)
            model = Config.fromfile(found.path)
            model.merge_from_dict(dict(found.options))
        model = copy.deepcopy(model)
        model.test_dataloader.dataset = tested_dataset(model)  # without wrappers
        self.weights = weights
        with tensors_only(trust):
            read_checkpoint(weights)
            super().__init__(model=model, weights=weights, show_progress=show_progress, **kwargs)

    def _load_weights_to_model(
        self, model: nn.Module, checkpoint: dict | None, cfg: Config | ConfigDict | None
    ) -> None:
        # mmdet calls it with what it has read of `weights`.
        assert checkpoint is not None and cfg is not None
        check_architecture(model, checkpoint, self.weights)
        classes = detector_classes(cfg, checkpoint)
        checkpoint.setdefault("meta", {}).setdefault("dataset_meta", {"classes": classes})
        super()._load_weights_to_model(model, checkpoint, cfg)

    def _init_visualizer(self, cfg: Config | ConfigDict) -> Any:
        visualizer = cfg.get("visualizer") or dict(type="mmdet.DetLocalVisualizer")
        # The backends are those of a training run.
        cfg.visualizer = dict(visualizer, vis_backends=None)
        return super()._init_visualizer(cfg)


def tested_dataset(cfg: Config | ConfigDict) -> ConfigDict:
    """The config of the test dataset, without wrappers; of several the first with a pipeline.

    Args:
        cfg: config of a detector; what is returned is a part of it.

    Raises:
        InputError: none has a pipeline.
    """
    data = (cfg.get("test_dataloader") or {}).get("dataset") or {}
    for _, leaf in leaf_datasets(data):
        if leaf.get("pipeline"):
            return leaf
    raise InputError(
        "no dataset of the config's test_dataloader has a pipeline, which loads and resizes an "
        "image. Give a config that has one."
    )


def detector_classes(cfg: Config | ConfigDict, checkpoint: dict) -> tuple[str, ...]:
    """The classes of a detector: those saved in its checkpoint, else those of its config.

    Args:
        cfg: config of the detector.
        checkpoint: as mmengine saves it.

    Returns:
        Class names in the order of the labels.

    Raises:
        InputError: neither names any.
    """
    return saved_classes(checkpoint) or configured_classes(cfg, "the config")
