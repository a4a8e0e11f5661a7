"""Running a step function on its own outputs: one compiled loop over any pytree.

    carry, output = step_fn(carry, value)
    value = choose(output, keys, t)               <- and so on

`rollout` is one chunk of it, a pure scan. Rows end at a limit or where ``stop`` says so, and are
frozen from there on, so the result does not depend on how a rollout is cut into chunks. What
changes the distribution over time (penalties, bans) wraps ``step_fn`` and counts in its carry.
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
    """One step of a model, its parameters already inside (a closure or partial)."""

    def __call__(self, carry: PyTree, value: PyTree, /, *inputs: PyTree) -> tuple[PyTree, PyTree]:
        """Carry and value (and the step's input) to the next carry and an output, leaves [B, ...].

        The next carry has the structure, shapes, and dtypes of the carry.
        """
        ...


class Choose(Protocol):
    """What is fed back of an output; it keeps no state."""

    def __call__(self, output: PyTree, keys: Keys, t: Int[Array, ""], /) -> PyTree:
        """Output, [B] random keys of this step, and the step's number to values [B, ...]."""
        ...


Stop = Callable[[PyTree, Int[Array, ""]], Bool[Array, " B"]]
"""``stop(value, t) -> [B] bool``: whether a row ends with this value, the end of a sequence say."""


class Rollout(NamedTuple):
    """A rollout between two chunks."""

    carry: PyTree
    """State of the model, leaves [B, ...]."""
    value: PyTree
    """The value that the model sees next, leaves [B, ...]."""
    keys: Keys
    """[B] random keys, one per row; value number t of a row draws with ``fold_in(key, t)``."""
    t: Int[Array, ""]
    """Values produced so far, int32."""
    limit: Int[Array, " B"]
    """Values at which each row ends, int32."""
    done: Bool[Array, " B"]
    """Rows that have ended."""


def never(value: PyTree, t: Int[Array, ""]) -> Bool[Array, ""]:
    """The `Stop` of rows that end at their limit only."""
    return jnp.asarray(False)


def start_rollout(
    carry: PyTree, value: PyTree, key: Key, limit: Int[Array, " B"] | int | None = None
) -> Rollout:
    """A rollout before its first step.

    Row b draws with ``fold_in(fold_in(key, b), t)``: the same key gives the same values, and a row
    does not depend on how many rows are beside it.

    Args:
      carry: state of the model.
      value: what it sees first, leaves [B, ...].
      key: root of the randomness.
      limit: number of values of each row, or of all; None: no limit.

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
      state: from `start_rollout`, or of the chunk before.
      inputs: pytree with leaves [B, steps, ...], what is known of each step of this chunk; the step
        function is then given its slice as a third argument.
      steps: length U of the chunk, static.
      choose: what is fed back.
      stop: ends rows.

    Returns:
      ``(state, values, real)``: the state after the chunk; values [B, U, ...], zero where a row had
      ended before; and [B, U] True at values that were produced.

    Raises:
      ValueError: if steps is negative, an input is not [B, steps, ...], or the carry of the step
        function or the chosen value is of another form than that of the state.
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
    """Arrays with dtypes of their own; that of a Python number would change in the first step."""

    def leaf(x: Any) -> Array:
        array = jnp.asarray(x)
        return array.astype(array.dtype) if getattr(array, "weak_type", False) else array

    return jax.tree.map(leaf, tree)


def _swapped(tree: PyTree) -> Any:
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
