"""What the estimators share: keywords, fitting in memory or in a directory, saving, loading."""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import jax

from seqnets.applications.application import (
    Application,
    Trained,
    Work,
    fit_work,
    load_run,
    prepare_work,
)
from seqnets.config import ConfigError, convert, dump, from_keywords, signature_of
from seqnets.devices import usable_cores, use_all_cores
from seqnets.files import read_json
from seqnets.runs import DirectoryStore, Manifest, MemoryStore, save_weights
from seqnets.training import Weights

__all__ = ["Estimator", "NotFittedError", "use_devices"]

DataT = TypeVar("DataT")
FittedT = TypeVar("FittedT")
MAXIMUM_BYTES = 2**24


class NotFittedError(ValueError):
    """An estimator was used before it was fitted."""


class Estimator(abc.ABC, Generic[DataT, FittedT]):
    """A model for data in memory. Its keywords are the fields of the configuration's sections.

    A subclass names its application, says how its data is read, and adds ``score`` and what the
    model is for.
    """

    application: ClassVar[Application[Any, Any, Any]]

    def __init_subclass__(cls) -> None:
        """Show the keywords as the signature."""
        cls.__signature__ = signature_of(cls.application.config)  # type: ignore[attr-defined]

    def __init__(self, **keywords: Any) -> None:
        """Configure a model.

        Args:
          **keywords: see the class's signature; defaults are those of the configuration's sections.

        Raises:
          ConfigError: if a keyword does not exist, or its value is of a wrong type or size.
        """
        self.config = from_keywords(self.application.config, keywords)
        self._fitted: FittedT | None = None
        self._weights: Weights | None = None
        self._saved: _Saved | None = None
        self.result: dict[str, Any] = {}
        """Figures of the last fit, those of ``result.json``."""
        self.records: list[dict[str, Any]] = []
        """Reports of the last fit, those of ``metrics.jsonl``."""

    @property
    def fitted(self) -> FittedT:
        """What was fitted.

        Raises:
          NotFittedError: if nothing was.
        """
        if self._fitted is None:
            name = type(self).__name__
            raise NotFittedError(f"{name} is not fitted: call fit, or {name}.load")
        return self._fitted

    @abc.abstractmethod
    def _reader(self, data: DataT) -> Callable[[], Any]:
        """A function that gives the data as the application reads it from files.

        Raises:
          DataError: if it is not what the class takes.
        """

    def fit(
        self,
        data: DataT,
        /,
        *,
        seconds: float | None = None,
        steps: int | None = None,
        directory: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Fit to data; a fitted model continues from its weights (warm start).

        Args:
          data: see the class.
          seconds: train for this long, over which the learning rate's schedule is stretched.
          steps: number of optimizer steps; with it, two fits with one seed are bit-equal on one
            layout of devices. Without either, ``train.steps`` of the configuration.
          directory: also keep checkpoints and records there, as the command does.
          resume: continue the run in ``directory`` from its last checkpoint.

        Raises:
          DataError: if the data cannot be read, or there is too little of it.
          ConfigError: if a keyword does not fit.
          NonFiniteError: if a loss is not finite.
        """
        if resume and directory is None:
            raise ConfigError("resume: expected a directory to resume, got none")
        use_devices()
        config = _limited(self.config, seconds, steps)
        work = prepare_work(self.application, config, self._reader(data))
        store = MemoryStore() if directory is None else DirectoryStore(directory)
        trained = fit_work(work, store, start=None if resume else self._weights, resume=resume)
        self._take(work, store, trained)
        return self

    def _take(self, work: Work[FittedT], store: Any, trained: Trained) -> None:
        """Become what was fitted."""
        self._weights = store.best_weights(work.model.like())
        self._fitted = work.model.fitted(self._weights)
        self._saved = _Saved(work.config, dict(work.checksums), dict(work.files), trained.result)
        self.result = trained.result
        self.records = store.records if isinstance(store, MemoryStore) else []

    def _further_files(self) -> dict[str, str]:
        """Files that `save` adds to those of the run, by name."""
        return {}

    def save(self, path: str | Path) -> None:
        """Write a run directory with the weights, for `load` and for the commands.

        Args:
          path: a folder that is new or empty.

        Raises:
          NotFittedError: if nothing was fitted.
          ValueError: if the folder is not empty.
        """
        _ = self.fitted
        assert self._saved is not None
        assert self._weights is not None
        files = {**self._saved.files, **self._further_files()}
        manifest = Manifest(dump(self._saved.config), self._saved.checksums, files)
        save_weights(path, manifest, self._weights, self._saved.result)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the best weights of a run directory: of `save`, of a fit in it, or of a command.

        Raises:
          ValueError: if it is not a run of this application, or cannot be read.
        """
        loaded = load_run(cls.application, path)
        files = {
            name: (loaded.directory.path / name).read_text("utf-8")
            for name in cls.application.files
            if (loaded.directory.path / name).exists()
        }
        estimator = cls()
        estimator.config = loaded.config
        estimator._weights, estimator._fitted = loaded.weights, loaded.fitted
        checksums, result = (
            dict(read_json(file, MAXIMUM_BYTES)) if file.exists() else {}
            for file in (loaded.directory.data_file, loaded.directory.result_file)
        )
        estimator._saved = _Saved(loaded.config, checksums, files, result)
        estimator.result = result
        return estimator


class _Saved(NamedTuple):
    """What is written of a fitted model, beside its weights."""

    config: Any
    checksums: dict[str, str]
    files: dict[str, str]
    result: dict[str, Any]


def use_devices() -> None:
    """Use every core, unless JAX is in use: then the devices that it has, which one line says."""
    try:
        use_all_cores()
    except RuntimeError:
        found, cores = jax.local_devices(), usable_cores()
        if found[0].platform == "cpu" and len(found) < cores:
            print(
                f"seqnets: JAX is already in use with {len(found)} CPU device(s) for {cores} "
                "cores; fit before other JAX code, or set JAX_NUM_CPU_DEVICES, to use them all",
                file=sys.stderr,
            )


def _limited(config: Any, seconds: float | None, steps: int | None) -> Any:
    """The configuration with the limits of one fit."""
    if seconds is None and steps is None:
        return config
    given: dict[str, Any] = {"max_seconds": seconds, "max_steps": None}
    if steps is not None:
        given["steps"] = steps
    try:
        return convert(type(config), {"train": given}, base=config)
    except ConfigError as error:
        message = str(error).replace("train.max_seconds", "seconds").replace("train.steps", "steps")
        raise ConfigError(message) from error
