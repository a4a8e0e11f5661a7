"""The checkpoints of a run: their folder, which of them are kept, and the hook that saves them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import jax

from seqnets.checks import check_range
from seqnets.runs.background import Background
from seqnets.runs.checkpoint_files import (
    CheckpointError,
    DamagedError,
    read_header,
    read_snapshot,
    read_weights,
    write_snapshot,
    write_weights,
)
from seqnets.training import Hook, Snapshot, TrainState, Weights
from seqnets.typing import PyTree

__all__ = ["CheckpointError", "CheckpointStore", "Checkpointing"]

FINISHED = re.compile(r"(\d+)(?:\.(\d+))?")  # the step, and a version if it was saved again
REMOVED, DAMAGED = ".removed", ".damaged"
LEFTOVERS = ("*.orbax-checkpoint-tmp*", f"*{REMOVED}")

OVERHEAD_BYTES = 2**17  # of a checkpoint, in addition to its arrays

T = TypeVar("T")
logger = logging.getLogger(__name__)


class CheckpointStore:
    """A folder of checkpoints, with one folder per step.

    Any number of processes may read, but only one may save. Saving a step removes the checkpoints
    of later steps, which were left by an earlier attempt.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2) -> None:
        """Use a folder, which is created with the first checkpoint.

        Args:
          directory: the folder.
          keep: number of newest checkpoints to keep, in addition to the best one; ≥ 1.

        Raises:
          ValueError: if ``keep`` is below 1.
        """
        check_range("keep", keep, 1)
        self.directory = Path(directory).resolve()  # the storage does not accept ".."
        self.keep = keep

    def save(self, snapshot: Snapshot, rank: float | None) -> None:
        """Save a snapshot, then remove checkpoints that are no longer kept.

        A crash at any time does not damage finished checkpoints that are to be kept.

        Args:
          snapshot: host state and progress.
          rank: metric of the snapshot, lower is better; None or a non-finite value is never best.

        Raises:
          OSError: if it cannot be written.
        """
        self._remove_leftovers()
        state, step_now = snapshot.state, snapshot.progress.step
        arrays = (state.params, state.opt_state, state.variables, state.carry)
        self._write(step_now, arrays, lambda path: write_snapshot(path, snapshot, rank))
        self._remove([path for step, _, path in self._versions() if step > step_now])
        finished, best = self._finished(), self.best()
        newest = sorted(finished)[-self.keep :]
        kept = {path for step, path in finished.items() if step in newest or step == best}
        self._remove([path for _, _, path in self._versions() if path not in kept])

    def save_weights(self, weights: Weights, step: int) -> None:
        """Save weights only, which can be used but not resumed; nothing is removed.

        Args:
          weights: host arrays.
          step: step of the weights.

        Raises:
          OSError: if they cannot be written.
        """
        self._write(step, weights, lambda path: write_weights(path, weights, step))

    def newest(self) -> int | None:
        """The last saved step, or None."""
        return max(self._finished(), default=None)

    def best(self) -> int | None:
        """The step with the lowest metric, the earliest if equal; None if none has a metric."""
        metrics = {step: _metric(path) for step, path in self._finished().items()}
        known = [(metric, step) for step, metric in metrics.items() if metric is not None]
        return min(known)[1] if known else None

    def restore(self, like: TrainState, step: int) -> Snapshot:
        """Read a checkpoint, bit for bit.

        Args:
          like: a state, or its shapes and dtypes as returned by `jax.eval_shape`.
          step: step of the checkpoint.

        Returns:
          Host state and progress.

        Raises:
          CheckpointError: if there is no checkpoint of this step, or it is damaged, of a different
            model (the message names the first leaf that differs), or has weights only.
        """
        return read_snapshot(self._path(step), like)

    def restore_newest(self, like: TrainState) -> Snapshot | None:
        """Read the newest checkpoint that is not damaged.

        Damaged checkpoints are skipped with a warning and renamed.

        Args:
          like: as for `restore`.

        Returns:
          Host state and progress; None if there is no checkpoint.

        Raises:
          CheckpointError: if all checkpoints are damaged (none is renamed then), or if one is of a
            different model.
        """
        restored, damaged = _first_whole(
            [path for _, _, path in reversed(self._versions())],
            lambda path: read_snapshot(path, like),
        )
        if restored is None:
            return None
        for path, error in damaged.items():
            logger.warning("%s; continuing from step %d", error, restored.progress.step)
            self._set_aside(path)
        return restored

    def restore_best_weights(self, like: Weights) -> Weights:
        """Read the weights of the best checkpoint, or of the newest if none has a metric.

        A damaged checkpoint is skipped with a warning, in favor of the newest one that is not.

        Args:
          like: weights, or their shapes and dtypes.

        Returns:
          The weights, on the host.

        Raises:
          CheckpointError: if there is no undamaged checkpoint, or it is of a different model.
        """
        finished, best = self._finished(), self.best()

        def rank(step: int) -> tuple[bool, bool, int]:
            # A checkpoint with an unreadable metric may be the best; try it first, so as to warn.
            return not _has_header(finished[step]), step == best, step

        order = [finished[step] for step in sorted(finished, key=rank, reverse=True)]
        found, damaged = _first_whole(order, lambda path: (path.name, read_weights(path, like)))
        if found is None:
            raise CheckpointError(f"{self.directory}: there is no checkpoint")
        name, weights = found
        for error in damaged.values():
            logger.warning("%s; using checkpoint %s", error, name)
        return weights

    def _versions(self) -> list[tuple[int, int, Path]]:
        """Step, version, and folder of all finished checkpoints, sorted."""
        paths = self.directory.iterdir() if self.directory.is_dir() else ()
        matches = [(FINISHED.fullmatch(path.name), path) for path in paths]
        return sorted((int(match[1]), int(match[2] or 0), path) for match, path in matches if match)

    def _finished(self) -> dict[int, Path]:
        """The last version of every step."""
        return {step: path for step, _, path in self._versions()}

    def _path(self, step: int) -> Path:
        finished = self._finished()
        if step not in finished:
            found = ", ".join(map(str, finished)) or "none"
            raise CheckpointError(f"{self.directory}: no checkpoint of step {step}; found: {found}")
        return finished[step]

    def _free_paths(self, step: int) -> tuple[Path, Path]:
        """Two unused paths for saving a step; an existing version stays until this is finished.

        The second is for another attempt, in case the first one fails.
        """
        versions = [version for at, version, _ in self._versions() if at == step]
        free = max(versions, default=-1) + 1
        first = f"{step}.{free}" if free else f"{step}"
        return self.directory / first, self.directory / f"{step}.{free + 1}"

    def _write(self, step: int, arrays: PyTree, write: Callable[[Path], None]) -> None:
        path, again = self._free_paths(step)
        try:
            self._check_room(arrays)
            with _quiet():
                try:
                    write(path)
                except TimeoutError:  # measured by the wall clock, which may have jumped
                    write(again)
        except Exception as error:
            self._remove_leftovers()
            raise OSError(f"{path}: cannot be written: {_reason(error)}") from error

    def _check_room(self, arrays: PyTree) -> None:
        """Raise ENOSPC early, since Orbax would log it from many threads."""
        folder = self.directory
        while not folder.exists():
            folder = folder.parent
        needed = sum(x.nbytes for x in jax.tree.leaves(arrays)) + OVERHEAD_BYTES
        if shutil.disk_usage(folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _set_aside(self, path: Path) -> None:
        """Rename a damaged checkpoint, replacing an earlier one of the new name."""
        aside = path.with_name(path.name + DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)

    def _remove(self, paths: list[Path]) -> None:
        """Rename checkpoints, then remove them, so that none is ever incomplete."""
        for path in paths:
            renamed = path.rename(path.with_name(path.name + REMOVED))
            shutil.rmtree(renamed, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for pattern in LEFTOVERS:
            for path in self.directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


class Checkpointing(Hook):
    """Saves the snapshots of a run one at a time, while the loop continues."""

    def __init__(self, store: CheckpointStore) -> None:
        """Make a hook.

        Args:
          store: where to save.
        """
        self.store = store
        self._background = Background()

    def on_checkpoint(self, snapshot: Snapshot, rank: float | None) -> None:
        """Wait for the previous snapshot to be saved, and start saving this one.

        Raises:
          OSError: if the previous one could not be written.
        """
        self._background.start(lambda: self.store.save(snapshot, rank))

    def wait(self) -> None:
        """Wait until the last snapshot has been saved.

        Raises:
          OSError: if it could not be written.
        """
        self._background.wait()

    def on_end(self) -> None:
        """Wait until the last snapshot has been saved; an error is only logged."""
        try:
            self.wait()
        except OSError as error:
            logger.error("%s", error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log of Orbax, which writes a traceback for each of its threads."""
    orbax = logging.getLogger("absl")
    level = orbax.level
    orbax.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        orbax.setLevel(level)


def _reason(error: Exception) -> str:
    """The reason of an error: the operating system's text if the error has its number."""
    number = getattr(error, "errno", None) or re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number[1]) if isinstance(number, re.Match) else number)
    return str(error).partition("\n")[0][:200]


def _first_whole(
    paths: list[Path], read: Callable[[Path], T]
) -> tuple[T | None, dict[Path, DamagedError]]:
    """Read the first undamaged checkpoint, if any; also return the errors of those before it."""
    damaged: dict[Path, DamagedError] = {}
    for path in paths:
        try:
            return read(path), damaged
        except DamagedError as error:
            damaged[path] = error
    if damaged:
        raise next(iter(damaged.values()))
    return None, damaged


def _has_header(path: Path) -> bool:
    try:
        read_header(path)
    except DamagedError:
        return False
    return True


def _metric(path: Path) -> float | None:
    """The metric of a checkpoint; None if it has none or cannot be read."""
    try:
        return read_header(path)["metric"]
    except CheckpointError:
        return None
