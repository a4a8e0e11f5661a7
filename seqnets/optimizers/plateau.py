"""Reduce the learning rate when the loss stops falling, step by step on the device."""

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

    The loss is averaged over windows of ``steps`` steps. A window whose mean l does not improve
    on the best so far, ``l + threshold |l| < best``, is a bad one; after ``patience`` bad windows
    in a row the learning rate is multiplied by ``factor``, and the ``cooldown`` windows after
    that never count as bad.

    Keras' patience counts the same way, PyTorch's ``patience`` is one less. Both, and Optax too,
    ask a loss below zero to improve on a bar *above* the best, so that there a flat negative
    loss never triggers; here the sign does not matter.

    Raises:
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
    """Scalars, float32 and int32."""

    factor: Float[Array, ""]
    """What the learning rate is multiplied by at present."""
    best: Float[Array, ""]
    """Lowest mean of a window so far."""
    bad: Int[Array, ""]
    """Bad windows in a row."""
    cooldown: Int[Array, ""]
    """Windows of cooldown left."""
    total: Float[Array, ""]
    """Sum of the losses of the window under way."""
    filled: Int[Array, ""]
    """Steps of the window under way."""


def reduce_on_plateau(plateau: Plateau) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by a factor that falls whenever the loss has stopped falling.

    ``update`` takes the extra argument ``value``, the loss of the step, a float scalar. Not a
    schedule of progress: what it does depends on the losses, and its state is part of the
    optimizer's.

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
    """Add one loss, and judge the window if that fills it."""
    state = state._replace(
        total=state.total + jnp.asarray(value, jnp.float32), filled=state.filled + 1
    )
    full = state.filled == plateau.steps
    return jax.tree.map(lambda a, b: jnp.where(full, a, b), _judge(plateau, state), state)


def _judge(plateau: Plateau, state: PlateauState) -> PlateauState:
    """State after a full window."""
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
