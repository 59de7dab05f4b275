"""A module's own pretrained weights, over those that its ``init_weights`` set."""

from mmengine.model import BaseModule, initialize


def load_pretrained(module: BaseModule) -> None:
    """Load the checkpoints that a module's ``init_cfg`` names, again.

    mmengine's ``BaseModule.init_weights`` loads them last. A class that sets weights of its own
    after it would overwrite what they hold.

    Args:
        module: its ``init_cfg`` is a config, a list of configs or None.
    """
    given = module.init_cfg or []
    configs = given if isinstance(given, list | tuple) else [given]
    for config in configs:
        if config["type"] == "Pretrained":
            initialize(module, config)
