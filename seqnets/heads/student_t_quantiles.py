"""Quantiles of Student's t distribution for traced degrees of freedom.

JAX has no inverse of this distribution function. Since the levels are static, each level leaves a
smooth function of one variable, which is interpolated once on the host. Evaluating the polynomial
needs no iteration and no branches, and has derivatives of every order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import ndtri, stdtrit

from seqnets.checks import check_levels
from seqnets.heads.raw import over_levels
from seqnets.reduction import widen
from seqnets.typing import Array, Float

__all__ = ["student_t_quantiles"]

NODES = 40


def student_t_quantiles(
    df: Float[Array, "*N"], levels: Sequence[float] | Float[np.ndarray, " Q"]
) -> Float[Array, "*N Q"]:
    """Quantiles of the standard t distribution (loc 0, scale 1) with ``df >= 2``.

        t(q, df) = z(q) · exp(p_q(1 / df))

    where z is the quantile function of the standard normal distribution, the limit for large df,
    and p_q the Chebyshev interpolant of ``log(t(q, df) / z(q))`` over 1/df in [0, 1/2]. For levels
    in [1e-12, 1 - 1e-12], the relative error is below 1e-10 in float64; in float32 it is a few
    units in the last place of ``log(t / z)``.

    Args:
      df: degrees of freedom, [...], at least 2; ∞ gives the normal distribution.
      levels: [Q] static numbers in (0, 1), increasing.

    Returns:
      [..., Q] in float32 or wider; NaN where df < 2.

    Raises:
      TypeError: if a level is not a number.
      ValueError: if the levels are not increasing in (0, 1).

    References:
      Trefethen, Approximation Theory and Approximation Practice, SIAM 2013, chapters 3, 8
      (Chebyshev interpolants); Clenshaw, A Note on the Summation of Chebyshev Series, Mathematical
      Tables and Other Aids to Computation 9, 1955.
    """
    levels = check_levels("levels", levels)
    df = widen(df)
    x = jnp.where(df >= 2, 4 / df - 1, jnp.nan)[..., None]
    x = jnp.broadcast_to(x, (*df.shape, len(levels)))
    last = before = jnp.zeros_like(x)
    coefficients = _coefficients(tuple(levels.tolist()))
    for row in coefficients[:0:-1]:
        last, before = over_levels(row, df) + 2 * x * last - before, last
    log_ratio = over_levels(coefficients[0], df) + x * last - before
    return over_levels(ndtri(levels), df) * jnp.exp(log_ratio)


@functools.lru_cache(maxsize=64)
def _coefficients(levels: tuple[float, ...]) -> np.ndarray:
    """Chebyshev coefficients, [NODES, Q] float64, of log(t / z) over ``4 / df - 1``."""
    x = chebyshev.chebpts1(NODES)
    df = 4 / (x + 1)
    ratios = [_ratio(df, level) for level in levels]
    return chebyshev.chebfit(x, np.log(np.stack(ratios, axis=-1)), NODES - 1)


def _ratio(df: np.ndarray, level: float) -> np.ndarray:
    """``t(level, df) / z(level)``; at the median, where both are 0, an arbitrary constant."""
    return stdtrit(df, level) / ndtri(level) if level != 0.5 else np.ones_like(df)
