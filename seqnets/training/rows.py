"""Sums over the rows of a batch: what each device computes, and how devices add it up."""

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
"""``(params, variables, carry, batch) -> (carry, sums)``, see `make_evaluation_step`."""


class OverRows(Protocol):
    """How a sum over the rows of a batch is taken, whichever devices hold them."""

    def __call__(
        self, function: Callable[[PyTree, PyTree, Any], tuple[T, PyTree]], shared: PyTree, rows: Any
    ) -> tuple[T, PyTree]:
        """Evaluate ``function(shared, rows, first) -> (sums, carry)`` and all-reduce the sums.

        Args:
          function: pure; ``first`` is the number in the global batch of the first row at hand.
          shared: pytree that is the same for all rows.
          rows: pytree with leaves [B, ...].
        """
        ...


def whole(
    function: Callable[[PyTree, PyTree, Any], tuple[T, PyTree]], shared: PyTree, rows: Any
) -> tuple[T, PyTree]:
    """The `OverRows` of a single device."""
    return function(shared, rows, 0)


def over_axis(axis_name: str) -> OverRows:
    """The `OverRows` of devices mapped over a named axis by `jax.pmap` or `jax.shard_map`."""

    def over_rows(function: Callable[..., tuple[T, PyTree]], shared: PyTree, rows: Any) -> Any:
        first = jax.lax.axis_index(axis_name) * check_rows("rows", rows)
        sums, carry = function(shared, rows, first)
        return jax.lax.psum(sums, axis_name), carry

    return over_rows


class Shared(NamedTuple):
    """What is the same for all rows of a step."""

    params: PyTree
    """Parameters, of all objectives."""
    variables: PyTree
    """See `TrainState`."""
    key: Key
    """Root of the run's randomness."""
    step: Int[Array, ""]
    """Number of the step, from 0."""
    progress: Any
    """Fraction of the run that is done."""


class _Rows(NamedTuple):
    """What goes with the rows, every leaf [B, ...]."""

    carry: PyTree
    batch: PyTree
    keys: Keys


class Sums(NamedTuple):
    """What is added over the rows and divided at most once, at the end."""

    grads: PyTree
    """∂ total / ∂ trained parameters, in float32 or wider."""
    loss: Weighted
    """See `LossOutput`, as the rest."""
    metrics: Mapping[str, Weighted]
    statistics: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class SumOverRows:
    """The function of an objective that a step evaluates over rows."""

    objective: Objective
    number: int
    parts: int

    def __call__(self, shared: Shared, rows: Any, first: Any) -> tuple[Sums, PyTree]:
        """Sums of all rows at hand and their carries, computed in equal parts."""
        carry, batch = rows
        B = check_rows("batch", batch)
        # The first objective draws as a lone one does; no step has the numbers of the others.
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
                f"accumulate: expected a divisor of the {B} rows of one device, got {parts}"
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
        """Gradient, loss, and further sums over the rows, and the rows' next carries."""
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
    """Whether a loss function gave no carry, and the one before stays."""
    return isinstance(carry, tuple) and not carry


def make_evaluation_step(loss_fn: LossFn) -> EvaluationStep:
    """Make ``(params, variables, carry, batch) -> (carry, sums)``: no gradient, no randomness.

    The loss function is given no keys and a progress of 1. The sums are its metrics, and its loss
    under the name ``"loss"``.
    """
    resolved = resolve_loss(loss_fn)

    def step(
        params: PyTree, variables: PyTree, carry: PyTree, batch: PyTree
    ) -> tuple[PyTree, dict[str, Weighted]]:
        output = resolved(params, batch, Given(carry, None, variables, jnp.float32(1)))
        if "loss" in output.metrics:
            raise ValueError("loss_fn: the metric 'loss' has the name of the loss itself")
        after = carry if _is_empty(output.carry) else output.carry
        return after, {"loss": output.loss, **output.metrics}

    return step
