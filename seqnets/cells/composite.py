"""Cells composed of other cells: stacks, attention decoders, and anything with its own step."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax

from seqnets.checks import check_cell, check_range
from seqnets.typing import Array, Cell, Float, Key, PyTree

__all__ = ["CellStack", "CompositeCell"]


class CompositeCell(abc.ABC):
    """Base class of cells whose step is an arbitrary function of carry, input, and context.

    The engine calls only their ``step``. ``context`` is the pytree passed to `seqnets.unroll` under
    this name, with leaves [B, ...] that are the same at all time steps of a row (projected keys,
    their mask, a dropout mask). Teacher forcing is `unroll` over time; decoding calls the same
    step one time step at a time. The output of a step may be a pytree of arrays [B, ...].

    Zoneout and recurrent dropout are defined for single cells only and are rejected here.
    """

    features: int
    """Size of the last axis of the output; a field, a class attribute, or a property."""

    @abc.abstractmethod
    def init(self, key: Key, in_features: int) -> PyTree:
        """Draw float32 parameters for inputs ``[B, in_features]``."""

    @abc.abstractmethod
    def initial_carry(self, params: PyTree, batch: int, dtype: Any) -> PyTree:
        """Carry before the first step, every leaf ``[batch, ...]``."""

    @abc.abstractmethod
    def step(
        self, params: PyTree, carry: PyTree, x: Float[Array, "B D"], context: PyTree = None
    ) -> tuple[PyTree, PyTree]:
        """Compute one step.

        Args:
          params: parameters, from `init`.
          carry: carry before the step, leaves [B, ...].
          x: inputs, [B, D].
          context: further input, leaves [B, ...]; None if `unroll` was given none.

        Returns:
          ``(carry, output)``: the carry after the step, with the same structure and shapes, and a
          pytree of arrays [B, ...].
        """


@dataclasses.dataclass(frozen=True)
class CellStack(CompositeCell):
    """Stacked cells as one cell: each cell reads the output of the one below it.

    Parameters and carry are tuples with one entry per cell.

    Args:
      cells: the cells, from the input up.

    Raises:
      ValueError: if cells is empty.
      TypeError: if an element is not a cell.

    Example:
      >>> import jax
      >>> from seqnets.cells import GRU, LSTM
      >>> cell = CellStack((LSTM(4), GRU(3)))
      >>> params = cell.init(jax.random.key(0), in_features=2)
      >>> carry = cell.initial_carry(params, batch=5, dtype="float32")
      >>> carry, y = cell.step(params, carry, jax.numpy.ones((5, 2)))
      >>> y.shape
      (5, 3)
    """

    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        """Reject an empty stack and elements that are not cells."""
        check_range("number of cells", len(self.cells), 1)
        for number, cell in enumerate(self.cells):
            check_cell(f"cells[{number}]", cell)

    @property
    def features(self) -> int:  # type: ignore[override]
        """Output size of the last cell."""
        return self.cells[-1].features

    def init(self, key: Key, in_features: int) -> tuple[PyTree, ...]:
        """Draw the parameters of all cells."""
        keys = jax.random.split(key, len(self.cells))
        sizes = [in_features, *(cell.features for cell in self.cells)]
        return tuple(
            cell.init(k, size) for cell, k, size in zip(self.cells, keys, sizes, strict=False)
        )

    def initial_carry(
        self, params: tuple[PyTree, ...], batch: int, dtype: Any
    ) -> tuple[PyTree, ...]:
        """The initial carries of all cells."""
        pairs = zip(self.cells, params, strict=True)
        return tuple(cell.initial_carry(own, batch, dtype) for cell, own in pairs)

    def step(
        self,
        params: tuple[PyTree, ...],
        carry: tuple[PyTree, ...],
        x: Float[Array, "B D"],
        context: PyTree = None,
    ) -> tuple[tuple[PyTree, ...], Float[Array, "B H"]]:
        """One step of every cell, from the input up; the context is ignored."""
        after = []
        for cell, own, before in zip(self.cells, params, carry, strict=True):
            new, x = cell.step(own, before, x)
            after.append(new)
        return tuple(after), x
