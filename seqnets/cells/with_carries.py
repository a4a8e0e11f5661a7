"""A wrapper that returns the carry of every step as part of the output."""

from __future__ import annotations

import dataclasses
from typing import Any

from seqnets.cells.composite import CompositeCell
from seqnets.typing import Array, Cell, Float, Key, PyTree

__all__ = ["WithCarries"]


@dataclasses.dataclass(frozen=True)
class WithCarries(CompositeCell):
    """A cell whose output is the pair of the wrapped cell's output and its carry after the step.

    Parameters and carry are those of the wrapped cell, so the parameters of `RNN(cell)` fit
    `RNN(WithCarries(cell))`. Over time, the carries are [B, T, ...], zero at padded steps, and have
    the dtype of the outputs. The strategy is a plain scan, without the fused one of gated cells.

    Args:
      cell: any `Cell`.

    Example:
      >>> import jax
      >>> from seqnets import cells, unroll
      >>> cell = cells.WithCarries(cells.LSTM(features=3))
      >>> params = cell.init(jax.random.key(0), in_features=2)
      >>> last, (ys, carries) = unroll(cell, params, None, jax.numpy.ones((4, 5, 2)))
      >>> ys.shape, carries.c.shape, bool((carries.c[:, -1] == last.c).all())
      ((4, 5, 3), (4, 5, 3), True)
    """

    cell: Cell

    @property
    def features(self) -> int:  # type: ignore[override]
        """Size of the last axis of the wrapped cell's output."""
        return self.cell.features

    def init(self, key: Key, in_features: int) -> PyTree:
        """Draw the parameters of the cell."""
        return self.cell.init(key, in_features)

    def initial_carry(self, params: PyTree, batch: int, dtype: Any) -> PyTree:
        """The initial carry of the cell."""
        return self.cell.initial_carry(params, batch, dtype)

    def step(
        self, params: PyTree, carry: PyTree, x: Float[Array, "B D"], context: PyTree = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the cell; a context is passed on to it."""
        further = () if context is None else (context,)
        carry, y = self.cell.step(params, carry, x, *further)
        return carry, (y, carry)
