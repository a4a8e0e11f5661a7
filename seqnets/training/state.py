"""What a training run is made of: arrays, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.reduction import Weighted
from seqnets.typing import Array, Key, PyTree

__all__ = ["StepInfo", "StepKeys", "TrainState", "create_state", "row_keys", "step_keys", "to_host"]


class TrainState(NamedTuple):
    """Everything the next step needs; what is in the state is what is in a checkpoint."""

    step: Array
    """Number of steps taken, int32 scalar."""
    params: PyTree
    """Parameters."""
    opt_state: optax.OptState
    """State of the optimizer."""
    carry: PyTree
    """Recurrent state kept from batch to batch, every leaf [B, ...]; () where none is kept."""
    key: Key
    """Root of the run's randomness; never changes, steps fold their number into it."""


class StepKeys(NamedTuple):
    """The randomness of a step, the same whatever the devices."""

    rows: Key
    """[B] random keys, one a row."""
    shared: Key
    """One random key, the same for all rows on all devices."""


class StepInfo(NamedTuple):
    """What a step tells about itself, summed over all devices; not needed by the next step."""

    loss: Weighted
    """Loss of the global batch, at the parameters before the step."""
    metrics: dict[str, Weighted]
    """Further sums named by the loss function."""
    gradient_norm: Array
    """Global norm of the mean gradient, before clipping."""
    finite: Array
    """bool scalar; False if loss or gradient was not finite, and the step therefore left out."""


def create_state(
    params: PyTree, optimizer: optax.GradientTransformation, key: Key, carry: PyTree = ()
) -> TrainState:
    """State before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), carry, key)


def to_host(tree: PyTree) -> PyTree:
    """A copy in NumPy; of random keys, which NumPy has no type for, on the first device."""
    return jax.tree.map(_leaf_to_host, tree)


def _leaf_to_host(x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.array(x)
    data = jnp.asarray(np.array(jax.random.key_data(x)))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))


def step_keys(key: Key, step: Array, rows: int, axis_name: str | None) -> StepKeys:
    """Keys of a step, from the root key and the step's number; see `row_keys`."""
    key = jax.random.fold_in(key, step)
    # Rows are numbered from 0 in int32: their numbers never come here.
    return StepKeys(row_keys(key, rows, axis_name), jax.random.fold_in(key, np.uint32(2**32 - 1)))


def row_keys(key: Key, rows: int, axis_name: str | None) -> Key:
    """Random keys [rows], one for each row's number in the global batch, wherever it lies."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * rows
    numbers = first + jnp.arange(rows, dtype=jnp.int32)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
