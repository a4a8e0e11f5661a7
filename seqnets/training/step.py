"""The training step: a pure per-device function with an exact global reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from seqnets.reduction import Weighted
from seqnets.training.state import StepInfo, TrainState, row_keys
from seqnets.typing import Array, Key, PyTree

__all__ = ["LossFn", "make_evaluation_step", "make_train_step"]


class LossFn(Protocol):
    """What a task says about one batch of rows, on one device."""

    def __call__(
        self, params: PyTree, carry: PyTree, batch: Any, keys: Key
    ) -> tuple[Weighted, tuple[PyTree, dict[str, Weighted]]]:
        """Compute the loss of the rows at hand.

        Args:
          params: parameters.
          carry: recurrent state kept since the batch before, leaves [B, ...], or ().
          batch: pytree of arrays [B, ...].
          keys: [B] random keys, one a row, the same for a row wherever it is computed.

        Returns:
          ``(loss, (carry, metrics))``: the summed loss with its weight, the state for the next
          batch, and further sums to report.
        """
        ...


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
) -> Callable[[TrainState, Any, Array], tuple[TrainState, StepInfo]]:
    """Make the step ``(state, batch, progress) -> (state, info)`` of one device.

        g = Σ_devices ∂ total / ∂ params  /  Σ_devices weight

    Sums and weights are added over the devices apart and divided once, so that the gradient is
    that of the mean over the global batch however its real elements are spread. A step whose
    loss or gradient is not finite changes nothing but the step's number and says so in ``info``.

    Args:
      loss_fn: see `LossFn`.
      optimizer: Optax transformation. It is given the extra arguments ``progress`` (fraction of
        the run done, for schedules) and ``value`` (the mean loss).
      axis_name: the mapped device axis, as given to `jax.pmap`; None on a single device.

    Returns:
      A pure function; compile it with `jax.jit`, or with
      `seqnets.training.parallel.data_parallel` over several devices.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, batch: Any, progress: Array) -> tuple[TrainState, StepInfo]:
        rows = jax.tree.leaves(batch)[0].shape[0]
        keys = row_keys(jax.random.fold_in(state.key, state.step), rows, axis_name)

        def total(params: PyTree) -> tuple[Array, tuple]:
            loss, (carry, metrics) = loss_fn(params, state.carry, batch, keys)
            return loss.total, (loss, carry, metrics)

        grads, (loss, carry, metrics) = jax.grad(total, has_aux=True)(state.params)
        if axis_name is not None:
            grads, loss, metrics = jax.lax.psum((grads, loss, metrics), axis_name)
        scale = 1 / jnp.where(loss.weight > 0, loss.weight, 1)
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss.mean()) & jnp.isfinite(norm)

        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, progress=progress, value=loss.mean()
        )
        params = optax.apply_updates(state.params, updates)
        new, old = (params, opt_state), (state.params, state.opt_state)
        params, opt_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        # Each row's carry is its own: a bad one would poison the steps after it, on its device.
        carry = jax.tree.map(lambda a, b: jnp.where(finite, a, b), carry, state.carry)
        state = TrainState(state.step + 1, params, opt_state, carry, state.key)
        return state, StepInfo(loss, metrics, norm, finite)

    return step


def make_evaluation_step(
    loss_fn: LossFn, *, axis_name: str | None = None
) -> Callable[[PyTree, PyTree, Any], tuple[PyTree, dict[str, Weighted]]]:
    """Make ``(params, carry, batch) -> (carry, sums)``: no gradient, no randomness.

    The loss function is called with ``keys=None``. The sums are those of the loss function,
    and its loss under the name ``"loss"``, added over the devices.
    """

    def step(params: PyTree, carry: PyTree, batch: Any) -> tuple[PyTree, dict[str, Weighted]]:
        loss, (carry, metrics) = loss_fn(params, carry, batch, None)
        sums = {"loss": loss, **metrics}
        return carry, (sums if axis_name is None else jax.lax.psum(sums, axis_name))

    return step
