"""The training step: a pure per-device function with an exact global reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.checks import check_range
from seqnets.reduction import Weighted
from seqnets.training.state import StepInfo, StepKeys, TrainState, step_keys
from seqnets.typing import Array, Key, PyTree

__all__ = [
    "LossFn",
    "Rows",
    "Sums",
    "make_evaluation_step",
    "make_gradient_step",
    "make_train_step",
    "make_update",
]


class LossFn(Protocol):
    """What a task says about one batch of rows, on one device."""

    def __call__(
        self, params: PyTree, carry: PyTree, batch: Any, keys: StepKeys | None
    ) -> tuple[Weighted, tuple[PyTree, dict[str, Weighted]]]:
        """Compute the loss of the rows at hand.

        Args:
          params: parameters.
          carry: recurrent state kept since the batch before, leaves [B, ...], or ().
          batch: pytree of arrays [B, ...].
          keys: one random key a row, the same for a row wherever it is computed, and one that
            all rows share; None for evaluation.

        Returns:
          ``(loss, (carry, metrics))``: the summed loss with its weight, the state for the next
          batch, and further sums to report.
        """
        ...


class Sums(NamedTuple):
    """What is added over the rows of the batch and divided at most once, at the end."""

    grads: PyTree
    """∂ total / ∂ params, in float32 or wider."""
    loss: Weighted
    """Loss."""
    metrics: dict[str, Weighted]
    """Further sums."""


class Rows(NamedTuple):
    """What goes with the rows, every leaf [B, ...]."""

    carry: PyTree
    """Recurrent state."""
    batch: Any
    """Inputs and targets."""
    keys: Key
    """One random key a row."""


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable[[TrainState, Any, Array], tuple[TrainState, StepInfo]]:
    """Make the step ``(state, batch, progress) -> (state, info)`` of one device.

    It is `make_gradient_step` and then `make_update`:

        g = Σ_devices Σ_parts ∂ total / ∂ params  /  Σ_devices Σ_parts weight

    A step whose loss or gradient is not finite changes nothing but the step's number, and says so
    in ``info``.

    Args:
      loss_fn: see `LossFn`.
      optimizer: Optax transformation; see `make_update`.
      axis_name: the mapped device axis, as given to `jax.pmap`; None on a single device.
      accumulate: parts into which the rows of one device are cut; see `make_gradient_step`.

    Returns:
      A pure function; compile it with `jax.jit`, or over several devices with
      `seqnets.training.parallel.DataParallel.train_step`. It raises ValueError when traced for
      a number of rows that ``accumulate`` does not divide.

    Raises:
      ValueError: if accumulate is below 1.
    """
    gradient = make_gradient_step(loss_fn, axis_name=axis_name, accumulate=accumulate)
    update = make_update(optimizer)

    def step(state: TrainState, batch: Any, progress: Array) -> tuple[TrainState, StepInfo]:
        sums, carry = gradient(state, batch)
        return update(state, sums, carry, progress)

    return step


def make_gradient_step(
    loss_fn: LossFn, *, axis_name: str | None = None, accumulate: int = 1
) -> Callable[[TrainState, Any], tuple[Sums, PyTree]]:
    """Make the part of a step that has to do with rows: ``(state, batch) -> (sums, carry)``.

    The sums are over the rows of all devices; the carry is that of the device's own rows. The
    optimizer's state is not looked at.

    Args:
      loss_fn: see `LossFn`.
      axis_name: the mapped device axis; None on a single device.
      accumulate: number of equal parts into which the rows of one device are cut, to be computed
        one after the other in a fraction of the memory. The result is that of one part: the
        division comes after the last, and a row keeps its carry and its key.

    Raises:
      ValueError: if accumulate is below 1; when traced, if it does not divide the rows.
    """
    check_range("accumulate", accumulate, 1)

    def gradient(state: TrainState, batch: Any) -> tuple[Sums, PyTree]:
        number = jax.tree.leaves(batch)[0].shape[0]
        keys = step_keys(state.key, state.step, number, axis_name)
        rows = Rows(state.carry, batch, keys.rows)

        def loss_of(params: PyTree, rows: Rows) -> Any:
            return loss_fn(params, rows.carry, rows.batch, keys._replace(rows=rows.keys))

        sums, carry = _accumulated_sums(loss_of, state.params, rows, accumulate)
        return sums if axis_name is None else _add_up(sums, axis_name), carry

    return gradient


def make_update(
    optimizer: optax.GradientTransformation,
) -> Callable[[TrainState, Sums, PyTree, Array], tuple[TrainState, StepInfo]]:
    """Make the rest of a step, the same on every device: ``(state, sums, carry, progress) -> ...``.

        g = Σ_devices Σ_parts ∂ total / ∂ params  /  Σ_devices Σ_parts weight

    Sums and weights are added over the devices apart and divided once, so that the gradient is
    that of the mean over the global batch however its real elements are spread. A step whose
    loss or gradient is not finite changes nothing but the step's number and says so in ``info``.

    Args:
      optimizer: Optax transformation. It is given the extra arguments ``progress`` (fraction of
        the run done, for schedules) and ``value`` (the mean loss).

    Returns:
      A pure function that gives ``(state, info)``.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def update(
        state: TrainState, sums: Sums, carry: PyTree, progress: Array
    ) -> tuple[TrainState, StepInfo]:
        grads, loss, metrics = sums
        scale = 1 / jnp.where(loss.weight > 0, loss.weight, 1)
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss.mean()) & jnp.isfinite(norm)

        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.params)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, progress=progress, value=loss.mean()
        )
        # Each row's carry is its own: a bad one would poison the steps after it, on its device.
        new = (optax.apply_updates(state.params, updates), opt_state, carry)
        old = (state.params, state.opt_state, state.carry)
        params, opt_state, carry = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        state = TrainState(state.step + 1, params, opt_state, carry, state.key)
        return state, StepInfo(loss, metrics, norm, finite)

    return update


def _add_up(sums: Sums, axis_name: str) -> Sums:
    """The sums of all devices; between processes as one message, in the widest of their dtypes.

    Each message costs the way between the hosts. For other devices than CPUs XLA puts them together
    itself, and can do so in parts where the optimizer's state is in parts.
    """
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        return jax.lax.psum(sums, axis_name)
    leaves, structure = jax.tree.flatten(sums)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    dtype = jnp.result_type(*leaves)
    message = jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in leaves])
    parts = jnp.split(jax.lax.psum(message, axis_name), ends)
    added = [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, added)


def _accumulated_sums(
    loss_of: Callable[[PyTree, Rows], Any], params: PyTree, rows: Rows, parts: int
) -> tuple[Sums, PyTree]:
    """`_sums` of all rows and their carries [B, ...], computed in ``parts`` equal parts."""
    if parts == 1:
        return _sums(loss_of, params, rows)
    number = rows.keys.shape[0]
    if number % parts:
        raise ValueError(
            f"accumulate: expected a divisor of the {number} rows of one device, got {parts}"
        )
    cut = jax.tree.map(lambda x: x.reshape(parts, number // parts, *x.shape[1:]), rows)
    first = jax.tree.map(lambda x: x[0], cut)
    like, _ = jax.eval_shape(lambda rows: _sums(loss_of, params, rows), first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    def body(before: Sums, part: Rows) -> tuple[Sums, PyTree]:
        sums, carry = _sums(loss_of, params, part)
        return jax.tree.map(jnp.add, before, sums), carry

    sums, carry = jax.lax.scan(body, zeros, cut)
    return sums, jax.tree.map(lambda x: x.reshape(number, *x.shape[2:]), carry)


def _sums(
    loss_of: Callable[[PyTree, Rows], Any], params: PyTree, rows: Rows
) -> tuple[Sums, PyTree]:
    """Gradient, loss and metrics summed over the rows, and the rows' next carries."""

    def total(params: PyTree) -> tuple[Array, tuple]:
        loss, (carry, metrics) = loss_of(params, rows)
        return loss.total, (loss, carry, metrics)

    grads, (loss, carry, metrics) = jax.grad(total, has_aux=True)(params)
    grads = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), grads)
    return Sums(grads, loss, metrics), carry


def make_evaluation_step(
    loss_fn: LossFn,
) -> Callable[[PyTree, PyTree, Any], tuple[PyTree, dict[str, Weighted]]]:
    """Make ``(params, carry, batch) -> (carry, sums)``: no gradient, no randomness.

    The loss function is called with ``keys=None``. The sums are those of the loss function,
    and its loss under the name ``"loss"``.
    """

    def step(params: PyTree, carry: PyTree, batch: Any) -> tuple[PyTree, dict[str, Weighted]]:
        loss, (carry, metrics) = loss_fn(params, carry, batch, None)
        return carry, {"loss": loss, **metrics}

    return step
