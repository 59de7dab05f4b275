"""How often a schedule that counts steps shows the training images."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

MANY_EPOCHS = 100


def long_schedule(loop: BaseLoop) -> str | None:
    """Say that a schedule made for a large data set shows the images of a small one very often.

    Args:
        loop: built, with its dataloader.

    Returns:
        The number of epochs, and what shortens the run; None for a schedule in epochs, and for one
        of at most :data:`MANY_EPOCHS`.
    """
    if not isinstance(loop, IterBasedTrainLoop):
        return None
    loader = loop.dataloader
    batch = getattr(loader.batch_sampler, "batch_size", None) or loader.batch_size
    images = _number_of_images(loader.dataset)
    if not isinstance(batch, int) or not images:
        return None
    batch *= get_world_size()
    epochs = loop.max_iters * batch / images
    if epochs <= MANY_EPOCHS:
        return None
    return (
        f"The schedule counts steps: {loop.max_iters:,} steps of {batch} images are {epochs:,.0f} "
        f"epochs of the {images:,} training images. Shorter: a config in epochs, such as "
        "misalign_r50_fpn_12e_own-data; or less train_cfg.max_iters, and in proportion "
        "train_cfg.val_interval, param_scheduler's end and milestones, and "
        "default_hooks.checkpoint.interval."
    )


def _number_of_images(dataset: Any) -> int:
    """The images of a dataset, without the repetitions of a wrapper."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    parts = getattr(dataset, "datasets", None)
    return sum(map(_number_of_images, parts)) if parts else len(dataset)
