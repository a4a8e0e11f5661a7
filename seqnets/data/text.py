"""Text files, and streams of tokens whose state carries on from batch to batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqnets.checks import check_dtype, check_range, check_rank
from seqnets.data.errors import DataError
from seqnets.data.files import MAXIMUM_BYTES, decode_utf8, read_bytes

__all__ = [
    "EvaluationBatch",
    "TextBatch",
    "TextSplit",
    "TextStream",
    "evaluation_batches",
    "read_texts",
    "split_tail",
]


class TextSplit(NamedTuple):
    """A text to learn from and one to measure on."""

    train: str
    validation: str


class TextBatch(NamedTuple):
    """A chunk of B streams; ``targets[b, t]`` is the token after ``inputs[b, t]``."""

    inputs: NDArray[np.int32]
    """[B, T] int32."""
    targets: NDArray[np.int32]
    """[B, T] int32."""
    reset: NDArray[np.bool_]
    """[B, T] bool, True where a stream starts anew and the state before is none of it."""


class EvaluationBatch(NamedTuple):
    """A chunk of an evaluation; padded steps hold token 0 and count nothing."""

    inputs: NDArray[np.int32]
    """[rows, T] int32."""
    targets: NDArray[np.int32]
    """[rows, T] int32."""
    mask: NDArray[np.bool_]
    """[rows, T] bool, True at real predictions."""


def read_texts(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Read UTF-8 files, plain or gzip (told by their content), joined without a separator.

    Line ends are kept as they are.

    Args:
      paths: one file or more, in the order wanted.

    Raises:
      TypeError: if ``paths`` is one name instead of a sequence of them.
      ValueError: if ``paths`` is empty.
      DataError: if a file cannot be read, is empty or is not UTF-8, or if all of them together
        hold more than 2 GiB.
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
    """Cut off the last ``fraction`` of the characters for validation.

    Args:
      text: at least 2 characters.
      fraction: in (0, 1); the validation part gets ``round(fraction · len(text))`` characters,
        and each part at least one.

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
    """Contiguous streams for truncated back-propagation; batch k is a pure function of (seed, k).

    An epoch lays B equal stretches end to end over the tokens and reads each in chunks of T;
    row b of batch k + 1 goes on where row b of batch k ended. Each epoch starts at an offset of
    its own, drawn from (seed, epoch) out of at least T values where the tokens allow it, so that
    the cuts between chunks and between rows fall elsewhere each time. Within an epoch no
    prediction comes twice; fewer than (B + 1) · T at the two ends are left out.

    Args:
      tokens: [n] int.
      batch_size: streams B.
      steps: chunk length T.
      seed: ≥ 0, what the offsets depend on beside the epoch.

    Raises:
      TypeError: if ``tokens`` are not integers.
      ValueError: if ``tokens`` has not one axis, or a number is out of range.
      DataError: if there are fewer than B · T + 1 tokens.
    """

    def __init__(
        self, tokens: NDArray[np.integer[Any]], *, batch_size: int, steps: int, seed: int
    ) -> None:
        check_range("batch_size", batch_size, 1)
        check_range("steps", steps, 1)
        check_range("seed", seed, 0)
        self._tokens = _checked_tokens(tokens)
        needed = batch_size * steps + 1
        if self._tokens.size < needed:
            raise DataError(
                f"tokens: expected at least batch_size · steps + 1 = {needed}, got "
                f"{self._tokens.size}; use more text, or a smaller batch_size or fewer steps"
            )
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Batches before the streams start anew: (n − T) / (B · T) rounded down, at least 1."""
        return max(1, (self._tokens.size - self.steps) // (self.batch_size * self.steps))

    def batch(self, k: int, rows: slice = slice(None)) -> TextBatch:
        """Return batch number ``k``, from 0; epochs follow one another without end.

        ``reset`` is True at the first step of each epoch's first batch, else False.

        Args:
          k: number of the batch.
          rows: which of its B rows.

        Raises:
          ValueError: if ``k`` is negative.
        """
        check_range("k", k, 0)
        epoch, chunk = divmod(k, self.steps_per_epoch)
        stretch = self.steps_per_epoch * self.steps
        numbers = np.arange(self.batch_size)[rows]
        starts = self._offset(epoch) + stretch * numbers + chunk * self.steps
        read = self._tokens[starts[:, None] + np.arange(self.steps + 1)]
        reset = np.zeros((len(numbers), self.steps), np.bool_)
        reset[:, 0] = chunk == 0
        return TextBatch(read[:, :-1], read[:, 1:], reset)

    def _offset(self, epoch: int) -> int:
        """Where the first stretch of the epoch starts."""
        spare = self._tokens.size - 1 - self.batch_size * self.steps_per_epoch * self.steps
        return int(np.random.default_rng([self.seed, epoch]).integers(spare, endpoint=True))


def evaluation_batches(
    tokens: NDArray[np.integer[Any]], rows: int, steps: int
) -> list[EvaluationBatch]:
    """Cover each of the n − 1 predictions of the next token exactly once.

    The predictions are cut into ``rows`` contiguous stretches, the last ones shorter or empty,
    and these into chunks of ``steps``; row r of a batch goes on where row r of the batch before
    ended. Only a row's first prediction comes without a past, so one row measures exactly. All
    batches have one shape, and one compiled program serves them.

    Args:
      tokens: [n] int, n ≥ 2.
      rows: stretches.
      steps: length of a chunk T.

    Raises:
      TypeError: if ``tokens`` are not integers.
      ValueError: if ``tokens`` has not one axis, or ``rows`` or ``steps`` is below 1.
      DataError: if there are fewer than 2 tokens.
    """
    check_range("rows", rows, 1)
    check_range("steps", steps, 1)
    tokens = _checked_tokens(tokens)
    predictions = tokens.size - 1
    if predictions < 1:
        raise DataError(f"tokens: expected at least 2, got {tokens.size}")
    stretch = -(-predictions // rows)
    begin = stretch * np.arange(rows)[:, None]
    batches = []
    for start in range(0, stretch, steps):
        within = start + np.arange(steps)
        position = begin + within
        mask = (within < stretch) & (position < predictions)
        index = np.where(mask, position, 0)
        inputs, targets = (np.where(mask, tokens[index + shift], 0) for shift in (0, 1))
        batches.append(EvaluationBatch(inputs, targets, mask))
    return batches


def _checked_tokens(tokens: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    check_rank("tokens", tokens, 1, "n")
    check_dtype("tokens", tokens, "int")
    return np.asarray(tokens, np.int32)
