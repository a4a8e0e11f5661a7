"""Minimal gated units, in two variants in which the gate has different meanings."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from seqnets.cells.gate import sigmoid
from seqnets.cells.gated import GatedCell, GatedParams
from seqnets.cells.prepared import PreparedCell, project
from seqnets.cells.product import product
from seqnets.typing import Array, Float, Key, PyTree

__all__ = ["MGU", "MGUCarry", "MGUResetAfter"]


class MGUCarry(NamedTuple):
    """State of a minimal gated unit."""

    h: Float[Array, "B H"]
    """[B, H] hidden state, also the output."""


@dataclasses.dataclass(frozen=True)
class MGUResetAfter(GatedCell[MGUCarry]):
    """Minimal gated unit, gate **after** the recurrent product; f keeps the old state.

        f = σ(x_t W_xf + b_f + h_{t-1} W_hf + b_hf)
        n = tanh(x_t W_xn + b_n + f ∘ (h_{t-1} W_hn + b_hn))
        h_t = (1 - f) ∘ n + f ∘ h_{t-1}
        y_t = h_t

    This is the variant of Flax's ``MGUCell``, with one fused recurrent product. A closed gate
    discards the state here, whereas in `MGU` it keeps the state, so neither cell can express the
    other. The gates are in the order f, n.

    Args:
      features: hidden size H.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.

    References:
      Zhou, Wu, Zhang, Zhou, Minimal Gated Unit for Recurrent Neural Networks, 2016,
      arXiv:1603.09420, which applies the gate before the product and exchanges f and 1 - f in
      the equation for h_t.
    """

    gates: ClassVar[int] = 2
    hidden_bias: ClassVar[bool] = True

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> MGUCarry:
        """Zeros, ``h [batch, H]``."""
        return MGUCarry(h=jnp.zeros((batch, self.features), dtype))

    def pointwise(
        self, extra: PyTree, z_x: Float[Array, "*B G"], z_h: Float[Array, "*B G"], carry: MGUCarry
    ) -> MGUCarry:
        """The gate and the interpolation between the candidate and the old state."""
        f_x, n_x = jnp.split(z_x, 2, axis=-1)
        f_h, n_h = jnp.split(z_h, 2, axis=-1)
        f = sigmoid(f_x + f_h)
        n = jnp.tanh(n_x + f * n_h)
        h = (1 - f) * n + f * carry.h
        return MGUCarry(h=h)


@dataclasses.dataclass(frozen=True)
class MGU(PreparedCell[GatedParams, MGUCarry]):
    """Minimal gated unit of the paper: gate **before** the product; f admits the candidate.

        f = σ(x_t W_xf + h_{t-1} W_hf + b_f)
        n = tanh(x_t W_xn + (f ∘ h_{t-1}) W_hn + b_n)
        h_t = (1 - f) ∘ h_{t-1} + f ∘ n
        y_t = h_t

    The product of the candidate depends on f, so this is not a `GatedCell`. The gates are in the
    order f, n. `MGUResetAfter` is the other variant.

    Args:
      features: hidden size H.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.

    References:
      Zhou, Wu, Zhang, Zhou, Minimal Gated Unit for Recurrent Neural Networks, 2016,
      arXiv:1603.09420.
    """

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters as `MGUResetAfter` does, without the recurrent bias."""
        cell = MGUResetAfter(self.features, initialization=self.initialization)
        return cell.init(key, in_features)._replace(b_h=None)

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> MGUCarry:
        """Zeros, ``h [batch, H]``."""
        return MGUCarry(h=jnp.zeros((batch, self.features), dtype))

    def prepare(self, params: GatedParams, xs: Float[Array, "*B D"]) -> Float[Array, "*B G"]:
        """``x W_x + b``, [..., 2H]."""
        return project(xs, params.w_x, params.b)

    def advance(
        self, params: GatedParams, carry: MGUCarry, prepared: Float[Array, "B G"]
    ) -> tuple[MGUCarry, Float[Array, "B *H"]]:
        """The gate, then the candidate from the product with the gated state."""
        h = carry.h
        f_x, n_x = jnp.split(prepared, 2, axis=-1)
        w_f, w_n = jnp.split(params.w_h, 2, axis=-1)
        f = sigmoid(f_x + product(h, w_f))
        n = jnp.tanh(n_x + product(f * h, w_n))
        h = (1 - f) * h + f * n
        return MGUCarry(h=h), h
