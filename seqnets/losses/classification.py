"""Classification losses from logits, unreduced: one value per position, in float32 or wider."""

from __future__ import annotations

import jax.numpy as jnp

from seqnets.activations import log_sigmoid, log_softmax, sigmoid
from seqnets.checks import check_dtype, check_range, check_same_shape, check_shape
from seqnets.reduction import widen
from seqnets.typing import Array, Float, Int

__all__ = [
    "binary_cross_entropy",
    "binary_focal",
    "categorical_cross_entropy",
    "cross_entropy",
    "focal",
]


def cross_entropy(
    logits: Float[Array, "*S V"], targets: Int[Array, "*S"], label_smoothing: float = 0.0
) -> Float[Array, "*S"]:
    """Cross-entropy with integer classes, in nats.

        -(1 - ε) log p[target] - ε/V Σ_v log p[v],   p = softmax(logits), ε = label_smoothing

    Args:
      logits: [..., V]; a logit of -∞ excludes its class.
      targets: [...] classes in [0, V); a class out of range gives NaN, never a wrong number.
      label_smoothing: share ε of the probability that is spread evenly over all classes, in
        [0, 1]. If it is positive, the loss is infinite where a class is excluded.

    Returns:
      [...] float32 or wider.

    Raises:
      ValueError: if targets does not have the shape of logits without its last axis, or
        label_smoothing is out of range.
      TypeError: if targets is not of integers.

    Example:
      >>> round(float(cross_entropy(jnp.log(jnp.array([0.2, 0.8])), jnp.array(1))), 4)
      0.2231

    References:
      Szegedy et al., Rethinking the Inception Architecture, 2015, arXiv:1512.00567 (smoothing).
    """
    check_shape("targets", targets, jnp.shape(logits)[:-1], "logits without their last axis")
    check_dtype("targets", targets, "int")
    check_range("label_smoothing", label_smoothing, 0, 1)
    log_p = log_softmax(widen(logits))
    chosen = _pick(log_p, jnp.asarray(targets))
    if label_smoothing == 0:
        return -chosen
    return -(1 - label_smoothing) * chosen - label_smoothing * jnp.mean(log_p, axis=-1)


def categorical_cross_entropy(
    logits: Float[Array, "*S V"],
    distributions: Float[Array, "*S V"],
    label_smoothing: float = 0.0,
) -> Float[Array, "*S"]:
    """``-Σ_v q[v] log p[v]`` for target distributions q, p = softmax(logits), in nats.

    Args:
      logits: [..., V].
      distributions: [..., V], summing to 1 over V. Classes of probability 0 contribute 0, even if
        their logit is -∞.
      label_smoothing: ε in [0, 1], which replaces q by ``(1 - ε) q + ε/V``.

    Returns:
      [...] float32 or wider.

    Raises:
      ValueError: if the shapes differ or label_smoothing is out of range.

    References:
      Szegedy et al., Rethinking the Inception Architecture, 2015, arXiv:1512.00567 (smoothing).
    """
    check_same_shape(logits=logits, distributions=distributions)
    check_range("label_smoothing", label_smoothing, 0, 1)
    q = _smooth(widen(distributions), label_smoothing, jnp.shape(logits)[-1])
    return -jnp.sum(_expected(q, log_softmax(widen(logits))), axis=-1)


def binary_cross_entropy(
    logits: Float[Array, "*S"], targets: Float[Array, "*S"], label_smoothing: float = 0.0
) -> Float[Array, "*S"]:
    """``-t log σ(x) - (1 - t) log σ(-x)``, in nats, for targets t in [0, 1].

    Args:
      logits: x, of any shape.
      targets: t, probabilities or 0 and 1 (of any dtype), of the same shape.
      label_smoothing: share by which targets are moved towards 1/2, in [0, 1].

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ or label_smoothing is out of range.

    References:
      Cox, The Regression Analysis of Binary Sequences, JRSS B 20, 1958.
    """
    check_same_shape(logits=logits, targets=targets)
    check_range("label_smoothing", label_smoothing, 0, 1)
    x, t = widen(logits), _smooth(widen(targets), label_smoothing, 2)
    return -_expected(t, log_sigmoid(x)) - _expected(1 - t, log_sigmoid(-x))


def focal(
    logits: Float[Array, "*S V"], targets: Int[Array, "*S"], gamma: float = 2.0
) -> Float[Array, "*S"]:
    """``-(1 - p[target])^gamma log p[target]``, the focal loss, p = softmax(logits), in nats.

    Args:
      logits: [..., V].
      targets: [...] classes in [0, V); a class out of range gives NaN.
      gamma: how strongly well-classified positions are down-weighted, at least 0; 0 is
        `cross_entropy`.

    Returns:
      [...] float32 or wider.

    Raises:
      ValueError: if targets does not have the shape of logits without its last axis, or gamma is
        negative.
      TypeError: if targets is not of integers.

    References:
      Lin et al., Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002, equation 4.
    """
    check_range("gamma", gamma, 0)
    loss = cross_entropy(logits, targets)
    return _hardness(-jnp.expm1(-loss), gamma) * loss


def binary_focal(
    logits: Float[Array, "*S"],
    targets: Float[Array, "*S"],
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Float[Array, "*S"]:
    """``-α_t (1 - p_t)^gamma log p_t``, the binary focal loss, p_t the probability of the target.

    Args:
      logits: any shape.
      targets: 0 or 1, of the same shape.
      gamma: how strongly well-classified elements are down-weighted, at least 0; 0 is
        `binary_cross_entropy`.
      alpha: weight α_t of class 1, in [0, 1]; class 0 has the weight 1 - alpha. None gives both
        classes the weight 1.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ, gamma is negative, or alpha is not in [0, 1].

    References:
      Lin et al., Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002, equation 5.
    """
    check_range("gamma", gamma, 0)
    x, t = widen(logits), widen(targets)
    loss = binary_cross_entropy(logits, targets)
    loss = _hardness(t * sigmoid(-x) + (1 - t) * sigmoid(x), gamma) * loss
    if alpha is None:
        return loss
    check_range("alpha", alpha, 0, 1)
    return (alpha * t + (1 - alpha) * (1 - t)) * loss


def _pick(log_p: Array, targets: Array) -> Array:
    """``log_p[..., target]``; NaN where the class is out of range."""
    classes = log_p.shape[-1]
    inside = (targets >= 0) & (targets < classes)
    index = jnp.where(inside, targets, 0)[..., None]
    picked = jnp.take_along_axis(log_p, index, axis=-1)[..., 0]
    return jnp.where(inside, picked, jnp.nan)


def _smooth(q: Array, share: float, classes: int) -> Array:
    """``q`` with a share of its probability spread evenly over the classes."""
    return q if share == 0 else q * (1 - share) + share / classes


def _expected(q: Array, log_p: Array) -> Array:
    """``q · log p``, with the limit 0 where q = 0 and p = 0."""
    return q * jnp.where((q == 0) & jnp.isneginf(log_p), 0, log_p)


def _hardness(wrong: Array, gamma: float) -> Array:
    """``wrong ** gamma`` with a finite gradient at 0 for every gamma >= 0."""
    if gamma == 0:
        return jnp.ones_like(wrong)
    tiny = jnp.finfo(wrong.dtype).tiny
    safe = jnp.maximum(wrong, tiny)
    return jnp.where(wrong > tiny, jnp.exp(gamma * jnp.log(safe)), jnp.zeros_like(wrong))
