"""The checkpoints of a run: which there are, which are kept, and the hook that saves them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import TracebackType

from seqnets.checks import check_range, did_you_mean
from seqnets.training.hooks import Hook, Progress
from seqnets.training.snapshot import (
    CheckpointError,
    read_header,
    read_params,
    read_state,
    write_snapshot,
)
from seqnets.training.state import TrainState
from seqnets.typing import PyTree

__all__ = ["CheckpointError", "CheckpointStore", "Checkpointing"]

FINISHED = re.compile(r"(\d+)(?:\.(\d+))?")  # the step, and a number where it was saved again
REMOVED = ".removed"
LEFTOVERS = ("*.orbax-checkpoint-tmp*", f"*{REMOVED}")


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

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being saved. Saving is synchronous: there is nothing to wait for."""

    def save(self, state: TrainState, progress: Progress, metric: float | None) -> None:
        """Save a state, then remove what is no longer kept.

        A fault at any moment leaves every checkpoint that was finished and is still to be kept.

        Args:
          state: host state.
          progress: of the same step.
          metric: lower is better; None, and what is not finite, is never the best.
        """
        self._remove_leftovers()
        write_snapshot(self._free_path(progress.step), state, progress, metric)
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

    def best_or_newest(self) -> int:
        """The best step, or the newest where none has a metric.

        Raises:
          CheckpointError: if there is no checkpoint.
        """
        best = self.best()
        step = self.newest() if best is None else best
        if step is None:
            raise CheckpointError(f"{self.directory}: there is no checkpoint")
        return step

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

    def restore_params(self, like_params: PyTree, step: int) -> PyTree:
        """Read only the parameters of a checkpoint.

        Args:
          like_params: parameters, or their shapes and dtypes.
          step: which checkpoint.

        Returns:
          The parameters, on the host.

        Raises:
          CheckpointError: as `restore`, for the parameters.
        """
        return read_params(self._path(step), like_params)

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

    def _free_path(self, step: int) -> Path:
        """Where to save a step: beside one that is there, which stays until this is finished."""
        versions = [version for at, version, _ in self._versions() if at == step]
        return self.directory / (f"{step}.{versions[-1] + 1}" if versions else f"{step}")

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
    """Saves what the loop gives it to keep."""

    def __init__(self, store: CheckpointStore, metric: str = "loss") -> None:
        """Save into a store.

        Args:
          store: the store.
          metric: the figure of an evaluation that decides which checkpoint is the best.
        """
        self.store = store
        self.metric = metric

    def on_checkpoint(self, state: TrainState, progress: Progress, *, evaluated: bool) -> None:
        """Save the state.

        Raises:
          ValueError: if the evaluation has no such figure; the state has been saved then.
        """
        self.store.save(
            state, progress, progress.validation.get(self.metric) if evaluated else None
        )
        if evaluated and self.metric not in progress.validation:
            hint = did_you_mean(self.metric, progress.validation)
            raise ValueError(f"metric: the evaluation has no {self.metric!r}; {hint}")


def _metric(path: Path) -> float | None:
    """The metric of a checkpoint; None if it has none or cannot be read."""
    try:
        return read_header(path)["metric"]
    except CheckpointError:
        return None
