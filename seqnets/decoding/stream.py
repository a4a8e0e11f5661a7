"""Rollouts of any length with one compiled chunk, driven from the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from seqnets.decoding.rollout import Choose, Rollout, Stop, never, rollout
from seqnets.typing import Bool, PyTree

__all__ = ["Chunk", "compile_rollout", "stream"]

Chunk = Callable[[PyTree, Rollout], tuple[Rollout, PyTree, Any]]
"""``chunk(params, state) -> (state, values, real)``."""


def compile_rollout(
    step_fn: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]],
    *,
    steps: int,
    choose: Choose,
    stop: Stop = never,
) -> Chunk:
    """Compile one chunk of a rollout for repeated use.

    Args:
      step_fn: ``step_fn(params, carry, value) -> (carry, output)``.
      steps: number of values per chunk.
      choose: see `rollout`.
      stop: see `rollout`.

    Returns:
      ``chunk(params, state) -> (state, values, real)``, as `rollout`.
    """

    @jax.jit
    def chunk(params: PyTree, state: Rollout) -> tuple[Rollout, PyTree, Any]:
        return rollout(
            lambda carry, value: step_fn(params, carry, value),
            state,
            steps=steps,
            choose=choose,
            stop=stop,
        )

    return chunk


def stream(
    chunk: Chunk, params: PyTree, state: Rollout
) -> Iterator[tuple[PyTree, Bool[np.ndarray, "B U"]]]:
    """Yield the values of a rollout, chunk by chunk, until every row has ended.

    The same program is used for any length. The iterator is infinite if a row has no limit and
    ``stop`` never ends it.

    Args:
      chunk: from `compile_rollout`.
      params: parameters of its step function.
      state: from `start_rollout`.

    Yields:
      ``(values, real)`` on the host: values [B, U, ...], and [B, U] bool, True at values that were
      produced.
    """
    while not np.all(state.done):
        state, values, real = chunk(params, state)
        yield jax.device_get((values, real))
