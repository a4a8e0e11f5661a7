"""Negative log likelihoods, unreduced, in nats; and the quantile loss."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.scipy.special import gammaln

from seqnets.checks import check_same_shape, check_shape
from seqnets.typing import Array, Float

__all__ = ["gaussian", "negative_binomial", "pinball", "student_t"]


def gaussian(
    target: Float[Array, "*S"], loc: Float[Array, "*S"], scale: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """``log(scale) + ((target - loc) / scale)² / 2 + log(2π)/2``; scale > 0.

    Raises:
      ValueError: if the shapes differ.
    """
    check_same_shape(target=target, loc=loc, scale=scale)
    z = (target - loc) / scale
    return jnp.log(scale) + 0.5 * jnp.square(z) + 0.5 * math.log(2 * math.pi)


def student_t(
    target: Float[Array, "*S"],
    df: Float[Array, "*S"],
    loc: Float[Array, "*S"],
    scale: Float[Array, "*S"],
) -> Float[Array, "*S"]:
    """Student's t with df > 0 degrees of freedom, moved by loc and stretched by scale > 0.

        log B(df/2, 1/2) + log(df)/2 + log(scale) + (df + 1)/2 · log(1 + z²/df)

    Raises:
      ValueError: if the shapes differ.
    """
    check_same_shape(target=target, df=df, loc=loc, scale=scale)
    z = (target - loc) / scale
    log_beta = gammaln(df / 2) + 0.5 * math.log(math.pi) - gammaln((df + 1) / 2)
    tail = (df + 1) / 2 * jnp.log1p(jnp.square(z) / df)
    return log_beta + jnp.log(df) / 2 + jnp.log(scale) + tail


def negative_binomial(
    target: Float[Array, "*S"], mean: Float[Array, "*S"], dispersion: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """Counts with ``variance = mean + dispersion · mean²``; mean > 0, dispersion > 0.

    With r = 1 / dispersion failures:

        log Γ(y + 1) + log Γ(r) - log Γ(y + r) + r log(1 + dispersion mean)
            + y (log(1 + dispersion mean) - log(dispersion mean))

    Args:
      target: counts >= 0, as floats.
      mean: expected count.
      dispersion: excess over the Poisson distribution, its limit at 0.

    Raises:
      ValueError: if the shapes differ.

    References:
      Salinas, Flunkert, Gasthaus, DeepAR, 2017, arXiv:1704.04110, section 3.1.
    """
    check_same_shape(target=target, mean=mean, dispersion=dispersion)
    r = 1 / dispersion
    excess = dispersion * mean
    binomial = gammaln(target + 1) + gammaln(r) - gammaln(target + r)
    return binomial + r * jnp.log1p(excess) + target * (jnp.log1p(excess) - jnp.log(excess))


def pinball(
    target: Float[Array, "*S"], quantiles: Float[Array, "*S Q"], levels: Float[Array, " Q"]
) -> Float[Array, "*S Q"]:
    """``max(q e, (q - 1) e)`` with e = target - quantile, for each level q; no factor 2.

    Args:
      target: [...].
      quantiles: predicted quantiles, [..., Q].
      levels: their levels in (0, 1), [Q].

    Raises:
      ValueError: if quantiles is not [..., Q].

    References:
      Koenker, Bassett, Regression Quantiles, Econometrica 46, 1978.
    """
    levels = jnp.asarray(levels, jnp.result_type(quantiles))
    check_shape("quantiles", quantiles, (*jnp.shape(target), *levels.shape), "[..., Q]")
    error = jnp.expand_dims(target, -1) - quantiles
    q = jnp.broadcast_to(levels, error.shape)
    return jnp.maximum(q * error, (q - 1) * error)
