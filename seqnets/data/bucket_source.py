"""Batches of ragged examples in a few shapes: sequences of similar length share a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from seqnets.checks import check_range
from seqnets.data.bucketing import Buckets, Padded, padded
from seqnets.data.ragged import checked_sequences
from seqnets.data.shuffling import shuffled
from seqnets.data.source import WHOLE, Share, shapes_of
from seqnets.typing import Float, Int, PyTree

__all__ = ["BucketBatch", "BucketSource"]


class BucketBatch(NamedTuple):
    """Examples of one bucket; unused rows at the end are empty and have weight 0."""

    sequences: Any
    """The padded sequences: a `Padded`, or a dict of them if the source has several lists."""
    arrays: Any
    """Pytree of arrays [B, ...], one row per example; zeros in empty rows."""
    weight: Float[np.ndarray, " B"]
    """1 for an example, 0 for an empty row, float32."""
    which: Int[np.ndarray, " B"]
    """Index of each row's example in the data set, -1 if the row is empty, int32."""


class BucketSource:
    """Batches of examples of similar length; batch k is a pure function of (seed, k).

    Each epoch shuffles the examples within their buckets, splits every bucket into batches, and
    shuffles the batches. All have B rows, so there is one shape per bucket. Every example occurs
    once per epoch: the last batch of a bucket is filled with empty rows.

    Args:
      sequences: one array [T_i, ...] per example, T_i ≥ 0, of equal dtype and equal other axes; or
        a dict of such lists, if an example has several sequences (such as source and target).
      buckets: padded lengths; or a dict with the buckets of each list, the same number for each.
        An example belongs to the first bucket that holds all its sequences.
      batch_size: rows B.
      seed: seed of the order, ≥ 0.
      arrays: pytree of arrays [n, ...], one row per example, such as labels.

    Raises:
      ValueError: as for `pad_sequences`; or if lists, arrays, or buckets differ in number, or a
        number is out of range.
      TypeError: as for `pad_sequences`.

    Example:
      >>> words = [np.ones(2), np.ones(5), np.ones(1)]
      >>> labels = np.array([0, 1, 0])
      >>> source = BucketSource(words, Buckets((2, 8)), batch_size=2, seed=0, arrays=labels)
      >>> sorted(shape.sequences.xs.shape for shape in source.shapes)
      [(2, 2), (2, 8)]
    """

    def __init__(
        self,
        sequences: Sequence[ArrayLike] | Mapping[str, Sequence[ArrayLike]],
        buckets: Buckets | Mapping[str, Buckets],
        *,
        batch_size: int,
        seed: int,
        arrays: PyTree = (),
    ) -> None:
        check_range("batch_size", batch_size, 1)
        check_range("seed", seed, 0)
        self._several = isinstance(sequences, Mapping)
        lists = sequences if isinstance(sequences, Mapping) else {"": sequences}
        self._sequences = {name: checked_sequences(one) for name, one in lists.items()}
        self._buckets = _by_name(buckets, self._sequences)
        self._arrays = jax.tree.map(np.asarray, arrays)
        numbers = _bucket_numbers(self._sequences, self._buckets, self._arrays)
        self._used = np.unique(numbers)
        self._members = [np.flatnonzero(numbers == number) for number in self._used]
        self._cuts = [
            (bucket, start)
            for bucket, members in enumerate(self._members)
            for start in range(0, len(members), batch_size)
        ]
        self.batch_size, self.seed = batch_size, seed

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        return len(self._cuts)

    @property
    def shapes(self) -> tuple[BucketBatch, ...]:
        """Shapes of the batches: one for each bucket that has examples."""
        nobody = np.empty(0, np.int64)
        return tuple(
            shapes_of(self._gather(bucket, nobody, WHOLE)) for bucket in range(len(self._used))
        )

    def batch(self, k: int, share: Share = WHOLE) -> BucketBatch:
        """Return batch ``k``.

        Args:
          k: number of the batch, from 0; epochs repeat without end.
          share: which of its rows; all by default.

        Raises:
          ValueError: if ``k`` is negative.
        """
        check_range("k", k, 0)
        epoch, place = divmod(k, self.steps_per_epoch)
        order = shuffled(self.steps_per_epoch, self.seed, epoch)
        bucket, start = self._cuts[order[place]]
        # NumPy's seeds [s, e] and [s, e, 0] are the same, so buckets count from 1.
        members = self._members[bucket]
        within = shuffled(len(members), self.seed, epoch, bucket + 1)
        chosen = members[within[start : start + self.batch_size]]
        return self._gather(bucket, chosen, share)

    def _gather(self, bucket: int, chosen: Int[np.ndarray, " n"], share: Share) -> BucketBatch:
        """A share of the batch of the ``chosen`` examples, n ≤ B."""
        rows = share.rows(self.batch_size)
        number, own = rows.stop - rows.start, chosen[rows]
        which = np.full(number, -1, np.int32)
        which[: len(own)] = own

        def pad(name: str) -> Padded:
            length = self._buckets[name].lengths[self._used[bucket]]
            nothing = self._sequences[name][0][:0]  # dtype and axes, if all rows are empty
            return padded([self._sequences[name][i] for i in own] or [nothing], number, length)

        def take(x: np.ndarray) -> np.ndarray:
            filled = np.zeros((number, *x.shape[1:]), x.dtype)
            filled[: len(own)] = x[own]
            return filled

        several = {name: pad(name) for name in self._sequences}
        return BucketBatch(
            several if self._several else several[""],
            jax.tree.map(take, self._arrays),
            (which >= 0).astype(np.float32),
            which,
        )


def _by_name(buckets: Any, sequences: Mapping[str, Any]) -> dict[str, Buckets]:
    """The buckets of each list of sequences."""
    if isinstance(buckets, Buckets):
        return dict.fromkeys(sequences, buckets)
    if set(buckets) != set(sequences):
        raise ValueError(f"buckets: expected keys {sorted(sequences)}, got {sorted(buckets)}")
    counts = {name: len(one.lengths) for name, one in buckets.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"buckets: expected the same number for each list, got {counts}")
    return dict(buckets)


def _bucket_numbers(
    sequences: Mapping[str, Sequence[np.ndarray]], buckets: Mapping[str, Buckets], arrays: PyTree
) -> Int[np.ndarray, " n"]:
    """For each example, the number of the first bucket that holds all of its sequences."""
    counts = {_label(name): len(one) for name, one in sequences.items()}
    counts |= {
        f"arrays{jax.tree_util.keystr(p)}": len(x)
        for p, x in jax.tree_util.tree_leaves_with_path(arrays)
    }
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(f"sequences, arrays: expected equal numbers of examples, got {listed}")
    numbers = []
    for name, lists in sequences.items():
        lengths = [len(one) for one in lists]
        last = buckets[name].lengths[-1]
        if max(lengths) > last:
            i = int(np.argmax(lengths))
            raise ValueError(
                f"{_label(name)}[{i}]: expected at most {last} time steps, the last bucket, "
                f"got {lengths[i]}"
            )
        padded_lengths = buckets[name].padded_lengths(lengths)
        numbers.append(np.searchsorted(buckets[name].lengths, padded_lengths))
    return np.max(numbers, axis=0)


def _label(name: str) -> str:
    """A list of sequences in error messages; the only one has the name ""."""
    return f"sequences[{name!r}]" if name else "sequences"
