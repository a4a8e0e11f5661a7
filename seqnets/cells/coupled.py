"""Long short-term memory with coupled input and forget gates."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from seqnets.cells.lstm import LSTMCarry, LSTMFamily
from seqnets.typing import Array, Float, PyTree

__all__ = ["CoupledLSTM"]


@dataclasses.dataclass(frozen=True)
class CoupledLSTM(LSTMFamily):
    """Long short-term memory with coupled input and forget gates, without peepholes.

        f, g, o = split(x_t W_x + h_{t-1} W_h + b)
        c_t = σ(f) ∘ c_{t-1} + (1 - σ(f)) ∘ tanh(g)
        h_t = σ(o) ∘ tanh(c_t)
        y_t = h_t

    There are three gates, in the order f, g, o; the input gate is one minus the forget gate.

    Args:
      features: hidden size H.
      forget_bias, activation, gate_activation, initialization: as in `LSTM`.

    Raises:
      ValueError, TypeError: as in `LSTM`.

    References:
      Greff et al., LSTM: A Search Space Odyssey, 2015, arXiv:1503.04069 (the variant CIFG; there
      with peepholes).
    """

    gates: ClassVar[int] = 3
    forget_gate: ClassVar[int] = 0

    def pointwise(
        self, extra: PyTree, z_x: Float[Array, "*B G"], z_h: Float[Array, "*B G"], carry: LSTMCarry
    ) -> LSTMCarry:
        """The gates and the two state equations."""
        f, g, o = jnp.split(z_x + z_h, 3, axis=-1)
        f = self.gate_activation(f)
        c = f * carry.c + (1 - f) * self.activation(g)
        h = self.gate_activation(o) * self.activation(c)
        return LSTMCarry(c=c, h=h)
