"""Packing of several ragged sequences into each row, which saves padding if many are short.

Flags mark where each sequence starts; pass them to `seqnets.recurrence.unroll` as ``reset``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seqnets.checks import check_range
from seqnets.data.ragged import checked_sequences
from seqnets.data.shuffling import shuffled
from seqnets.data.source import WHOLE, Share, rows_of, shapes_of
from seqnets.typing import Bool, Int, Shaped

__all__ = ["Packed", "PackedBatch", "PackedSource", "pack_sequences"]


class Packed(NamedTuple):
    """Sequences concatenated in rows of equal length, padded on the right."""

    xs: Shaped[np.ndarray, "B T *D"]
    """[B, T, ...], zero at padded time steps."""
    mask: Bool[np.ndarray, "B T"]
    """[B, T] bool, True at real time steps."""
    reset: Bool[np.ndarray, "B T"]
    """[B, T] bool, True at the first time step of every sequence."""
    row: Int[np.ndarray, " n"]
    """[n] int32, the row of each sequence, in the given order."""
    start: Int[np.ndarray, " n"]
    """[n] int32, the time step at which each sequence starts."""
    lengths: Int[np.ndarray, " n"]
    """[n] int32, the length of each sequence."""

    def unpack(self, ys: ArrayLike) -> list[Shaped[np.ndarray, "T *D"]]:
        """Split outputs by sequence.

        Args:
          ys: [B, T, ...].

        Returns:
          One NumPy array [T_i, ...] per sequence, in the given order.

        Raises:
          ValueError: if the first axes of ``ys`` are not [B, T].
        """
        ys = np.asarray(ys)
        if ys.shape[:2] != self.mask.shape:
            raise ValueError(f"ys: expected first axes {self.mask.shape}, got shape {ys.shape}")
        places = zip(self.row, self.start, self.lengths, strict=True)
        return [ys[row, start : start + length] for row, start, length in places]


def pack_sequences(
    sequences: Sequence[ArrayLike], length: int, *, rows: int | None = None
) -> Packed:
    """Pack ragged sequences into few rows of ``length`` time steps, by first-fit decreasing.

    The longest sequences are placed first, each in the first row with room for it. This takes at
    most 11/9 · n + 6/9 rows if n would suffice. The placement depends only on the lengths, so other
    sequences of the same lengths, such as targets, are placed identically.

    Args:
      sequences: at least one array [T_i, ...], T_i ≤ length, of equal dtype and equal other axes.
      length: time steps T of the rows.
      rows: number of rows B, of which unused ones are empty, so that all batches have one shape;
        None for as many as are needed.

    Returns:
      The packed rows [B, T, ...], with the place of each sequence.

    Raises:
      ValueError: if there is no sequence, one is a scalar, differs in shape from the first, or is
        longer than ``length``, ``length`` is below 1, or ``rows`` is too small.
      TypeError: if the sequences are not numbers or bools, or differ in dtype.

    Example:
      >>> import numpy as np
      >>> packed = pack_sequences([np.ones(2), np.ones(4), np.ones(3)], length=5)
      >>> packed.reset.astype(int).tolist(), packed.row.tolist()
      ([[1, 0, 0, 0, 0], [1, 0, 0, 1, 0]], [1, 0, 1])

    References:
      Dósa, The Tight Bound of First Fit Decreasing Bin-Packing Algorithm Is
      FFD(I) ≤ 11/9 OPT(I) + 6/9, ESCAPE 2007.
    """
    check_range("length", length, 1)
    arrays = checked_sequences(sequences)
    lengths = np.array([len(one) for one in arrays], np.int32)
    if lengths.max() > length:
        i = int(lengths.argmax())
        raise ValueError(f"sequences[{i}]: expected at most {length} time steps, got {lengths[i]}")
    row, start = _first_fit_decreasing(lengths, length)
    needed = int(row.max()) + 1
    rows = needed if rows is None else rows
    check_range("rows", rows, needed)
    xs = np.zeros((rows, length, *arrays[0].shape[1:]), arrays[0].dtype)
    mask, reset = np.zeros((2, rows, length), np.bool_)
    for one, r, first in zip(arrays, row, start, strict=True):
        xs[r, first : first + len(one)] = one
        mask[r, first : first + len(one)] = True
        reset[r, first : first + min(len(one), 1)] = True
    return Packed(xs, mask, reset, row, start, lengths)


def _first_fit_decreasing(
    lengths: NDArray[np.int32], steps: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Row and first time step of each sequence."""
    used, opened = np.zeros(len(lengths), np.int32), 0
    row, start = np.zeros((2, len(lengths)), np.int32)
    for i in np.argsort(-lengths, kind="stable"):
        # The row after those already opened is empty and has room.
        r = int(np.argmax(used[: opened + 1] <= steps - lengths[i]))
        opened = max(opened, r + 1)
        row[i], start[i] = r, used[r]
        used[r] += lengths[i]
    return row, start


class PackedBatch(NamedTuple):
    """Rows of packed sequences."""

    xs: Shaped[np.ndarray, "B T *D"]
    """Zero at padded time steps."""
    mask: Bool[np.ndarray, "B T"]
    """True at real time steps."""
    reset: Bool[np.ndarray, "B T"]
    """True at the first time step of every sequence."""


class PackedSource:
    """Batches of packed rows, in shuffled epochs; batch k is a pure function of (seed, k).

    The sequences are packed once; each epoch shuffles the rows. Every sequence occurs once per
    epoch: the last batch is filled with empty rows.

    Args:
      sequences: at least one array [T_i, ...], T_i ≤ length, of equal dtype and equal other axes.
      length: time steps T of the rows.
      batch_size: rows B of a batch.
      seed: seed of the order, ≥ 0.

    Raises:
      ValueError: as for `pack_sequences`, or if a number is out of range.
      TypeError: as for `pack_sequences`.
    """

    def __init__(
        self, sequences: Sequence[ArrayLike], length: int, *, batch_size: int, seed: int
    ) -> None:
        check_range("batch_size", batch_size, 1)
        check_range("seed", seed, 0)
        packed = pack_sequences(sequences, length)
        self._rows = PackedBatch(packed.xs, packed.mask, packed.reset)
        self.batch_size, self.seed = batch_size, seed

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        return -(-len(self._rows.xs) // self.batch_size)

    @property
    def shapes(self) -> tuple[PackedBatch, ...]:
        """Shapes of the batches; all have the same."""
        return (shapes_of(self.batch(0)),)

    def batch(self, k: int, share: Share = WHOLE) -> PackedBatch:
        """Return batch ``k``.

        Args:
          k: number of the batch, from 0; epochs repeat without end.
          share: which of its rows; all by default.

        Raises:
          ValueError: if ``k`` is negative.
        """
        check_range("k", k, 0)
        epoch, place = divmod(k, self.steps_per_epoch)
        order = shuffled(len(self._rows.xs), self.seed, epoch)
        chosen = order[place * self.batch_size :][: self.batch_size]
        rows = share.rows(self.batch_size)
        taken = PackedBatch(*(x[chosen] for x in self._rows))
        return rows_of(taken, rows)
