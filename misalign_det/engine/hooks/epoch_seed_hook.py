"""Seed each epoch, so that its random numbers depend on the seed and the epoch alone."""

from functools import partial

from mmdet.registry import HOOKS
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

_STRIDE = 100_003  # more than any number of workers: no two epochs share a worker's seed


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed each training epoch, so that a resumed run augments images as an uninterrupted one.

    Without it the state of the random number generators is carried from epoch to epoch and saved
    nowhere. The workers of the training data are restarted each epoch, also with
    ``persistent_workers=True``, and seeded by mmengine's ``worker_init_fn``. The hook is for
    training by epochs. A run of ``IterBasedTrainLoop`` resumes with the right images, but with
    other random flips.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        default_hooks = dict(epoch_seed=dict(type='EpochSeedHook'))
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, and the workers that the epoch will start.

        Args:
            runner: with ``seed`` and ``epoch``.
        """
        if runner.max_epochs <= 1:
            return
        seed = runner.seed + (runner.epoch + 1) * _STRIDE
        set_random_seed(seed)
        loader = runner.train_dataloader
        if loader.num_workers:
            loader._iterator = None  # ends workers that persist
            loader.worker_init_fn = partial(
                worker_init_fn, num_workers=loader.num_workers, rank=get_rank(), seed=seed
            )
