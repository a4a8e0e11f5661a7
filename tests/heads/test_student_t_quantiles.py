import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from seqnets.heads import student_t_quantiles

LEVELS = (1e-6, 1e-4, 0.01, 0.1, 0.3, 0.49, 0.51, 0.75, 0.99, 1 - 1e-6)


def degrees(rng):
    """Degrees of freedom over the whole range, the ends among them."""
    return np.concatenate([[2.0, 1e6], 2 + rng.exponential(3, 50), np.geomspace(2, 1e6, 100)])


def two_degrees(q):
    """The closed form for df = 2."""
    return (2 * q - 1) / np.sqrt(2 * q * (1 - q))


def four_degrees(q):
    """The closed form for df = 4."""
    a = 4 * q * (1 - q)
    cosine = np.cos(np.arccos(np.sqrt(a)) / 3) / np.sqrt(a)
    return np.sign(q - 0.5) * 2 * np.sqrt(cosine - 1)


def test_float64_is_scipys_inverse(rng):
    df = degrees(rng)
    with jax.enable_x64(True):
        got = student_t_quantiles(df, LEVELS)
    chex.assert_type(got, jnp.float64)
    # The bound documented; the oldest SciPy supported is off by 4e-11 itself.
    np.testing.assert_allclose(got, scipy.stats.t.ppf(np.array(LEVELS), df[:, None]), rtol=1e-10)


def test_float32_is_near_its_limits(rng):
    df = degrees(rng).astype(np.float32)
    got = student_t_quantiles(df, LEVELS)
    chex.assert_type(got, jnp.float32)
    expected = scipy.stats.t.ppf(np.array(LEVELS), df.astype(np.float64)[:, None])
    # Units in the last place of log(t / z), which is 5 at level 1e-6 and df = 2.
    np.testing.assert_allclose(got, expected, rtol=1.5e-6)


@pytest.mark.parametrize(("df", "closed"), [(2.0, two_degrees), (4.0, four_degrees)])
def test_closed_forms(rng, df, closed):
    q = np.sort(np.concatenate([LEVELS, rng.uniform(0.001, 0.999, 20)]))
    with jax.enable_x64(True):
        got = student_t_quantiles(jnp.asarray(df), q)
    # The closed form for df = 4 cancels near the median and loses five digits.
    np.testing.assert_allclose(got, closed(q), rtol=1e-10 if df == 2 else 1e-9)


def test_the_density_integrates_to_the_level():
    for df in (2.5, 7.0, 300.0):
        with jax.enable_x64(True):
            got = np.asarray(student_t_quantiles(jnp.asarray(df), (0.01, 0.2, 0.9)))
        for t, level in zip(got, (0.01, 0.2, 0.9), strict=True):
            area, _ = scipy.integrate.quad(scipy.stats.t(df).pdf, 0, t, epsabs=1e-12)
            assert abs(area - (level - 0.5)) < 1e-10


def test_the_limit_is_the_normal_distribution():
    got = student_t_quantiles(jnp.array([jnp.inf, 1e30]), LEVELS)
    expected = np.broadcast_to(scipy.special.ndtri(LEVELS), (2, len(LEVELS)))
    np.testing.assert_allclose(got, expected, rtol=5e-7)  # float32


def test_the_median_is_zero_and_the_tails_are_symmetric():
    got = student_t_quantiles(jnp.array([2.0, 3.0, 50.0]), (0.25, 0.5, 0.75))
    np.testing.assert_array_equal(got[:, 1], 0)
    np.testing.assert_allclose(got[:, 0], -got[:, 2], rtol=5e-7)


def test_derivative_is_implicit_differentiation(rng):
    """``dt/d df = -(dF/d df) / f`` with SciPy's distribution function F and density f."""
    df, levels = 2.2 + rng.exponential(5, 30), (0.001, 0.2, 0.6, 0.999)
    with jax.enable_x64(True):
        t = np.asarray(student_t_quantiles(df, levels))
        slope = jax.vmap(jax.jacfwd(lambda x: student_t_quantiles(x, levels)))(jnp.asarray(df))
    at, h = df[:, None], 1e-3
    change = (scipy.special.stdtr(at + h, t) - scipy.special.stdtr(at - h, t)) / (2 * h)
    # The central difference is off by about h².
    np.testing.assert_allclose(slope, -change / scipy.stats.t.pdf(t, at), rtol=1e-4)


def test_mapped_over_any_axes(rng):
    df = jnp.asarray(2 + rng.exponential(3, (3, 5)), jnp.float32)
    quantiles = functools.partial(student_t_quantiles, levels=LEVELS)
    for function in (jax.vmap(quantiles), jax.vmap(jax.vmap(quantiles))):
        # Other fusions round so.
        chex.assert_trees_all_close(function(df), quantiles(df), rtol=1e-6, strict=True)


def test_too_few_degrees_of_freedom_are_not_a_number():
    got = student_t_quantiles(jnp.array([1.99, 0.0, -3.0, 2.0]), (0.3,))
    np.testing.assert_array_equal(np.isnan(got[:, 0]), [True, True, True, False])


def test_wrong_levels_are_named():
    with pytest.raises(ValueError, match="levels"):
        student_t_quantiles(jnp.ones(2), (0.5, 0.4))
