"""Progress of the running training, for assigners whose rule depends on it."""

from mmengine.logging import MessageHub


def training_progress() -> float:
    """Share of the training that is done, in [0, 1); outside a runner, 0.

    It is read from the iteration counters of mmengine's ``RuntimeInfoHook``, a default hook of
    every runner. A resumed run restores them before its first step. Of several runners in one
    process the one that was built last counts: build each after the one before has trained.
    """
    hub = MessageHub.get_current_instance()
    iteration, total = hub.get_info("iter", None), hub.get_info("max_iters", None)
    if iteration is None or not total:
        return 0.0
    return iteration / total
