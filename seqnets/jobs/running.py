"""What every training job does: start or resume, train with its hooks, and write the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from seqnets.config import ConfigError, TrainConfig, dump, load
from seqnets.files import write_atomically
from seqnets.runs import RunDirectory, parameters_sha256
from seqnets.training.checkpoint import Checkpointing, CheckpointStore
from seqnets.training.loop import Hook, Job, Limits, Outcome, Progress, train
from seqnets.training.parallel import DataParallel
from seqnets.training.reporting import MetricsFile, ProgressBar, TensorBoard
from seqnets.training.state import TrainState, create_state
from seqnets.training.step import LossFn
from seqnets.typing import Key, PyTree

__all__ = ["Trained", "Work", "count_parameters", "layout_for", "run_job"]

MAY_CHANGE = ("max_steps", "max_seconds", "report_every", "evaluate_every", "keep")


@dataclasses.dataclass(frozen=True)
class Work:
    """What a task brings to a run.

    Attributes:
      init: parameters from a key.
      carry: recurrent state before the first batch, from the parameters; () where none is kept.
      loss_fn: loss of one batch.
      batch: batch number k, host arrays [B, ...].
      evaluate: figures of parameters on held-out data.
      metric: the figure that decides which checkpoint is best, lower is better.
      layout: the devices.
      files: further files of the run directory by name, to use the model later.
    """

    init: Callable[[Key], PyTree]
    carry: Callable[[PyTree], PyTree]
    loss_fn: LossFn
    batch: Callable[[int], PyTree]
    evaluate: Callable[[PyTree], dict[str, float]]
    metric: str
    layout: DataParallel
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a run ended."""

    result: dict[str, Any]
    """What was written to ``result.json``."""
    signal: int | None
    """The signal that stopped it early, or None."""


def layout_for(rows: int) -> DataParallel:
    """The largest number of local devices that divides the rows."""
    devices = jax.local_devices()
    return DataParallel(devices[: math.gcd(rows, len(devices))])


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
      resume: continue from the newest checkpoint, as if the run had not stopped.
      tensorboard: also write TensorBoard's files.

    Raises:
      ValueError: if the directory is not empty; or, when resuming, if there is nothing to
        resume, or the configuration differs in more than limits and reports.
      NonFiniteError: if the loss or its gradient stops being finite.
    """
    optimizer = config.optimizer.build()
    key = jax.random.key(config.train.seed)
    params = jax.jit(work.init)(key)
    state = create_state(params, optimizer, key, work.carry(params))
    run = _prepare(config, out, resume=resume)
    for name, text in work.files.items():
        write_atomically(run.path / name, text.encode())
    with CheckpointStore(run.checkpoints, keep=config.train.keep) as store:
        progress, resumed_at = Progress(), None
        if resume:
            state, progress = _newest(store, state, run.path)
            resumed_at = progress.step
        hooks: list[Hook] = [
            MetricsFile(run.metrics_file, resume_at=resumed_at),
            ProgressBar(_limits(config.train)),
            *([TensorBoard(run.path / "tensorboard", resumed_at)] if tensorboard else []),
            Checkpointing(store, metric=work.metric),
        ]
        job = Job(
            loss_fn=work.loss_fn,
            optimizer=optimizer,
            batch=work.batch,
            evaluate=work.evaluate,
            limits=_limits(config.train),
            layout=work.layout,
            accumulate=config.train.accumulate,
        )
        outcome = train(job, state, hooks, progress)
        result = _result(outcome, work.layout, store.best())
    run.write_result(result)
    return Trained(result, outcome.signal)


def _prepare(config: Any, path: str | Path, *, resume: bool) -> RunDirectory:
    """Make the run directory with its ``config.toml``, or open it to go on."""
    if resume:
        run = RunDirectory.open(path)
        _check_same(load(type(config), run.config_file), config, run.path)
    else:
        run = RunDirectory.create(path)
    run.write_config(dump(config))
    return run


def _limits(train: TrainConfig) -> Limits:
    names = [field.name for field in dataclasses.fields(Limits)]
    return Limits(**{name: getattr(train, name) for name in names})


def _newest(store: CheckpointStore, state: TrainState, path: Path) -> tuple[TrainState, Progress]:
    step = store.newest()
    if step is None:
        raise ValueError(f"{path}: there is no checkpoint to resume from")
    return store.restore(state, step)


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
    return {
        "steps": progress.step,
        "best_step": best,
        "training_seconds": round(progress.training_seconds, 3),
        "compilation_seconds": round(progress.compilation_seconds, 3),
        "evaluation_seconds": round(progress.evaluation_seconds, 3),
        "parameters": count_parameters(outcome.state.params),
        "parameters_sha256": parameters_sha256(outcome.state.params),
        "devices": layout.size,
        "platform": layout.devices[0].platform,
        "jax": jax.__version__,
        "stopped_by_signal": outcome.signal,
        **{f"validation_{name}": value for name, value in progress.validation.items()},
    }
