"""The state of a training run: pytrees of arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.reduction import Weighted
from seqnets.typing import Array, Float, Int, Key, Keys, PyTree, Shaped

__all__ = [
    "Clock",
    "StepInfo",
    "StepKeys",
    "TrainState",
    "Weights",
    "row_keys",
    "step_keys",
    "to_host",
]


class TrainState(NamedTuple):
    """Everything that the next step needs; checkpoints store it.

    `seqnets.training.TrainStep.init` creates it.
    """

    step: Int[Array, ""]
    """Number of steps taken, int32."""
    params: PyTree
    """Parameters."""
    opt_state: dict[str, Any]
    """State of each objective's optimizer, by the objective's name."""
    variables: PyTree
    """Arrays that are not trained, such as moving averages of parameters; () if there are none."""
    carry: PyTree
    """Recurrent state carried from batch to batch, every leaf [B, ...]; () if there is none."""
    key: Key
    """Root key of the run's randomness. It never changes: steps fold their number into it."""


class Weights(NamedTuple):
    """Parameters and variables: what evaluation needs of a `TrainState`."""

    params: PyTree
    """Parameters."""
    variables: PyTree = ()
    """See `TrainState`."""


class Clock(NamedTuple):
    """Progress of a run, for schedules."""

    progress: Float[Array, ""] | float
    """Fraction of the run that is done, in [0, 1]."""
    stale: Int[Array, ""] | int = 0
    """Evaluations since the best one."""


class StepKeys(NamedTuple):
    """Random keys of one step; they do not depend on the devices."""

    rows: Keys
    """[B] keys, one per row."""
    shared: Key
    """One key, the same for all rows on all devices."""


class StepInfo(NamedTuple):
    """What a step reports, summed over all devices."""

    losses: dict[str, Weighted]
    """Loss of the global batch by objective, before the objective's update. Its weight is 0 if the
    objective did not take part. A step returns an OrderedDict in the order of the objectives, since
    `jax.jit` keeps the order of an OrderedDict but sorts a dict."""
    metrics: dict[str, Weighted]
    """Metrics of all loss functions, as totals and weights."""
    gradient_norms: dict[str, Float[Array, ""]]
    """Global norm of each objective's mean gradient, before clipping."""
    finite: Shaped[Array, ""]
    """bool; False if a loss, a gradient, or a new parameter was not finite. Such a step changes
    only the step number."""

    @property
    def loss(self) -> Weighted:
        """Loss of the first objective."""
        return next(iter(self.losses.values()))

    @property
    def gradient_norm(self) -> Float[Array, ""]:
        """Gradient norm of the first objective."""
        return next(iter(self.gradient_norms.values()))


def to_host(tree: PyTree) -> PyTree:
    """Copy arrays to NumPy, and random keys, for which NumPy has no type, to the first device."""
    return jax.tree.map(_leaf_to_host, tree)


def _leaf_to_host(x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.array(x)
    data = jnp.asarray(np.array(jax.random.key_data(x)))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))


def step_keys(key: Key, step: Int[Array, ""] | int, rows: int, first: Any = 0) -> StepKeys:
    """Derive the keys of a step from the root key and the step number; see `row_keys`."""
    key = jax.random.fold_in(key, step)
    # Row numbers are nonnegative int32, so no row has this number.
    return StepKeys(row_keys(key, rows, first), jax.random.fold_in(key, np.uint32(2**32 - 1)))


def row_keys(key: Key, rows: int, first: Int[Array, ""] | int = 0) -> Keys:
    """Random keys [rows] that depend only on each row's number in the global batch.

    Args:
      key: key that all rows share.
      rows: number of rows.
      first: number of the first of these rows in the global batch.
    """
    numbers = first + jnp.arange(rows, dtype=jnp.int32)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
