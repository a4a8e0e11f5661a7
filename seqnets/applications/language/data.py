"""The text of a run as tokens, read by process 0, which sends each process its share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from seqnets.applications.language.config import TextConfig
from seqnets.config import look_up
from seqnets.data.builtin.standard_library import standard_library
from seqnets.data.checksums import checksum_of_text
from seqnets.data.errors import DataError
from seqnets.data.source import Share
from seqnets.data.text import (
    Excerpt,
    TextSplit,
    TextStream,
    evaluation_span,
    read_texts,
    split_tail,
    training_span,
)
from seqnets.data.tokenizers import TOKENIZERS, Tokenizer, tokenizer_from_dict
from seqnets.training.layout import Peers

__all__ = ["Corpus", "Texts", "evaluation_rows", "read_texts_of", "share_of_corpus", "text_stream"]

EVALUATION_ROWS = 32
SHORTEST_ROW = 1024  # tokens, so that it hardly matters that each row starts without context


class Texts(NamedTuple):
    """A text for training, a text for validation, and their checksum."""

    split: TextSplit
    checksums: Mapping[str, str]
    """SHA-256 by a name for messages."""


class Corpus(NamedTuple):
    """The text as tokens, or the part held by one process."""

    tokenizer: Tokenizer
    train: Excerpt
    validation: Excerpt
    characters: int
    """Number of characters of the validation text."""
    checksums: Mapping[str, str]
    """SHA-256 of the text; on process 0 only."""


def read_texts_of(config: TextConfig) -> Texts:
    """Read the configured files, or the built-in text.

    Raises:
      DataError: if a file cannot be read.
    """
    files = config.data.files
    if not files:
        split = standard_library()
        name = "the source of Python's standard library"
        return Texts(split, {name: checksum_of_text(*split)})
    text = read_texts(files)
    checksums = {", ".join(map(str, files)): checksum_of_text(text)}
    return Texts(split_tail(text, config.data.validation), checksums)


def share_of_corpus(
    config: TextConfig, read: Callable[[], Texts], share: Share, peers: Peers
) -> Corpus:
    """The tokens that a process needs for its rows of every batch and evaluation.

    Process 0 reads the whole text and sends each process its share.

    Args:
      config: configuration of the run.
      read: returns the text.
      share: share of the rows of this process.
      peers: the processes.

    Raises:
      DataError: on process 0, if the text cannot be read or is too short.
      LeadError: on the others, if process 0 failed.
    """

    def read_all() -> tuple[Corpus, dict[str, Any]]:
        corpus = _tokenized(config, read())
        return corpus, {
            "tokenizer": corpus.tokenizer.to_dict(),
            "sizes": [corpus.train.size, corpus.validation.size],
            "characters": corpus.characters,
        }

    whole, about = peers.broadcast(read_all)
    train, validation = about["sizes"]
    nothing = np.empty(0, np.int32)
    corpus = whole or Corpus(
        tokenizer_from_dict(about["tokenizer"]),
        Excerpt(nothing, 0, train),
        Excerpt(nothing, 0, validation),
        about["characters"],
        checksums={},
    )

    def part(excerpt: Excerpt, span: slice) -> Excerpt:
        return Excerpt(peers.scatter(excerpt.tokens, span), span.start, excerpt.size)

    B, T = config.train.batch_size, config.data.chunk_length
    rows = evaluation_rows(validation)
    return corpus._replace(
        train=part(corpus.train, training_span(train, B, T, share.rows(B))),
        validation=part(corpus.validation, evaluation_span(validation, rows, share.rows(rows))),
    )


def text_stream(config: TextConfig, tokens: Excerpt) -> TextStream:
    """The source of a run's batches.

    Raises:
      DataError: if there are too few tokens.
    """
    return TextStream(
        tokens,
        batch_size=config.train.batch_size,
        chunk_length=config.data.chunk_length,
        seed=config.train.seed,
        fresh_starts=config.data.fresh_starts,
    )


def evaluation_rows(tokens: int) -> int:
    """Number of rows into which an evaluation splits a text with this number of tokens.

    Raises:
      DataError: if there are fewer than 2 tokens.
    """
    if tokens < 2:
        raise DataError(f"text to evaluate: expected at least 2 tokens, got {tokens}")
    return min(EVALUATION_ROWS, max(1, tokens // SHORTEST_ROW))


def _tokenized(config: TextConfig, texts: Texts) -> Corpus:
    """The whole text as tokens; raises DataError if it is too short to train or evaluate on."""
    split = texts.split
    tokenizer = look_up("data.tokenizer", TOKENIZERS, config.data.tokenizer)(split.train)
    train, validation = (Excerpt.of(tokenizer.encode(part)) for part in split)
    text_stream(config, train)  # raise errors here, where all processes learn of them
    evaluation_rows(validation.size)
    return Corpus(tokenizer, train, validation, len(split.validation), texts.checksums)
