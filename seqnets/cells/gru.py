"""Gated recurrent units, in the two published variants that differ in where the reset acts."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax.nn import sigmoid

from seqnets.cells.gated import GatedCell, GatedParams, project_inputs
from seqnets.checks import check_range
from seqnets.typing import Array, Key, PyTree

__all__ = ["GRU", "GRUCarry", "GRUResetBefore"]


class GRUCarry(NamedTuple):
    """State of a GRU cell."""

    h: Array
    """[B, H] hidden state, also the output."""


@dataclasses.dataclass(frozen=True)
class GRU(GatedCell[GRUCarry]):
    """Gated recurrent unit, reset **after** the recurrent product.

        r = σ(x_t W_xr + b_r + h_{t-1} W_hr + b_hr)
        z = σ(x_t W_xz + b_z + h_{t-1} W_hz + b_hz)
        n = tanh(x_t W_xn + b_n + r ∘ (h_{t-1} W_hn + b_hn))
        h_t = (1 - z) ∘ n + z ∘ h_{t-1}
        y_t = h_t

    This is the variant of cuDNN, PyTorch and Keras' ``reset_after=True``. Gates lie in the
    order r, z, n. See `GRUResetBefore` for the other one; their weights are not compatible.

    Args:
      features: hidden size H.

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014,
      arXiv:1406.1078, version 1 (reset after the product).
    """

    gates: ClassVar[int] = 3
    hidden_bias: ClassVar[bool] = True

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> GRUCarry:
        """Zeros, ``h [batch, H]``."""
        return GRUCarry(h=jnp.zeros((batch, self.features), dtype))

    def pointwise(
        self, extra: PyTree, z_x: Array, z_h: Array, carry: GRUCarry
    ) -> tuple[GRUCarry, Array]:
        """The gates and the interpolation between the candidate and the old state."""
        r_x, z_x, n_x = jnp.split(z_x, 3, axis=-1)
        r_h, z_h, n_h = jnp.split(z_h, 3, axis=-1)
        r = sigmoid(r_x + r_h)
        z = sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + r * n_h)
        h = (1 - z) * n + z * carry.h
        return GRUCarry(h=h), h


@dataclasses.dataclass(frozen=True)
class GRUResetBefore:
    """Gated recurrent unit, reset **before** the recurrent product.

        r = σ(x_t W_xr + h_{t-1} W_hr + b_r)
        z = σ(x_t W_xz + h_{t-1} W_hz + b_z)
        n = tanh(x_t W_xn + (r ∘ h_{t-1}) W_hn + b_n)
        h_t = (1 - z) ∘ n + z ∘ h_{t-1}
        y_t = h_t

    The candidate's product waits for r: two recurrent products in a row, so this is not a
    `GatedCell` and gives its whole step. Gates lie in the order r, z, n.

    Args:
      features: hidden size H.

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014,
      arXiv:1406.1078, version 3 (reset before the product). Chung et al., 2014,
      arXiv:1412.3555, exchange z and 1 - z.
    """

    features: int

    def __post_init__(self) -> None:
        """Reject sizes below 1."""
        check_range("features", self.features, 1)

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters as `GRU` does, without the recurrent bias."""
        return GRU(self.features).init(key, in_features)._replace(b_h=None)

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> GRUCarry:
        """Zeros, ``h [batch, H]``."""
        return GRUCarry(h=jnp.zeros((batch, self.features), dtype))

    def step(self, params: GatedParams, carry: GRUCarry, x: Array) -> tuple[GRUCarry, Array]:
        """One step from ``x [B, D]``."""
        h = carry.h
        r_x, z_x, n_x = jnp.split(project_inputs(params, x), 3, axis=-1)
        w_rz, w_n = jnp.split(params.w_h, [2 * self.features], axis=-1)
        r_h, z_h = jnp.split(h @ w_rz, 2, axis=-1)
        r = sigmoid(r_x + r_h)
        z = sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + (r * h) @ w_n)
        h = (1 - z) * n + z * h
        return GRUCarry(h=h), h
