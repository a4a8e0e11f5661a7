"""The text of a run as tokens: read by process 0, which gives each process its share."""

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
SHORTEST_ROW = 1024  # tokens: each row starts without any context, which must not count


class Texts(NamedTuple):
    """A text to learn from, one to measure on, and what they are known by."""

    split: TextSplit
    checksums: Mapping[str, str]
    """SHA-256 by a name that is a hint."""


class Corpus(NamedTuple):
    """A text as tokens, or the part of them that a process holds."""

    tokenizer: Tokenizer
    train: Excerpt
    validation: Excerpt
    characters: int
    """Of the validation text."""
    checksums: Mapping[str, str]
    """Of the text; on process 0 only."""


def read_texts_of(config: TextConfig) -> Texts:
    """The configured files, or the built-in text.

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
    """What a process needs for its rows of every batch, and for its share of an evaluation.

    Only process 0 reads, and only it holds all of the text, until it has given each its share.

    Args:
      config: of the run.
      read: gives the text.
      share: the part of the rows that this process provides.
      peers: the processes.

    Raises:
      DataError: on process 0, if the text cannot be read or is too short.
      LeadError: on the others, if it failed on process 0.
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
    """The batches of a run.

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
    """Into how many rows a text of so many tokens is cut to be measured.

    Raises:
      DataError: if they are fewer than 2.
    """
    if tokens < 2:
        raise DataError(f"text to measure: expected at least 2 tokens, got {tokens}")
    return min(EVALUATION_ROWS, max(1, tokens // SHORTEST_ROW))


def _tokenized(config: TextConfig, texts: Texts) -> Corpus:
    """All of the text; raises DataError also where it is too short to train on or to measure."""
    split = texts.split
    tokenizer = look_up("data.tokenizer", TOKENIZERS, config.data.tokenizer)(split.train)
    train, validation = (Excerpt.of(tokenizer.encode(part)) for part in split)
    text_stream(config, train)  # raise here, where all are told, what they would raise later
    evaluation_rows(validation.size)
    return Corpus(tokenizer, train, validation, len(split.validation), texts.checksums)
