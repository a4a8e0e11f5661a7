"""The checkpoints of a run: which there are, which are kept, and the hook that saves them."""

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

FINISHED = re.compile(r"(\d+)(?:\.(\d+))?")  # the step, and a number where it was saved again
REMOVED, DAMAGED = ".removed", ".damaged"
LEFTOVERS = ("*.orbax-checkpoint-tmp*", f"*{REMOVED}")

OVERHEAD_BYTES = 2**17  # of a checkpoint beside its arrays

T = TypeVar("T")
logger = logging.getLogger(__name__)


class CheckpointStore:
    """A folder of checkpoints, one folder a step, named by it.

    Many may read, one may save. To save a step is to go on from there: later steps, left by an
    attempt that was given up, are then removed.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2) -> None:
        """Use a folder; it is made with the first checkpoint.

        Args:
          directory: the folder.
          keep: how many of the newest are kept, and the best besides.

        Raises:
          ValueError: if ``keep`` is below 1.
        """
        check_range("keep", keep, 1)
        self.directory = Path(directory).resolve()  # the storage takes no parts ".."
        self.keep = keep

    def save(self, snapshot: Snapshot, rank: float | None) -> None:
        """Save a snapshot, then remove what is no longer kept.

        A fault at any moment leaves every checkpoint that was finished and is still to be kept.

        Args:
          snapshot: host state and progress of one step.
          rank: lower is better; None, and what is not finite, is never the best.

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
        """Save weights alone, which can be used but not resumed; all else stays as it is.

        Args:
          weights: host arrays.
          step: the step that they are of.

        Raises:
          OSError: if they cannot be written.
        """
        self._write(step, weights, lambda path: write_weights(path, weights, step))

    def newest(self) -> int | None:
        """The last step saved, or None."""
        return max(self._finished(), default=None)

    def best(self) -> int | None:
        """The step of the lowest metric, the earliest of equal ones; None if none has a metric."""
        metrics = {step: _metric(path) for step, path in self._finished().items()}
        known = [(metric, step) for step, metric in metrics.items() if metric is not None]
        return min(known)[1] if known else None

    def restore(self, like: TrainState, step: int) -> Snapshot:
        """Read a checkpoint, bit for bit.

        Args:
          like: a state, or its shapes and dtypes as `jax.eval_shape` gives them.
          step: which checkpoint.

        Returns:
          Host state and progress.

        Raises:
          CheckpointError: if there is none of this step, if it is damaged, or if it is of another
            model; then the message names the first leaf that differs.
        """
        return read_snapshot(self._path(step), like)

    def restore_newest(self, like: TrainState) -> Snapshot | None:
        """Read the newest checkpoint that is whole.

        What is damaged is passed by with a warning, and renamed, so that it is in nobody's way.

        Args:
          like: as for `restore`.

        Returns:
          Host state and progress; None if there is no checkpoint.

        Raises:
          CheckpointError: if all of them are damaged, which are then left as they are, or if one
            is of another model.
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
        """Read the weights of the best checkpoint, or the newest where none has a metric.

        In place of one that is damaged the next newest serves, with a warning.

        Args:
          like: weights, or their shapes and dtypes.

        Returns:
          The weights, on the host.

        Raises:
          CheckpointError: if there is none that is whole, or it is of another model.
        """
        finished, best = self._finished(), self.best()

        def rank(step: int) -> tuple[bool, bool, int]:
            # One whose metric cannot be read may be the best: trying it first is telling of it.
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
        """Step, version and folder of all that is finished, in this order."""
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
        """Where to save a step: beside one that is there, which stays until this is finished.

        The second is for another attempt, of which the first knows nothing.
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
                except TimeoutError:  # by the wall clock, which may have jumped
                    write(again)
        except Exception as error:
            self._remove_leftovers()
            raise OSError(f"{path}: cannot be written: {_reason(error)}") from error

    def _check_room(self, arrays: PyTree) -> None:
        """Raise ENOSPC before Orbax meets it, which is loud about it from many threads."""
        folder = self.directory
        while not folder.exists():
            folder = folder.parent
        needed = sum(x.nbytes for x in jax.tree.leaves(arrays)) + OVERHEAD_BYTES
        if shutil.disk_usage(folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _set_aside(self, path: Path) -> None:
        """Rename a damaged checkpoint; one of this name from before gives way."""
        aside = path.with_name(path.name + DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)

    def _remove(self, paths: list[Path]) -> None:
        """Remove checkpoints; renamed first, so that half a folder never passes for a whole one."""
        for path in paths:
            renamed = path.rename(path.with_name(path.name + REMOVED))
            shutil.rmtree(renamed, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for pattern in LEFTOVERS:
            for path in self.directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


class Checkpointing(Hook):
    """Saves the snapshots that the loop gives, one at a time, while the loop goes on."""

    def __init__(self, store: CheckpointStore) -> None:
        """Save into a store."""
        self.store = store
        self._background = Background()

    def on_checkpoint(self, snapshot: Snapshot, rank: float | None) -> None:
        """Begin to save the snapshot, when the one before has been saved.

        Raises:
          OSError: if the one before could not be written.
        """
        self._background.start(lambda: self.store.save(snapshot, rank))

    def wait(self) -> None:
        """Wait until the last snapshot has been saved.

        Raises:
          OSError: if it could not be written.
        """
        self._background.wait()

    def on_end(self) -> None:
        """Wait, too; if the run is being left for another error, this one is only logged."""
        try:
            self.wait()
        except OSError as error:
            logger.error("%s", error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Orbax logs: the traceback of an error in each of its threads."""
    orbax = logging.getLogger("absl")
    level = orbax.level
    orbax.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        orbax.setLevel(level)


def _reason(error: Exception) -> str:
    """What went wrong: in the system's words, where its number is somewhere in the message."""
    number = getattr(error, "errno", None) or re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number[1]) if isinstance(number, re.Match) else number)
    return str(error).partition("\n")[0][:200]


def _first_whole(
    paths: list[Path], read: Callable[[Path], T]
) -> tuple[T | None, dict[Path, DamagedError]]:
    """What the first that can be read holds, if any, and what is wrong with those before it."""
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
