"""Penalties on the outputs of a recurrent layer (AR) and on their changes in time (TAR)."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.checks import check_dtype, check_rank, check_shape
from seqnets.reduction import widen
from seqnets.typing import Array, Bool, Float

__all__ = ["activity", "temporal_activity"]


def activity(ys: Float[Array, "B T H"]) -> Float[Array, "B T"]:
    """``mean_h y²`` at every time step: activation regularization (AR).

    Args:
      ys: [B, T, H] outputs of a layer (in the paper, after their dropout).

    Returns:
      [B, T]; weight it with the mask of the real steps.

    Raises:
      TypeError: if ys is not of floats.
      ValueError: if ys is not [B, T, H].

    References:
      Merity, McCann, Socher, Revisiting Activation Regularization for Language RNNs, 2017,
      arXiv:1708.01009 (there the L2 norm; here, as in the authors' code, the mean square).
    """
    _check(ys)
    return jnp.mean(jnp.square(widen(ys)), axis=-1)


def temporal_activity(
    ys: Float[Array, "B T H"],
    mask: Bool[Array, "B T"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
) -> Float[Array, "B T"]:
    """``mean_h (y_t - y_{t-1})²`` at every time step: temporal activation regularization (TAR).

    It is zero at the first step, at padded steps and the steps after them, and where a new segment
    starts.

    Args:
      ys: [B, T, H] outputs of a layer (in the paper, before their dropout).
      mask: [B, T] bool, True at real steps; None means that all are real.
      reset: [B, T] bool, True where a new segment starts; None means nowhere.

    Returns:
      [B, T].

    Raises:
      TypeError: if ys is not of floats, or mask or reset not of bools.
      ValueError: if ys is not [B, T, H], or mask or reset not [B, T].

    References:
      Merity, McCann, Socher, Revisiting Activation Regularization for Language RNNs, 2017,
      arXiv:1708.01009 (there the L2 norm; here the mean square).
    """
    _check(ys)
    counts = jnp.ones(ys.shape[:2], bool).at[:, :1].set(False)
    for name, flags in (("mask", mask), ("reset", reset)):
        if flags is not None:
            check_shape(name, flags, ys.shape[:2], "batch and time of ys")
            check_dtype(name, flags, "bool")
    if mask is not None:
        counts &= mask & jnp.roll(mask, 1, axis=1)
    if reset is not None:
        counts &= ~reset
    wide = widen(ys)
    changes = jnp.where(counts[..., None], wide - jnp.roll(wide, 1, axis=1), 0.0)
    return jnp.mean(jnp.square(changes), axis=-1)


def _check(ys: Array) -> None:
    check_rank("ys", ys, 3, "B T H")
    check_dtype("ys", ys, "float")
