"""Rematerialisation over time: memory for the gradient of long sequences, paid for in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqnets.recurrence.contract import Steps
from seqnets.typing import Array, PyTree

__all__ = ["in_chunks"]


def in_chunks(
    run: Callable[[PyTree, Steps], tuple[PyTree, PyTree]],
    carry: PyTree,
    steps: Steps,
    *,
    every: int,
    reverse: bool,
) -> tuple[PyTree, PyTree]:
    """Run chunk after chunk, keeping for the gradient only the carry before each.

    On the way back each chunk is run once more, so that the memory is that of T / every carries
    and of one chunk, least at about ``every = √T``; the time is that of a second forward pass.

    Args:
      run: a strategy, ``(carry, steps) -> (carry, ys)``.
      carry: carry before the first step read.
      steps: all steps.
      every: length of a chunk.
      reverse: the chunks are read from the last to the first.

    Returns:
      ``(carry, ys)`` of all steps.

    References:
      Chen, Xu, Zhang, Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016,
      arXiv:1604.06174.
    """
    T = steps.xs.shape[1]
    if every >= T:
        return run(carry, steps)
    even = T - T % every
    chunk = jax.checkpoint(run, prevent_cse=False)  # inside a scan there is nothing to prevent

    def chunks(carry: PyTree) -> tuple[PyTree, PyTree]:
        pieces = _of_time(lambda x: _cut(x[:, :even], every), steps)
        carry, ys = jax.lax.scan(
            lambda carry, piece: chunk(carry, _with(steps, **piece)),
            carry,
            pieces,
            reverse=reverse,
        )
        return carry, _join(ys)

    def rest(carry: PyTree) -> tuple[PyTree, PyTree]:
        return chunk(carry, _with(steps, **_of_time(lambda x: x[:, even:], steps)))

    if even == T:
        return chunks(carry)
    if reverse:
        carry, last = rest(carry)
        carry, first = chunks(carry)
    else:
        carry, first = chunks(carry)
        carry, last = rest(carry)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, last)


def _of_time(function: Callable[[Array], Array], steps: Steps) -> dict[str, Any]:
    """The function of every array of ``steps`` that has a time axis."""
    arrays = {"xs": steps.xs, "mask": steps.mask, "starts": steps.starts}
    return jax.tree.map(function, {**arrays, "updates": steps.noise.updates})


def _with(steps: Steps, updates: PyTree, **arrays: Any) -> Steps:
    """The steps with other arrays of time."""
    return steps._replace(noise=steps.noise._replace(updates=updates), **arrays)


def _cut(x: Array, every: int) -> Array:
    """``[B, n · every, ...]`` as ``[n, B, every, ...]``."""
    return jnp.swapaxes(x.reshape(x.shape[0], -1, every, *x.shape[2:]), 0, 1)


def _join(ys: PyTree) -> PyTree:
    """``[n, B, every, ...]`` as ``[B, n · every, ...]``."""

    def leaf(y: Array) -> Array:
        y = jnp.swapaxes(y, 0, 1)
        return y.reshape(y.shape[0], -1, *y.shape[3:])

    return jax.tree.map(leaf, ys)
