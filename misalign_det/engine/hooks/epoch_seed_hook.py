"""Random numbers of an epoch that depend on the seed and the epoch alone."""

from functools import partial

from mmdet.registry import HOOKS
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

_APART = 100_003  # farther than any number of workers: no two epochs share a worker's seed


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """A resumed run augments its images as the uninterrupted one would have.

    Without it the random numbers go on from epoch to epoch, and nothing saves them. The workers of
    the training data are started anew each epoch, ``persistent_workers`` or not, and seeded by
    mmengine's own ``worker_init_fn``. For training by epochs; a run that counts steps resumes with
    the right images, but flips them anew.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        default_hooks = dict(epoch_seed=dict(type='EpochSeedHook'))
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process and the workers to come."""
        if runner.max_epochs <= 1:
            return
        seed = runner.seed + (runner.epoch + 1) * _APART
        set_random_seed(seed)
        loader = runner.train_dataloader
        if loader.num_workers:
            loader._iterator = None  # ends workers that persist
            loader.worker_init_fn = partial(
                worker_init_fn, num_workers=loader.num_workers, rank=get_rank(), seed=seed
            )
