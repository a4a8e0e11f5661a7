"""Elman's simple recurrent network."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from seqnets.cells.gated import GatedCell, GatedParams
from seqnets.typing import Activation, Array, Float, PyTree

__all__ = ["Elman", "ElmanCarry"]


class ElmanCarry(NamedTuple):
    """State of an Elman cell."""

    h: Float[Array, "B H"]
    """[B, H] hidden state, also the output."""


@dataclasses.dataclass(frozen=True)
class Elman(GatedCell[ElmanCarry]):
    """Simple recurrent cell with any activation.

        h_t = activation(x_t W_x + h_{t-1} W_h + b)
        y_t = h_t

    Args:
      features: hidden size H.
      activation: element-wise function, hyperbolic tangent by default.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.

    Example:
      >>> import jax
      >>> cell = Elman(features=3)
      >>> params = cell.init(jax.random.key(0), in_features=2)
      >>> carry = cell.initial_carry(params, batch=4, dtype="float32")
      >>> carry, y = cell.step(params, carry, jax.numpy.ones((4, 2)))
      >>> y.shape
      (4, 3)

    References:
      Elman, Finding Structure in Time, Cognitive Science 14, 1990.
    """

    activation: Activation = jnp.tanh

    gates: ClassVar[int] = 1

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> ElmanCarry:
        """Zeros, ``h [batch, H]``."""
        return ElmanCarry(h=jnp.zeros((batch, self.features), dtype))

    def pointwise(
        self, extra: PyTree, z_x: Float[Array, "*B G"], z_h: Float[Array, "*B G"], carry: ElmanCarry
    ) -> ElmanCarry:
        """``h = activation(z_x + z_h)``."""
        h = self.activation(z_x + z_h)
        return ElmanCarry(h=h)
