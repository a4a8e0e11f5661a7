"""Rollouts, which feed the outputs of a step function back to it, for values of any pytree.

    carry, output = step_fn(carry, value)
    value = choose(output, keys, t)               # the next input

`rollout` computes one chunk as a pure scan. A row ends at its limit or when ``stop`` returns True,
and does not change after that, so the result does not depend on the division into chunks. To change
the distribution over time (penalties, bans), wrap ``step_fn`` and keep counts in its carry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from seqnets.checks import check_dtype, check_like, check_range, check_rows, check_shape
from seqnets.dropout import as_key
from seqnets.typing import Array, Bool, Int, Key, Keys, PyTree, Shaped

__all__ = ["Choose", "Rollout", "StepFn", "Stop", "never", "rollout", "start_rollout"]

NO_LIMIT = 2**31 - 1


class StepFn(Protocol):
    """One step of a model, with its parameters bound (a closure or partial)."""

    def __call__(self, carry: PyTree, value: PyTree, /, *inputs: PyTree) -> tuple[PyTree, PyTree]:
        """Map carry, value, and any input of the step to the next carry and an output.

        Args:
          carry: state of the model, leaves [B, ...].
          value: last value of each row, leaves [B, ...].
          *inputs: the inputs of this step, if `rollout` was given any.

        Returns:
          ``(carry, output)``, leaves [B, ...]; the next carry has the structure, shapes, and dtypes
          of the carry.
        """
        ...


class Choose(Protocol):
    """A stateless function that chooses the next values from an output."""

    def __call__(self, output: PyTree, keys: Keys, t: Int[Array, ""], /) -> PyTree:
        """Map output, [B] random keys of this step, and its number t to values [B, ...]."""
        ...


Stop = Callable[[PyTree, Int[Array, ""]], Bool[Array, " B"]]
"""``stop(value, t) -> [B] bool``: whether a row ends with this value, e.g. an end token."""


class Rollout(NamedTuple):
    """The state of a rollout between two chunks."""

    carry: PyTree
    """State of the model, leaves [B, ...]."""
    value: PyTree
    """The next input of the model, leaves [B, ...]."""
    keys: Keys
    """[B] random keys, one per row; the t-th value of a row uses ``fold_in(key, t)``."""
    t: Int[Array, ""]
    """Number of values produced so far, int32."""
    limit: Int[Array, " B"]
    """[B] number of values after which each row ends, int32."""
    done: Bool[Array, " B"]
    """[B] bool, True for rows that have ended."""


def never(value: PyTree, t: Int[Array, ""]) -> Bool[Array, ""]:
    """Never stop: the default ``stop`` of `rollout`, with which rows end only at their limit.

    Args:
      value: the value just chosen for one row; ignored.
      t: the row's number of time steps so far; ignored.

    Returns:
      False.
    """
    return jnp.asarray(False)


def start_rollout(
    carry: PyTree, value: PyTree, key: Key, limit: Int[Array, " B"] | int | None = None
) -> Rollout:
    """The state of a rollout before its first step.

    Row b draws its t-th value with ``fold_in(fold_in(key, b), t)``, so a row does not depend on the
    other rows.

    Args:
      carry: state of the model, leaves [B, ...].
      value: first input of the model, leaves [B, ...].
      key: random key.
      limit: number of values to produce for all rows, or [B] for each; None means no limit.

    Returns:
      The state for `rollout` or `stream`.

    Raises:
      ValueError: if a leaf of the carry or the value is not [B, ...], or the limit is not [B].
      TypeError: if the limit is not of integers, or the key is not a random key.
    """
    carry, value = _strong(carry), _strong(value)
    rows = check_rows("value", value)
    check_rows("carry", carry, rows, "the value")
    limit = NO_LIMIT if limit is None else limit
    check_dtype("limit", limit, "int")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(as_key("key", key), jnp.arange(rows))
    limit = jnp.asarray(limit, jnp.int32)
    limit = jnp.full((rows,), limit, jnp.int32) if limit.ndim == 0 else limit
    check_shape("limit", limit, (rows,), "one per row")
    return Rollout(carry, value, keys, jnp.zeros((), jnp.int32), limit, limit <= 0)


def rollout(
    step_fn: StepFn,
    state: Rollout,
    inputs: PyTree = None,
    *,
    steps: int,
    choose: Choose,
    stop: Stop = never,
) -> tuple[Rollout, PyTree, Bool[Array, "B U"]]:
    """Produce the next values of every row, at most ``steps``.

    Args:
      step_fn: the model.
      state: from `start_rollout`, or from the previous chunk.
      inputs: pytree of known inputs for this chunk, leaves [B, steps, ...]; the step function gets
        its slice as a third argument. None means no inputs.
      steps: length U of the chunk, static.
      choose: chooses the value to feed back.
      stop: decides which rows end.

    Returns:
      ``(state, values, real)``: the state after the chunk; values [B, U, ...], zero after a row has
      ended; and [B, U] bool, True at values that were produced.

    Raises:
      ValueError: if steps is negative, an input is not [B, steps, ...], or the structure, shapes,
        or dtypes of the new carry or the chosen value differ from those in the state.
    """
    check_range("steps", steps, 0)
    rows = state.done.shape[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        name = "inputs" + jax.tree_util.keystr(path)
        check_shape(name, leaf, (rows, steps, *jnp.shape(leaf)[2:]), "rows and steps")

    def step(state: Rollout, given: tuple) -> tuple[Rollout, tuple[PyTree, Array]]:
        active = ~state.done
        carry, output = step_fn(state.carry, state.value, *given)
        check_like("step_fn: carry", carry, state.carry)
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.t)
        value = choose(output, keys, state.t)
        check_like("choose: value", value, state.value)
        ends = jnp.broadcast_to(stop(value, state.t), active.shape)
        new = Rollout(
            _where(active, carry, state.carry),
            _where(active, value, state.value),
            state.keys,
            state.t + 1,
            state.limit,
            state.done | (active & ends) | (state.t + 1 >= state.limit),
        )
        return new, (_where(active, value, jax.tree.map(jnp.zeros_like, value)), active)

    known = () if inputs is None else (_swapped(inputs),)
    state, (values, real) = jax.lax.scan(step, state, known, length=steps)
    return state, _swapped(values), jnp.swapaxes(real, 0, 1)


def _where(rows: Bool[Array, " B"], new: PyTree, old: PyTree) -> PyTree:
    def leaf(a: Shaped[Array, "B *S"], b: Shaped[Array, "B *S"]) -> Array:
        return jnp.where(rows.reshape(rows.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(leaf, new, old)


def _strong(tree: PyTree) -> PyTree:
    """Arrays without weak types, since a weak dtype could change in the first step."""

    def leaf(x: Any) -> Array:
        array = jnp.asarray(x)
        return array.astype(array.dtype) if getattr(array, "weak_type", False) else array

    return jax.tree.map(leaf, tree)


def _swapped(tree: PyTree) -> Any:
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
