"""Save checkpoints so that a full disk, or a kill while writing, damages none of them."""

import errno
import os
import os.path as osp
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...errors import CheckpointSaveError
from ...utils.old_names import register_old_name

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full_disk(error: BaseException) -> bool:
    """Whether an exception says that a disk is full or the user's quota is used up."""
    return isinstance(error, OSError) and error.errno in _FULL


def last_good_checkpoint(work_dir: str) -> str | None:
    """Path in the file ``last_checkpoint`` of a work dir; None if it, or its target, is missing."""
    try:
        with open(osp.join(work_dir, "last_checkpoint")) as file:
            path = file.read().strip()
    except OSError:
        return None
    return path if path and osp.exists(path) else None


def describe_write_error(error: OSError, path: str, last_good: str | None = None) -> str:
    """The message for a failed write at or below `path`.

    Args:
        error: the system's error.
        path: file or folder that was to be written.
        last_good: the newest complete checkpoint.

    Returns:
        The reason, the disk and its free space, the last good checkpoint and what to do.
    """
    folder = osp.abspath(path)
    while not osp.isdir(folder):
        folder = osp.dirname(folder)
    mount = osp.realpath(folder)
    while not osp.ismount(mount):
        mount = osp.dirname(mount)
    free = shutil.disk_usage(folder).free / 2**20
    why = "the disk is full" if is_full_disk(error) else error.strerror or str(error)
    kept = (
        f"The last good checkpoint is {last_good}; it is untouched."
        if last_good
        else "No checkpoint had been saved yet."
    )
    then = f"--resume {last_good}" if last_good else "the same command"
    return (
        f"Cannot write {path}: {why} (disk mounted at {mount}, {free:.1f} MiB free). {kept} "
        f"Free some space or choose another --work-dir, then go on with {then}."
    )


@register_backend("misalign_atomic")
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, but a file gets its name only once it is complete and on the disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes under a temporary name in the same folder, then rename the file.

        Args:
            obj: content of the file.
            filepath: where to write it.

        Raises:
            OSError: with `filename` set. No partial file remains, and an older file is unchanged.
        """
        folder, name = osp.split(osp.abspath(filepath))
        os.makedirs(folder, exist_ok=True)
        partial = osp.join(folder, f".{name}.partial")
        try:
            with open(partial, "wb") as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, filepath)
        except BaseException as error:
            if osp.exists(partial):
                os.remove(partial)
            if isinstance(error, OSError):
                error.filename = str(filepath)
            raise


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, under which a failed save damages no earlier checkpoint.

    It adds to mmengine's hook:

    - A checkpoint is written under a temporary name and renamed once it is complete, and the file
      ``last_checkpoint`` names complete checkpoints only. mmengine's hook writes to the final name.
    - Old checkpoints (``max_keep_ckpts``, ``save_best``) are removed after the new one is written,
      not before. So the disk needs room for one checkpoint more than ``max_keep_ckpts``.
    - A full disk ends the run with :class:`~misalign_det.errors.CheckpointSaveError`, which names
      the disk, its free space and the last good checkpoint.

    Args:
        *args: passed to mmengine's ``CheckpointHook``.
        **kwargs: passed to mmengine's ``CheckpointHook``. With an ``out_dir`` on remote storage, or
            with ``backend_args``, that backend writes the file, and the first point does not hold.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1))
    """

    file_backend: Any  # mmengine sets it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        remote = "://" in str(kwargs.get("out_dir") or "")
        if not (remote or kwargs.get("file_client_args") or kwargs.get("backend_args")):
            kwargs["backend_args"] = {"backend": "misalign_atomic"}
        super().__init__(*args, **kwargs)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._all_or_nothing(runner):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._all_or_nothing(runner):
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _all_or_nothing(self, runner: Runner) -> Iterator[None]:
        """Delay removals until the block has succeeded.

        If it fails, last_checkpoint names the newest complete checkpoint.
        """
        if isinstance(self.file_backend, _HeldRemovals):  # a new best one also saves the last one
            yield
            return
        record = osp.join(runner.work_dir, "last_checkpoint")
        spare = osp.join(runner.work_dir, ".last_checkpoint.spare")
        last_good = last_good_checkpoint(runner.work_dir)
        backend, self.file_backend = self.file_backend, _HeldRemovals(self.file_backend)
        main = is_main_process()  # the only one that writes; the others must not touch its files
        try:
            if main and osp.isfile(record):
                # Copied first: on a full disk there may be no room to write the name again.
                shutil.copyfile(record, spare)
            yield
            held = self.file_backend
        except BaseException as error:
            # The new name stays once it is written: its checkpoint was complete before that.
            if main and last_good_checkpoint(runner.work_dir) is None:
                if osp.isfile(spare):
                    os.replace(spare, record)
                elif osp.isfile(record):
                    os.remove(record)
            if not isinstance(error, OSError):
                raise
            target = str(error.filename or self.last_ckpt or runner.work_dir)
            message = describe_write_error(error, target, last_good)
            raise CheckpointSaveError(message) from error
        finally:
            self.file_backend = backend
            if main and osp.isfile(spare):
                os.remove(spare)
        held.carry_out()


register_old_name(HOOKS, "SafeCheckpointHook", AtomicCheckpointHook)


class _HeldRemovals:
    """A file backend that removes nothing until `carry_out`; the rest is passed to the backend."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._held: list[tuple[Callable, str, tuple[int, int] | None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._held.append((self._backend.remove, path, _identity(path)))

    def rmtree(self, path: str) -> None:
        self._held.append((self._backend.rmtree, path, _identity(path)))

    def carry_out(self) -> None:
        """Remove the delayed paths, except those that have been rewritten since."""
        for remove, path, identity in self._held:
            if _identity(path) == identity:
                remove(path)


def _identity(path: str) -> tuple[int, int] | None:
    """Inode and time of change of a local file; None for remote and missing ones."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
