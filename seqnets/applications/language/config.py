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
    """What text is read.

    Attributes:
      files: UTF-8 files, plain or gzip; none for the source of Python's standard library.
      tokenizer: a key of `seqnets.data.TOKENIZERS`.
      validation: fraction at the end of the text held out (built-in text: by files).
      chunk_length: time steps T between two truncations of the gradient.
      fresh_starts: probability with which a row of a batch begins from the initial state, as texts
        do; the others carry on that of the batch before.
    """

    files: tuple[str, ...] = field((), may_change=True, may_differ=True, keyword=None)
    tokenizer: str = "character"
    validation: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    chunk_length: Positive = field(64, formerly="steps")
    fresh_starts: Fraction = 0.05


@dataclasses.dataclass(frozen=True)
class TextModel(RecurrentConfig):
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
class TextConfig:
    """A run of ``seqnets text train``; its defaults are the preset ``default``."""

    data: TextData = TextData()
    model: TextModel = TextModel()
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=4e-3, schedule_options={"final": 0.02}
    )
    train: TrainConfig = TrainConfig(
        batch_size=16, steps=4800, evaluate_every=1200, checkpoint_every=1200
    )
