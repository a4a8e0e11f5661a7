"""Buckets: a few padded lengths for ragged sequences.

`jax.jit` compiles a program for every shape, so the number of buckets bounds the number of
programs; `Buckets` also keeps the padding small. Padded time steps and empty rows do not affect the
results of `seqnets.recurrence.unroll`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seqnets.checks import check_dtype, check_range, check_rank
from seqnets.data.ragged import checked_sequences
from seqnets.typing import Bool, Int, Shaped

__all__ = [
    "Buckets",
    "Padded",
    "pad_sequences",
    "padded",
]


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Lengths to which sequences are padded: a batch gets the smallest that fits all sequences.

    Attributes:
      lengths: padded lengths in time steps, increasing.

    Raises:
      ValueError: if ``lengths`` is empty, not increasing, or starts below 1.
      TypeError: if ``lengths`` is not a tuple of ints.
    """

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        """Reject anything but a tuple of increasing lengths."""
        if not isinstance(self.lengths, tuple) or {type(one) for one in self.lengths} - {int}:
            raise TypeError(f"lengths: expected a tuple of ints, got {self.lengths!r}")
        if not self.lengths or self.lengths[0] < 1 or np.any(np.diff(self.lengths) <= 0):
            raise ValueError(f"lengths: expected increasing lengths ≥ 1, got {self.lengths}")

    @classmethod
    def geometric(cls, shortest: int, longest: int, ratio: float) -> Buckets:
        """Lengths that grow by a factor of at most ``ratio``, independent of the data.

        A sequence of more than ``shortest`` time steps is padded to less than ``ratio`` times its
        length. There are about log(longest / shortest) / log(ratio) buckets.

        Args:
          shortest: first bucket, ≥ 1.
          longest: last bucket, ≥ shortest.
          ratio: finite, > 1.

        Returns:
          The buckets.

        Raises:
          ValueError: if an argument is out of range.
        """
        check_range("shortest", shortest, 1)
        check_range("longest", longest, shortest)
        check_range("ratio", ratio, 1, math.inf, closed="neither")
        steps = [int(shortest)]
        while steps[-1] < int(longest):
            steps.append(min(max(steps[-1] + 1, math.floor(ratio * steps[-1])), int(longest)))
        return cls(tuple(steps))

    @classmethod
    def fitted(cls, lengths: ArrayLike, *, most: int, waste: float) -> Buckets:
        """The fewest buckets that keep the padding below a bound, chosen to minimize padding.

        Args:
          lengths: [n] ints ≥ 0, lengths of the data in time steps; the buckets cannot hold longer
            sequences.
          most: maximum number of buckets, and so of programs to compile, ≥ 1.
          waste: maximum fraction of padding among the time steps after padding, in [0, 1). If
            ``most`` buckets cannot achieve it, they have the least padding possible.

        Returns:
          The buckets; the last is the largest of the lengths, at least 1.

        Raises:
          ValueError: if ``lengths`` is not [n], is empty, or has a negative element, or a bound is
            out of range.
          TypeError: if ``lengths`` are not ints.

        Example:
          >>> Buckets.fitted([2, 2, 2, 3, 9, 10], most=2, waste=0.0)
          Buckets(lengths=(3, 10))
        """
        check_range("most", most, 1)
        check_range("waste", waste, 0, 1, closed="left")
        array = _checked_lengths(lengths)
        sizes, counts = np.unique(np.maximum(array, 1), return_counts=True)
        shorter = np.concatenate([[0], np.cumsum(counts)])
        # least[j]: least total of padded lengths for the j smallest sizes, with the buckets so far.
        least = np.full(len(sizes) + 1, np.inf)
        least[0] = 0
        cuts: list[NDArray[np.int64]] = []
        while len(cuts) < min(most, len(sizes)):
            least, cut = _one_more_bucket(least, sizes, shorter)
            cuts.append(cut)
            if least[-1] - array.sum() <= waste * least[-1]:
                break
        steps, end = [], len(sizes)
        for cut in reversed(cuts):
            steps.append(int(sizes[end - 1]))
            end = cut[end]
        return cls(tuple(reversed(steps)))

    def padded_lengths(self, lengths: ArrayLike) -> Int[np.ndarray, " n"]:
        """Look up the bucket of each length.

        Args:
          lengths: [n] ints ≥ 0, in time steps.

        Returns:
          [n] padded lengths, the smallest that is not shorter.

        Raises:
          ValueError: if ``lengths`` is not [n], is empty, or has an element that is negative or
            larger than the last bucket.
          TypeError: if ``lengths`` are not ints.
        """
        array = _checked_lengths(lengths)
        longest = int(array.argmax())
        if array[longest] > self.lengths[-1]:
            raise ValueError(
                f"lengths[{longest}]: expected at most {self.lengths[-1]} time steps, the last "
                f"bucket, got {array[longest]}"
            )
        steps = np.asarray(self.lengths, np.int64)
        return steps[np.searchsorted(steps, array)]


def _one_more_bucket(
    least: NDArray[np.float64], sizes: NDArray[np.int64], shorter: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Least total of padded lengths with one more bucket, and where it begins, both [n + 1]."""
    more, cut = np.full_like(least, np.inf), np.zeros(len(least), np.int64)
    for j in range(1, len(least)):
        totals = least[:j] + sizes[j - 1] * (shorter[j] - shorter[:j])
        cut[j] = totals.argmin()
        more[j] = totals[cut[j]]
    return more, cut


class Padded(NamedTuple):
    """Sequences in rows, padded on the right, in the given order."""

    xs: Shaped[np.ndarray, "B T *D"]
    """[B, T, ...], zero at padded time steps."""
    mask: Bool[np.ndarray, "B T"]
    """[B, T] bool, True at real time steps."""
    lengths: Int[np.ndarray, " B"]
    """[B] int32, real time steps of each row."""


def pad_sequences(
    sequences: Sequence[ArrayLike], buckets: Buckets, *, rows: int | None = None
) -> Padded:
    """Pad ragged sequences on the right to the bucket of the longest one.

    Args:
      sequences: at least one array [T_i, ...], T_i ≥ 0, of equal dtype and equal other axes.
      buckets: padded lengths.
      rows: number of rows B; rows after the sequences are empty, so that the last batch of a data
        set can have the shape of the others. None for one row per sequence.

    Returns:
      Padded sequences [B, T, ...], their mask [B, T], and their lengths [B].

    Raises:
      ValueError: if there is no sequence, one is a scalar, differs in shape from the first, or is
        longer than the last bucket, or ``rows`` is too small.
      TypeError: if the sequences are not numbers or bools, or differ in dtype.

    Example:
      >>> import numpy as np
      >>> padded = pad_sequences([np.ones((5, 3)), np.ones((2, 3))], Buckets((4, 8)))
      >>> padded.xs.shape, padded.lengths.tolist()
      ((2, 8, 3), [5, 2])
    """
    arrays = checked_sequences(sequences)
    steps = int(buckets.padded_lengths([len(one) for one in arrays]).max())
    rows = len(arrays) if rows is None else rows
    check_range("rows", rows, len(arrays))
    return padded(arrays, rows, steps)


def padded(arrays: Sequence[Shaped[np.ndarray, "T *D"]], rows: int, steps: int) -> Padded:
    """Pad arrays [T_i, ...] to ``rows`` rows of ``steps`` time steps."""
    xs = np.zeros((rows, steps, *arrays[0].shape[1:]), arrays[0].dtype)
    lengths = np.zeros(rows, np.int32)
    for row, one in enumerate(arrays):
        xs[row, : len(one)] = one
        lengths[row] = len(one)
    return Padded(xs, np.arange(steps) < lengths[:, None], lengths)


def _checked_lengths(lengths: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(lengths)
    check_rank("lengths", array, 1, "n")
    if not array.size:
        raise ValueError("lengths: expected at least one, got none")
    check_dtype("lengths", array, "int")
    check_range("lengths", int(array.min()), 0)
    return array.astype(np.int64)
