"""Reduction of the learning rate when the loss stops falling, computed on the device."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range, check_shape
from seqnets.typing import Array, Float, Int

__all__ = ["Plateau", "PlateauState", "reduce_on_plateau"]


@dataclasses.dataclass(frozen=True)
class Plateau:
    """When to reduce the learning rate, and by how much.

    The loss is averaged over windows of ``steps`` steps. A window with mean l is good if it
    improves on the best one so far, ``l + threshold |l| < best``, and bad otherwise. After
    ``patience`` bad windows in a row, the learning rate is multiplied by ``factor``, and the next
    ``cooldown`` windows do not count as bad.

    Patience counts as in Keras, whose ``min_delta`` is absolute; PyTorch's patience is one less. If
    the loss is negative, PyTorch and Optax compare with a bound *above* the best loss, so that a
    constant loss never triggers a reduction; here, the sign of the loss does not matter.

    Args:
      factor: factor of the learning rate, in (0, 1).
      patience: number of bad windows in a row before a reduction, at least 1.
      cooldown: number of windows after a reduction that do not count as bad, at least 0.
      steps: length of a window in optimizer steps, at least 1.
      threshold: relative improvement that makes a window good, at least 0.

    Raises:
      TypeError: if a value is not a number.
      ValueError: if factor is not in (0, 1), patience or steps is below 1, or cooldown or
        threshold is negative.
    """

    factor: float = 0.1
    patience: int = 10
    cooldown: int = 0
    steps: int = 100
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("factor", self.factor, 0, 1, closed="neither")
        check_range("patience", self.patience, 1)
        check_range("cooldown", self.cooldown, 0)
        check_range("steps", self.steps, 1)
        check_range("threshold", self.threshold, 0)


class PlateauState(NamedTuple):
    """State of `reduce_on_plateau`: float32 and int32 scalars."""

    factor: Float[Array, ""]
    """Current factor of the learning rate."""
    best: Float[Array, ""]
    """Lowest mean loss of a window so far."""
    bad: Int[Array, ""]
    """Number of bad windows in a row."""
    cooldown: Int[Array, ""]
    """Remaining windows of the cooldown."""
    total: Float[Array, ""]
    """Sum of the losses in the current window."""
    filled: Int[Array, ""]
    """Number of steps in the current window."""


def reduce_on_plateau(plateau: Plateau) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by a factor that is reduced when the loss stops falling.

    ``update`` requires the extra argument ``value``, the loss of the step, a float scalar. Unlike a
    schedule of progress, the factor depends on the losses, so it is part of the optimizer state.

    Args:
      plateau: when to reduce the factor, and by how much.

    Returns:
      An Optax gradient transformation.

    Raises:
      ValueError: when updating, if ``value`` is missing or not a scalar.
    """

    def init(params: optax.Params) -> PlateauState:
        del params
        return PlateauState(
            factor=jnp.ones((), jnp.float32),
            best=jnp.full((), jnp.inf, jnp.float32),
            bad=jnp.zeros((), jnp.int32),
            cooldown=jnp.zeros((), jnp.int32),
            total=jnp.zeros((), jnp.float32),
            filled=jnp.zeros((), jnp.int32),
        )

    def update(
        updates: optax.Updates,
        state: PlateauState,
        params: optax.Params | None = None,
        *,
        value: Array | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, PlateauState]:
        del params, extra
        if value is None:
            raise ValueError("value: expected the loss of the step as a keyword, got nothing")
        check_shape("value", value, ())
        state = _observe(plateau, state, value)
        updates = jax.tree.map(lambda u: (u * state.factor).astype(u.dtype), updates)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def _observe(plateau: Plateau, state: PlateauState, value: Array) -> PlateauState:
    """Add one loss, and judge the window if it is now full."""
    state = state._replace(
        total=state.total + jnp.asarray(value, jnp.float32), filled=state.filled + 1
    )
    full = state.filled == plateau.steps
    return jax.tree.map(lambda a, b: jnp.where(full, a, b), _judge(plateau, state), state)


def _judge(plateau: Plateau, state: PlateauState) -> PlateauState:
    """The state after a full window."""
    mean = state.total / plateau.steps
    improved = mean + plateau.threshold * jnp.abs(mean) < state.best
    bad = jnp.where(improved | (state.cooldown > 0), 0, state.bad + 1)
    reduce = bad >= plateau.patience
    return PlateauState(
        factor=jnp.where(reduce, state.factor * plateau.factor, state.factor),
        best=jnp.where(improved, mean, state.best),
        bad=jnp.where(reduce, 0, bad),
        cooldown=jnp.where(reduce, plateau.cooldown, jnp.maximum(state.cooldown - 1, 0)),
        total=jnp.zeros_like(state.total),
        filled=jnp.zeros_like(state.filled),
    )
