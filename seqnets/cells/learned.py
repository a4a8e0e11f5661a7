"""A learned initial carry for any cell."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqnets.typing import Array, Cell, Float, Key, PyTree

__all__ = ["LearnedCarry", "LearnedCarryParams"]


class LearnedCarryParams(NamedTuple):
    """Parameters of a cell and its learned initial carry."""

    cell: PyTree
    """Parameters of the cell."""
    carry: PyTree
    """One row of the carry before the first step, without the batch axis."""


@dataclasses.dataclass(frozen=True)
class LearnedCarry:
    """A cell whose initial carry is one of its parameters.

    Every row starts from the same learned carry, and so does every segment after a reset.
    The learned carry is initialized to the initial carry of the cell; steps are those of the cell.

    Args:
      cell: any `Cell`.

    Example:
      >>> import jax
      >>> from seqnets.cells import GRU
      >>> cell = LearnedCarry(GRU(features=3))
      >>> params = cell.init(jax.random.key(0), in_features=2)
      >>> params.carry
      GRUCarry(h=Array([0., 0., 0.], dtype=float32))
    """

    cell: Cell

    @property
    def features(self) -> int:
        """Size of the last axis of the output."""
        return self.cell.features

    def init(self, key: Key, in_features: int) -> LearnedCarryParams:
        """Draw float32 parameters of the cell and start from its own initial carry."""
        params = self.cell.init(key, in_features)
        carry = self.cell.initial_carry(params, 1, jnp.float32)
        return LearnedCarryParams(cell=params, carry=jax.tree.map(lambda leaf: leaf[0], carry))

    def initial_carry(self, params: LearnedCarryParams, batch: int, dtype: Any) -> PyTree:
        """The learned carry, repeated for ``batch`` rows, in ``dtype``."""

        def rows(leaf: Array) -> Array:
            return jnp.broadcast_to(leaf.astype(dtype), (batch, *leaf.shape))

        return jax.tree.map(rows, params.carry)

    def step(
        self, params: LearnedCarryParams, carry: PyTree, x: Float[Array, "B *D"]
    ) -> tuple[PyTree, Float[Array, "B *H"]]:
        """One step of the cell."""
        return self.cell.step(params.cell, carry, x)
