"""Negative log likelihoods, in nats, and the quantile loss; unreduced, in float32 or wider.

For large shape parameters (degrees of freedom, inverse dispersion, counts), differences of log Γ
lose all digits of float32. The leading terms of Stirling's formula are therefore subtracted first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, xlogy

from seqnets.checks import check_rank, check_same_shape, check_shape
from seqnets.reduction import widen
from seqnets.typing import Array, Float

__all__ = ["gaussian", "negative_binomial", "pinball", "student_t"]

LOG_2PI = math.log(2 * math.pi)


def gaussian(
    target: Float[Array, "*S"], loc: Float[Array, "*S"], scale: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """``log(scale) + ((target - loc) / scale)² / 2 + log(2π)/2``, for the normal distribution.

    Args:
      target: any shape.
      loc: mean, same shape.
      scale: standard deviation, positive, same shape.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ.
    """
    check_same_shape(target=target, loc=loc, scale=scale)
    target, loc, scale = widen(target), widen(loc), widen(scale)
    return jnp.log(scale) + 0.5 * jnp.square((target - loc) / scale) + 0.5 * LOG_2PI


def student_t(
    target: Float[Array, "*S"],
    df: Float[Array, "*S"],
    loc: Float[Array, "*S"],
    scale: Float[Array, "*S"],
) -> Float[Array, "*S"]:
    """Negative log likelihood of Student's t distribution.

        log B(df/2, 1/2) + log(df)/2 + log(scale) + (df + 1)/2 · log(1 + z²/df)

    with ``z = (target - loc) / scale`` and the beta function B. The limit for large df is
    `gaussian`.

    Args:
      target: any shape.
      df: degrees of freedom, positive, same shape.
      loc: location, same shape.
      scale: scale, positive, same shape.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ.

    References:
      Lange, Little, Taylor, Robust Statistical Modeling Using the t Distribution, JASA 84, 1989.
    """
    check_same_shape(target=target, df=df, loc=loc, scale=scale)
    target, df, loc, scale = widen(target), widen(df), widen(loc), widen(scale)
    a = df / 2
    log_beta = 0.5 - a * jnp.log1p(1 / df) + _stirling_error(a) - _stirling_error(a + 0.5)
    tail = (a + 0.5) * jnp.log1p(jnp.square((target - loc) / scale) / df)
    return 0.5 * LOG_2PI + log_beta + jnp.log(scale) + tail


def negative_binomial(
    target: Float[Array, "*S"], mean: Float[Array, "*S"], dispersion: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """Negative log likelihood of counts with ``variance = mean + dispersion · mean²``.

    With counts y and r = 1 / dispersion:

        log Γ(y + 1) + log Γ(r) - log Γ(y + r) + r log(1 + dispersion mean)
            + y (log(1 + dispersion mean) - log(dispersion mean))

    This is computed, with n = y + r and the error c of Stirling's formula, as

        log Γ(y + 1) + y - y log(y) + y log(y/mean · (r + mean)/n) + r log((r + mean)/n)
            + log(1 + dispersion y)/2 + c(r) - c(n)

    Args:
      target: counts y >= 0, any shape.
      mean: expected count, positive, same shape.
      dispersion: overdispersion, positive, same shape; the limit at 0 is the Poisson distribution.

    Returns:
      Losses of the same shape, float32 or wider.

    Raises:
      ValueError: if the shapes differ.

    References:
      Salinas, Flunkert, Gasthaus, DeepAR, 2017, arXiv:1704.04110, section 3.1;
      Loader, Fast and Accurate Computation of Binomial Probabilities, 2000 (the cancellation).
    """
    check_same_shape(target=target, mean=mean, dispersion=dispersion)
    y, mean, dispersion = widen(target), widen(mean), widen(dispersion)
    r = 1 / dispersion
    n = y + r
    some = jnp.where(y > 0, y, 1)  # for y = 0, the terms with it are multiplied by 0
    quotient = (r + mean) / (r + some)
    of_successes = _log_near_one(some / mean * quotient, (some - mean) / mean * (r / (r + some)))
    of_failures = _log_near_one((r + mean) / n, (mean - y) / n)
    mixture = y * of_successes + r * of_failures + 0.5 * jnp.log1p(dispersion * y)
    return _count_term(y) + mixture + _stirling_error(r) - _stirling_error(n)


def pinball(
    target: Float[Array, "*S"],
    quantiles: Float[Array, "*S Q"],
    levels: Float[Array, " Q"] | Sequence[float],
) -> Float[Array, "*S Q"]:
    """``max(q e, (q - 1) e)`` with e = target - quantile, for each level q, without a factor 2.

    Args:
      target: [...].
      quantiles: predicted quantiles, [..., Q].
      levels: levels of the quantiles in (0, 1), [Q].

    Returns:
      [..., Q] float32 or wider.

    Raises:
      ValueError: if levels is not [Q] or, unless it is a JAX array, not in (0, 1); or if quantiles
        is not [..., Q].

    References:
      Koenker, Bassett, Regression Quantiles, Econometrica 46, 1978.
    """
    check_rank("levels", levels, 1, "Q")
    if not isinstance(levels, jax.Array) and not all(0 < q < 1 for q in np.asarray(levels)):
        raise ValueError(f"levels: expected values in (0, 1), got {levels}")
    check_shape(
        "quantiles", quantiles, (*jnp.shape(target), *np.shape(levels)), "target and levels"
    )
    error = jnp.expand_dims(widen(target), -1) - widen(quantiles)
    q = jnp.broadcast_to(jnp.asarray(levels, error.dtype), error.shape)
    return jnp.maximum(q * error, (q - 1) * error)


def _stirling_error(z: Array) -> Array:
    """``log Γ(z) - ((z - 1/2) log z - z + log(2π)/2)``, z > 0; about 1/(12 z) for large z."""
    near, far = jnp.where(z < 8, z, 8), jnp.where(z < 8, 8, z)
    exact = gammaln(near) - (near - 0.5) * jnp.log(near) + near - 0.5 * LOG_2PI
    square = 1 / jnp.square(far)
    series = 1 / 1680 - square * (1 / 1188)
    for coefficient in (1 / 1260, 1 / 360, 1 / 12):
        series = coefficient - square * series
    return jnp.where(z < 8, exact, series / far)


def _log_near_one(quotient: Array, excess: Array) -> Array:
    """``log(quotient)``, precise near 1 if ``excess = quotient - 1`` is precise."""
    near = jnp.abs(excess) < 0.5
    return jnp.where(near, jnp.log1p(jnp.where(near, excess, 0)), jnp.log(quotient))


def _count_term(y: Array) -> Array:
    """``log Γ(y + 1) + y - y log y`` for counts y >= 0, about ``log(2π y)/2``."""
    few, many = jnp.where(y < 8, y, 8), jnp.where(y < 8, 8, y)
    small = gammaln(few + 1) + few - xlogy(few, few)
    return jnp.where(y < 8, small, 0.5 * (LOG_2PI + jnp.log(many)) + _stirling_error(many))
