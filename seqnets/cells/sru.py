"""The simple recurrent unit, whose products do not depend on the previous step."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers

from seqnets.cells.gate import sigmoid
from seqnets.cells.prepared import PreparedCell, project
from seqnets.cells.roles import roles
from seqnets.checks import check_number, check_range
from seqnets.initializers import Initializer, forget_bias, per_gate
from seqnets.typing import Array, Float, Key

__all__ = ["SRU", "SRUCarry", "SRUParams"]


@roles(w_x="input")
class SRUParams(NamedTuple):
    """Parameters of an `SRU`; the blocks lie side by side on the last axis."""

    w_x: Float[Array, "D G"]
    """[D, 3H] input weights; [D, 4H] if the highway has a projection."""
    v: Float[Array, " G"]
    """[2H] weights from the state of each unit to its gates."""
    b: Float[Array, " G"]
    """[2H] bias of the gates."""


class SRUCarry(NamedTuple):
    """State of an `SRU`."""

    c: Float[Array, "B H"]
    """[B, H] cell state, which is not the output."""


@dataclasses.dataclass(frozen=True)
class SRU(PreparedCell[SRUParams, SRUCarry]):
    """Simple recurrent unit with gates that read the state, highway, and scaling correction.

        f = σ(x_t W_f + v_f ∘ c_{t-1} + b_f)
        r = σ(x_t W_r + v_r ∘ c_{t-1} + b_r)
        c_t = f ∘ c_{t-1} + (1 - f) ∘ (x_t W)
        y_t = r ∘ c_t + (1 - r) ∘ s_t

    The highway is ``s_t = α x_t`` with ``α = √(1 + 2 exp(highway_bias))``, which preserves the
    variance in deep stacks. If D differs from H, it has a projection, ``s_t = x_t W_s``, and α is
    part of the initial scale of W_s instead. The blocks of ``w_x`` are in the order W, f, r, s,
    those of ``v`` and ``b`` in the order f, r.

    Args:
      features: hidden size H.
      highway_bias: initial b_r; a negative value lets more of the input through.
      initialization: see `seqnets.initializers.Initialization`.

    Raises:
      ValueError: if features is below 1.
      TypeError: if highway_bias is not a number.

    References:
      Lei, Zhang, Wang, Dai, Artzi, Simple Recurrent Units for Highly Parallelizable Recurrence,
      EMNLP 2018, arXiv:1709.02755, version 5, without tanh of c and without dropout; initialized
      as in the published code of the authors.
    """

    highway_bias: float = 0.0

    def __post_init__(self) -> None:
        """Reject sizes below 1 and a bias that is not a number."""
        super().__post_init__()
        check_number("highway_bias", self.highway_bias)

    def init(self, key: Key, in_features: int) -> SRUParams:
        """Draw float32 parameters: w_x with variance 1/D (gates: half of it), v with 1/2."""
        check_range("in_features", in_features, 1)
        key_x, key_v, key_b = jax.random.split(key, 3)
        H, given = self.features, self.initialization
        own = (_uniform(1), _uniform(0.5), _uniform(0.5), _uniform(self._scale**2))
        blocks = 3 if in_features == H else 4
        inputs = per_gate(given.inputs or own[:blocks], blocks)
        recurrent = per_gate(given.recurrent or _symmetric(math.sqrt(1.5)), 2)
        bias = given.bias or forget_bias(self.highway_bias, gate=1, gates=2)
        return SRUParams(
            w_x=inputs(key_x, (in_features, blocks * H), jnp.float32),
            v=recurrent(key_v, (2 * H,), jnp.float32),
            b=bias(key_b, (2 * H,), jnp.float32),
        )

    @property
    def _scale(self) -> float:
        """The correction α."""
        return math.sqrt(1 + 2 * math.exp(self.highway_bias))

    def initial_carry(self, params: SRUParams, batch: int, dtype: Any) -> SRUCarry:
        """Zeros, ``c [batch, H]``."""
        return SRUCarry(c=jnp.zeros((batch, self.features), dtype))

    def prepare(self, params: SRUParams, xs: Float[Array, "*B D"]) -> Float[Array, "*B G"]:
        """The products with the inputs, and the highway, [..., 4H]."""
        z = project(xs, params.w_x)
        if z.shape[-1] == 4 * self.features:
            return z
        return jnp.concatenate([z, (self._scale * xs).astype(z.dtype)], axis=-1)

    def advance(
        self, params: SRUParams, carry: SRUCarry, prepared: Float[Array, "B G"]
    ) -> tuple[SRUCarry, Float[Array, "B *H"]]:
        """The gates, the state, and the highway, all element-wise."""
        new, f_x, r_x, s = jnp.split(prepared, 4, axis=-1)
        v_f, v_r, b_f, b_r = (
            jnp.broadcast_to(a, s.shape) for ab in (params.v, params.b) for a in jnp.split(ab, 2)
        )
        f = sigmoid(f_x + v_f * carry.c + b_f)
        r = sigmoid(r_x + v_r * carry.c + b_r)
        c = f * carry.c + (1 - f) * new
        return SRUCarry(c=c), r * c + (1 - r) * s


def _uniform(variance: float) -> Initializer:
    """Uniform weights ``[D, H]`` with variance ``variance / D``."""
    return initializers.variance_scaling(variance, "fan_in", "uniform")


def _symmetric(limit: float) -> Initializer:
    """Uniform in [-limit, limit)."""

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, minval=-limit, maxval=limit)

    return init
