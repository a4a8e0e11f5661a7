"""Linen modules for recurrent layers; they hold parameters and call `unroll`."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from seqnets.checks import check_cell
from seqnets.dropout import dropout, fold_in, fold_in_rows
from seqnets.modules.layer import Layer, as_layers
from seqnets.modules.merge import merge_directions
from seqnets.recurrence import Execution, Regularization, unroll
from seqnets.typing import Array, Bool, Cell, Float, Int, Key, Keys, PyTree

__all__ = ["RNN", "Bidirectional", "BidirectionalCarry", "Stack"]


class RNN(nn.Module):
    """One recurrent layer, which calls `unroll`; its parameters are named ``cell``.

    Attributes:
      cell: any `Cell`, e.g. ``LSTM(features=256)``.
      reverse: if True, read the rows from their last real step to the first.
      regularization: noise in the recurrence during training.
      execution: how the layer is computed.

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
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T *D"],
        carry: PyTree | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        lengths: Int[Array, " B"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        context: PyTree = None,
        dropout_keys: Keys | None = None,
        weight_key: Key | None = None,
    ) -> tuple[PyTree, Float[Array, "B T *H"]]:
        """Run the layer.

        To get the initial carry of B rows, call the module with inputs without steps, [B, 0, D].
        This holds for the other modules here, too.

        Args:
          xs: inputs, [B, T, D].
          carry: carry before the first step, or None for the initial carry.
          mask: [B, T] bool, True at real steps; None means that all are real.
          lengths: [B] integers, the numbers of real steps, as an alternative to mask.
          reset: [B, T] bool, True where a new segment starts.
          context: input for composite cells; see `unroll`.
          dropout_keys: [B] random keys for recurrent dropout and zoneout, one per row; None for
            evaluation.
          weight_key: one random key for the weight drop; None for evaluation.

        Returns:
          ``(carry, ys)``: the final carry of each row, and outputs [B, T, H].

        Raises:
          ValueError, TypeError: as in `unroll` and `Regularization.noise`.
        """
        check_cell("cell", self.cell)
        params = self.param("cell", self.cell.init, jnp.shape(xs)[-1])
        rows, steps = jnp.shape(xs)[:2]
        noise = self.regularization.noise(self.cell, params, rows, steps, dropout_keys)
        return unroll(
            self.cell,
            self.regularization.drop_weights(params, weight_key),
            carry,
            xs,
            mask=mask,
            lengths=lengths,
            reset=reset,
            reverse=self.reverse,
            context=context,
            noise=noise,
            execution=self.execution,
        )


class BidirectionalCarry(NamedTuple):
    """The carries of the two directions of a `Bidirectional` layer."""

    forward: Any
    backward: Any


class Bidirectional(nn.Module):
    """Two layers over the same rows, one in each direction.

    Attributes:
      forward_cell: cell that reads from the first step.
      backward_cell: cell that reads from the last real step of each row.
      merge: how to merge the two outputs of a step: ``"concatenate"``, ``"sum"``, ``"mean"``, or
        ``"multiply"``.
      regularization, execution: see `RNN`.

    References:
      Schuster, Paliwal, Bidirectional Recurrent Neural Networks, IEEE TSP 45, 1997.
    """

    forward_cell: Cell
    backward_cell: Cell
    merge: str = "concatenate"
    regularization: Regularization = Regularization()
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T *D"],
        carry: BidirectionalCarry | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        lengths: Int[Array, " B"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        context: PyTree = None,
        dropout_keys: Keys | None = None,
        weight_key: Key | None = None,
    ) -> tuple[BidirectionalCarry, Float[Array, "B T H"]]:
        """Run both directions.

        Args:
          xs: inputs, [B, T, D].
          carry: carries before the first step read in each direction; None for the initial ones.
          mask: [B, T] bool, True at real steps; None means that all are real.
          lengths: [B] integers, the numbers of real steps, as an alternative to mask.
          reset: [B, T] bool, True where a new segment starts.
          context: input for composite cells; see `unroll`.
          dropout_keys, weight_key: see `RNN`; the directions draw independently.

        Returns:
          ``(carry, ys)``: final carries, and outputs, [B, T, H_forward + H_backward] if they are
          concatenated, else [B, T, H].

        Raises:
          TypeError: if carry is not a `BidirectionalCarry`; and as in `RNN`.
          ValueError: if merge is unknown, or needs outputs of equal size and they differ; and as
            in `RNN`.
        """
        if not isinstance(carry, BidirectionalCarry | None):
            raise TypeError(f"carry: expected a BidirectionalCarry, got {type(carry).__name__}")
        carry = carry or BidirectionalCarry(None, None)

        def direction(number: int, name: str, cell: Cell) -> tuple[PyTree, Array]:
            layer = RNN(
                cell,
                reverse=number == 1,
                regularization=self.regularization,
                execution=self.execution,
                name=name,
            )
            return layer(
                xs,
                carry[number],
                mask=mask,
                lengths=lengths,
                reset=reset,
                context=context,
                dropout_keys=fold_in_rows(dropout_keys, number),
                weight_key=fold_in(weight_key, number),
            )

        forward, ys = direction(0, "forward", self.forward_cell)
        backward, zs = direction(1, "backward", self.backward_cell)
        return BidirectionalCarry(forward, backward), merge_directions(self.merge, ys, zs)


class Stack(nn.Module):
    """Stacked recurrent layers, with optional dropout, residual, and skip connections.

    Attributes:
      layers: the layers, from the input up; a cell stands for a `Layer` without regularization.
      dropout: dropout rate on the outputs of every layer but the last, in [0, 1).
      variational: if True, use the same dropout mask at all time steps of a row.
      residual: if True, add the input of each layer from the second on to its output; all layers
        must then have outputs of the same size.
      skip: if True, every layer from the second on also reads the inputs of the stack, and the
        outputs of all layers are concatenated.
      bidirectional: if True, run every layer in both directions, with two equal cells per layer.
      merge: how to merge both directions; see `Bidirectional`.
      execution: how all layers are computed.

    References:
      Graves, Generating Sequences With Recurrent Neural Networks, 2013, arXiv:1308.0850 (skip).
    """

    layers: tuple[Layer | Cell, ...]
    dropout: float = 0.0
    variational: bool = False
    residual: bool = False
    skip: bool = False
    bidirectional: bool = False
    merge: str = "concatenate"
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        xs: Float[Array, "B T D"],
        carry: tuple[PyTree, ...] | None = None,
        *,
        mask: Bool[Array, "B T"] | None = None,
        lengths: Int[Array, " B"] | None = None,
        reset: Bool[Array, "B T"] | None = None,
        context: PyTree = None,
        dropout_keys: Keys | None = None,
        weight_key: Key | None = None,
    ) -> tuple[tuple[PyTree, ...], Float[Array, "B T H"]]:
        """Run the layers.

        Args:
          xs: inputs, [B, T, D].
          carry: one carry per layer, or None for the initial ones.
          mask: [B, T] bool, True at real steps; None means that all are real.
          lengths: [B] integers, the numbers of real steps, as an alternative to mask.
          reset: [B, T] bool, True where a new segment starts.
          context: input for composite cells; see `unroll`.
          dropout_keys: [B] random keys for all dropout and zoneout, one per row; None for
            evaluation.
          weight_key: one random key for the weight drop; None for evaluation.

        Returns:
          ``(carry, ys)``: final carries, one per layer, and the outputs [B, T, H] of the last
          layer; with ``skip``, those of all layers, from the input up, on the last axis.

        Raises:
          TypeError: if layers is not a sequence of layers and cells; and as in `RNN`.
          ValueError: if there are no layers, the numbers of carries and layers differ, residual
            layers differ in size, or both residual and skip are True; and as in `RNN`.
        """
        layers = as_layers(self.layers)
        self._check(layers, carry)
        finals, outputs, inputs = [], [], xs
        for number, layer in enumerate(layers):
            keys = fold_in_rows(dropout_keys, number)
            if number > 0:
                xs = dropout(xs, keys, self.dropout, same_steps=self.variational)
            if number > 0 and self.skip:
                xs = jnp.concatenate([inputs, xs], axis=-1)
            final, ys = self._module(layer, number)(
                xs,
                None if carry is None else carry[number],
                mask=mask,
                lengths=lengths,
                reset=reset,
                context=context,
                dropout_keys=fold_in_rows(keys, 1),
                weight_key=fold_in(weight_key, number),
            )
            finals.append(final)
            xs = ys + xs if self.residual and number > 0 else ys
            outputs.append(xs)
        return tuple(finals), jnp.concatenate(outputs, axis=-1) if self.skip else xs

    def _module(self, layer: Layer, number: int) -> nn.Module:
        options: dict[str, Any] = {
            "regularization": layer.regularization,
            "execution": self.execution,
            "name": f"layer_{number}",
        }
        if self.bidirectional:
            return Bidirectional(layer.cell, layer.cell, merge=self.merge, **options)
        return RNN(layer.cell, **options)

    def _check(self, layers: tuple[Layer, ...], carry: tuple[PyTree, ...] | None) -> None:
        if not layers:
            raise ValueError("layers: expected at least one layer, got none")
        if carry is not None and len(carry) != len(layers):
            raise ValueError(
                f"carry: expected one for each of {len(layers)} layers, got {len(carry)}"
            )
        if self.residual and self.skip:
            raise ValueError("skip: expected False where residual=True, got True")
        sizes = {layer.cell.features for layer in layers}
        if self.residual and len(sizes) > 1:
            raise ValueError(f"layers: residual layers must be of one size, got {sorted(sizes)}")
