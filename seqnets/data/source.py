"""Sources of batches, and shares of their rows."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from seqnets.checks import check_range
from seqnets.data.shuffling import shuffled
from seqnets.typing import PyTree

__all__ = ["WHOLE", "ArraySource", "Share", "Source", "rows_of", "shapes_of"]


class Share(NamedTuple):
    """One of several equal parts of the rows of every batch, for one process."""

    index: int = 0  # type: ignore[assignment]
    """Index of the part, from 0."""
    count: int = 1  # type: ignore[assignment]
    """Number of parts."""

    def rows(self, number: int) -> slice:
        """Return the slice of the rows of this part.

        Args:
          number: rows of the whole batch. If ``count`` does not divide it, the last slices exceed
            the batch.
        """
        each = -(-number // self.count)
        return slice(self.index * each, (self.index + 1) * each)


WHOLE = Share()
"""All rows."""


class Source(Protocol):
    """Numbered batches without end, for `seqnets.training.train`.

    A batch is a pytree of host arrays [B, ...]. It must be a pure function of its number (and the
    source's seed), and a share of it must be a slice of its rows. Then a run can resume anywhere,
    and its result does not depend on the number of devices or processes.
    """

    @property
    def shapes(self) -> tuple[PyTree, ...]:
        """All shapes of whole batches, as pytrees of `jax.ShapeDtypeStruct`: one program each."""
        ...

    def batch(self, k: int, share: Share = WHOLE) -> PyTree:
        """Return the rows of a share of a batch.

        Args:
          k: number of the batch, from 0.
          share: which of its rows; all by default.
        """
        ...


class ArraySource:
    """Rows of arrays in memory, in shuffled epochs; batch k is a pure function of (seed, k).

    Each epoch shuffles the rows and splits them into batches; the n mod B rows left at its end are
    not used in that epoch.

    Args:
      arrays: pytree of arrays [n, ...].
      batch_size: rows B of a batch, ≤ n.
      seed: seed of the order, ≥ 0.

    Raises:
      ValueError: if the arrays have different numbers of rows or fewer than B, or a number is out
        of range.

    Example:
      >>> source = ArraySource({"x": np.arange(6), "y": np.arange(6) ** 2}, batch_size=2, seed=0)
      >>> batch = source.batch(0)
      >>> bool((batch["x"] ** 2 == batch["y"]).all())
      True
    """

    def __init__(self, arrays: PyTree, *, batch_size: int, seed: int) -> None:
        check_range("batch_size", batch_size, 1)
        check_range("seed", seed, 0)
        self._arrays = jax.tree.map(np.asarray, arrays)
        shapes = [np.shape(x) for x in jax.tree.leaves(self._arrays)]
        if len({shape[:1] for shape in shapes}) != 1 or not shapes[0]:
            raise ValueError(f"arrays: expected equal numbers of rows, got the shapes {shapes}")
        self._rows: int = shapes[0][0]
        if self._rows < batch_size:
            raise ValueError(
                f"arrays: expected at least batch_size = {batch_size} rows, got {self._rows}"
            )
        self.batch_size, self.seed = batch_size, seed

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        return self._rows // self.batch_size

    @property
    def shapes(self) -> tuple[PyTree, ...]:
        """Shapes of the batches; all have the same."""
        return (shapes_of(self.batch(0)),)

    def batch(self, k: int, share: Share = WHOLE) -> PyTree:
        """Return batch ``k``.

        Args:
          k: number of the batch, from 0; epochs repeat without end.
          share: which of its rows; all by default.

        Raises:
          ValueError: if ``k`` is negative.
        """
        check_range("k", k, 0)
        epoch, place = divmod(k, self.steps_per_epoch)
        order = shuffled(self._rows, self.seed, epoch)
        chosen = order[place * self.batch_size :][: self.batch_size][share.rows(self.batch_size)]
        return jax.tree.map(lambda x: x[chosen], self._arrays)


def rows_of(tree: PyTree, rows: slice) -> PyTree:
    """Slice the rows of host arrays, with zeros for rows beyond the last.

    Args:
      tree: pytree of host arrays [B, ...].
      rows: slice with start and stop, which may exceed B.

    Returns:
      The pytree with leaves [stop - start, ...].
    """

    def take(x: Any) -> Any:
        own = x[rows]
        missing = rows.stop - rows.start - len(own)
        return np.pad(own, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else own

    return jax.tree.map(take, tree)


def shapes_of(batch: PyTree) -> PyTree:
    """Shapes and dtypes of a batch, for `Source.shapes`.

    Args:
      batch: pytree of arrays.

    Returns:
      The pytree with a `jax.ShapeDtypeStruct` for each array.
    """
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
