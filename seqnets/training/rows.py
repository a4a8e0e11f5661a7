"""Sums over the rows of a batch: what each device computes, and the all-reduce over devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.checks import check_like, check_rows
from seqnets.reduction import Weighted
from seqnets.training.objective import Given, LossFn, LossOutput, Objective, resolve_loss
from seqnets.training.state import StepKeys, step_keys
from seqnets.typing import Array, Bool, Int, Key, Keys, PyTree

__all__ = [
    "EvaluationStep",
    "OverRows",
    "Shared",
    "SumOverRows",
    "Sums",
    "make_evaluation_step",
    "over_axis",
    "taken",
    "whole",
]

T = TypeVar("T")

EvaluationStep = Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, dict[str, Weighted]]]
"""``(params, variables, carry, batch) -> (carry, sums)``; see `make_evaluation_step`."""


class OverRows(Protocol):
    """How to sum over the rows of a batch, whichever devices hold them."""

    def __call__(
        self, function: Callable[[PyTree, PyTree, Any], tuple[T, PyTree]], shared: PyTree, rows: Any
    ) -> tuple[T, PyTree]:
        """Evaluate ``function(shared, rows, first) -> (sums, carry)`` and all-reduce the sums.

        Args:
          function: pure function; ``first`` is the number of this device's first row in the global
            batch.
          shared: pytree that is the same for all rows.
          rows: pytree with leaves [B, ...], this device's rows.

        Returns:
          ``(sums, carry)``, with the sums over all devices and the carry of this device's rows.
        """
        ...


def whole(
    function: Callable[[PyTree, PyTree, Any], tuple[T, PyTree]], shared: PyTree, rows: Any
) -> tuple[T, PyTree]:
    """The `OverRows` of a single device."""
    return function(shared, rows, 0)


def over_axis(axis_name: str) -> OverRows:
    """Sum over rows that `jax.pmap` or `jax.shard_map` maps over a named axis of devices.

    Args:
      axis_name: name of the mapped axis.

    Returns:
      An `OverRows`, for the ``over_rows`` of a `TrainStep` call.
    """

    def over_rows(function: Callable[..., tuple[T, PyTree]], shared: PyTree, rows: Any) -> Any:
        first = jax.lax.axis_index(axis_name) * check_rows("rows", rows)
        sums, carry = function(shared, rows, first)
        return jax.lax.psum(sums, axis_name), carry

    return over_rows


class Shared(NamedTuple):
    """What all rows of a step share."""

    params: PyTree
    """All parameters."""
    variables: PyTree
    """See `TrainState`."""
    key: Key
    """Root of the run's randomness."""
    step: Int[Array, ""]
    """Number of the step, from 0."""
    progress: Any
    """Fraction of the run that is done."""


class _Rows(NamedTuple):
    """What is split by rows; every leaf is [B, ...]."""

    carry: PyTree
    batch: PyTree
    keys: Keys


class Sums(NamedTuple):
    """What is summed over the rows and divided at most once, at the end."""

    grads: PyTree
    """∂ total / ∂ trained parameters, in float32 or wider."""
    loss: Weighted
    """See `LossOutput`, also for the fields below."""
    metrics: Mapping[str, Weighted]
    statistics: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class SumOverRows:
    """The function of an objective that a step sums over rows."""

    objective: Objective
    number: int
    parts: int

    def __call__(self, shared: Shared, rows: Any, first: Any) -> tuple[Sums, PyTree]:
        """Sums over this device's rows and their carries, computed in equal parts."""
        carry, batch = rows
        B = check_rows("batch", batch)
        # The first objective uses the same keys as a single one; no step number reaches 2**32 - n.
        key = shared.key
        if self.number:
            key = jax.random.fold_in(key, np.uint32(2**32 - self.number))
        keys = step_keys(key, shared.step, B, first)
        rows = _Rows(carry, batch, keys.rows)
        if self.objective.when is None:
            return self._sums_in_parts(shared, rows, keys.shared)

        def skip() -> tuple[Sums, PyTree]:
            like = jax.eval_shape(lambda: self._sums_in_parts(shared, rows, keys.shared)[0])
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like), carry

        return jax.lax.cond(
            taken(self.objective, shared.step, shared.progress),
            lambda: self._sums_in_parts(shared, rows, keys.shared),
            skip,
        )

    def _sums_in_parts(self, shared: Shared, rows: _Rows, shared_key: Key) -> tuple[Sums, PyTree]:
        if self.parts == 1:
            return self._sums(shared, rows, shared_key)
        B, parts = rows.keys.shape[0], self.parts
        if B % parts:
            raise ValueError(
                f"accumulate: expected a divisor of the {B} rows per device, got {parts}"
            )
        cut = jax.tree.map(lambda x: x.reshape(parts, B // parts, *x.shape[1:]), rows)
        first = jax.tree.map(lambda x: x[0], cut)
        like, _ = jax.eval_shape(lambda rows: self._sums(shared, rows, shared_key), first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

        def body(before: Sums, part: _Rows) -> tuple[Sums, PyTree]:
            sums, carry = self._sums(shared, part, shared_key)
            return jax.tree.map(jnp.add, before, sums), carry

        sums, carry = jax.lax.scan(body, zeros, cut)
        return sums, jax.tree.map(lambda x: x.reshape(B, *x.shape[2:]), carry)

    def _sums(self, shared: Shared, rows: _Rows, shared_key: Key) -> tuple[Sums, PyTree]:
        """Gradient, loss, and other sums over the rows, and the rows' next carries."""
        given = Given(
            rows.carry, StepKeys(rows.keys, shared_key), shared.variables, shared.progress
        )

        def total(trained: PyTree) -> tuple[Array, LossOutput]:
            params = self.objective.merged(trained, shared.params)
            output = self.objective.loss_fn(params, rows.batch, given)
            assert isinstance(output, LossOutput)
            return output.loss.total, output

        grads, output = jax.grad(total, has_aux=True)(self.objective.trained(shared.params))
        grads = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), grads)
        carry = rows.carry if _is_empty(output.carry) else output.carry
        check_like("loss_fn: carry", carry, rows.carry)
        return Sums(grads, output.loss, dict(output.metrics), dict(output.statistics)), carry


def taken(objective: Objective, step: Int[Array, ""], progress: Any) -> Bool[Array, ""]:
    """Whether an objective takes part in a step."""
    if objective.when is None:
        return jnp.asarray(True)
    return jnp.asarray(objective.when(step, jnp.asarray(progress)), bool)


def _is_empty(carry: PyTree) -> bool:
    """Whether a loss function returned no carry, so that the current one is kept."""
    return isinstance(carry, tuple) and not carry


def make_evaluation_step(loss_fn: LossFn) -> EvaluationStep:
    """Make a pure evaluation step, without gradient and randomness.

    Args:
      loss_fn: see `LossFn`. It receives no keys, and a progress of 1.

    Returns:
      ``(params, variables, carry, batch) -> (carry, sums)``. The sums are `Weighted` by name, the
      loss as ``"loss"`` and the metrics. They are of the given rows only.

    Raises:
      TypeError: if the loss function does not require two or three arguments.
      ValueError: when called, if a metric is named ``"loss"``.
    """
    resolved = resolve_loss(loss_fn)

    def step(
        params: PyTree, variables: PyTree, carry: PyTree, batch: PyTree
    ) -> tuple[PyTree, dict[str, Weighted]]:
        output = resolved(params, batch, Given(carry, None, variables, jnp.float32(1)))
        if "loss" in output.metrics:
            raise ValueError("loss_fn: the metric name 'loss' is reserved for the loss itself")
        after = carry if _is_empty(output.carry) else output.carry
        return after, {"loss": output.loss, **output.metrics}

    return step
