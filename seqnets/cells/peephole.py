"""Long short-term memory whose gates read the cell state."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from seqnets.cells.gated import GatedParams
from seqnets.cells.lstm import LSTMCarry, LSTMFamily
from seqnets.typing import Array, Float, Key

__all__ = ["PeepholeLSTM", "Peepholes"]


class Peepholes(NamedTuple):
    """Weights from the cell state to the gates of the same unit."""

    p_i: Float[Array, " H"]
    """[H] from the old state to the input gate."""
    p_f: Float[Array, " H"]
    """[H] from the old state to the forget gate."""
    p_o: Float[Array, " H"]
    """[H] from the new state to the output gate."""


@dataclasses.dataclass(frozen=True)
class PeepholeLSTM(LSTMFamily):
    """Long short-term memory with peepholes.

        i, f, g, o = split(x_t W_x + h_{t-1} W_h + b)
        c_t = σ(f + p_f ∘ c_{t-1}) ∘ c_{t-1} + σ(i + p_i ∘ c_{t-1}) ∘ tanh(g)
        h_t = σ(o + p_o ∘ c_t) ∘ tanh(c_t)
        y_t = h_t

    The output gate reads the new state. The peepholes are ``params.extra``, a `Peepholes`. They
    are initialized to zero, which makes the cell an `LSTM`.

    Args:
      features: hidden size H.
      forget_bias, activation, gate_activation, initialization: as in `LSTM`.

    Raises:
      ValueError, TypeError: as in `LSTM`.

    References:
      Gers, Schmidhuber, Recurrent Nets that Time and Count, IJCNN 2000; the form of Graves,
      Generating Sequences With Recurrent Neural Networks, 2013, arXiv:1308.0850, equations 7-11.
    """

    gates: ClassVar[int] = 4

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters as `LSTM` does; the peepholes are zero."""
        zeros = (jnp.zeros(self.features, jnp.float32) for _ in Peepholes._fields)
        return super().init(key, in_features)._replace(extra=Peepholes(*zeros))

    def pointwise(
        self,
        extra: Peepholes,
        z_x: Float[Array, "*B G"],
        z_h: Float[Array, "*B G"],
        carry: LSTMCarry,
    ) -> LSTMCarry:
        """The gates, each with its peephole, and the two state equations."""
        i, f, g, o = jnp.split(z_x + z_h, 4, axis=-1)
        p_i, p_f, p_o = (jnp.broadcast_to(p, i.shape) for p in extra)
        gate = self.gate_activation
        c = gate(f + p_f * carry.c) * carry.c + gate(i + p_i * carry.c) * self.activation(g)
        h = gate(o + p_o * c) * self.activation(c)
        return LSTMCarry(c=c, h=h)
