"""Sources of batches, and which part of their rows is asked for."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from seqnets.checks import check_range
from seqnets.data.shuffling import shuffled
from seqnets.typing import PyTree

__all__ = ["WHOLE", "ArraySource", "Share", "Source", "rows_of", "shapes_of"]


class Share(NamedTuple):
    """One of several equal parts of the rows of every batch: what one process asks for."""

    index: int = 0  # type: ignore[assignment]
    """Which part, from 0."""
    count: int = 1  # type: ignore[assignment]
    """Number of parts."""

    def rows(self, number: int) -> slice:
        """Which rows of a batch of ``number``; the last part may reach beyond them."""
        each = -(-number // self.count)
        return slice(self.index * each, (self.index + 1) * each)


WHOLE = Share()
"""All rows."""


class Source(Protocol):
    """Batches by number, without end: what `seqnets.training.train` trains on.

    A batch is a pytree of host arrays with rows first. It is a pure function of a seed and its
    number, and the share of a batch is a part of its rows; so a run can resume anywhere, and its
    result does not depend on the number of devices or processes.
    """

    @property
    def shapes(self) -> tuple[PyTree, ...]:
        """All shapes of whole batches, as pytrees of `jax.ShapeDtypeStruct`: one program each."""
        ...

    def batch(self, k: int, share: Share = WHOLE) -> PyTree:
        """The rows of a share of batch number ``k``, from 0."""
        ...


class ArraySource:
    """Rows of arrays in memory, in shuffled epochs; batch k is a pure function of (seed, k).

    Each epoch draws an order of its own and cuts it into batches; what is left over at its end,
    fewer rows than a batch, is not seen in that epoch.

    Args:
      arrays: pytree of arrays [n, ...].
      batch_size: rows of a batch B.
      seed: ≥ 0.

    Raises:
      ValueError: if the arrays have unequal numbers of rows, fewer than B, or a number is out of
        range.

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
            raise ValueError(f"arrays: expected one number of rows, got the shapes {shapes}")
        self._rows: int = shapes[0][0]
        if self._rows < batch_size:
            raise ValueError(
                f"arrays: expected at least batch_size = {batch_size} rows, got {self._rows}"
            )
        self.batch_size, self.seed = batch_size, seed

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return self._rows // self.batch_size

    @property
    def shapes(self) -> tuple[PyTree, ...]:
        """One shape."""
        return (shapes_of(self.batch(0)),)

    def batch(self, k: int, share: Share = WHOLE) -> PyTree:
        """Rows of batch number ``k``."""
        check_range("k", k, 0)
        epoch, place = divmod(k, self.steps_per_epoch)
        order = shuffled(self._rows, self.seed, epoch)
        chosen = order[place * self.batch_size :][: self.batch_size][share.rows(self.batch_size)]
        return jax.tree.map(lambda x: x[chosen], self._arrays)


def rows_of(tree: PyTree, rows: slice) -> PyTree:
    """Rows of host arrays [B, ...]; rows of zeros where there are none.

    Args:
      tree: pytree of host arrays.
      rows: which rows, with both ends.
    """

    def take(x: Any) -> Any:
        own = x[rows]
        missing = rows.stop - rows.start - len(own)
        return np.pad(own, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else own

    return jax.tree.map(take, tree)


def shapes_of(batch: PyTree) -> PyTree:
    """Shapes and dtypes of a batch, for `Source.shapes`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
