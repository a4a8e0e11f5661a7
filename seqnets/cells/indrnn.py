"""The independently recurrent network, whose units read only their own past."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers

from seqnets.cells.prepared import PreparedCell, project
from seqnets.cells.roles import roles
from seqnets.checks import check_range
from seqnets.initializers import per_gate
from seqnets.typing import Activation, Array, Float, Key

__all__ = ["IndRNN", "IndRNNCarry", "IndRNNParams"]


@roles(w_x="input")
class IndRNNParams(NamedTuple):
    """Parameters of an `IndRNN`."""

    w_x: Float[Array, "D H"]
    """[D, H] input weights."""
    u: Float[Array, " H"]
    """[H] recurrent weight of each unit for its own state."""
    b: Float[Array, " H"]
    """[H] bias."""


class IndRNNCarry(NamedTuple):
    """State of an `IndRNN`."""

    h: Float[Array, "B H"]
    """[B, H] hidden state, also the output."""


@dataclasses.dataclass(frozen=True)
class IndRNN(PreparedCell[IndRNNParams, IndRNNCarry]):
    """Independently recurrent network: the recurrent weight u is a vector, not a matrix.

        h_t = activation(x_t W_x + u ∘ h_{t-1} + b)
        y_t = h_t

    Units interact only through the next layer, so stack several layers. Gradients over T steps
    scale as u^T; with relu, keep ``|u|`` below about 2^(1/T) in long training (the paper clips
    u; this cell does not).

    Args:
      features: hidden size H.
      activation: element-wise function, relu by default.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.

    References:
      Li, Li, Cook, Zhu, Gao, Independently Recurrent Neural Network (IndRNN): Building A Longer
      and Deeper RNN, CVPR 2018, arXiv:1803.04831 (the basic form, with u uniform in [0, 1)).
    """

    activation: Activation = jax.nn.relu

    def init(self, key: Key, in_features: int) -> IndRNNParams:
        """Draw float32 parameters: Glorot-uniform w_x, u uniform in [0, 1), and a zero bias."""
        check_range("in_features", in_features, 1)
        key_x, key_u, key_b = jax.random.split(key, 3)
        H, given = self.features, self.initialization
        inputs = per_gate(given.inputs or initializers.glorot_uniform(), 1)
        recurrent = per_gate(given.recurrent or initializers.uniform(1.0), 1)
        return IndRNNParams(
            w_x=inputs(key_x, (in_features, H), jnp.float32),
            u=recurrent(key_u, (H,), jnp.float32),
            b=(given.bias or initializers.zeros)(key_b, (H,), jnp.float32),
        )

    def initial_carry(self, params: IndRNNParams, batch: int, dtype: Any) -> IndRNNCarry:
        """Zeros, ``h [batch, H]``."""
        return IndRNNCarry(h=jnp.zeros((batch, self.features), dtype))

    def prepare(self, params: IndRNNParams, xs: Float[Array, "*B D"]) -> Float[Array, "*B G"]:
        """``x W_x + b``, [..., H]."""
        return project(xs, params.w_x, params.b)

    def advance(
        self, params: IndRNNParams, carry: IndRNNCarry, prepared: Float[Array, "B G"]
    ) -> tuple[IndRNNCarry, Float[Array, "B *H"]]:
        """``h = activation(prepared + u ∘ h)``."""
        u = jnp.broadcast_to(params.u, prepared.shape)
        h = self.activation(prepared + u * carry.h)
        return IndRNNCarry(h=h), h
