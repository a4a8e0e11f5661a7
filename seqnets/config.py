"""Configurations: the only place where defaults live, and where a name becomes an object.

A run is a TOML file, decoded into the frozen dataclasses below; ``--set section.key=value``
sets single keys. The resolved configuration is written beside the checkpoints, and a run
can be rebuilt from it alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec
import tomli_w

from seqnets import cells, optimizers
from seqnets.checks import did_you_mean
from seqnets.data.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer
from seqnets.files import read_at_most
from seqnets.heads import GaussianHead, Head, QuantileHead, StudentTHead
from seqnets.recurrence import Regularization
from seqnets.training.recovery import OnNonFinite
from seqnets.typing import Cell

__all__ = [
    "CELLS",
    "HEADS",
    "OPTIMIZERS",
    "SCHEDULES",
    "TOKENIZERS",
    "ConfigError",
    "ForecastConfig",
    "ForecastModel",
    "OptimizerConfig",
    "RecurrentModel",
    "SeriesData",
    "TextConfig",
    "TextData",
    "TextModel",
    "TrainConfig",
    "dump",
    "load",
    "look_up",
    "parse_setting",
]

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.98)

CELLS: Mapping[str, Callable[[int], Cell]] = {
    "elman": cells.Elman,
    "gru": cells.GRU,
    "gru_layer_norm": cells.LayerNormGRU,
    "gru_reset_before": cells.GRUResetBefore,
    "ind_rnn": cells.IndRNN,
    "lstm": cells.LSTM,
    "lstm_coupled": cells.CoupledLSTM,
    "lstm_layer_norm": cells.LayerNormLSTM,
    "lstm_peephole": cells.PeepholeLSTM,
    "mgu": cells.MGU,
    "sru": cells.SRU,
}
HEADS: Mapping[str, Callable[[], Head]] = {
    "gaussian": GaussianHead,
    "quantile": lambda: QuantileHead(LEVELS),
    "student_t": StudentTHead,
}
OPTIMIZERS: Mapping[str, Callable[..., Any]] = {
    "adadelta": optimizers.adadelta,
    "adagrad": optimizers.adagrad,
    "adam": optimizers.adam,
    "adamax": optimizers.adamax,
    "momentum": optimizers.momentum,
    "nadam": optimizers.nadam,
    "nesterov": optimizers.nesterov,
    "rmsprop": optimizers.rmsprop,
    "sgd": optimizers.sgd,
}
SCHEDULES: Mapping[str, Callable[..., optimizers.Schedule]] = {
    "constant": optimizers.constant,
    "cosine": optimizers.cosine,
    "exponential": optimizers.exponential,
    "linear": optimizers.linear,
    "one_cycle": optimizers.one_cycle,
}
TOKENIZERS: Mapping[str, Callable[[str], Tokenizer]] = {
    "byte": lambda text: ByteTokenizer(),
    "character": CharacterTokenizer.from_text,
}

MAXIMUM_BYTES = 2**15

Positive = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters move.

    Attributes:
      name: a key of `OPTIMIZERS`; ``options`` are further arguments of that function.
      learning_rate: the largest one, which the schedule scales.
      schedule: a key of `SCHEDULES`; ``schedule_options`` are the arguments of that function.
      warmup: fraction of the run over which the learning rate rises from a hundredth of itself.
      clip_norm: largest global norm of the gradient; 0 does not clip.
      clip_value: largest element of the gradient; 0 does not clip.
      weight_decay: decoupled decay of weights, not of biases and norms (AdamW with adam).
      plateau: when and how to reduce the learning rate where the loss has stopped falling.
    """

    name: str = "adam"
    options: dict[str, bool | float] = dataclasses.field(default_factory=dict)
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 3e-3
    schedule: str = "cosine"
    schedule_options: dict[str, float] = dataclasses.field(default_factory=dict)
    warmup: Fraction = 0.02
    clip_norm: NotNegative = 1.0
    clip_value: NotNegative = 0.0
    weight_decay: NotNegative = 0.01
    plateau: optimizers.Plateau | None = None

    def build(self) -> Any:
        """The Optax transformation, driven by the progress of the run.

        Raises:
          ConfigError: if a name or an option does not exist.
        """
        algorithm = _call("optimizer", OPTIMIZERS, self.name, self.options, learning_rate=1.0)
        schedule = _call(
            "optimizer.schedule", SCHEDULES, self.schedule, self.schedule_options, "schedule_"
        )
        return optimizers.make_optimizer(
            algorithm,
            learning_rate=self.learning_rate,
            schedule=optimizers.warmup(schedule, self.warmup) if self.warmup else schedule,
            clip_norm=self.clip_norm or None,
            clip_value=self.clip_value or None,
            weight_decay=self.weight_decay,
            plateau=self.plateau,
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, and what is kept.

    Attributes:
      batch_size: rows of a global batch B.
      steps: nominal length of the run, over which schedules run.
      max_steps: stop at this step, schedules unchanged.
      max_seconds: stop after so many seconds of training; schedules then run over the time.
      seed: of parameters, data order and dropout.
      accumulate: parts into which each device cuts its rows to save memory.
      shard_optimizer: each device holds only its part of the optimizer's state, to save memory.
      report_every, evaluate_every, checkpoint_every: in steps.
      keep: newest checkpoints kept, beside the best.
      on_nonfinite, max_skips, max_rollbacks, spike: what to do about steps that are not finite,
        and about spikes of the loss; see `seqnets.training.recovery.Recovery`.
    """

    batch_size: Positive = 32
    steps: Positive = 2000
    max_steps: Positive | None = None
    max_seconds: Seconds | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    accumulate: Positive = 1
    shard_optimizer: bool = False
    report_every: Positive = 50
    evaluate_every: Positive = 500
    checkpoint_every: Positive = 500
    keep: Positive = 2
    on_nonfinite: OnNonFinite = "stop"
    max_skips: Positive = 10
    max_rollbacks: Positive = 3
    spike: Annotated[float, msgspec.Meta(gt=0)] | None = None


@dataclasses.dataclass(frozen=True)
class TextData:
    """What text is read.

    Attributes:
      files: UTF-8 files, plain or gzip; none for the source of Python's standard library.
      tokenizer: a key of `TOKENIZERS`.
      validation: fraction at the end of the text held out (built-in text: by files).
      steps: steps T between two truncations of the gradient.
    """

    files: tuple[str, ...] = ()
    tokenizer: str = "character"
    validation: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    steps: Positive = 64


@dataclasses.dataclass(frozen=True)
class RecurrentModel:
    """What the models have in common: layers of one cell.

    Attributes:
      cell: a key of `CELLS`.
      hidden: size of each layer H.
      layers: number of layers L.
      dropout: rate between layers and before the output.
      variational: draw that dropout once for all steps of a row.
      recurrent_dropout, zoneout, weight_drop: of the recurrence, see
        `seqnets.recurrence.Regularization`; zoneout by part of the carry, ``{c = 0.5, h = 0.05}``.
      dtype: of the products; with bfloat16 the state, all sums and the parameters stay float32.
    """

    cell: str = "lstm"
    hidden: Positive = 64
    layers: Positive = 1
    dropout: Fraction = 0.0
    variational: bool = False
    recurrent_dropout: Fraction = 0.0
    zoneout: dict[str, Fraction] = dataclasses.field(default_factory=dict)
    weight_drop: Fraction = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"

    def cells(self) -> tuple[Cell, ...]:
        """One cell a layer."""
        return (look_up("model.cell", CELLS, self.cell)(self.hidden),) * self.layers

    def recurrence(self) -> dict[str, Any]:
        """What the modules are told about the layers, beside the cells."""
        return {
            "dropout": self.dropout,
            "variational": self.variational,
            "regularization": Regularization(
                recurrent_dropout=self.recurrent_dropout,
                zoneout=tuple(sorted(self.zoneout.items())),
                weight_drop=self.weight_drop,
            ),
            "dtype": None if self.dtype == "float32" else self.dtype,
        }


@dataclasses.dataclass(frozen=True)
class TextModel(RecurrentModel):
    """A recurrent language model; the dropout is on the embeddings too.

    Attributes:
      embedding: size of a token's vector.
      residual: add each layer's input to its output, from the second layer on.
      tied: the output layer is the embedding table.
      activity_weight, temporal_weight: of the penalties on the size of the last layer's outputs
        and on their change in time (AR, TAR); 2 and 1 are usual, 0 is none.
    """

    hidden: Positive = 256
    embedding: Positive = 64
    residual: bool = False
    tied: bool = False
    activity_weight: NotNegative = 0.0
    temporal_weight: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class SeriesData:
    """What series are read, and what is forecast.

    Attributes:
      file: a file that `seqnets.data.read_series` reads; none for the CO2 record of Mauna Loa.
      horizon: steps to forecast H; none: one season, or 12 where there is no season.
      season: length of a season m, in steps; none: taken from the dates, else 1.
      context: steps of the past that are read; none: ``profile`` seasons, but 64 to 256 steps.
      profile: earlier seasons whose value of the same phase is shown for each step to come.
    """

    file: str | None = None
    horizon: Positive | None = None
    season: Positive | None = None
    context: Positive | None = None
    profile: Positive = 7


@dataclasses.dataclass(frozen=True)
class ForecastModel(RecurrentModel):
    """A recurrent encoder and decoder.

    Attributes:
      head: a key of `HEADS`, the output distribution.
    """

    head: str = "quantile"


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """A run of `train_text`."""

    data: TextData = TextData()
    model: TextModel = TextModel()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()


@dataclasses.dataclass(frozen=True)
class ForecastConfig:
    """A run of `train_forecast`."""

    data: SeriesData = SeriesData()
    model: ForecastModel = ForecastModel()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()


ConfigT = TypeVar("ConfigT")


def load(
    kind: type[ConfigT], path: str | Path, settings: Mapping[str, Any] | None = None
) -> ConfigT:
    """Read a configuration.

    Args:
      kind: `TextConfig` or `ForecastConfig`.
      path: a TOML file.
      settings: values by dotted keys (``"train.seed"``) that override the file's; None takes
        the key out.

    Raises:
      ConfigError: if the file cannot be read or has more than 32 KiB, a key does not exist or a
        value is of a wrong type.
    """
    try:
        values = tomllib.loads(read_at_most(path, MAXIMUM_BYTES).decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    for key, value in (settings or {}).items():
        _put(values, key, value)
    _check_keys(kind, values, "")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$.")
        raise ConfigError(f"{key.rstrip('`') or path}: {message}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """``section.key=value`` as dotted key and value: TOML's notation, or a bare string.

    Raises:
      ConfigError: if the text is not of this form.
    """
    path, equals, written = (part.strip() for part in text.partition("="))
    if not equals or not all(path.split(".")) or "." not in path:
        raise ConfigError(f"--set: expected section.key=value, got {text!r}")
    try:
        return path, tomllib.loads(f"value = {written}")["value"]
    except (ValueError, RecursionError):
        return path, written


def dump(config: Any) -> str:
    """The configuration as TOML, keys without a value left out; `load` reads it back."""
    return tomli_w.dumps(_without_none(dataclasses.asdict(config)))


def look_up(key: str, table: Mapping[str, Any], name: str) -> Any:
    """The object called ``name``.

    Raises:
      ConfigError: if the table has none, naming ``key`` and the nearest name.
    """
    if name not in table:
        raise ConfigError(f"{key}: unknown name {name!r}; {did_you_mean(name, table)}")
    return table[name]


def _call(
    key: str,
    table: Mapping[str, Any],
    name: str,
    options: Mapping[str, Any],
    prefix: str = "",
    **fixed: Any,
) -> Any:
    """Call the object called ``name`` with options, which must be its parameters."""
    function = look_up(key if prefix else f"{key}.name", table, name)
    known = set(inspect.signature(function).parameters) - set(fixed)
    section = f"{key.split('.')[0]}.{prefix}options"
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else f"{name} has no options"
            raise ConfigError(f"{section}: unknown option {option!r} of {name}; {hint}")
    try:
        return function(**fixed, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{section}: {error}") from error


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted key of the nested dict, or take it out."""
    *sections, key = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {section} is not a section")
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


def _check_keys(kind: Any, values: Any, prefix: str) -> None:
    """Raise for the first key of a section that its dataclass does not have."""
    if not isinstance(values, dict):
        return
    fields = get_type_hints(kind)
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"unknown key {prefix}{key}; {did_you_mean(key, fields)}")
        for section in (fields[key], *get_args(fields[key])):  # a section may be optional
            if dataclasses.is_dataclass(section):
                _check_keys(section, value, f"{prefix}{key}.")


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return values
