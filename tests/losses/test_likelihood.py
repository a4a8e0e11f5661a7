import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from seqnets.losses import gaussian, negative_binomial, pinball, student_t


def single(*arrays):
    """The same numbers in float32 and in float64."""
    rounded = [np.asarray(array, np.float32) for array in arrays]
    return [jnp.asarray(r) for r in rounded], [r.astype(np.float64) for r in rounded]


def nb_logpmf(y, mean, dispersion):
    r = 1 / dispersion
    return st.nbinom.logpmf(y, r, r / (r + mean))


def table(*columns):
    return np.array(list(itertools.product(*columns))).T


def test_gaussian(rng):
    narrow, wide = single(*rng.normal(size=(2, 50)) * 10, np.exp(rng.uniform(-5, 5, 50)))
    want = -st.norm.logpdf(*wide)
    np.testing.assert_allclose(gaussian(*narrow), want, rtol=2e-6, atol=1e-6)


def test_gaussian_gradients(rng):
    """By loc: -z/scale; by scale: (1 - z²)/scale."""
    narrow, (y, loc, scale) = single(*rng.normal(size=(2, 20)), rng.uniform(0.2, 3, 20))
    by_loc, by_scale = jax.vmap(jax.grad(gaussian, (1, 2)))(*narrow)
    z = (y - loc) / scale
    np.testing.assert_allclose(by_loc, -z / scale, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(by_scale, (1 - z**2) / scale, rtol=2e-5, atol=2e-5)


def test_gaussian_at_the_extremes():
    loss, grads = jax.value_and_grad(gaussian, (0, 1, 2))(1e4, -1e4, 1e-4)
    np.testing.assert_allclose(loss, 2e16, rtol=1e-6)
    np.testing.assert_allclose(grads, (2e12, -2e12, -4e20), rtol=1e-6)
    assert gaussian(jnp.inf, 0.0, 1.0) == np.inf


@pytest.mark.parametrize("z", [0, 1e-3, 1, -5, 1e4, 1e8])
def test_student_t(z):
    """From very heavy tails to the Gaussian, where a difference of log Γ has no digit left."""
    df = [1e-3, 0.1, 1, 2, 5, 15.9, 16, 17, 100, 1e4, 1e6, 1e8, 1e12]
    y, df, loc, scale = table([2 * z + 0.5], df, [0.5], [2.0])
    narrow, wide = single(y, df, loc, scale)
    want = -st.t.logpdf(*wide)
    np.testing.assert_allclose(student_t(*narrow), want, rtol=2e-6, atol=1e-6)


def test_student_t_is_gaussian_in_the_limit(rng):
    (y, loc, scale), _ = single(*rng.normal(size=(2, 20)), rng.uniform(0.2, 3, 20))
    want = gaussian(y, loc, scale)
    np.testing.assert_allclose(student_t(y, jnp.full(20, 1e9), loc, scale), want, rtol=1e-5)


def test_student_t_gradient_by_df():
    """Against central differences of SciPy's logarithm in float64."""
    df = np.float32([0.1, 1, 3, 15, 17, 100, 1e3])
    grad = jax.vmap(jax.grad(student_t, 1), (None, 0, None, None))(3.0, df, 0.0, 1.0)
    d, h = df.astype(np.float64), 1e-4 * df
    want = -(st.t.logpdf(3.0, d + h) - st.t.logpdf(3.0, d - h)) / (2 * h)
    np.testing.assert_allclose(grad, want, rtol=1e-4, atol=1e-6)


def test_negative_binomial():
    """Rare and plentiful counts, Poisson-like and very scattered, probable and improbable."""
    counts = [0, 1, 3, 7, 8, 9, 50, 1e3, 1e4, 1e6]
    means = [1e-3, 0.5, 3, 100, 1e4, 1e6]
    dispersions = [1e-8, 1e-6, 1e-4, 1e-2, 0.3, 1, 10, 1e3]
    narrow, wide = single(*table(counts, means, dispersions))
    want = -nb_logpmf(*wide)
    np.testing.assert_allclose(negative_binomial(*narrow), want, rtol=2e-6, atol=2e-6)


def test_float64():
    """The series and its switch at 8 are right to the digits of float64, not of float32 only."""
    y, mean, dispersion = table([0, 3, 7, 8, 9, 300], [0.5, 20], [1e-3, 0.1, 1 / 8, 0.12, 2])
    with jax.enable_x64(True):
        got = negative_binomial(*map(jnp.asarray, (y, mean, dispersion)))
        np.testing.assert_allclose(got, -nb_logpmf(y, mean, dispersion), rtol=1e-11, atol=1e-12)
        df = np.array([0.2, 3, 14, 15.9, 16, 17, 40])
        got = student_t(jnp.full(7, 1.3), jnp.asarray(df), jnp.zeros(7), jnp.ones(7))
        np.testing.assert_allclose(got, -st.t.logpdf(1.3, df), rtol=1e-12)


def test_negative_binomial_is_poisson_in_the_limit():
    narrow, (y, mean, _) = single(*table([0, 2, 40, 1e4], [0.3, 30, 1e4], [1e-12]))
    want = -st.poisson.logpmf(y, mean)
    np.testing.assert_allclose(negative_binomial(*narrow), want, rtol=2e-6, atol=2e-6)


def test_negative_binomial_sums_to_one():
    y = jnp.arange(400.0)
    loss = negative_binomial(y, jnp.full_like(y, 6.0), jnp.full_like(y, 0.5))
    np.testing.assert_allclose(jnp.exp(-loss).sum(), 1, rtol=1e-5)


def test_negative_binomial_gradients():
    """Against float64 central differences; by the mean also (1 - y/mean)/(1 + α mean)."""
    y, mean, dispersion = table([0, 1, 6, 30, 2000], [0.5, 20, 1500], [1e-3, 0.1, 2, 50])
    narrow, (y, mean, a) = single(y, mean, dispersion)
    by_mean, by_a = jax.vmap(jax.grad(negative_binomial, (1, 2)))(*narrow)
    np.testing.assert_allclose(by_mean, (1 - y / mean) / (1 + a * mean), rtol=1e-4, atol=1e-6)
    h = 1e-4 * a
    want = -(nb_logpmf(y, mean, a + h) - nb_logpmf(y, mean, a - h)) / (2 * h)
    # By the logarithm of the dispersion, as heads with a positive map see it; the terms that
    # cancel are of the size of the error y - mean.
    size = 1 + np.abs(y - mean)
    np.testing.assert_allclose(by_a * a / size, want * a / size, rtol=1e-4, atol=1e-6)


def test_finite_gradients_at_the_extremes():
    rows, _ = single(*table([0, 1, 1e6], [1e-6, 1, 1e8], [1e-12, 1, 1e6]))
    loss, grads = jax.vmap(jax.value_and_grad(negative_binomial, (1, 2)))(*rows)
    assert np.isfinite(loss).all()
    assert np.isfinite(grads).all()
    rows, _ = single(*table([-1e4, 0, 1e4], [1e-3, 8, 16, 1e12], [1e4, 0], [1e-3, 1e3]))
    loss, grads = jax.vmap(jax.value_and_grad(student_t, (0, 1, 2, 3)))(*rows)
    assert np.isfinite(loss).all()
    assert np.isfinite(grads).all()


class TestPinball:
    def test_by_hand(self):
        quantiles = jnp.array([[1.0, 2.0, 3.0]])
        loss = pinball(jnp.array([2.5]), quantiles, (0.1, 0.5, 0.9))
        np.testing.assert_allclose(loss, [[0.15, 0.25, 0.05]], rtol=1e-6)

    def test_float64_and_gradients(self, rng):
        y, quantiles = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 4))
        levels = np.array([0.05, 0.3, 0.6, 0.95])
        e = y[..., None] - quantiles
        want = np.where(e >= 0, levels * e, (levels - 1) * e)
        np.testing.assert_allclose(pinball(y, quantiles, levels), want, rtol=2e-6, atol=1e-6)
        grad = jax.grad(lambda q: pinball(y, q, levels).sum())(jnp.asarray(quantiles))
        np.testing.assert_allclose(grad, np.where(e >= 0, -levels, 1 - levels), rtol=1e-6)

    def test_half_of_the_absolute_error_at_the_median(self, rng):
        y, q = rng.normal(size=(2, 7))
        loss = pinball(y, q[:, None], jnp.array([0.5]))[:, 0]
        np.testing.assert_allclose(loss, np.abs(y - q) / 2, rtol=1e-6)

    def test_its_minimum_is_the_quantile(self, rng):
        """Mean loss of a constant is least at the sample's own quantile."""
        sample = rng.normal(size=501)
        grid = np.sort(sample)
        loss = pinball(
            np.broadcast_to(sample, (501, 501)),
            np.broadcast_to(grid[:, None, None], (501, 501, 1)),
            [0.8],
        )
        best = grid[np.argmin(loss.mean((1, 2)))]
        np.testing.assert_allclose(best, np.quantile(sample, 0.8), atol=1e-6)

    def test_extremes_and_float16(self):
        loss = pinball(jnp.array([1e4, jnp.inf]), jnp.array([[-1e4], [0.0]]), (0.5,))
        np.testing.assert_array_equal(loss, [[1e4], [np.inf]])
        loss = pinball(jnp.float16([6e4]), jnp.float16([[-6e4]]), (0.5,))
        assert loss.dtype == jnp.float32
        np.testing.assert_allclose(loss, [[6e4]], rtol=1e-3)  # rounding to float16

    def test_levels_may_be_traced(self, rng):
        y, q, levels = rng.normal(size=3), rng.normal(size=(3, 2)), jnp.array([0.2, 0.7])
        np.testing.assert_allclose(jax.jit(pinball)(y, q, levels), pinball(y, q, (0.2, 0.7)))

    @pytest.mark.parametrize("levels", [(0.0, 0.5), (0.5, 1.0), (10, 90), (np.nan, 0.5)])
    def test_levels_outside_the_range(self, levels):
        with pytest.raises(ValueError, match="levels: expected values in"):
            pinball(jnp.ones(3), jnp.ones((3, 2)), levels)

    def test_rejects_shapes(self):
        with pytest.raises(ValueError, match="levels"):
            pinball(jnp.ones(3), jnp.ones((3, 1)), 0.5)
        for shape in [(3,), (3, 1), (2, 3), (1, 2), (3, 2, 1)]:
            with pytest.raises(ValueError, match="quantiles"):
                pinball(jnp.ones(3), jnp.ones(shape), (0.1, 0.9))
