"""Linen shells of the recurrent engine: they own parameters, the engine owns the mathematics."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from seqnets.dropout import dropout, fold_in, fold_in_rows
from seqnets.recurrence import Regularization, unroll
from seqnets.recurrence.precision import narrow_weights, wide
from seqnets.typing import Array, Bool, Cell, Float, Key, PyTree

__all__ = ["RNN", "Bidirectional", "BidirectionalCarry", "Stack"]


class RNN(nn.Module):
    """One recurrent layer: `unroll` of a cell whose parameters are named ``cell``.

    Attributes:
      cell: any `Cell`, for instance ``LSTM(features=256)``.
      reverse: read the rows from their last real step to the first.
      regularization: disturbs the recurrence in training.
      dtype: of the factors of products and of the outputs, bfloat16 say; the carry and all sums
        are then float32 or wider, and so are the parameters. None: as inputs and parameters are.
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
    regularization: Regularization = Regularization()
    dtype: Any = None
    remat: int | None = None

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T *D"],
        carry: PyTree | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        dropout_keys: Key | None = None,
        weight_key: Key | None = None,
    ) -> tuple[PyTree, Float[Array, "B T *H"]]:
        """Run the layer; arguments, results and errors are those of `unroll`.

        Inputs of no steps, [B, 0, D], give the initial carry of B rows; so do those of the other
        modules here.

        Args:
          xs: inputs, [B, T, D].
          carry: carry before the first step, or None for the initial one.
          mask: [B, T] bool, True at real steps.
          reset: [B, T] bool, True where a new segment starts.
          dropout_keys: [B] random keys of recurrent dropout and zoneout, one a row; None for
            evaluation.
          weight_key: one random key of the weight drop; None for evaluation.
        """
        params = self.param("cell", self.cell.init, jnp.shape(xs)[-1])
        rows, steps = jnp.shape(xs)[:2]
        noise = self.regularization.noise(self.cell, params, rows, steps, dropout_keys)
        weights = self.regularization.drop_weights(params, weight_key)
        if self.dtype is not None:
            if carry is None:
                carry = self.cell.initial_carry(params, rows, wide(self.dtype))
            xs, weights = jnp.asarray(xs, self.dtype), narrow_weights(weights, self.dtype)
        carry, ys = unroll(
            self.cell,
            weights,
            carry,
            xs,
            mask=mask,
            reset=reset,
            reverse=self.reverse,
            remat=self.remat,
            noise=noise,
        )
        return carry, ys if self.dtype is None else ys.astype(self.dtype)


class BidirectionalCarry(NamedTuple):
    """Carries of the two directions; each is that of its own cell."""

    forward: Any
    backward: Any


class Bidirectional(nn.Module):
    """Two layers over the same rows, one in each direction, outputs side by side.

    Attributes:
      forward_cell: cell that reads from the first step.
      backward_cell: cell that reads from each row's last real step.
      regularization, dtype, remat: see `RNN`.

    References:
      Schuster, Paliwal, Bidirectional Recurrent Neural Networks, IEEE TSP 45, 1997.
    """

    forward_cell: Cell
    backward_cell: Cell
    regularization: Regularization = Regularization()
    dtype: Any = None
    remat: int | None = None

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T *D"],
        carry: BidirectionalCarry | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        dropout_keys: Key | None = None,
        weight_key: Key | None = None,
    ) -> tuple[BidirectionalCarry, Float[Array, "B T H"]]:
        """Run both directions.

        Args:
          xs: inputs, [B, T, D].
          carry: carries before the first step read in each direction, or None.
          mask: [B, T] bool, True at real steps.
          reset: [B, T] bool, True where a new segment starts.
          dropout_keys, weight_key: see `RNN`; the directions draw apart.

        Returns:
          ``(carry, ys)``: final carries, and outputs [B, T, H_forward + H_backward].

        Raises:
          TypeError: if carry is not a `BidirectionalCarry`.
          ValueError, TypeError: those of `unroll`.
        """
        if not isinstance(carry, BidirectionalCarry | None):
            raise TypeError(f"carry: expected a BidirectionalCarry, got {type(carry).__name__}")
        carry = carry or BidirectionalCarry(None, None)

        def direction(number: int, name: str, cell: Cell) -> tuple[PyTree, Array]:
            layer = RNN(
                cell,
                reverse=number == 1,
                regularization=self.regularization,
                dtype=self.dtype,
                remat=self.remat,
                name=name,
            )
            return layer(
                xs,
                carry[number],
                mask=mask,
                reset=reset,
                dropout_keys=fold_in_rows(dropout_keys, number),
                weight_key=fold_in(weight_key, number),
            )

        forward, ys = direction(0, "forward", self.forward_cell)
        backward, zs = direction(1, "backward", self.backward_cell)
        return BidirectionalCarry(forward, backward), jnp.concatenate([ys, zs], axis=-1)


class Stack(nn.Module):
    """Recurrent layers one on the other, with dropout between them and residual connections.

    Attributes:
      cells: one cell a layer, from the input up.
      dropout: rate of the dropout on the outputs of every layer but the last.
      variational: draw that dropout once for all steps of a row.
      residual: add each layer's input to its output, from the second layer on; all layers must
        then have outputs of one size.
      bidirectional: run every layer in both directions (two cells of the same kind a layer).
      regularization, dtype, remat: see `RNN`.
    """

    cells: tuple[Cell, ...]
    dropout: float = 0.0
    variational: bool = False
    residual: bool = False
    bidirectional: bool = False
    regularization: Regularization = Regularization()
    dtype: Any = None
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
        weight_key: Key | None = None,
    ) -> tuple[tuple[PyTree, ...], Float[Array, "B T H"]]:
        """Run the layers.

        Args:
          xs: inputs, [B, T, D].
          carry: one carry a layer, or None for the initial ones.
          mask: [B, T] bool, True at real steps.
          reset: [B, T] bool, True where a new segment starts.
          dropout_keys: [B] random keys, one a row; None for no dropout (evaluation).
          weight_key: one random key of the weight drop; None for evaluation.

        Returns:
          ``(carry, ys)``: final carries, one a layer, and the last layer's outputs.

        Raises:
          ValueError: if there is no layer, the number of carries is not that of the layers, or
            residual layers differ in size; and those of `unroll`.
        """
        self._check(carry)
        finals = []
        for number, cell in enumerate(self.cells):
            keys = fold_in_rows(dropout_keys, number)
            if number > 0:
                xs = dropout(xs, keys, self.dropout, same_steps=self.variational)
            final, ys = self._layer(cell, number)(
                xs,
                None if carry is None else carry[number],
                mask=mask,
                reset=reset,
                dropout_keys=fold_in_rows(keys, 1),
                weight_key=fold_in(weight_key, number),
            )
            finals.append(final)
            xs = ys + xs if self.residual and number > 0 else ys
        return tuple(finals), xs

    def _layer(self, cell: Cell, number: int) -> nn.Module:
        options: dict[str, Any] = {
            "regularization": self.regularization,
            "dtype": self.dtype,
            "remat": self.remat,
            "name": f"layer_{number}",
        }
        if self.bidirectional:
            return Bidirectional(cell, cell, **options)
        return RNN(cell, **options)

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
