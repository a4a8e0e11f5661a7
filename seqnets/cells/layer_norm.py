"""Gated cells with layer normalization of both products."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp

from seqnets.cells.gate import sigmoid
from seqnets.cells.gated import GatedCell, GatedParams
from seqnets.cells.gru import GRUCarry
from seqnets.cells.lstm import LSTMCarry, LSTMFamily
from seqnets.typing import Array, Float, Key

__all__ = ["GRUNorms", "LSTMNorms", "LayerNormGRU", "LayerNormLSTM"]

_EPSILON = 1e-5
"""Added to the variance, as in the published code of the authors."""


class LSTMNorms(NamedTuple):
    """Scales and shifts of the three norms of a `LayerNormLSTM`."""

    scale_x: Float[Array, " G"]
    """[4H] scale of the input product, initially ones."""
    scale_h: Float[Array, " G"]
    """[4H] scale of the recurrent product, initially ones."""
    b: Float[Array, " G"]
    """[4H] bias of the gates."""
    scale_c: Float[Array, " H"]
    """[H] scale of the cell state, initially ones."""
    b_c: Float[Array, " H"]
    """[H] shift of the cell state, initially zeros."""


@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(LSTMFamily):
    """Long short-term memory with layer normalization.

        i, f, g, o = split(s_x ∘ norm(x_t W_x) + s_h ∘ norm(h_{t-1} W_h) + b)
        c_t = σ(f) ∘ c_{t-1} + σ(i) ∘ tanh(g)
        h_t = σ(o) ∘ tanh(s_c ∘ norm(c_t) + b_c)
        y_t = h_t

    ``norm(z) = (z - mean z) / √(var z + 1e-5)`` over all 4H elements of a product of a row, and
    over the H elements of its state; the carry holds the unnormalized c. Statistics are computed
    in float32 or wider. Scales and shifts are in ``params.extra``, an `LSTMNorms`; ``params.b`` is
    None.

    Args:
      features: hidden size H.
      forget_bias, activation, gate_activation, initialization: as in `LSTM`.

    Raises:
      ValueError, TypeError: as in `LSTM`.

    References:
      Ba, Kiros, Hinton, Layer Normalization, 2016, arXiv:1607.06450, equations 20-22. The shifts
      of the first two norms and the bias occur only as a sum, so they are one array b here.
    """

    gates: ClassVar[int] = 4

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters as `LSTM` does; the norms start with scale one."""
        params = super().init(key, in_features)
        H = self.features
        norms = LSTMNorms(
            _ones(4 * H), _ones(4 * H), cast(Array, params.b), _ones(H), jnp.zeros(H, jnp.float32)
        )
        return params._replace(b=None, extra=norms)

    def pointwise(
        self,
        extra: LSTMNorms,
        z_x: Float[Array, "*B G"],
        z_h: Float[Array, "*B G"],
        carry: LSTMCarry,
    ) -> LSTMCarry:
        """The gates from the normalized products, the state, and the output from its norm."""
        z = _norm(z_x, extra.scale_x, extra.b) + _norm(z_h, extra.scale_h)
        i, f, g, o = jnp.split(z, 4, axis=-1)
        gate = self.gate_activation
        c = gate(f) * carry.c + gate(i) * self.activation(g)
        h = gate(o) * self.activation(_norm(c, extra.scale_c, extra.b_c))
        return LSTMCarry(c=c, h=h)


class GRUNorms(NamedTuple):
    """Scales and shifts of the four norms of a `LayerNormGRU`."""

    scale_x: Float[Array, " G"]
    """[3H] scale of the input product, initially ones."""
    scale_h: Float[Array, " G"]
    """[3H] scale of the recurrent product, initially ones."""
    b: Float[Array, " G"]
    """[3H] bias of the gates and the candidate."""
    b_hn: Float[Array, " H"]
    """[H] shift of the candidate's recurrent product, which the reset gate multiplies."""


@dataclasses.dataclass(frozen=True)
class LayerNormGRU(GatedCell[GRUCarry]):
    """Gated recurrent unit with layer normalization, reset **after** the recurrent product.

        r, z = split(s_x ∘ norm(x_t W_x) + s_h ∘ norm(h_{t-1} W_h) + b)
        n = tanh(s_xn ∘ norm(x_t W_xn) + b_n + σ(r) ∘ (s_hn ∘ norm(h_{t-1} W_hn) + b_hn))
        h_t = (1 - σ(z)) ∘ n + σ(z) ∘ h_{t-1}
        y_t = h_t

    ``norm(z) = (z - mean z) / √(var z + 1e-5)``; in each product, the 2H elements of both gates
    are normalized together and the H elements of the candidate separately. Statistics are
    computed in float32 or wider. Scales and shifts are in ``params.extra``, a `GRUNorms`;
    ``params.b`` is None. The gates are in the order r, z, n.

    Args:
      features: hidden size H.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.

    References:
      Ba, Kiros, Hinton, Layer Normalization, 2016, arXiv:1607.06450, supplementary material, which
      exchanges z and 1 - z. Shifts that occur only as a sum are one array b here.
    """

    gates: ClassVar[int] = 3

    def init(self, key: Key, in_features: int) -> GatedParams:
        """Draw float32 parameters as `GRU` does; the norms start with scale one."""
        params = super().init(key, in_features)
        H = self.features
        norms = GRUNorms(
            _ones(3 * H), _ones(3 * H), cast(Array, params.b), jnp.zeros(H, jnp.float32)
        )
        return params._replace(b=None, extra=norms)

    def initial_carry(self, params: GatedParams, batch: int, dtype: Any) -> GRUCarry:
        """Zeros, ``h [batch, H]``."""
        return GRUCarry(h=jnp.zeros((batch, self.features), dtype))

    def pointwise(
        self, extra: GRUNorms, z_x: Float[Array, "*B G"], z_h: Float[Array, "*B G"], carry: GRUCarry
    ) -> GRUCarry:
        """The gates from the normalized products, and the interpolation."""
        (gates_x, n_x), (gates_h, n_h), (s_x, s_xn), (s_h, s_hn), (b, b_n) = (
            jnp.split(a, [2 * self.features], axis=-1)
            for a in (z_x, z_h, extra.scale_x, extra.scale_h, extra.b)
        )
        r, z = jnp.split(sigmoid(_norm(gates_x, s_x, b) + _norm(gates_h, s_h)), 2, axis=-1)
        n = jnp.tanh(_norm(n_x, s_xn, b_n) + r * _norm(n_h, s_hn, extra.b_hn))
        h = (1 - z) * n + z * carry.h
        return GRUCarry(h=h)


def _ones(size: int) -> Array:
    return jnp.ones(size, jnp.float32)


def _norm(z: Array, scale: Array, shift: Array | None = None) -> Array:
    """``scale ∘ (z - mean z) / √(var z + ε) + shift`` over the last axis, in the dtype of z."""
    wide = z.astype(jnp.promote_types(jnp.float32, z.dtype))
    centered = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(centered * centered, axis=-1, keepdims=True)
    normal = (centered * jax.lax.rsqrt(variance + _EPSILON)).astype(z.dtype)
    scaled = jnp.broadcast_to(scale, z.shape) * normal
    return scaled if shift is None else scaled + jnp.broadcast_to(shift, z.shape)
