"""The default activation of gates."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.typing import Array, Float

__all__ = ["sigmoid"]


def sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """``σ(x) = (1 + tanh(x / 2)) / 2``, which equals `jax.nn.sigmoid` up to the rounding of 1.

    The error matters only for a nearly closed gate, where the product with the state hides it.
    On a CPU, this form is a fifth faster than an exponential and a division.
    """
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
