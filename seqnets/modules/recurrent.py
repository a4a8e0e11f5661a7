"""Linen shells of the recurrent engine: they own parameters, the engine owns the mathematics."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from seqnets.dropout import dropout, fold_in_rows
from seqnets.recurrence import unroll
from seqnets.typing import Array, Bool, Cell, Float, Key, PyTree

__all__ = ["RNN", "Bidirectional", "BidirectionalCarry", "Stack"]


class RNN(nn.Module):
    """One recurrent layer: `unroll` of a cell whose parameters are named ``cell``.

    Attributes:
      cell: any `Cell`, for instance ``LSTM(features=256)``.
      reverse: read the rows from their last real step to the first.
      remat: see `unroll`; less memory for long sequences.

    Example:
      >>> import jax
      >>> from seqnets.cells import GRU
      >>> layer = RNN(GRU(features=8))
      >>> xs = jax.numpy.ones((2, 5, 3))
      >>> variables = layer.init(jax.random.key(0), xs)
      >>> carry, ys = layer.apply(variables, xs)
      >>> carry.h.shape, ys.shape
      ((2, 8), (2, 5, 8))
    """

    cell: Cell
    reverse: bool = False
    remat: int | None = None

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T *D"],
        carry: PyTree | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
    ) -> tuple[PyTree, Float[Array, "B T *H"]]:
        """Run the layer; arguments, results and errors are those of `unroll`.

        Inputs of no steps, [B, 0, D], give the initial carry of B rows; so do those of the other
        modules here.
        """
        params = self.param("cell", self.cell.init, jnp.shape(xs)[-1])
        return unroll(
            self.cell,
            params,
            carry,
            xs,
            mask=mask,
            reset=reset,
            reverse=self.reverse,
            remat=self.remat,
        )


class BidirectionalCarry(NamedTuple):
    """Carries of the two directions; each is that of its own cell."""

    forward: Any
    backward: Any


class Bidirectional(nn.Module):
    """Two layers over the same rows, one in each direction, outputs side by side.

    Attributes:
      forward_cell: cell that reads from the first step.
      backward_cell: cell that reads from each row's last real step.
      remat: see `unroll`; less memory for long sequences.

    References:
      Schuster, Paliwal, Bidirectional Recurrent Neural Networks, IEEE TSP 45, 1997.
    """

    forward_cell: Cell
    backward_cell: Cell
    remat: int | None = None

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T *D"],
        carry: BidirectionalCarry | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
    ) -> tuple[BidirectionalCarry, Float[Array, "B T H"]]:
        """Run both directions.

        Args:
          xs: inputs, [B, T, D].
          carry: carries before the first step read in each direction, or None.
          mask: [B, T] bool, True at real steps.
          reset: [B, T] bool, True where a new segment starts.

        Returns:
          ``(carry, ys)``: final carries, and outputs [B, T, H_forward + H_backward].

        Raises:
          TypeError: if carry is not a `BidirectionalCarry`.
          ValueError, TypeError: those of `unroll`.
        """
        if not isinstance(carry, BidirectionalCarry | None):
            raise TypeError(f"carry: expected a BidirectionalCarry, got {type(carry).__name__}")
        first, second = carry or (None, None)
        forward, ys = RNN(self.forward_cell, remat=self.remat, name="forward")(
            xs, first, mask=mask, reset=reset
        )
        backward, zs = RNN(self.backward_cell, reverse=True, remat=self.remat, name="backward")(
            xs, second, mask=mask, reset=reset
        )
        return BidirectionalCarry(forward, backward), jnp.concatenate([ys, zs], axis=-1)


class Stack(nn.Module):
    """Recurrent layers one on the other, with dropout between them and residual connections.

    Attributes:
      cells: one cell a layer, from the input up.
      dropout: rate of the dropout on the outputs of every layer but the last.
      residual: add each layer's input to its output, from the second layer on; all layers must
        then have outputs of one size.
      bidirectional: run every layer in both directions (two cells of the same kind a layer).
      remat: see `unroll`; less memory for long sequences.
    """

    cells: tuple[Cell, ...]
    dropout: float = 0.0
    residual: bool = False
    bidirectional: bool = False
    remat: int | None = None

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T D"],
        carry: tuple[PyTree, ...] | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        dropout_keys: Key | None = None,
    ) -> tuple[tuple[PyTree, ...], Float[Array, "B T H"]]:
        """Run the layers.

        Args:
          xs: inputs, [B, T, D].
          carry: one carry a layer, or None for the initial ones.
          mask: [B, T] bool, True at real steps.
          reset: [B, T] bool, True where a new segment starts.
          dropout_keys: [B] random keys, one a row; None for no dropout (evaluation).

        Returns:
          ``(carry, ys)``: final carries, one a layer, and the last layer's outputs.

        Raises:
          ValueError: if there is no layer, the number of carries is not that of the layers, or
            residual layers differ in size; and those of `unroll`.
        """
        self._check(carry)
        finals = []
        for number, cell in enumerate(self.cells):
            if number > 0:
                xs = dropout(xs, fold_in_rows(dropout_keys, number), self.dropout)
            layer = self._layer(cell, number)
            final, ys = layer(xs, None if carry is None else carry[number], mask=mask, reset=reset)
            finals.append(final)
            xs = ys + xs if self.residual and number > 0 else ys
        return tuple(finals), xs

    def _layer(self, cell: Cell, number: int) -> nn.Module:
        name = f"layer_{number}"
        if self.bidirectional:
            return Bidirectional(cell, cell, remat=self.remat, name=name)
        return RNN(cell, remat=self.remat, name=name)

    def _check(self, carry: tuple[PyTree, ...] | None) -> None:
        if not self.cells:
            raise ValueError("cells: expected at least one cell, got none")
        if carry is not None and len(carry) != len(self.cells):
            raise ValueError(
                f"carry: expected one for each of {len(self.cells)} layers, got {len(carry)}"
            )
        sizes = {cell.features for cell in self.cells}
        if self.residual and len(sizes) > 1:
            raise ValueError(f"cells: residual layers must be of one size, got {sorted(sizes)}")
