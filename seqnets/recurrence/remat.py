"""Rematerialization over time, which saves memory in the gradient of long sequences."""

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
    """Run chunk by chunk and store only the carry before each chunk for the gradient.

    The backward pass runs each chunk again. Memory holds T / every carries and one chunk at a time,
    which is least at about ``every = √T``; the additional time is that of one forward pass.

    Args:
      run: a strategy, ``(carry, steps) -> (carry, ys)``.
      carry: carry before the first step read.
      steps: all steps.
      every: length of a chunk, in time steps.
      reverse: read from the last step to the first.

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
    chunk = jax.checkpoint(run, prevent_cse=False)  # unnecessary inside a scan

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
    """Apply a function to every array of ``steps`` that has a time axis."""
    arrays = {"xs": steps.xs, "mask": steps.mask, "starts": steps.starts}
    return jax.tree.map(function, {**arrays, "updates": steps.noise.updates})


def _with(steps: Steps, updates: PyTree, **arrays: Any) -> Steps:
    """The steps with the arrays that have a time axis replaced."""
    return steps._replace(noise=steps.noise._replace(updates=updates), **arrays)


def _cut(x: Array, every: int) -> Array:
    """Reshape ``[B, n · every, ...]`` to ``[n, B, every, ...]``."""
    return jnp.swapaxes(x.reshape(x.shape[0], -1, every, *x.shape[2:]), 0, 1)


def _join(ys: PyTree) -> PyTree:
    """Reshape ``[n, B, every, ...]`` to ``[B, n · every, ...]``."""

    def leaf(y: Array) -> Array:
        y = jnp.swapaxes(y, 0, 1)
        return y.reshape(y.shape[0], -1, *y.shape[3:])

    return jax.tree.map(leaf, ys)
