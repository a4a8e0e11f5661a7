"""Initializers of recurrent layers: weights gate by gate, and biases for long memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqnets.checks import check_number, check_range
from seqnets.typing import Array, Key

__all__ = ["Initialization", "Initializer", "chrono", "embedding_table", "forget_bias", "per_gate"]

Initializer = Callable[[Key, tuple[int, ...], Any], Array]
"""``(key, shape, dtype) -> array``, as in `jax.nn.initializers`."""


@dataclasses.dataclass(frozen=True)
class Initialization:
    """How to draw the weights of a recurrent cell; None keeps the default of the cell.

    Weights are drawn gate by gate. A single initializer is used for every block; a tuple has one
    initializer per block, in the order of the cell's gates. Functions compare by identity, so reuse
    the same initializer in cells that should be equal (a cell that differs is compiled again).

    Attributes:
      inputs: initializer of the input weights, called with the shape of one block.
      recurrent: initializer of the recurrent weights, called with the shape of one block.
      bias: initializer of the whole bias ``[G·H]``, e.g. `forget_bias`, `chrono`, or `per_gate`.

    Example:
      >>> from seqnets.cells import LSTM
      >>> bias = chrono(100, forget_gate=1, input_gate=0, gates=4)
      >>> cell = LSTM(features=8, initialization=Initialization(bias=bias))
    """

    inputs: Initializer | tuple[Initializer, ...] | None = None
    recurrent: Initializer | tuple[Initializer, ...] | None = None
    bias: Initializer | None = None


def per_gate(initializer: Initializer | tuple[Initializer, ...], gates: int) -> Initializer:
    """Draw the blocks of the gates independently and concatenate them on the last axis.

    An orthogonal draw of the whole ``[H, G·H]`` weight would make the blocks depend on each other
    and scale them down; when drawn independently, every ``[H, H]`` block is orthogonal.

    Args:
      initializer: called with ``(key, (..., H), dtype)`` for each gate; a tuple has one per gate.
      gates: number of blocks G.

    Returns:
      An initializer of arrays ``[..., G·H]``.

    Raises:
      ValueError: if gates is below 1, or a tuple does not have ``gates`` elements; and when called,
        if the last axis is not divisible by gates.

    Example:
      >>> init = per_gate(jax.nn.initializers.orthogonal(), gates=4)
      >>> init(jax.random.key(0), (3, 12), jnp.float32).shape
      (3, 12)
    """
    check_range("gates", gates, 1)
    each = initializer if isinstance(initializer, tuple) else (initializer,) * gates
    if len(each) != gates:
        raise ValueError(f"initializer: expected one for each of {gates} gates, got {len(each)}")

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        block = (*shape[:-1], _block_size(shape, gates))
        keys = jax.random.split(key, gates)
        blocks = [draw(k, block, dtype) for draw, k in zip(each, keys, strict=True)]
        return jnp.concatenate(blocks, axis=-1)

    return init


def forget_bias(value: float, gate: int, gates: int) -> Initializer:
    """Biases that are ``value`` for one gate and zero for the others.

    A positive forget bias lets an LSTM keep its state from the start of training.

    Args:
      value: bias of the gate.
      gate: index of the gate among the blocks, in [0, gates).
      gates: number of blocks G.

    Returns:
      An initializer of arrays ``[..., G·H]``.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if gates is below 1 or gate is not in [0, gates); and when called, if the last
        axis is not divisible by gates.

    References:
      Jozefowicz, Zaremba, Sutskever, An Empirical Exploration of Recurrent Network
      Architectures, ICML 2015, section 2.2: a forget bias of 1.
    """
    check_number("value", value)
    check_range("gates", gates, 1)
    check_range("gate", gate, 0, gates, closed="left")

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key
        size = _block_size(shape, gates)
        return jnp.zeros(shape, dtype).at[..., gate * size : (gate + 1) * size].set(value)

    return init


def chrono(
    longest: float, *, forget_gate: int, gates: int, input_gate: int | None = None
) -> Initializer:
    """Chrono initialization: biases for memories of up to ``longest`` time steps.

        b_f = log u,   b_i = -b_f,   u ~ Uniform(1, longest - 1)

    The biases of the other gates are zero. With σ(b_f), a unit forgets about 1/u of its state per
    time step.

    Args:
      longest: largest distance between dependent time steps that should be learned, > 2.
      forget_gate: index of the forget gate among the blocks, in [0, gates).
      gates: number of blocks G.
      input_gate: index of the input gate; None for cells in which it is 1 - forget gate.

    Returns:
      An initializer of arrays ``[..., G·H]``.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if longest is not above 2, or an index is not in [0, gates); and when called, if
        the last axis is not divisible by gates.

    References:
      Tallec, Ollivier, Can Recurrent Neural Networks Warp Time?, 2018, arXiv:1804.11188.
    """
    check_range("longest", longest, 2, closed="neither")
    check_range("gates", gates, 1)
    check_range("forget_gate", forget_gate, 0, gates, closed="left")
    if input_gate is not None:
        check_range("input_gate", input_gate, 0, gates, closed="left")

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        size = _block_size(shape, gates)
        block = (*shape[:-1], size)
        bias = jnp.log(jax.random.uniform(key, block, dtype, minval=1, maxval=longest - 1))
        blocks = [jnp.zeros(block, dtype)] * gates
        blocks[forget_gate] = bias
        if input_gate is not None:
            blocks[input_gate] = -bias
        return jnp.concatenate(blocks, axis=-1)

    return init


def embedding_table(*, tied: bool = False) -> Initializer:
    """Normal elements with standard deviation 1, or 1 / √E if the output layer shares the table.

    Input weights are scaled for inputs of unit variance. The default of Flax, 1 / √E, gives inputs
    that are √E times too small, so that training first has to enlarge the table. If the logits are
    products with the same rows, the rows must have unit length, or the initial predictions are far
    too certain.

    Args:
      tied: whether the output layer uses the same table.

    Returns:
      An initializer of arrays ``[V, E]``.

    Example:
      >>> table = embedding_table()(jax.random.key(0), (1000, 64), jnp.float32)
      >>> f"{table.std():.2f}"
      '1.00'
    """

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        deviation = shape[-1] ** -0.5 if tied else 1.0
        return deviation * jax.random.normal(key, shape, dtype)

    return init


def _block_size(shape: tuple[int, ...], gates: int) -> int:
    """The size H of a block, for a last axis ``G·H``."""
    if shape[-1] % gates:
        raise ValueError(f"shape: expected a last axis divisible by {gates} gates, got {shape}")
    return shape[-1] // gates
