"""Stores of a run: in a directory, or in memory."""

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
from seqnets.runs.records import MemoryReport, MetricsFile, TensorBoard, read_records
from seqnets.training import Hook, Progress, Snapshot, TrainState, Weights

__all__ = ["DirectoryStore", "MemoryStore", "Store", "save_weights"]

logger = logging.getLogger(__name__)


class Store(Protocol):
    """Where the records and weights of a run are kept; used on process 0 only."""

    def begin(
        self,
        manifest: Manifest,
        like: TrainState,
        check_config: Callable[[Path], None],
        *,
        resume: bool,
    ) -> Snapshot | None:
        """Prepare the store for a run.

        Args:
          manifest: what the run is made from.
          like: a state with the run's shapes and dtypes.
          check_config: called with the configuration file of the earlier run; it raises an error if
            that run cannot be continued.
          resume: whether to continue an earlier run.

        Returns:
          The snapshot to continue from; None to start from the beginning.
        """
        ...

    def end(self) -> None:
        """Release the store, whether the run succeeded or failed."""
        ...

    def hooks(self, start: Progress) -> list[Hook]:
        """Hooks that record the run.

        Args:
          start: progress at which the run starts.
        """
        ...

    @property
    def records(self) -> list[dict[str, Any]]:
        """Records of the run so far, as in ``metrics.jsonl``."""
        ...

    def best_step(self) -> int | None:
        """The step of the best weights; None if no checkpoint had a metric."""
        ...

    def best_weights(self, like: Weights) -> Weights:
        """The best weights, or the newest if no checkpoint had a metric.

        Args:
          like: weights, or their shapes and dtypes.
        """
        ...

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Keep the final metrics.

        Args:
          result: metrics by name.
        """
        ...


class DirectoryStore:
    """Keeps a run in a directory; see `RunDirectory`.

    Args:
      path: the folder; for a new run, it must be empty or not exist.
      keep: number of newest checkpoints to keep, in addition to the best one; ≥ 1.
      tensorboard: also write TensorBoard files.

    Raises:
      ValueError: if ``keep`` is below 1.
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
        """Create the folder, or open that of an earlier run; see `Store.begin`.

        Raises:
          ValueError: if the folder is not empty, or another process trains in it; or, when
            resuming, if there is nothing to resume, or the configuration or data have changed.
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
        """Release the lock of the folder."""
        self._lock.release()

    def _newest(self, like: TrainState) -> Snapshot | None:
        """The newest snapshot; None for a run that was killed before its first checkpoint."""
        newest = self.checkpoints.restore_newest(like)
        if newest is None:
            if self.run.result_file.exists():  # the run ended, so there was a checkpoint
                raise ValueError(f"{self.run.path}: there is no checkpoint to resume from")
            logger.warning(
                "%s: there is no checkpoint yet; starting from the beginning", self.run.path
            )
        return newest

    @property
    def records(self) -> list[dict[str, Any]]:
        """Records of the run so far."""
        return read_records(self.run.metrics_file)

    def hooks(self, start: Progress) -> list[Hook]:
        """Hooks for records, the line about memory, TensorBoard, and checkpoints."""
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
        """The weights of the best checkpoint, or of the newest if none has a metric."""
        return self.checkpoints.restore_best_weights(like)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``."""
        self.run.write_result(result)


class MemoryStore(Hook):
    """Keeps the records and the best or newest weights of a run in memory only.

    Attributes:
      records: records of the run, as in ``metrics.jsonl``.
      result: final metrics.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {}
        self._best: tuple[float, int, Weights] | None = None
        self._newest: Weights | None = None

    def begin(self, *about: Any, resume: bool) -> None:
        """Do nothing.

        Raises:
          ValueError: if ``resume`` is True.
        """
        if resume:
            raise ValueError("resume: expected a directory to resume, got none")

    def end(self) -> None:
        """Do nothing."""

    def hooks(self, start: Progress) -> list[Hook]:
        """The store itself."""
        return [self]

    def on_record(self, record: dict[str, Any]) -> None:
        """Keep the record."""
        self.records.append(record)

    def on_rollback(self, progress: Progress) -> None:
        """Drop the records of later steps."""
        self.records = [record for record in self.records if record["step"] <= progress.step]

    def on_checkpoint(self, snapshot: Snapshot, rank: float | None) -> None:
        """Keep the newest weights, and the best ones."""
        weights = Weights(snapshot.state.params, snapshot.state.variables)
        self._newest = weights
        if rank is None or not math.isfinite(rank):
            return
        if self._best is None or rank < self._best[0]:
            self._best = rank, snapshot.progress.step, weights

    def best_step(self) -> int | None:
        """The step of the best weights; None if no checkpoint had a metric."""
        return None if self._best is None else self._best[1]

    def best_weights(self, like: Weights) -> Weights:
        """The best weights, or the newest if no checkpoint had a metric.

        Raises:
          CheckpointError: if nothing was saved.
        """
        weights = self._newest if self._best is None else self._best[2]
        if weights is None:
            raise CheckpointError("there is no checkpoint")
        return weights

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Keep the final metrics."""
        self.result = dict(result)


def save_weights(
    path: str | Path,
    manifest: Manifest,
    weights: Weights,
    result: Mapping[str, Any],
) -> None:
    """Write a run directory with weights only, which can be used but not resumed.

    It is written to a temporary folder and renamed, so that it is never incomplete.

    Args:
      path: the folder, new or empty.
      manifest: what the run was made from.
      weights: host arrays.
      result: final metrics.

    Raises:
      ValueError: if the folder is not empty, or another process trains in it.
      OSError: if it cannot be written.
    """
    lock = RunLock()
    target = _enter(Path(path), lock, resume=False).path.resolve()  # the target of a link
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
        run.write_config(manifest.config, manifest.files)  # last, since it makes a folder a run
        partial.rename(target)  # replaces an empty folder only
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _enter(path: Path, lock: RunLock, *, resume: bool) -> RunDirectory:
    """Lock the folder of a new run or of one to be continued."""
    find = RunDirectory.resume if resume else RunDirectory.create
    lock.check(path)  # first, so that the error names the other process instead of its files
    find(path)  # before anything is written, even a lock
    lock.acquire(path)
    run = find(path)  # again, since another process may have written in between
    run.remove_partial_files()
    return run
