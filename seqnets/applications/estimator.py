"""What all estimators share: keywords, fitting in memory or a directory, saving, and loading."""

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
from seqnets.runs import DirectoryStore, Manifest, MemoryStore, Store, read_records, save_weights
from seqnets.training import Weights

__all__ = ["Estimator", "NotFittedError", "use_devices"]

DataT = TypeVar("DataT")
FittedT = TypeVar("FittedT")
MAXIMUM_BYTES = 2**24


class NotFittedError(ValueError):
    """An estimator was used before it was fitted."""


class Estimator(abc.ABC, Generic[DataT, FittedT]):
    """A model for data in memory; its keywords are the fields of the configuration's sections.

    A subclass sets ``application``, implements ``_reader``, and adds ``score`` and the methods for
    using the model.
    """

    application: ClassVar[Application[Any, Any, Any]]

    def __init_subclass__(cls) -> None:
        """Set the signature to the keywords."""
        cls.__signature__ = signature_of(cls.application.config)  # type: ignore[attr-defined]

    def __init__(self, **keywords: Any) -> None:
        """Configure a model.

        Args:
          **keywords: see the signature of the class, which has the defaults.

        Raises:
          ConfigError: if a keyword does not exist, or its value has a wrong type or is out of
            range.
        """
        self.config = from_keywords(self.application.config, keywords)
        self._fitted: FittedT | None = None
        self._weights: Weights | None = None
        self._saved: _Saved | None = None
        self.result: dict[str, Any] = {}
        """Final metrics of the last fit, as in ``result.json``."""
        self.records: list[dict[str, Any]] = []
        """Records of the last fit, as in ``metrics.jsonl``."""

    @property
    def fitted(self) -> FittedT:
        """The fitted model.

        Raises:
          NotFittedError: if the estimator is not fitted.
        """
        if self._fitted is None:
            name = type(self).__name__
            raise NotFittedError(f"{name} is not fitted: call fit, or {name}.load")
        return self._fitted

    @abc.abstractmethod
    def _reader(self, data: DataT) -> Callable[[], Any]:
        """Return a function that returns the data as the application reads them from files.

        Raises:
          DataError: if the data are not valid.
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
          data: data to fit to; see the class.
          seconds: train for this many seconds; the learning rate schedule spans this time.
          steps: train for this many optimizer steps; two fits with the same seed and devices are
            then equal bit for bit. With both, training ends at whichever limit comes first; without
            either, the limits of the configuration apply.
          directory: write checkpoints and records to this new or empty folder, as the command does;
            None keeps them in memory.
          resume: continue the run in ``directory`` from its last checkpoint.

        Returns:
          The estimator itself.

        Raises:
          DataError: if the data are invalid or too few.
          ConfigError: if a keyword does not fit the data, or ``resume`` is set without a directory.
          ValueError: if ``directory`` is not empty or, with ``resume``, not a run with this
            configuration and these data; or if the fitted weights do not fit the new data.
          NotEnoughMemoryError: if the run needs more memory than is available.
          NonFiniteError: if a step is not finite and ``on_nonfinite`` is ``"stop"``, or its limits
            are exceeded.
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

    def _take(self, work: Work[FittedT], store: Store, trained: Trained) -> None:
        """Take over the results of a run."""
        self._weights = store.best_weights(work.model.like())
        self._fitted = work.model.fitted(self._weights)
        self._saved = _Saved(work.config, dict(work.checksums), dict(work.files), trained.result)
        self.result = trained.result
        self.records = store.records

    def _further_files(self) -> dict[str, str]:
        """Contents of files that `save` adds to the run, by name."""
        return {}

    def save(self, path: str | Path) -> None:
        """Write a run directory with the weights, for `load` and for the commands.

        Args:
          path: a new or empty folder.

        Raises:
          NotFittedError: if the estimator is not fitted.
          ValueError: if the folder is not empty.
          OSError: if the folder cannot be written.
        """
        _ = self.fitted
        assert self._saved is not None
        assert self._weights is not None
        files = {**self._saved.files, **self._further_files()}
        manifest = Manifest(dump(self._saved.config), self._saved.checksums, files)
        save_weights(path, manifest, self._weights, self._saved.result)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load the best weights of a run directory, written by `save`, `fit`, or a command.

        Args:
          path: the folder.

        Returns:
          A fitted estimator.

        Raises:
          ValueError: if the folder is not a run of this application, or cannot be read.
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
        estimator.records = read_records(loaded.directory.metrics_file)
        return estimator


class _Saved(NamedTuple):
    """What is saved of a fitted model in addition to its weights."""

    config: Any
    checksums: dict[str, str]
    files: dict[str, str]
    result: dict[str, Any]


def use_devices() -> None:
    """Use all cores; if JAX is already in use with fewer, print a line about it."""
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
    given: dict[str, Any] = {"max_seconds": seconds, "max_steps": steps if seconds else None}
    if steps is not None:
        given["steps"] = steps
    try:
        return convert(type(config), {"train": given}, base=config)
    except ConfigError as error:
        message = str(error).replace("train.max_seconds", "seconds").replace("train.steps", "steps")
        raise ConfigError(message) from error
