"""Quantiles of Student's t distribution, in JAX."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, gammaln

from seqnets.heads.head import normal_quantiles
from seqnets.typing import Array, Float

__all__ = ["student_t_quantile"]

NEWTON_STEPS = 3


def student_t_quantile(df: Float[Array, "*N"], levels: Sequence[float]) -> Float[Array, "*N Q"]:
    """Quantiles of the standard Student's t distribution.

    Hill's approximation, good to about 1e-5 relative; in float64 it is refined by steps of Newton's
    method on the distribution function, to about 1e-12.

    Args:
      df: degrees of freedom, at least 2.
      levels: Q static numbers in (0, 1).

    References:
      Hill, Algorithm 396: Student's t-quantiles, Communications of the ACM 13, 1970.
    """
    df = jnp.asarray(df)
    levels_ = np.asarray(levels, np.float64)
    tail = np.minimum(levels_, 1 - levels_)  # of one side
    shape = (*df.shape, len(levels_))
    n = jnp.broadcast_to(df[..., None], shape)
    p = jnp.broadcast_to(jnp.asarray(2 * tail, n.dtype), shape)
    z = jnp.broadcast_to(jnp.asarray(normal_quantiles(tail.tolist()), n.dtype), shape)
    q = _hill(n, p, z)
    if n.dtype == jnp.float64:
        for _ in range(NEWTON_STEPS):
            q = _refined(q, n, p)
    sign = jnp.broadcast_to(jnp.asarray(np.sign(levels_ - 0.5), n.dtype), shape)
    return sign * q


def _hill(n: Array, p: Array, z: Array) -> Array:
    """The positive quantile that is exceeded in absolute value with probability p."""
    a = 1 / (n - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * jnp.sqrt(a * jnp.pi / 2) * n
    y = (d * p) ** (2 / n)
    far = (
        (1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1
    ) * (n + 1) / (n + 2) + 1 / y
    few = jnp.where(n < 5, 0.3 * (n - 4.5) * (z + 0.6), 0.0)
    near = (((0.05 * d * z - 5) * z - 7) * z - 2) * z + b + c + few
    s = z**2
    near = (((((0.4 * s + 6.3) * s + 36) * s + 94.5) / near - s - 3) / b + 1) * z
    near = jnp.expm1(a * near**2)
    return jnp.sqrt(n * jnp.where(y > 0.05 + a, near, far))


def _refined(q: Array, n: Array, p: Array) -> Array:
    """One step of Newton's method, with the second derivative, towards tail probability p / 2."""
    above = betainc(n / 2, jnp.full_like(n, 0.5), n / (n + q**2)) / 2
    log_density = (
        gammaln((n + 1) / 2)
        - gammaln(n / 2)
        - jnp.log(n * jnp.pi) / 2
        - (n + 1) / 2 * jnp.log1p(q**2 / n)
    )
    x = (above - p / 2) / jnp.exp(log_density)
    return q + x * (1 + x * q * (n + 1) / (2 * (q**2 + n)))
