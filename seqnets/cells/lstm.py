"""Long short-term memory."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from seqnets.cells.gate import sigmoid
from seqnets.cells.gated import GatedCell, GatedParams
from seqnets.checks import check_number
from seqnets.initializers import Initializer, forget_bias
from seqnets.typing import Activation, Array, Float, PyTree

__all__ = ["LSTM", "LSTMCarry", "LSTMFamily"]


class LSTMCarry(NamedTuple):
    """State of an LSTM cell."""

    c: Float[Array, "B H"]
    """[B, H] cell state."""
    h: Float[Array, "B H"]
    """[B, H] hidden state, also the output; [B, P] if the cell projects it."""


@dataclasses.dataclass(frozen=True)
class LSTMFamily(GatedCell[LSTMCarry]):
    """Base class of LSTMs: the carry, the initial bias of the forget gate, and the equations.

    Cells with other equations override `pointwise`.
    """

    forget_bias: float = 1.0
    activation: Activation = dataclasses.field(default=jnp.tanh, kw_only=True, repr=False)
    """Element-wise function for the candidate, and for the cell state in the output."""
    gate_activation: Activation = dataclasses.field(default=sigmoid, kw_only=True, repr=False)
    """Element-wise function for the gates."""

    forget_gate: ClassVar[int] = 1
    """Index of the forget gate among the gates."""

    def __post_init__(self) -> None:
        """Reject sizes below 1 and a bias that is not a number."""
        super().__post_init__()
        check_number("forget_bias", self.forget_bias)

    def bias_init(self) -> Initializer:
        """Zeros, except ``forget_bias`` in the block of the forget gate."""
        return forget_bias(self.forget_bias, gate=self.forget_gate, gates=self.gates)

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> LSTMCarry:
        """Zeros, ``c [batch, H]`` and ``h [batch, features]``."""
        return LSTMCarry(
            c=jnp.zeros((batch, self.width), dtype), h=jnp.zeros((batch, self.features), dtype)
        )

    def pointwise(
        self, extra: PyTree, z_x: Float[Array, "*B G"], z_h: Float[Array, "*B G"], carry: LSTMCarry
    ) -> LSTMCarry:
        """The gates and the two state equations."""
        i, f, g, o = jnp.split(z_x + z_h, 4, axis=-1)
        gate = self.gate_activation
        c = gate(f) * carry.c + gate(i) * self.activation(g)
        h = gate(o) * self.activation(c)
        return LSTMCarry(c=c, h=h)


@dataclasses.dataclass(frozen=True)
class LSTM(LSTMFamily):
    """Long short-term memory with a forget gate, without peepholes.

        i, f, g, o = split(x_t W_x + h_{t-1} W_h + b)
        c_t = σ(f) ∘ c_{t-1} + σ(i) ∘ tanh(g)
        h_t = σ(o) ∘ tanh(c_t)
        y_t = h_t

    The gates are in the order i, f, g, o along the last axis of the weights.

    Args:
      features: hidden size H.
      forget_bias: initial bias of the forget gate; it is part of ``b`` and is not added again.
      activation: element-wise function that replaces tanh.
      gate_activation: element-wise function that replaces σ.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.
      TypeError: if forget_bias is not a number.

    Example:
      >>> import jax
      >>> cell = LSTM(features=3)
      >>> params = cell.init(jax.random.key(0), in_features=2)
      >>> params.w_x.shape, params.w_h.shape
      ((2, 12), (3, 12))

    References:
      Hochreiter, Schmidhuber, Long Short-Term Memory, Neural Computation 9, 1997;
      Gers, Schmidhuber, Cummins, Learning to Forget, Neural Computation 12, 2000 (forget gate).
    """

    gates: ClassVar[int] = 4
