"""The text of a run as numbers: read by process 0, which gives each process its share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from seqnets.config import TOKENIZERS, TextConfig, look_up
from seqnets.data.builtin.standard_library import standard_library
from seqnets.data.errors import DataError
from seqnets.data.text import (
    Excerpt,
    TextSplit,
    TextStream,
    evaluation_span,
    read_texts,
    split_tail,
    training_span,
)
from seqnets.data.tokenizers import Tokenizer, tokenizer_from_dict
from seqnets.jobs.fingerprints import sums_of_files, sums_of_text
from seqnets.jobs.running import evaluation_layout
from seqnets.training.processes import part_of_lead, told_by_lead

__all__ = ["Corpus", "evaluation_rows", "read_split", "share_of_corpus", "training_stream"]

EVALUATION_ROWS = 32
SHORTEST_ROW = 1024  # tokens: each row starts without any context, which must not count


class Corpus(NamedTuple):
    """A text as numbers, or what a process holds of it."""

    tokenizer: Tokenizer
    train: Excerpt
    validation: Excerpt
    characters: int
    """Of the validation text."""
    sums: dict[str, str]
    """SHA-256 of what was read; elsewhere than on process 0 nothing was."""


def share_of_corpus(config: TextConfig, own: slice) -> Corpus:
    """What a process needs for its rows of every batch, and for its share of an evaluation.

    Only process 0 sees the files, and only it holds the whole of them, until it has given each
    its share.

    Args:
      config: of the run.
      own: the process's rows of a batch.

    Raises:
      DataError: on process 0, if the text cannot be read or is too short.
      LeadError: on the others, if it failed on process 0.
    """

    def read_all() -> tuple[Corpus, dict[str, Any]]:
        corpus = _read(config)
        return corpus, {
            "tokenizer": corpus.tokenizer.to_dict(),
            "sizes": [corpus.train.size, corpus.validation.size],
            "characters": corpus.characters,
        }

    whole, about = told_by_lead(read_all)
    train, validation = about["sizes"]
    nothing = np.empty(0, np.int32)
    corpus = whole or Corpus(
        tokenizer_from_dict(about["tokenizer"]),
        Excerpt(nothing, 0, train),
        Excerpt(nothing, 0, validation),
        about["characters"],
        sums={},
    )
    rows = evaluation_rows(validation)
    return corpus._replace(
        train=_part(
            corpus.train, training_span(train, config.train.batch_size, config.data.steps, own)
        ),
        validation=_part(
            corpus.validation, evaluation_span(validation, rows, evaluation_layout(rows)[1])
        ),
    )


def training_stream(config: TextConfig, tokens: Excerpt) -> TextStream:
    """The batches of a run.

    Raises:
      DataError: if there are too few tokens.
    """
    train = config.train
    return TextStream(tokens, batch_size=train.batch_size, steps=config.data.steps, seed=train.seed)


def evaluation_rows(tokens: int) -> int:
    """Into how many rows so many tokens are cut to be measured.

    Raises:
      DataError: if they are fewer than 2.
    """
    if tokens < 2:
        raise DataError(f"text to measure: expected at least 2 tokens, got {tokens}")
    return min(EVALUATION_ROWS, max(1, tokens // SHORTEST_ROW))


def read_split(config: TextConfig) -> TextSplit:
    """The training and the validation text: the configured files, or the built-in text.

    Raises:
      DataError: if a file cannot be read.
    """
    if not config.data.files:
        return standard_library()
    return split_tail(read_texts(config.data.files), config.data.validation)


def _read(config: TextConfig) -> Corpus:
    """All of it; raises DataError also where it is too short to train on or to measure."""
    sums = sums_of_files(config.data.files)
    split = read_split(config)
    sums = sums or sums_of_text("the source of Python's standard library", *split)
    tokenizer = look_up("data.tokenizer", TOKENIZERS, config.data.tokenizer)(split.train)
    train, validation = (Excerpt.of(tokenizer.encode(part)) for part in split)
    training_stream(config, train)  # raise here, where all are told, what they would raise later
    evaluation_rows(validation.size)
    return Corpus(tokenizer, train, validation, len(split.validation), sums)


def _part(excerpt: Excerpt, span: slice) -> Excerpt:
    return Excerpt(part_of_lead(excerpt.tokens, span), span.start, excerpt.size)
