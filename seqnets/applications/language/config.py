"""The configuration of a language model."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import msgspec

from seqnets.config import Fraction, NotNegative, Positive, field
from seqnets.modules.config import RecurrentConfig
from seqnets.optimizers.config import OptimizerConfig
from seqnets.training.config import TrainConfig

__all__ = ["TextConfig", "TextData", "TextModel"]


@dataclasses.dataclass(frozen=True)
class TextData:
    """The text to train on.

    Attributes:
      files: UTF-8 files, plain or gzip; empty for the source code of Python's standard library.
      tokenizer: key of `seqnets.data.TOKENIZERS`.
      validation: fraction of the text, at its end, held out for validation, in (0, 1); built-in
        text is split by files instead.
      chunk_length: time steps T of a batch, after which the gradient is truncated.
      fresh_starts: probability that a row of a batch starts from the initial state, in [0, 1); the
        other rows continue with the state of the previous batch.
    """

    files: tuple[str, ...] = field((), may_change=True, may_differ=True, keyword=None)
    tokenizer: str = "character"
    validation: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    chunk_length: Positive = field(64, formerly="steps")
    fresh_starts: Fraction = 0.05


@dataclasses.dataclass(frozen=True)
class TextModel(RecurrentConfig):
    """A recurrent language model; ``dropout`` also applies to the embeddings.

    Attributes:
      embedding: size of the embedding vectors.
      residual: whether to add each layer's input to its output, from the second layer on.
      tied: whether the output layer shares the embedding table.
      activity_weight, temporal_weight: weights of the penalties on the size of the last layer's
        outputs and on their change in time (AR, TAR); usually 2 and 1, 0 for none.
    """

    hidden: Positive = 256
    embedding: Positive = 64
    residual: bool = False
    tied: bool = False
    activity_weight: NotNegative = 0.0
    temporal_weight: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Configuration of ``seqnets text train``; its defaults are the preset ``default``."""

    data: TextData = TextData()
    model: TextModel = TextModel()
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=4e-3, schedule_options={"final": 0.02}
    )
    train: TrainConfig = TrainConfig(
        batch_size=16, steps=4800, evaluate_every=1200, checkpoint_every=1200
    )
