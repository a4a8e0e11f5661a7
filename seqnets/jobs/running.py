"""What every training job does: start or resume, train with its hooks, and write the result."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqnets.config import ConfigError, TrainConfig, dump, load
from seqnets.files import write_atomically
from seqnets.jobs.fingerprints import check_data
from seqnets.reduction import Weighted
from seqnets.runs import RunDirectory, parameters_sha256
from seqnets.training.checkpoint import Checkpointing, CheckpointStore
from seqnets.training.loop import Hook, Job, Limits, Outcome, Progress, means, train
from seqnets.training.parallel import DataParallel, host_device
from seqnets.training.processes import copy_of_lead, from_lead, leads, told_by_lead
from seqnets.training.recovery import Recovery
from seqnets.training.reporting import MemoryReport, MetricsFile, ProgressBar, TensorBoard
from seqnets.training.state import TrainState, create_state, to_host
from seqnets.training.step import LossFn
from seqnets.typing import Key, PyTree

__all__ = [
    "Trained",
    "Work",
    "count_parameters",
    "evaluation_layout",
    "layout_for",
    "rows_of",
    "run_job",
]

MAY_CHANGE = (
    *("max_steps", "max_seconds", "report_every", "evaluate_every", "keep"),
    *("accumulate", "shard_optimizer"),
    *("on_nonfinite", "max_skips", "max_rollbacks", "spike"),
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Work:
    """What a task brings to a run.

    Attributes:
      init: parameters from a key.
      carry: recurrent state before the first batch, from the parameters; () where none is kept.
      loss_fn: loss of one batch.
      batch: batch number k, host arrays [B, ...]; of several processes each gives the rows that
        are its own.
      evaluate: sums of parameters over held-out data; of several processes each over a share.
      metric: the figure that decides which checkpoint is best, lower is better.
      layout: the devices.
      data: the SHA-256 of the data, by what it is of.
      files: further files of the run directory by name, to use the model later.
      figures: what is recorded of the sums of an evaluation.
    """

    init: Callable[[Key], PyTree]
    carry: Callable[[PyTree], PyTree]
    loss_fn: LossFn
    batch: Callable[[int], PyTree]
    evaluate: Callable[[PyTree], dict[str, Weighted]]
    metric: str
    layout: DataParallel
    data: Mapping[str, str]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    figures: Callable[[dict[str, Weighted]], dict[str, float]] = means


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a run ended."""

    result: dict[str, Any]
    """What was written to ``result.json``."""
    signal: int | None
    """The signal that stopped it early, or None."""


def layout_for(train: TrainConfig) -> DataParallel:
    """The largest number of devices that divides the batch, as many of each process.

    Raises:
      ValueError: if the processes do not divide the rows.
    """
    rows, owned = train.batch_size, dict[int, list[jax.Device]]()
    for device in jax.devices():
        owned.setdefault(device.process_index, []).append(device)
    if rows % len(owned):
        raise ValueError(
            f"train.batch_size: expected a multiple of the {len(owned)} processes, got {rows}"
        )
    number = math.gcd(rows // len(owned), min(map(len, owned.values())))
    devices = [device for index in sorted(owned) for device in owned[index][:number]]
    return DataParallel(devices, train.shard_optimizer)


def evaluation_layout(rows: int) -> tuple[DataParallel, slice]:
    """Devices of this process alone, and its share of rows that are evaluated apart.

    Args:
      rows: in all.

    Returns:
      ``(layout, share)``: all shares are of one size, and the last may reach beyond the rows.
    """
    each = -(-rows // jax.process_count())
    first, devices = each * jax.process_index(), jax.local_devices()
    layout = DataParallel(devices[: math.gcd(each, len(devices))])
    return layout, slice(first, first + each)


def rows_of(tree: PyTree, share: slice) -> PyTree:
    """Those rows of host arrays, rows of zeros where there are none."""

    def take(x: np.ndarray) -> np.ndarray:
        own = x[share]
        missing = share.stop - share.start - len(own)
        return np.pad(own, [(0, missing)] + [(0, 0)] * (x.ndim - 1))

    return jax.tree.map(take, tree)


def count_parameters(params: PyTree) -> int:
    """Number of single parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def run_job(
    config: Any, work: Work, out: str | Path, *, resume: bool, tensorboard: bool = False
) -> Trained:
    """Train, keep checkpoints and records in the run directory, and write the result.

    Args:
      config: resolved configuration with the sections ``optimizer`` and ``train``.
      work: the task.
      out: the run directory; a new run's must be empty or not exist.
      resume: continue from the newest checkpoint that is whole, as if the run had not stopped;
        from the start, if it was killed before its first.
      tensorboard: also write TensorBoard's files.

    Raises:
      ValueError: if the directory is not empty; or, when resuming, if there is nothing to
        resume, the data has changed, or the configuration differs in more than limits,
        reports and where the memory goes.
      NonFiniteError: if the loss or its gradient stops being finite, and ``train.on_nonfinite``
        does not say otherwise.
    """
    optimizer = config.optimizer.build()
    key = jax.random.key(config.train.seed)
    state = _initial_state(work, optimizer, key)
    run = RunDirectory(Path(out))
    store = CheckpointStore(run.checkpoints, keep=config.train.keep)
    state, progress = _begin(config, work, store, run, state, resume=resume)
    resumed_at = progress.step or None
    hooks: list[Hook] = []
    if leads():
        hooks = [
            MetricsFile(run.metrics_file, resume_at=resumed_at),
            MemoryReport(),
            ProgressBar(_limits(config.train)),
            *([TensorBoard(run.path / "tensorboard", resumed_at)] if tensorboard else []),
            Checkpointing(store, metric=work.metric),
        ]
    job = Job(
        loss_fn=work.loss_fn,
        optimizer=optimizer,
        batch=work.batch,
        evaluate=work.evaluate,
        figures=work.figures,
        limits=_limits(config.train),
        layout=work.layout,
        accumulate=config.train.accumulate,
        recovery=_recovery(config.train),
    )
    outcome = train(job, state, hooks, progress)
    result = _result(outcome, work.layout, from_lead(store.best))
    if leads():
        run.write_result(result)
    return Trained(result, outcome.signal)


def _initial_state(work: Work, optimizer: Any, key: Key) -> TrainState:
    """On the host: the devices may hold no more than their part of the training's state."""
    params = to_host(jax.jit(work.init)(key))
    with jax.default_device(host_device()):
        return to_host(create_state(params, optimizer, key, work.carry(params)))


def _begin(
    config: Any,
    work: Work,
    store: CheckpointStore,
    run: RunDirectory,
    state: TrainState,
    *,
    resume: bool,
) -> tuple[TrainState, Progress]:
    """Make the run directory ready, and say where to go on: process 0 does it for all."""

    def begin() -> tuple[TrainState, dict[str, Any]]:
        prepared = _prepare(config, work.data, run.path, resume=resume)
        for name, text in work.files.items():
            write_atomically(prepared.path / name, text.encode())
        newest = _newest(store, state, prepared) if resume else None
        found, progress = newest or (state, Progress())
        return found, dataclasses.asdict(progress)

    found, progress = told_by_lead(begin)
    return copy_of_lead(found or state), Progress(**progress)


def _prepare(
    config: Any, data: Mapping[str, str], path: str | Path, *, resume: bool
) -> RunDirectory:
    """Make the run directory with its ``config.toml``, or open it to go on."""
    run = RunDirectory.resume(path) if resume else RunDirectory.create(path)
    if run.config_file.exists():
        _check_same(load(type(config), run.config_file), config, run.path)
        check_data(run.data_file, data)
        run.write_config(dump(config))
    else:
        run.write_config(dump(config))
        check_data(run.data_file, data)
    return run


def _limits(train: TrainConfig) -> Limits:
    names = [field.name for field in dataclasses.fields(Limits)]
    return Limits(**{name: getattr(train, name) for name in names})


def _recovery(train: TrainConfig) -> Recovery:
    names = [field.name for field in dataclasses.fields(Recovery)]
    return Recovery(**{name: getattr(train, name) for name in names})


def _newest(
    store: CheckpointStore, state: TrainState, run: RunDirectory
) -> tuple[TrainState, Progress] | None:
    """Where to go on; None for a run that was killed before its first checkpoint."""
    newest = store.restore_newest(state)
    if newest is None:
        if run.result_file.exists():  # it ended, and ending saves
            raise ValueError(f"{run.path}: there is no checkpoint to resume from")
        logger.warning("%s: there is no checkpoint yet; starting anew", run.path)
    return newest


def _check_same(before: Any, now: Any, path: Path) -> None:
    """Raise unless the configurations agree in all that a checkpoint depends on."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(now)
    for section, values in old.items():
        for key, value in values.items():
            if value != new[section][key] and not (section == "train" and key in MAY_CHANGE):
                raise ConfigError(
                    f"{path}: cannot resume with another {section}.{key}: "
                    f"the run has {value!r}, now {new[section][key]!r}"
                )


def _result(outcome: Outcome, layout: DataParallel, best: int | None) -> dict[str, Any]:
    progress = outcome.progress
    memory = outcome.memory._asdict() if outcome.memory else {}
    return {
        "steps": progress.step,
        "best_step": best,
        "training_seconds": round(progress.training_seconds, 3),
        "compilation_seconds": round(progress.compilation_seconds, 3),
        "evaluation_seconds": round(progress.evaluation_seconds, 3),
        "parameters": count_parameters(outcome.state.params),
        "parameters_sha256": parameters_sha256(outcome.state.params),
        **{f"bytes_{name}": n for name, n in memory.items()},
        "devices": layout.size,
        "processes": jax.process_count(),
        "platform": layout.devices[0].platform,
        "jax": jax.__version__,
        "stopped_by_signal": outcome.signal,
        "skipped_steps": progress.skipped,
        "rollbacks": progress.rollbacks,
        "batches_passed_by": progress.batches_passed_by,
        **{f"validation_{name}": value for name, value in progress.validation.items()},
    }
