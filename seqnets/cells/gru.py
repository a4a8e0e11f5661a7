"""Gated recurrent units, in the two published variants, which apply the reset at two places."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from seqnets.cells.gate import sigmoid
from seqnets.cells.gated import GatedCell, GatedParams
from seqnets.cells.prepared import PreparedCell, project
from seqnets.cells.product import product
from seqnets.typing import Activation, Array, Float, Key, PyTree

__all__ = ["GRU", "GRUCarry", "GRUResetBefore"]


class GRUCarry(NamedTuple):
    """State of a GRU cell."""

    h: Float[Array, "B H"]
    """[B, H] hidden state, also the output."""


@dataclasses.dataclass(frozen=True)
class GRU(GatedCell[GRUCarry]):
    """Gated recurrent unit, reset **after** the recurrent product.

        r = σ(x_t W_xr + b_r + h_{t-1} W_hr + b_hr)
        z = σ(x_t W_xz + b_z + h_{t-1} W_hz + b_hz)
        n = tanh(x_t W_xn + b_n + r ∘ (h_{t-1} W_hn + b_hn))
        h_t = (1 - z) ∘ n + z ∘ h_{t-1}
        y_t = h_t

    This is the variant of cuDNN, PyTorch, and Keras with ``reset_after=True``. The gates are in
    the order r, z, n. `GRUResetBefore` is the other variant; their weights are not compatible.

    Args:
      features: hidden size H.
      activation: element-wise function that replaces tanh.
      gate_activation: element-wise function that replaces σ.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014,
      arXiv:1406.1078, version 1 (reset after the product).
    """

    activation: Activation = dataclasses.field(default=jnp.tanh, kw_only=True, repr=False)
    """Element-wise function for the candidate."""
    gate_activation: Activation = dataclasses.field(default=sigmoid, kw_only=True, repr=False)
    """Element-wise function for the gates."""

    gates: ClassVar[int] = 3
    hidden_bias: ClassVar[bool] = True

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> GRUCarry:
        """Zeros, ``h [batch, H]``."""
        return GRUCarry(h=jnp.zeros((batch, self.features), dtype))

    def pointwise(
        self, extra: PyTree, z_x: Float[Array, "*B G"], z_h: Float[Array, "*B G"], carry: GRUCarry
    ) -> GRUCarry:
        """The gates and the interpolation between the candidate and the old state."""
        r_x, z_x, n_x = jnp.split(z_x, 3, axis=-1)
        r_h, z_h, n_h = jnp.split(z_h, 3, axis=-1)
        r = self.gate_activation(r_x + r_h)
        z = self.gate_activation(z_x + z_h)
        n = self.activation(n_x + r * n_h)
        h = (1 - z) * n + z * carry.h
        return GRUCarry(h=h)


@dataclasses.dataclass(frozen=True)
class GRUResetBefore(PreparedCell[GatedParams, GRUCarry]):
    """Gated recurrent unit, reset **before** the recurrent product.

        r = σ(x_t W_xr + h_{t-1} W_hr + b_r)
        z = σ(x_t W_xz + h_{t-1} W_hz + b_z)
        n = tanh(x_t W_xn + (r ∘ h_{t-1}) W_hn + b_n)
        h_t = (1 - z) ∘ n + z ∘ h_{t-1}
        y_t = h_t

    The product of the candidate depends on r, so that a step has two recurrent products in
    sequence and this is not a `GatedCell`. The gates are in the order r, z, n.

    Args:
      features: hidden size H.
      activation: element-wise function that replaces tanh.
      gate_activation: element-wise function that replaces σ.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014,
      arXiv:1406.1078, version 3 (reset before the product). Chung et al., 2014,
      arXiv:1412.3555, exchange z and 1 - z.
    """

    activation: Activation = dataclasses.field(default=jnp.tanh, kw_only=True, repr=False)
    """Element-wise function for the candidate."""
    gate_activation: Activation = dataclasses.field(default=sigmoid, kw_only=True, repr=False)
    """Element-wise function for the gates."""

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters as `GRU` does, without the recurrent bias."""
        cell = GRU(self.features, initialization=self.initialization)
        return cell.init(key, in_features)._replace(b_h=None)

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> GRUCarry:
        """Zeros, ``h [batch, H]``."""
        return GRUCarry(h=jnp.zeros((batch, self.features), dtype))

    def prepare(self, params: GatedParams, xs: Float[Array, "*B D"]) -> Float[Array, "*B G"]:
        """``x W_x + b``, [..., 3H]."""
        return project(xs, params.w_x, params.b)

    def advance(
        self, params: GatedParams, carry: GRUCarry, prepared: Float[Array, "B G"]
    ) -> tuple[GRUCarry, Float[Array, "B *H"]]:
        """The gates, then the candidate from the product with the reset state."""
        h = carry.h
        r_x, z_x, n_x = jnp.split(prepared, 3, axis=-1)
        w_rz, w_n = jnp.split(params.w_h, [2 * self.features], axis=-1)
        r_h, z_h = jnp.split(product(h, w_rz), 2, axis=-1)
        r = self.gate_activation(r_x + r_h)
        z = self.gate_activation(z_x + z_h)
        n = self.activation(n_x + product(r * h, w_n))
        h = (1 - z) * n + z * h
        return GRUCarry(h=h), h
