"""How far the running training is, for assigners that change their rule on the way."""

from mmengine.logging import MessageHub


def training_progress() -> float:
    """Share of the training that is done, in [0, 1).

    Read from the counters that mmengine's ``RuntimeInfoHook`` keeps (a default hook of every
    runner), which a resumed run restores before its first step. Outside a runner, 0.
    """
    hub = MessageHub.get_current_instance()
    iteration, total = hub.get_info("iter", None), hub.get_info("max_iters", None)
    if iteration is None or not total:
        return 0.0
    return iteration / total
