"""Composition of an optimizer: clipping, an algorithm, decay, a schedule, and a plateau."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range, check_shape
from seqnets.optimizers.decay import decoupled_decay
from seqnets.optimizers.hyperparameters import LearningRate, is_zero, scale_by_rate
from seqnets.optimizers.plateau import Plateau, reduce_on_plateau
from seqnets.optimizers.precision import in_float32
from seqnets.optimizers.schedules import Schedule
from seqnets.typing import Array, Float, Int

__all__ = ["ProgressState", "make_optimizer", "scale_by_progress"]


class ProgressState(NamedTuple):
    """State of `scale_by_progress`, for calls without progress."""

    updates: Int[Array, ""]
    """Number of updates so far, int32."""


def scale_by_progress(
    learning_rate: float | Float[Array, ""], schedule: Schedule, steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by ``learning_rate * schedule(progress)``; their sign does not change.

    Progress is the extra argument ``progress`` of ``update``, a float scalar, clipped to [0, 1].
    If it is not given, as by Flax's ``TrainState``, it is the number of updates so far divided by
    ``steps``. The same holds if the caller passes ``progress_known=False``, which means that its
    ``progress`` is only a placeholder. Without ``steps`` there is no state, so resuming a run or
    changing its length needs no correction of a counter.

    Args:
      learning_rate: peak learning rate, a number.
      schedule: maps progress in [0, 1] to a factor of the learning rate.
      steps: number of updates from progress 0 to 1, for calls of ``update`` without ``progress``.

    Returns:
      An Optax gradient transformation.

    Raises:
      TypeError: if learning_rate or steps is not a number, or schedule is not a function.
      ValueError: if learning_rate is negative or not finite, or steps is below 1; when updating,
        if neither ``progress`` nor ``steps`` is given, or ``progress`` is not a scalar.
    """
    check_range("learning_rate", learning_rate, 0, math.inf, closed="left")
    if not callable(schedule):
        raise TypeError(
            f"schedule: expected a function of progress, got {schedule!r}; "
            "optax.inject_hyperparams needs static_args='schedule'"
        )
    if steps is not None:
        check_range("steps", steps, 1)

    def init(params: optax.Params) -> optax.EmptyState | ProgressState:
        del params
        return optax.EmptyState() if steps is None else ProgressState(jnp.zeros((), jnp.int32))

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        progress: Array | None = None,
        progress_known: bool = True,
        **extra: Any,
    ) -> tuple[optax.Updates, Any]:
        del params, extra
        if progress is None or (steps is not None and not progress_known):
            progress = _counted(state, steps)
        check_shape("progress", progress, ())
        done = jnp.clip(jnp.asarray(progress, jnp.float32), 0, 1)
        rate = learning_rate * jnp.asarray(schedule(done), jnp.float32)
        if steps is not None:
            state = ProgressState(optax.safe_increment(state.updates))
        return jax.tree.map(lambda u: (u * rate).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _counted(state: Any, steps: int | Array | None) -> Array:
    """The progress of a run with ``steps`` updates."""
    if steps is None:
        raise ValueError(
            "progress: expected the fraction of the run done, got nothing; pass steps=, the number "
            "of updates of the run, to the optimizer, or call "
            "optimizer.update(grads, state, params, progress=...)"
        )
    return state.updates / jnp.asarray(steps, jnp.float32)


def make_optimizer(
    algorithm: optax.GradientTransformation,
    *,
    learning_rate: LearningRate,
    schedule: Schedule | None = None,
    steps: int | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    weight_decay: float = 0.0,
    plateau: Plateau | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Chain the parts of an optimizer, in this order:

        g ← clip every element to [-clip_value, clip_value]
        g ← g · min(1, clip_norm / ‖g‖)                       ‖·‖ over all parameters together
        u ← algorithm(g) - weight_decay · θ                   decay of weights only
        u ← u · learning_rate · schedule(progress)
        u ← u · factor                                        factor falls on a plateau
        θ ← θ + u

    The state is a pytree of arrays. Gradients and parameters with fewer than 32 bits are converted
    to float32 first, and the update is rounded at the end.

    In ``update(grads, state, params, progress=..., value=...)``, weight decay requires ``params``
    and a plateau requires ``value``. A schedule requires ``progress``, or ``steps`` if the caller
    does not pass it (Flax's ``TrainState``, or `seqnets.training.make_train_step` without
    ``steps``).

    Args:
      algorithm: an Optax transformation with a learning rate of 1, e.g. ``adam(1.0)``. Use either
        `adamw` or ``weight_decay``, since `adamw` has its own decay.
      learning_rate: peak learning rate, a number; without ``schedule``, also an Optax schedule,
        which is a function of the number of updates.
      schedule: maps progress in [0, 1] to a factor of the learning rate; None means 1.
      steps: number of updates from progress 0 to 1, for calls of ``update`` without ``progress``.
      clip_norm: largest global norm of the gradient, positive; None does not clip. (PyTorch's
        ``clip_grad_norm_`` divides by ‖g‖ + 1e-6, this by ‖g‖.)
      clip_value: largest magnitude of the elements of the gradient, positive; None does not clip.
      weight_decay: coefficient of `decoupled_decay`, which applies to the leaves of `decay_mask`.
      plateau: see `Plateau`; None has no effect.

    Returns:
      An Optax gradient transformation.

    Raises:
      TypeError: if an argument is not a number, or both learning_rate and schedule are functions.
      ValueError: if learning_rate or weight_decay is negative or not finite, clip_norm or
        clip_value is not positive, or steps is below 1; when updating, if a required argument is
        missing.

    References:
      Pascanu, Mikolov, Bengio, On the difficulty of training recurrent neural networks, 2013,
      arXiv:1211.5063 (clipping by the norm).
    """
    parts: list[optax.GradientTransformation] = []
    if clip_value is not None:
        check_range("clip_value", clip_value, 0, closed="neither")
        parts.append(optax.clip(clip_value))
    if clip_norm is not None:
        check_range("clip_norm", clip_norm, 0, closed="neither")
        parts.append(optax.clip_by_global_norm(clip_norm))
    parts.append(algorithm)
    if not is_zero("weight_decay", weight_decay):
        parts.append(decoupled_decay(weight_decay))
    if schedule is None:
        parts.append(scale_by_rate(learning_rate, flip_sign=False))
    else:
        parts.append(scale_by_progress(learning_rate, schedule, steps))
    if plateau is not None:
        parts.append(reduce_on_plateau(plateau))
    return in_float32(optax.chain(*parts))
