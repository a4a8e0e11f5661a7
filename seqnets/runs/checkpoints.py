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

from seqnets.checks import check_range, did_you_mean
from seqnets.training.background import Background
from seqnets.training.hooks import Hook, Progress
from seqnets.training.snapshot import (
    CheckpointError,
    DamagedError,
    read_header,
    read_params,
    read_state,
    write_snapshot,
)
from seqnets.training.state import TrainState
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
        self.directory = Path(directory).absolute()
        self.keep = keep

    def save(self, state: TrainState, progress: Progress, metric: float | None) -> None:
        """Save a state, then remove what is no longer kept.

        A fault at any moment leaves every checkpoint that was finished and is still to be kept.

        Args:
          state: host state.
          progress: of the same step.
          metric: lower is better; None, and what is not finite, is never the best.

        Raises:
          OSError: if it cannot be written.
        """
        self._remove_leftovers()
        self._write(state, progress, metric)
        self._remove([path for step, _, path in self._versions() if step > progress.step])
        finished, best = self._finished(), self.best()
        newest = sorted(finished)[-self.keep :]
        kept = {path for step, path in finished.items() if step in newest or step == best}
        self._remove([path for _, _, path in self._versions() if path not in kept])

    def newest(self) -> int | None:
        """The last step saved, or None."""
        return max(self._finished(), default=None)

    def best(self) -> int | None:
        """The step of the lowest metric, the earliest of equal ones; None if none has a metric."""
        metrics = {step: _metric(path) for step, path in self._finished().items()}
        known = [(metric, step) for step, metric in metrics.items() if metric is not None]
        return min(known)[1] if known else None

    def restore(self, like: TrainState, step: int) -> tuple[TrainState, Progress]:
        """Read a checkpoint, bit for bit.

        Args:
          like: a state, or its shapes and dtypes as `jax.eval_shape` gives them.
          step: which checkpoint.

        Returns:
          ``(state, progress)``, on the host.

        Raises:
          CheckpointError: if there is none of this step, if it is damaged, or if it is of another
            model; then the message names the first leaf that differs.
        """
        return read_state(self._path(step), like)

    def restore_newest(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Read the newest checkpoint that is whole.

        What is damaged is passed by with a warning, and renamed, so that it is in nobody's way.

        Args:
          like: as for `restore`.

        Returns:
          ``(state, progress)``, on the host; None if there is no checkpoint.

        Raises:
          CheckpointError: if all of them are damaged, which are then left as they are, or if one
            is of another model.
        """
        restored, damaged = _first_whole(
            [path for _, _, path in reversed(self._versions())], lambda path: read_state(path, like)
        )
        if restored is None:
            return None
        for path, error in damaged.items():
            logger.warning("%s; going on from step %d", error, restored[1].step)
            self._set_aside(path)
        return restored

    def restore_best_params(self, like_params: PyTree) -> PyTree:
        """Read the parameters of the best checkpoint, or the newest where none has a metric.

        In place of one that is damaged the next newest serves, with a warning.

        Args:
          like_params: parameters, or their shapes and dtypes.

        Returns:
          The parameters, on the host.

        Raises:
          CheckpointError: if there is none that is whole, or it is of another model.
        """
        finished, best = self._finished(), self.best()

        def rank(step: int) -> tuple[bool, bool, int]:
            # One whose metric cannot be read may be the best: trying it first is telling of it.
            return not _has_header(finished[step]), step == best, step

        order = [finished[step] for step in sorted(finished, key=rank, reverse=True)]
        found, damaged = _first_whole(
            order, lambda path: (path.name, read_params(path, like_params))
        )
        if found is None:
            raise CheckpointError(f"{self.directory}: there is no checkpoint")
        name, params = found
        for error in damaged.values():
            logger.warning("%s; using checkpoint %s", error, name)
        return params

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

    def _write(self, state: TrainState, progress: Progress, metric: float | None) -> None:
        path, again = self._free_paths(progress.step)
        try:
            self._check_room(state)
            with _quiet():
                try:
                    write_snapshot(path, state, progress, metric)
                except TimeoutError:  # by the wall clock, which may have jumped
                    write_snapshot(again, state, progress, metric)
        except Exception as error:
            self._remove_leftovers()
            raise OSError(f"{path}: cannot be written: {_reason(error)}") from error

    def _check_room(self, state: TrainState) -> None:
        """Raise ENOSPC before Orbax meets it, which is loud about it from many threads."""
        folder = self.directory
        while not folder.exists():
            folder = folder.parent
        arrays = jax.tree.leaves((state.params, state.opt_state, state.carry))
        needed = sum(x.nbytes for x in arrays) + OVERHEAD_BYTES
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
    """Saves what the loop gives it to keep, one at a time, while the loop goes on."""

    def __init__(self, store: CheckpointStore, metric: str = "loss") -> None:
        """Save into a store.

        Args:
          store: the store.
          metric: the figure of an evaluation that decides which checkpoint is the best.
        """
        self.store = store
        self.metric = metric
        self._background = Background()

    def on_checkpoint(self, state: TrainState, progress: Progress, *, evaluated: bool) -> None:
        """Begin to save the state, when the one before has been saved.

        Raises:
          OSError: if the one before could not be written.
          ValueError: if the evaluation has no such figure; the state has been saved then.
        """
        metric = progress.validation.get(self.metric) if evaluated else None
        self._background.start(lambda: self.store.save(state, progress, metric))
        if evaluated and self.metric not in progress.validation:
            self.wait()
            hint = did_you_mean(self.metric, progress.validation)
            raise ValueError(f"metric: the evaluation has no {self.metric!r}; {hint}")

    def wait(self) -> None:
        """Wait until the last state has been saved.

        Raises:
          OSError: if it could not be written.
        """
        self._background.wait()

    def on_end(self) -> None:
        """Wait, too; the run is then being left for another error, and one more is but told."""
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
