"""Where a run is kept: in a directory, or in memory."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from seqnets.runs.checkpoints import CheckpointError, Checkpointing, CheckpointStore
from seqnets.runs.directory import Manifest, RunDirectory
from seqnets.runs.lock import RunLock
from seqnets.runs.records import MemoryReport, MetricsFile, TensorBoard
from seqnets.training import Hook, Progress, Snapshot, TrainState, Weights

__all__ = ["DirectoryStore", "MemoryStore", "Store", "save_weights"]

logger = logging.getLogger(__name__)


class Store(Protocol):
    """What keeps a run. It is used on process 0 only."""

    def begin(
        self,
        manifest: Manifest,
        like: TrainState,
        check_config: Callable[[Path], None],
        *,
        resume: bool,
    ) -> Snapshot | None:
        """Make the store ready.

        Args:
          manifest: what the run is made from.
          like: a state of the run's shapes and dtypes.
          check_config: raises if a run with the configuration in a file may not be continued.
          resume: whether to continue an earlier run.

        Returns:
          Where to continue; None at the start.
        """
        ...

    def end(self) -> None:
        """Give the store back, whether the run has ended or failed."""
        ...

    def hooks(self, start: Progress) -> list[Hook]:
        """What records a run from a moment on."""
        ...

    def best_step(self) -> int | None:
        """The step of the best weights; None if none was ranked."""
        ...

    def best_weights(self, like: Weights) -> Weights:
        """The best weights, or the newest where none was ranked."""
        ...

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Keep the final figures."""
        ...


class DirectoryStore:
    """A run directory: see `RunDirectory`.

    Args:
      path: the folder; that of a new run must be empty or not exist.
      keep: newest checkpoints kept, beside the best.
      tensorboard: also write TensorBoard's files.
    """

    def __init__(self, path: str | Path, *, keep: int = 2, tensorboard: bool = False) -> None:
        self.run = RunDirectory(Path(path))
        self.checkpoints = CheckpointStore(self.run.checkpoints, keep=keep)
        self._tensorboard = tensorboard
        self._lock = RunLock()

    def begin(
        self,
        manifest: Manifest,
        like: TrainState,
        check_config: Callable[[Path], None],
        *,
        resume: bool,
    ) -> Snapshot | None:
        """Make the folder, or open that of an earlier run; see `Store.begin`.

        Raises:
          ValueError: if the folder is not empty, or being trained in; or, when resuming, if there
            is nothing to resume, or configuration or data have changed.
        """
        run = _enter(self.run.path, self._lock, resume=resume)
        if run.config_file.exists():
            check_config(run.config_file)
            run.check_data(manifest.checksums)
            run.write_config(manifest.config, manifest.files)
        else:
            run.write_config(manifest.config, manifest.files)
            run.check_data(manifest.checksums)
        run.write_files(manifest.files)
        return self._newest(like) if resume else None

    def end(self) -> None:
        """Let others train here."""
        self._lock.release()

    def _newest(self, like: TrainState) -> Snapshot | None:
        """Where to continue; None for a run that was killed before its first checkpoint."""
        newest = self.checkpoints.restore_newest(like)
        if newest is None:
            if self.run.result_file.exists():  # it ended, and ending saves
                raise ValueError(f"{self.run.path}: there is no checkpoint to resume from")
            logger.warning("%s: there is no checkpoint yet; starting anew", self.run.path)
        return newest

    def hooks(self, start: Progress) -> list[Hook]:
        """Records, a line on memory, and checkpoints."""
        resumed_at = start.step or None
        folder = self.run.path / "tensorboard"
        return [
            MetricsFile(self.run.metrics_file, resume_at=resumed_at),
            MemoryReport(),
            *([TensorBoard(folder, resumed_at)] if self._tensorboard else []),
            Checkpointing(self.checkpoints),
        ]

    def best_step(self) -> int | None:
        """The step of the best checkpoint."""
        return self.checkpoints.best()

    def best_weights(self, like: Weights) -> Weights:
        """The weights of the best checkpoint, or the newest where none was ranked."""
        return self.checkpoints.restore_best_weights(like)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``."""
        self.run.write_result(result)


class MemoryStore(Hook):
    """A run that leaves nothing on the disk: its records, and its best or newest weights.

    Attributes:
      records: what `seqnets.training.Hook.on_record` was given, as in ``metrics.jsonl``.
      result: final figures.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {}
        self._best: tuple[float, int, Weights] | None = None
        self._newest: Weights | None = None

    def begin(self, *about: Any, resume: bool) -> None:
        """Nothing to make ready.

        Raises:
          ValueError: if a run is to be resumed.
        """
        if resume:
            raise ValueError("resume: expected a directory to resume, got none")

    def end(self) -> None:
        """Nothing to give back."""

    def hooks(self, start: Progress) -> list[Hook]:
        """Itself."""
        return [self]

    def on_record(self, record: dict[str, Any]) -> None:
        """Keep it."""
        self.records.append(record)

    def on_rollback(self, progress: Progress) -> None:
        """Drop the records of later steps."""
        self.records = [record for record in self.records if record["step"] <= progress.step]

    def on_checkpoint(self, snapshot: Snapshot, rank: float | None) -> None:
        """Keep the weights, if they are the best or none is."""
        weights = Weights(snapshot.state.params, snapshot.state.variables)
        self._newest = weights
        if rank is None or not math.isfinite(rank):
            return
        if self._best is None or rank < self._best[0]:
            self._best = rank, snapshot.progress.step, weights

    def best_step(self) -> int | None:
        """The step of the best weights; None if none was ranked."""
        return None if self._best is None else self._best[1]

    def best_weights(self, like: Weights) -> Weights:
        """The best weights, or the newest where none was ranked.

        Raises:
          CheckpointError: if nothing was saved.
        """
        weights = self._newest if self._best is None else self._best[2]
        if weights is None:
            raise CheckpointError("there is no checkpoint")
        return weights

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Keep the final figures."""
        self.result = dict(result)


def save_weights(
    path: str | Path,
    manifest: Manifest,
    weights: Weights,
    result: Mapping[str, Any],
) -> None:
    """Write a run directory that holds weights only; it can be used, but not resumed.

    It is written beside its place and renamed, so that it is there whole or not at all.

    Args:
      path: the folder, new or empty.
      manifest: what the run was made from.
      weights: host arrays.
      result: final figures.

    Raises:
      ValueError: if the folder is not empty, or being trained in.
      OSError: if it cannot be written.
    """
    lock = RunLock()
    target = _enter(Path(path), lock, resume=False).path.resolve()  # where a link leads
    lock.release()
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name[:32]}.", dir=target.parent))
    try:
        run = RunDirectory(partial)
        run.check_data(manifest.checksums)
        run.write_files(manifest.files)
        run.write_result(result)
        step = int(result.get("best_step") or result.get("steps") or 0)
        CheckpointStore(run.checkpoints).save_weights(weights, step)
        partial.chmod(target.stat().st_mode)
        run.write_config(manifest.config, manifest.files)  # last: it makes a folder a run
        partial.rename(target)  # an empty folder gives way, and no other
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _enter(path: Path, lock: RunLock, *, resume: bool) -> RunDirectory:
    """The folder of a run, new or to be continued, in which no other process writes any more."""
    find = RunDirectory.resume if resume else RunDirectory.create
    lock.check(path)  # so that it is said who is there, and not that there are files
    find(path)  # before anything is written, even a lock
    lock.acquire(path)
    run = find(path)  # another may have come and gone in between
    run.remove_partial_files()
    return run
