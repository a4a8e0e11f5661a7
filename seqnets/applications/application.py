"""The interface of an application, and what all applications share: fitting and loading.

An application is a folder beside this file. It defines what a run needs (`Work`) and what a fitted
model can do; files, processes, and devices are handled by other packages.
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
    """A model without weights."""

    init: Callable[[Key], PyTree]
    """``key -> params``, the initial parameters."""
    fitted: Callable[[Weights], FittedT]
    """``weights -> fitted``, the usable model."""
    after: After | None = None
    """Rule that updates the model's variables, if it has any."""

    def like(self) -> Weights:
        """Shapes and dtypes of the weights."""

        def weights() -> Weights:
            params = self.init(jax.random.key(0))
            return Weights(params, (self.after.init(params) or ()) if self.after else ())

        return jax.eval_shape(weights)


@dataclasses.dataclass(frozen=True)
class Work(Generic[FittedT]):
    """What an application provides for a run; every process creates the same.

    Attributes:
      config: resolved configuration, with a section ``train``.
      model: model to train.
      step: training step.
      source: source of batches.
      evaluation: what to measure during training, or None.
      layout: devices.
      checksums: SHA-256 of the data, by names for messages; on process 0 only.
      carry: ``params -> carry``, recurrent state before the first batch; () if there is none.
      files: contents of additional files of the run directory by name, for using the model later.
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
        """The configuration: a dataclass of sections, including ``train``."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Names of additional files that a run directory may contain."""
        ...

    def read(self, config: ConfigT) -> DataT:
        """Read the data that a configuration names; called on process 0 only.

        Raises:
          DataError: if they cannot be read.
        """
        ...

    def prepare(self, config: ConfigT, read: Callable[[], DataT]) -> Work[FittedT]:
        """Prepare what a run needs.

        Args:
          config: the configuration.
          read: returns the data; must be called inside `Peers.broadcast`, so that only process 0
            reads and the others learn of an error.

        Raises:
          ValueError: if the data do not fit the configuration.
        """
        ...

    def restore(self, config: ConfigT, run: RunDirectory) -> Model[FittedT]:
        """Rebuild the model of a run directory, without its weights.

        Raises:
          ValueError: if a file of the run cannot be read.
        """
        ...


def prepare_work(
    application: Application[Any, DataT, FittedT], config: Any, read: Callable[[], DataT]
) -> Work[FittedT]:
    """Check that all processes have the same configuration, and prepare what a run needs.

    Args:
      application: the application.
      config: configuration of this process.
      read: returns the data; see `Application.prepare`.

    Raises:
      ConfigError: if the processes have different configurations; the message names a key.
      ValueError: if the data do not fit the configuration.
    """
    first, *others = (
        convert(type(config), parse_toml(text, f"process {number}"))
        for number, text in enumerate(all_peers().gather(dump(config)))
    )
    for number, other in enumerate(others, 1):
        for key, one, another in differences(first, other, but="may_differ"):
            raise ConfigError(
                f"{key}: expected the same value in all processes, got {one!r} in process 0 and "
                f"{another!r} in process {number}"
            )
    return application.prepare(config, read)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Result of a run."""

    result: dict[str, Any]
    """Contents of ``result.json``."""
    signal: int | None
    """The signal that stopped the run early, or None."""


def fit_work(
    work: Work[Any],
    store: Store,
    *,
    start: Weights | None = None,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
) -> Trained:
    """Train, and keep records and weights in a store.

    Args:
      work: what the run needs.
      store: a directory or memory.
      start: initial weights (warm start); None initializes them randomly.
      resume: continue from the newest undamaged checkpoint, as if the run had never stopped; from
        the beginning if it was killed before its first checkpoint.
      hooks: additional hooks, called on process 0.

    Raises:
      ValueError: if the directory is not empty, or another process trains in it; or, when resuming,
        if there is nothing to resume, the data have changed, or the configuration differs in a key
        on which checkpoints depend.
      NotEnoughMemoryError: if the run needs more memory than is available.
      NonFiniteError: if a step is not finite and ``train.on_nonfinite`` is ``"stop"``, or its
        limits are exceeded.
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
    """Contents of a run directory."""

    config: Any
    """The resolved configuration."""
    fitted: FittedT
    """The model with its best weights."""
    weights: Weights
    """The best weights."""
    directory: RunDirectory
    """The run directory."""


def load_run(application: Application[Any, Any, FittedT], path: str | Path) -> LoadedRun[FittedT]:
    """Read a run directory and its best checkpoint.

    Args:
      application: the application of the run.
      path: the folder.

    Raises:
      ValueError: if the folder is not a run of this application, or has no readable checkpoint.
    """
    run = RunDirectory.open(path)
    try:
        config = load(application.config, run.config_file)
    except ConfigError as error:
        raise ConfigError(
            f"{path}: expected a run of this application, got one of another application or of "
            f"another version of seqnets: {error}"
        ) from error
    model = application.restore(config, run)
    weights = DirectoryStore(path).best_weights(model.like())
    return LoadedRun(config, model.fitted(weights), weights, run)


def count_parameters(params: PyTree) -> int:
    """Total number of elements of all parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _check_memory(work: Work[Any]) -> None:
    """Raise an error if a run cannot fit into memory, before anything is allocated."""
    key = jax.random.key(work.config.train.seed)
    state = jax.eval_shape(lambda: _first(work, jax.jit(work.model.init)(key), key))
    devices, sharded = work.layout.devices, work.layout.shard_optimizer
    check_training_memory(state, work.source.shapes, devices, shard_optimizer=sharded)


def _initial_state(work: Work[Any], start: Weights | None) -> TrainState:
    """The initial state, on the host, since a device may have memory only for its shard."""
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
    """Raise an error unless weights fit a model."""
    expected: Any = jax.tree.structure(like)
    got: Any = jax.tree.structure(start)
    if expected != got:
        raise ValueError(
            "fit: cannot start from the fitted weights, since the parameters of the new model "
            "differ (other layers or another tokenizer)"
        )
    paths = jax.tree_util.tree_leaves_with_path(like)
    for (path, leaf), own in zip(paths, jax.tree.leaves(start), strict=True):
        if leaf.shape != own.shape:
            name = jax.tree_util.keystr(path)
            raise ValueError(f"fit: parameter {name}: expected shape {leaf.shape}, got {own.shape}")


def _begin(work: Work[Any], store: Store, state: TrainState, *, resume: bool) -> Snapshot:
    """Prepare the store on process 0, and return the snapshot to start from on all processes."""
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
