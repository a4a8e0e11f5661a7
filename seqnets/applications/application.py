"""What an application is, and what every one of them does: fit, load, and say how it went.

An application is a folder beside this file. It says what a run needs (`Work`) and what comes out
of it; files, processes, and devices are the business of the rooms above.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax

from seqnets.config import (
    ConfigError,
    check_resumable,
    convert,
    differences,
    dump,
    load,
    parse_toml,
)
from seqnets.devices import DataParallel, check_training_memory, host_device
from seqnets.devices import peers as all_peers
from seqnets.runs import (
    DirectoryStore,
    Manifest,
    ProgressBar,
    RunDirectory,
    Store,
    parameters_sha256,
)
from seqnets.training import (
    After,
    Evaluation,
    Hook,
    Outcome,
    Progress,
    Snapshot,
    Source,
    TrainState,
    TrainStep,
    Weights,
    train,
)
from seqnets.training.state import to_host
from seqnets.typing import Key, PyTree

__all__ = [
    "Application",
    "LoadedRun",
    "Model",
    "Trained",
    "Work",
    "count_parameters",
    "fit_work",
    "load_run",
    "prepare_work",
]

ConfigT = TypeVar("ConfigT")
DataT = TypeVar("DataT")
FittedT = TypeVar("FittedT")


class Model(NamedTuple, Generic[FittedT]):
    """A model that has no weights yet."""

    init: Callable[[Key], PyTree]
    """Parameters from a key."""
    fitted: Callable[[Weights], FittedT]
    """What can be used, from weights."""
    after: After | None = None
    """The rule for its variables, if it has any."""

    def like(self) -> Weights:
        """Shapes and dtypes of the weights."""

        def weights() -> Weights:
            params = self.init(jax.random.key(0))
            return Weights(params, (self.after.init(params) or ()) if self.after else ())

        return jax.eval_shape(weights)


@dataclasses.dataclass(frozen=True)
class Work(Generic[FittedT]):
    """What an application brings to a run; every process makes it alike.

    Attributes:
      config: the resolved configuration, with a section ``train``.
      model: what is trained.
      step: the training step.
      source: batches.
      evaluation: what is measured from time to time, or None.
      layout: the devices.
      checksums: of the data, by names that are hints; on process 0 only.
      carry: recurrent state before the first batch, from the parameters; () if none is kept.
      files: further files of the run directory by name, to use the model later.
    """

    config: Any
    model: Model[FittedT]
    step: TrainStep
    source: Source
    evaluation: Evaluation | None
    layout: DataParallel
    checksums: Mapping[str, str]
    carry: Callable[[PyTree], PyTree] = lambda params: ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Application(Protocol[ConfigT, DataT, FittedT]):
    """One kind of model for one kind of data."""

    @property
    def config(self) -> type[ConfigT]:
        """The configuration: a dataclass of sections, ``train`` among them."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the further files that a run directory may hold."""
        ...

    def read(self, config: ConfigT) -> DataT:
        """The data that a configuration names; called on process 0 only.

        Raises:
          DataError: if it cannot be read.
        """
        ...

    def prepare(self, config: ConfigT, read: Callable[[], DataT]) -> Work[FittedT]:
        """What a run needs.

        Args:
          config: the configuration.
          read: gives the data; to be called inside `Peers.broadcast`, so that process 0 alone
            reads and the others learn of an error.

        Raises:
          ValueError: if data and configuration do not fit together.
        """
        ...

    def restore(self, config: ConfigT, run: RunDirectory) -> Model[FittedT]:
        """The model of a run directory, its weights still to be read.

        Raises:
          ValueError: if a file of the run cannot be read.
        """
        ...


def prepare_work(
    application: Application[Any, DataT, FittedT], config: Any, read: Callable[[], DataT]
) -> Work[FittedT]:
    """What a run needs, after all processes have been found to have one configuration.

    Args:
      application: what is trained.
      config: the configuration of this process.
      read: gives the data; see `Application.prepare`.

    Raises:
      ConfigError: if another process has another configuration, naming the first other key.
      ValueError: if data and configuration do not fit together.
    """
    first, *others = (
        convert(type(config), parse_toml(text, f"process {number}"))
        for number, text in enumerate(all_peers().gather(dump(config)))
    )
    for number, other in enumerate(others, 1):
        for key, one, another in differences(first, other, but="may_differ"):
            raise ConfigError(
                f"{key}: expected one value in all processes, got {one!r} in process 0 and "
                f"{another!r} in process {number}"
            )
    return application.prepare(config, read)


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a run ended."""

    result: dict[str, Any]
    """What was written to ``result.json``."""
    signal: int | None
    """The signal that stopped it early, or None."""


def fit_work(
    work: Work[Any],
    store: Store,
    *,
    start: Weights | None = None,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
) -> Trained:
    """Train, and keep in a store what belongs to the run.

    Args:
      work: what the application brings.
      store: a directory or memory.
      start: weights to begin with (warm start); None draws them.
      resume: continue from the newest whole checkpoint, as if the run had never stopped; from the
        start, if it was killed before its first.
      hooks: further hooks, on process 0.

    Raises:
      ValueError: if the directory is not empty, or being trained in; or, when resuming, if there
        is nothing to resume, the data has changed, or the configuration differs in what a
        checkpoint depends on.
      NotEnoughMemoryError: if the run needs more memory than is available, before it is taken.
      NonFiniteError: if a step is not finite and ``train.on_nonfinite`` does not say otherwise.
    """
    try:
        return _fit(work, store, start, resume, hooks)
    finally:
        if work.layout.peers.lead:
            store.end()


def _fit(
    work: Work[Any], store: Store, start: Weights | None, resume: bool, hooks: Sequence[Hook]
) -> Trained:
    train_config, peers = work.config.train, work.layout.peers
    limits = train_config.limits()
    _check_memory(work)
    snapshot = _begin(work, store, _initial_state(work, start), resume=resume)
    watching: list[Hook] = []
    if peers.lead:
        watching = [*store.hooks(snapshot.progress), ProgressBar(limits), *hooks]
    outcome = train(
        work.step,
        snapshot,
        work.source,
        limits=limits,
        evaluation=work.evaluation,
        recovery=train_config.recovery(),
        layout=work.layout,
        hooks=watching,
    )
    _, best = peers.broadcast(lambda: (None, store.best_step()))
    result = _result(outcome, work.layout, best)
    if peers.lead:
        store.write_result(result)
    return Trained(result, outcome.signal)


class LoadedRun(NamedTuple, Generic[FittedT]):
    """What a run directory holds."""

    config: Any
    """The resolved configuration."""
    fitted: FittedT
    """The model with its best weights."""
    weights: Weights
    """The best weights."""
    directory: RunDirectory
    """The folder."""


def load_run(application: Application[Any, Any, FittedT], path: str | Path) -> LoadedRun[FittedT]:
    """Read a run directory, with its best checkpoint.

    Raises:
      ValueError: if the directory is not a run of this application, or holds no checkpoint that
        can be read.
    """
    run = RunDirectory.open(path)
    config = load(application.config, run.config_file)
    model = application.restore(config, run)
    weights = DirectoryStore(path).best_weights(model.like())
    return LoadedRun(config, model.fitted(weights), weights, run)


def count_parameters(params: PyTree) -> int:
    """Number of single parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _check_memory(work: Work[Any]) -> None:
    """Raise where a run cannot fit into memory, before anything of it is allocated."""
    key = jax.random.key(work.config.train.seed)
    state = jax.eval_shape(lambda: _first(work, jax.jit(work.model.init)(key), key))
    devices, sharded = work.layout.devices, work.layout.shard_optimizer
    check_training_memory(state, work.source.shapes, devices, shard_optimizer=sharded)


def _initial_state(work: Work[Any], start: Weights | None) -> TrainState:
    """On the host: the devices may hold no more than their part of the training's state."""
    key = jax.random.key(work.config.train.seed)
    if start is None:
        params, variables = to_host(jax.jit(work.model.init)(key)), ()
    else:
        _check_weights(start, work.model.like())
        params, variables = start
    with jax.default_device(host_device()):
        state = _first(work, params, key)
        return to_host(state if start is None else state._replace(variables=variables))


def _first(work: Work[Any], params: PyTree, key: Key) -> TrainState:
    return work.step.init(params, key, carry=work.carry(params))


def _check_weights(start: Weights, like: Weights) -> None:
    """Raise unless weights fit a model."""
    expected: Any = jax.tree.structure(like)
    got: Any = jax.tree.structure(start)
    if expected != got:
        raise ValueError(
            "fit: the fitted model and the new one differ in their parameters, so that training "
            "cannot begin with the old ones (the tokenizer or the layers are others)"
        )
    paths = jax.tree_util.tree_leaves_with_path(like)
    for (path, leaf), own in zip(paths, jax.tree.leaves(start), strict=True):
        if leaf.shape != own.shape:
            name = jax.tree_util.keystr(path)
            raise ValueError(f"fit: parameter {name}: expected shape {leaf.shape}, got {own.shape}")


def _begin(work: Work[Any], store: Store, state: TrainState, *, resume: bool) -> Snapshot:
    """Make the store ready, and say where to begin: process 0 does it for all."""
    peers = work.layout.peers

    def check(file: Path) -> None:
        check_resumable(load(type(work.config), file), work.config, str(file.parent))

    def begin() -> tuple[Snapshot, dict[str, Any]]:
        manifest = Manifest(dump(work.config), work.checksums, work.files)
        found = store.begin(manifest, state, check, resume=resume)
        snapshot = found or Snapshot(state, Progress())
        return snapshot, dataclasses.asdict(snapshot.progress)

    found, progress = peers.broadcast(begin)
    first = state if found is None else found.state
    return Snapshot(peers.broadcast_arrays(first), Progress(**progress))


def _result(outcome: Outcome, layout: DataParallel, best: int | None) -> dict[str, Any]:
    state, progress = outcome.snapshot
    memory = outcome.memory._asdict() if outcome.memory else {}
    return {
        "steps": progress.step,
        "best_step": best,
        "training_seconds": round(progress.training_seconds, 3),
        "compilation_seconds": round(progress.compilation_seconds, 3),
        "evaluation_seconds": round(progress.evaluation_seconds, 3),
        "parameters": count_parameters(state.params),
        "parameters_sha256": parameters_sha256(state.params),
        **{f"bytes_{name}": number for name, number in memory.items()},
        "devices": layout.size,
        "processes": layout.peers.count,
        "platform": layout.devices[0].platform,
        "jax": jax.__version__,
        "stopped_by_signal": outcome.signal,
        "skipped_steps": progress.skipped,
        "rollbacks": progress.rollbacks,
        "batches_passed_by": progress.batches_passed_by,
        **{f"validation_{name}": value for name, value in progress.validation.items()},
    }
