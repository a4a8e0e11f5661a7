"""An optimizer out of its parts: clipping, an algorithm, decay, a schedule, a plateau."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range, check_shape
from seqnets.optimizers.decay import decoupled_decay
from seqnets.optimizers.plateau import Plateau, reduce_on_plateau
from seqnets.optimizers.schedules import Schedule, constant
from seqnets.typing import Array

__all__ = ["make_optimizer", "scale_by_progress"]


def scale_by_progress(
    learning_rate: float, schedule: Schedule
) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by ``learning_rate * schedule(progress)``; their sign is kept.

    ``update`` takes the extra argument ``progress``, a float scalar, clipped to [0, 1]; there is
    no state, so that resuming, or changing the length of a run, needs no counter put right.

    Raises:
      ValueError: if learning_rate is negative or not finite; when updating, if ``progress`` is
        missing or not a scalar.
    """
    check_range("learning_rate", learning_rate, 0, math.inf, closed="left")

    def init(params: optax.Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        progress: Array | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra
        if progress is None:
            raise ValueError(
                "progress: expected the fraction of the run done as a keyword, got nothing; "
                "call optimizer.update(grads, state, params, progress=...)"
            )
        check_shape("progress", progress, ())
        done = jnp.clip(jnp.asarray(progress, jnp.float32), 0, 1)
        rate = learning_rate * jnp.asarray(schedule(done), jnp.float32)
        return jax.tree.map(lambda u: u * rate.astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(
    algorithm: optax.GradientTransformation,
    *,
    learning_rate: float,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    weight_decay: float = 0.0,
    plateau: Plateau | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Chain the parts of an optimizer, in this order:

        g ← clip every element to [-clip_value, clip_value]
        g ← g · min(1, clip_norm / ‖g‖)                       ‖·‖ over all parameters together
        u ← algorithm(g) - weight_decay · θ                   the decay on weights only
        u ← u · learning_rate · schedule(progress)
        u ← u · factor                                        factor falls on a plateau
        θ ← θ + u

    The state is a pytree of arrays. ``update(grads, state, params, progress=..., value=...)``
    needs ``params`` for the decay, ``progress`` always, and ``value`` for the plateau.

    Args:
      algorithm: any Optax transformation with a learning rate of 1, as ``adam(1.0)``. `adamw`
        decays by itself: give either it or ``weight_decay``.
      learning_rate: peak learning rate.
      schedule: factor of the peak learning rate; None is `constant`.
      clip_norm: largest global norm of the gradient (PyTorch's ``clip_grad_norm_`` divides by
        ‖g‖ + 1e-6, this by ‖g‖).
      clip_value: largest magnitude of a gradient's element.
      weight_decay: decoupled, see `decoupled_decay`; `decay_mask` says which leaves.
      plateau: see `Plateau`.

    Raises:
      ValueError: if learning_rate or weight_decay is negative or not finite, or clip_norm or
        clip_value is not positive; when updating, if an argument named above is missing.

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
    if weight_decay:
        parts.append(decoupled_decay(weight_decay))
    parts.append(scale_by_progress(learning_rate, schedule or constant()))
    if plateau is not None:
        parts.append(reduce_on_plateau(plateau))
    return optax.chain(*parts)
