"""Progress of the running training, for assigners whose rule depends on it."""

from mmengine.logging import MessageHub


def training_progress() -> float:
    """Share of the training that is done, in [0, 1); outside a runner, 0.

    It is read from the iteration counters of mmengine's ``RuntimeInfoHook``, a default hook of
    every runner. A resumed run restores them before its first step.
    """
    hub = MessageHub.get_current_instance()
    iteration, total = hub.get_info("iter", None), hub.get_info("max_iters", None)
    if iteration is None or not total:
        return 0.0
    return iteration / total
