"""Initial weights of recurrent layers: one block a gate, and biases that remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqnets.typing import Array, Key

__all__ = ["Initializer", "forget_bias", "per_gate"]

Initializer = Callable[[Key, tuple[int, ...], Any], Array]


def per_gate(initializer: Initializer, gates: int) -> Initializer:
    """Draw each gate's block of a fused weight by itself, then join them on the last axis.

    An orthogonal draw of the whole ``[H, G·H]`` weight would make the gates' blocks depend on
    each other and scale them down; drawn apart, every ``[H, H]`` block is orthogonal.

    Args:
      initializer: called with ``(key, (rows, H), dtype)`` for each gate.
      gates: number of blocks G.

    Returns:
      An initializer of arrays ``[rows, G·H]``.

    Raises:
      ValueError: when called for a last axis that ``gates`` does not divide.
    """

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        if shape[-1] % gates:
            raise ValueError(f"shape: expected a last axis divisible by {gates} gates, got {shape}")
        block = (*shape[:-1], shape[-1] // gates)
        keys = jax.random.split(key, gates)
        return jnp.concatenate([initializer(k, block, dtype) for k in keys], axis=-1)

    return init


def forget_bias(value: float, gate: int, gates: int) -> Initializer:
    """Biases of zero, except ``value`` for one gate: an LSTM that remembers from the start.

    References:
      Jozefowicz, Zaremba, Sutskever, An Empirical Exploration of Recurrent Network
      Architectures, ICML 2015, section 2.2: a forget bias of 1.
    """

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key
        size = shape[-1] // gates
        return jnp.zeros(shape, dtype).at[gate * size : (gate + 1) * size].set(value)

    return init
