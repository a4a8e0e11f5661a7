"""Soft Dice losses for labeled positions, one value per row, in float32 or wider."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.checks import check_range, check_same_shape, check_shape
from seqnets.reduction import widen
from seqnets.typing import Array, Bool, Float

__all__ = ["dice", "generalized_dice"]


def dice(
    probabilities: Float[Array, " B *S"],
    targets: Float[Array, " B *S"],
    mask: Bool[Array, " B *S"] | Float[Array, " B *S"] | None = None,
    smooth: float = 1.0,
) -> Float[Array, " B"]:
    """Soft binary Dice loss of each row.

        1 - (2 Σ p t + smooth) / (Σ p + Σ t + smooth)

    The sums are over all axes but the first; the denominator has p, not p².

    Args:
      probabilities: p, [B, ...] in [0, 1].
      targets: t, 0 or 1 (of any dtype), same shape.
      mask: same shape, True (or a weight of the terms of each sum) at real positions; None means
        that all are real.
      smooth: positive smoothing term, which gives rows without positives and with p = 0 the loss 0.

    Returns:
      [B] float32 or wider.

    Raises:
      ValueError: if the shapes differ or smooth is not positive.

    References:
      Milletari, Navab, Ahmadi, V-Net, 2016, arXiv:1606.04797 (there p² and t² in the denominator).
    """
    check_same_shape(probabilities=probabilities, targets=targets)
    check_range("smooth", smooth, 0, closed="neither")
    p, t, weight = _masked(probabilities, targets, mask)
    axes = tuple(range(1, p.ndim))
    overlap = jnp.sum(weight * p * t, axes)
    return 1 - (2 * overlap + smooth) / (jnp.sum(weight * (p + t), axes) + smooth)


def generalized_dice(
    probabilities: Float[Array, "B *S K"],
    targets: Float[Array, "B *S K"],
    mask: Bool[Array, " B *S"] | Float[Array, " B *S"] | None = None,
) -> Float[Array, " B"]:
    """Soft multi-class Dice loss of each row, with classes weighted by their inverse squared size.

        1 - 2 Σ_k w_k Σ p t / Σ_k w_k Σ (p + t),   w_k = 1 / (Σ t)²

    The inner sums are over all axes between the first and the classes. A class that does not
    occur in a row has weight 0 there (in the paper, infinity). A row without real positions has
    loss 0.

    Args:
      probabilities: p, [B, ..., K], summing to 1 over K.
      targets: t, one-hot or distributions, same shape.
      mask: [B, ...] without K, True (or a weight of the terms of each sum) at real positions; None
        means that all are real.

    Returns:
      [B] float32 or wider.

    Raises:
      ValueError: if the shapes differ, or there are fewer than two axes.

    References:
      Sudre et al., Generalised Dice Overlap, 2017, arXiv:1707.03237.
    """
    check_same_shape(probabilities=probabilities, targets=targets)
    shape = jnp.shape(targets)
    if len(shape) < 2:
        raise ValueError(f"probabilities: expected shape [B, ..., K], got {shape}")
    if mask is not None:
        check_shape("mask", mask, shape[:-1], "targets without their last axis")
        mask = jnp.broadcast_to(jnp.asarray(mask)[..., None], shape)
    p, t, weight = _masked(probabilities, targets, mask)
    axes = tuple(range(1, p.ndim - 1))
    size = jnp.sum(weight * t, axes)
    share = jnp.where(size > 0, 1 / jnp.square(jnp.where(size > 0, size, 1)), 0)
    overlap = jnp.sum(share * jnp.sum(weight * p * t, axes), -1)
    total = jnp.sum(share * (jnp.sum(weight * p, axes) + size), -1)
    empty = total == 0
    return jnp.where(empty, 0, 1 - 2 * overlap / jnp.where(empty, 1, total))


def _masked(p: Array, t: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """p and t with zeros at padded positions, and the weights."""
    p, t = widen(p), widen(t)
    if mask is None:
        return p, t, jnp.ones_like(p)
    check_same_shape(mask=mask, targets=t)
    weight = widen(mask)
    return jnp.where(weight == 0, 0, p), jnp.where(weight == 0, 0, t), weight
