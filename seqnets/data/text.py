"""Text files, and token streams for training with state carried from batch to batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from seqnets.checks import check_dtype, check_range, check_rank
from seqnets.data.errors import DataError
from seqnets.data.files import MAXIMUM_BYTES, decode_utf8, read_bytes
from seqnets.data.source import WHOLE, Share
from seqnets.typing import Bool, Int

__all__ = [
    "EvaluationBatch",
    "Excerpt",
    "TextBatch",
    "TextSplit",
    "TextStream",
    "evaluation_batches",
    "evaluation_span",
    "read_texts",
    "split_tail",
    "training_span",
]


class TextSplit(NamedTuple):
    """A text for training and a text for validation."""

    train: str
    validation: str


class Excerpt(NamedTuple):
    """A contiguous part of a token sequence, as held by one of several processes."""

    tokens: Int[np.ndarray, " n"]
    """[m] int, the tokens of the part."""
    first: int
    """Position of the part's first token in the whole sequence."""
    size: int
    """Number of tokens in the whole sequence."""

    @classmethod
    def of(cls, tokens: Int[np.ndarray, " n"]) -> Excerpt:
        """The excerpt that consists of the whole sequence."""
        return cls(tokens, 0, np.size(tokens))

    def at(self, positions: Int[np.ndarray, "*S"]) -> Int[np.ndarray, "*S"]:
        """Look up tokens.

        Args:
          positions: positions in the whole sequence, of any shape.

        Returns:
          The tokens, in the shape of ``positions``.

        Raises:
          IndexError: if a position is not in the excerpt.
        """
        within = positions - self.first
        outside = positions[(within < 0) | (within >= len(self.tokens))]
        if outside.size:
            end = self.first + len(self.tokens)
            raise IndexError(f"positions: expected {self.first} to {end - 1}, got {outside[0]}")
        return self.tokens[within]


class TextBatch(NamedTuple):
    """A chunk of B streams; ``targets[b, t]`` is the token after ``inputs[b, t]``."""

    inputs: Int[np.ndarray, "B T"]
    """[B, T] int32."""
    targets: Int[np.ndarray, "B T"]
    """[B, T] int32."""
    reset: Bool[np.ndarray, "B T"]
    """[B, T] bool, True where a stream restarts and the recurrent state must be reset."""


class EvaluationBatch(NamedTuple):
    """A chunk of an evaluation; padded time steps hold token 0 and must not count."""

    inputs: Int[np.ndarray, "B T"]
    """[B, T] int32."""
    targets: Int[np.ndarray, "B T"]
    """[B, T] int32."""
    mask: Bool[np.ndarray, "B T"]
    """[B, T] bool, True at real predictions."""


def read_texts(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Read UTF-8 files, plain or gzip (detected by content), joined without a separator.

    Line endings are kept.

    Args:
      paths: one or more files, in order.

    Returns:
      The joined text.

    Raises:
      TypeError: if ``paths`` is a single name instead of a sequence of names.
      ValueError: if ``paths`` is empty.
      DataError: if a file cannot be read, is empty, or is not UTF-8, or if all files together
        exceed 2 GiB.
    """
    if isinstance(paths, str | bytes | os.PathLike):
        raise TypeError(f"paths: expected a sequence of file names, got one: {paths!r}")
    if not paths:
        raise ValueError("paths: expected at least one file, got none")
    texts, left = [], MAXIMUM_BYTES
    for path in paths:
        data = read_bytes(path, left)
        left -= len(data)
        texts.append(decode_utf8(path, data))
    return "".join(texts)


def split_tail(text: str, fraction: float) -> TextSplit:
    """Split off the last ``fraction`` of the characters for validation.

    Args:
      text: at least 2 characters.
      fraction: in (0, 1); the validation part gets ``round(fraction · len(text))`` characters,
        but each part gets at least one.

    Returns:
      The training part and the validation part.

    Raises:
      ValueError: if ``fraction`` is out of range.
      DataError: if ``text`` has fewer than 2 characters.
    """
    check_range("fraction", fraction, 0, 1, closed="neither")
    if len(text) < 2:
        raise DataError(f"text: expected at least 2 characters to split, got {len(text)}")
    tail = min(max(round(fraction * len(text)), 1), len(text) - 1)
    return TextSplit(text[:-tail], text[-tail:])


class TextStream:
    """Contiguous streams for truncated backpropagation; batch k is a pure function of (seed, k).

    An epoch divides the tokens into B equal stretches and reads each in chunks of T: row b of batch
    k + 1 continues where row b of batch k ended. Each epoch starts at a random offset, drawn from
    (seed, epoch) among at least T values if there are enough tokens, so that the boundaries of
    chunks and rows differ between epochs. No prediction occurs twice in an epoch; fewer than
    (B + 1) · T predictions at both ends are left out.

    A model trained only on carried states may fail at the beginning of a text, where the state is
    the initial one. Therefore, each row of a batch starts from the initial state with a small
    probability, drawn from (seed, k).

    Args:
      tokens: [n] int, or an excerpt of them.
      batch_size: number of streams B.
      chunk_length: time steps T of a batch, after which the gradient is truncated.
      seed: seed of the offsets and fresh starts, ≥ 0.
      fresh_starts: probability that a row of a batch starts from the initial state, in [0, 1].

    Raises:
      TypeError: if ``tokens`` are not integers.
      ValueError: if ``tokens`` is not [n], or a number is out of range.
      DataError: if there are fewer than B · T + 1 tokens.
    """

    def __init__(
        self,
        tokens: NDArray[np.integer[Any]] | Excerpt,
        *,
        batch_size: int,
        chunk_length: int,
        seed: int,
        fresh_starts: float = 0.0,
    ) -> None:
        check_range("batch_size", batch_size, 1)
        check_range("chunk_length", chunk_length, 1)
        check_range("seed", seed, 0)
        check_range("fresh_starts", fresh_starts, 0, 1)
        self._tokens = _checked_tokens(tokens)
        needed = batch_size * chunk_length + 1
        if self._tokens.size < needed:
            raise DataError(
                f"tokens: expected at least batch_size · chunk_length + 1 = {needed}, got "
                f"{self._tokens.size}; use more text, or a smaller batch_size or chunk_length"
            )
        self.batch_size = batch_size
        self.chunk_length = chunk_length
        self.seed = seed
        self.fresh_starts = fresh_starts

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch: (n − T) / (B · T) rounded down, at least 1."""
        return _steps_per_epoch(self._tokens.size, self.batch_size, self.chunk_length)

    @property
    def shapes(self) -> tuple[TextBatch, ...]:
        """Shapes of the batches; all have the same."""
        tokens: Any = jax.ShapeDtypeStruct((self.batch_size, self.chunk_length), np.int32)
        return (TextBatch(tokens, tokens, jax.ShapeDtypeStruct(tokens.shape, np.bool_)),)  # type: ignore[arg-type]

    def batch(self, k: int, share: Share = WHOLE) -> TextBatch:
        """Return batch ``k``.

        ``reset`` is True at the first time step of each epoch's first batch, and of rows that start
        from the initial state.

        Args:
          k: number of the batch, from 0; epochs repeat without end.
          share: which of its B rows; an excerpt must contain their `training_span`.

        Raises:
          ValueError: if ``k`` is negative.
          IndexError: if an excerpt does not contain the tokens needed.
        """
        check_range("k", k, 0)
        epoch, chunk = divmod(k, self.steps_per_epoch)
        stretch = self.steps_per_epoch * self.chunk_length
        numbers = np.arange(self.batch_size)[share.rows(self.batch_size)]
        starts = self._offset(epoch) + stretch * numbers + chunk * self.chunk_length
        read = self._tokens.at(starts[:, None] + np.arange(self.chunk_length + 1)).astype(np.int32)
        reset = np.zeros((len(numbers), self.chunk_length), np.bool_)
        reset[:, 0] = self._fresh(k)[numbers] if chunk else True
        return TextBatch(read[:, :-1], read[:, 1:], reset)

    def _fresh(self, k: int) -> NDArray[np.bool_]:
        """[B] which rows of batch ``k`` start from the initial state."""
        draws = np.random.default_rng([self.seed, k, 1]).random(self.batch_size)
        return draws < self.fresh_starts

    def _offset(self, epoch: int) -> int:
        """Where the first stretch of the epoch starts."""
        spare = _spare(self._tokens.size, self.batch_size, self.chunk_length)
        return int(np.random.default_rng([self.seed, epoch]).integers(spare, endpoint=True))


def training_span(size: int, batch_size: int, chunk_length: int, rows: slice) -> slice:
    """The span of tokens that some rows of a `TextStream` read, in any epoch.

    Args:
      size: number of tokens n.
      batch_size: number of streams B.
      chunk_length: time steps T of a batch.
      rows: slice of the B rows, with start and stop.

    Returns:
      Slice of positions in the whole sequence.
    """
    stretch = _steps_per_epoch(size, batch_size, chunk_length) * chunk_length
    spare = _spare(size, batch_size, chunk_length)
    return slice(stretch * rows.start, stretch * rows.stop + spare + 1)


def _steps_per_epoch(size: int, batch_size: int, chunk_length: int) -> int:
    return max(1, (size - chunk_length) // (batch_size * chunk_length))


def _spare(size: int, batch_size: int, chunk_length: int) -> int:
    """Largest offset at which the first stretch of an epoch may start."""
    return size - 1 - batch_size * _steps_per_epoch(size, batch_size, chunk_length) * chunk_length


def evaluation_batches(
    tokens: Int[np.ndarray, " n"] | Excerpt,
    rows: int,
    chunk_length: int,
    share: slice | None = None,
) -> list[EvaluationBatch]:
    """Make batches that contain each of the n − 1 next-token predictions exactly once.

    The predictions are split into ``rows`` contiguous stretches, of which the last may be shorter
    or empty, and these into chunks of ``chunk_length``: row r of a batch continues where row r of
    the previous batch ended. Each row starts without context, so a single row is exact. All batches
    have the same shape, so one compiled program suffices.

    Args:
      tokens: [n] int, n ≥ 2, or an excerpt of them.
      rows: number of stretches B.
      chunk_length: time steps T of a chunk.
      share: slice of the rows, None for all; an excerpt must contain their `evaluation_span`. Rows
        beyond the last are empty.

    Returns:
      The batches, in order.

    Raises:
      TypeError: if ``tokens`` are not integers.
      ValueError: if ``tokens`` is not [n], or ``rows`` or ``chunk_length`` is below 1.
      DataError: if there are fewer than 2 tokens.
      IndexError: if an excerpt does not contain the tokens needed.
    """
    check_range("rows", rows, 1)
    check_range("chunk_length", chunk_length, 1)
    tokens = _checked_tokens(tokens)
    predictions = tokens.size - 1
    if predictions < 1:
        raise DataError(f"tokens: expected at least 2, got {tokens.size}")
    stretch = -(-predictions // rows)
    share = share or slice(0, rows)
    begin = stretch * np.arange(share.start, share.stop)[:, None]
    batches = []
    for start in range(0, stretch, chunk_length):
        within = start + np.arange(chunk_length)
        position = begin + within
        mask = (within < stretch) & (position < predictions)
        inputs, targets = np.zeros((2, *mask.shape), np.int32)
        inputs[mask], targets[mask] = (tokens.at(position[mask] + shift) for shift in (0, 1))
        batches.append(EvaluationBatch(inputs, targets, mask))
    return batches


def evaluation_span(size: int, rows: int, share: slice) -> slice:
    """The span of tokens that some rows of `evaluation_batches` read.

    Args:
      size: number of tokens n ≥ 2.
      rows: number of stretches B.
      share: slice of the rows, with start and stop, which may exceed B.

    Returns:
      Slice of at least one position in the whole sequence.
    """
    stretch = -(-(size - 1) // rows)
    start, stop = (min(stretch * row, size - 1) for row in (share.start, share.stop))
    return slice(start, stop + 1)


def _checked_tokens(tokens: NDArray[np.integer[Any]] | Excerpt) -> Excerpt:
    if not isinstance(tokens, Excerpt):
        tokens = Excerpt.of(tokens)
    check_rank("tokens", tokens.tokens, 1, "n")
    check_dtype("tokens", tokens.tokens, "int")
    return tokens
