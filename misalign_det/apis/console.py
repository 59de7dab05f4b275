"""What a tool prints: the log without the parts that fill a screen, and no library's notices."""

import builtins
import logging
import math
import re
import warnings
from typing import Any

import pycocotools.coco
import pycocotools.cocoeval
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop

from ..engine.training_length import long_schedule

# In the log file these stay. Beginnings of messages, but for the one about frozen parameters.
_FILE_ONLY = re.compile(
    r"\n-+\nSystem environment:"
    r"|Config:\n"
    r"|Hooks will be executed in the following order:"
    r"|Distributed training is not used, all SyncBatchNorm"
    r"|paramwise_options -- "
    r"|\S+ is skipped since its requires_grad=False"
    r'|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias'
    r'|Failed to search registry with scope "\S+" in the "function" registry'
    r"|The prefix is not set in metric class"
)

_WARNINGS = (
    r"torch\.meshgrid: in an upcoming release",
    "'pin_memory' argument is set as true but no accelerator is found",
    "DeprecationWarning: `num_anchors` is deprecated",
)

# Lines that pycocotools prints while it reads and evaluates; its table of figures is printed.
_COCO_PROGRESS = re.compile(
    r"(loading annotations into memory|creating index|Loading and preparing results"
    r"|Running per image evaluation|Accumulating evaluation results)\.\.\.$"
    r"|index created!$|Done \(t=|DONE \(t=|Evaluate annotation type "
)


def leave_out_notices() -> None:
    """Leave out what libraries say of their own code and steps; for tools, not plugins."""
    for beginning in _WARNINGS:
        warnings.filterwarnings("ignore", message=beginning)
    shorten_console(MMLogger.get_current_instance())
    for module in (pycocotools.coco, pycocotools.cocoeval):  # which have no logger
        module.print = _print_without_progress


def _print_without_progress(*values: Any, **kwargs: Any) -> None:
    """`print`, but for pycocotools' lines of progress."""
    if not (values and _COCO_PROGRESS.match(str(values[0]))):
        builtins.print(*values, **kwargs)


def shorten_console(logger: logging.Logger) -> None:
    """Print a logger's messages without environment, config, hooks and notices of libraries.

    Args:
        logger: its stream handlers are changed, those that write to files are not.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.addFilter(_is_for_the_console)


def _is_for_the_console(record: logging.LogRecord) -> bool:
    return not _FILE_ONLY.match(record.getMessage())


class ConciseRunner(Runner):
    """mmengine's runner, whose log has everything and whose console has the progress.

    The console has neither environment, config, hooks and parameter options, about 400 lines, nor
    notices of libraries. It names the log file, and warns of a schedule that is very long for the
    training images.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> "ConciseRunner":
        """Build the runner of a config, as mmengine's; the console then names the log file."""
        runner = super().from_cfg(cfg)
        runner.logger.info(
            f"Log, with environment, config and hooks: {runner.log_dir}/{runner.timestamp}.log"
        )
        return runner

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """mmengine's loop; what is unusual about its length is logged before the first step."""
        built = super().build_train_loop(loop)
        note = long_schedule(built)
        if note:
            self.logger.warning(note)
        return built

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """As mmengine's; warns of a learning rate that it replaces, and if nothing is left."""
        wanted = self._learning_rate()
        super().resume(filename, *args, **kwargs)
        kept = self._learning_rate()
        if wanted and kept and not math.isclose(wanted, kept, rel_tol=1e-6):
            self.logger.warning(
                f"The learning rate stays {kept:g}, that of {filename}: {wanted:g}, which the "
                "config gives (see --auto-scale-lr), has no effect on a run that is resumed."
            )
        loop = self.train_loop
        in_epochs = isinstance(loop, EpochBasedTrainLoop)
        done, goal = (loop.epoch, loop.max_epochs) if in_epochs else (loop.iter, loop.max_iters)
        if done >= goal:
            unit, key = ("epochs", "max_epochs") if in_epochs else ("steps", "max_iters")
            self.logger.warning(
                f"Nothing is left to train: {filename} has finished {done} of {goal} {unit}. "
                f"For more, set train_cfg.{key}."
            )

    def _learning_rate(self) -> float | None:
        """The largest one of the optimizer, before the schedules; None of several optimizers."""
        groups = getattr(self.optim_wrapper, "param_groups", None)
        if not isinstance(groups, list):
            return None
        return max(float(group.get("initial_lr", group["lr"])) for group in groups)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """mmengine's logger, with a short console."""
        logger = super().build_logger(*args, **kwargs)
        shorten_console(logger)
        return logger
