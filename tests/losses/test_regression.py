import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.losses import absolute_error, huber, log_cosh, squared_error

ALL = [squared_error, absolute_error, huber, log_cosh]


def both(function, e, **options):
    """Loss and its gradient at errors e, against a target of zero."""
    e = jnp.asarray(e, jnp.float32)
    f = jax.vmap(jax.value_and_grad(lambda x: function(x, jnp.zeros_like(x), **options)))
    return [np.asarray(array, np.float64) for array in f(e)]


def test_worked_by_hand():
    prediction, target = jnp.array([1.0, 2.0, -4.0]), jnp.array([1.0, 4.0, 0.0])
    np.testing.assert_array_equal(squared_error(prediction, target), [0, 4, 16])
    np.testing.assert_array_equal(absolute_error(prediction, target), [0, 2, 4])
    np.testing.assert_array_equal(huber(prediction, target), [0, 1.5, 3.5])
    np.testing.assert_array_equal(huber(prediction, target, delta=3.0), [0, 2, 7.5])


def test_as_optax(rng):
    prediction, target = 3 * rng.normal(size=(2, 4, 5)).astype(np.float32)
    for ours, theirs in [
        (squared_error(prediction, target), optax.squared_error(prediction, target)),
        (absolute_error(prediction, target), jnp.abs(prediction - target)),
        (huber(prediction, target, 0.5), optax.huber_loss(prediction, target, delta=0.5)),
        (log_cosh(prediction, target), optax.log_cosh(prediction, target)),
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


def test_log_cosh_keeps_its_digits_near_zero():
    """There log cosh e = e²/2 - e⁴/12 + e⁶/45 - …, where the difference of logarithms has none."""
    e = np.float32([1e-6, 1e-4, 1e-2, 0.1, 0.3]).astype(np.float64)
    value, slope = both(log_cosh, e)
    series = e**2 / 2 - e**4 / 12 + e**6 / 45 - 17 * e**8 / 2520 + 31 * e**10 / 14175
    np.testing.assert_allclose(value, series, rtol=1e-6)
    np.testing.assert_allclose(slope, np.tanh(e), rtol=1e-6)


def test_log_cosh_everywhere(rng):
    e = np.float32(np.concatenate([rng.uniform(-20, 20, 50), [-1.0, 1.0, 0.99999, 1.00001]]))
    value, slope = both(log_cosh, e)
    np.testing.assert_allclose(value, np.log(np.cosh(e.astype(np.float64))), rtol=1e-6)
    np.testing.assert_allclose(slope, np.tanh(e.astype(np.float64)), rtol=1e-6)


def test_log_cosh_curvature_at_zero():
    curvature = jax.grad(jax.grad(lambda x: log_cosh(x, 0.0)))
    np.testing.assert_allclose(curvature(0.0), 1.0)
    np.testing.assert_allclose(curvature(0.5), 1 / np.cosh(0.5) ** 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "values", "slopes"),
    [
        (absolute_error, [1e4, np.inf, 1e30], [-1, 1, 1]),
        (huber, [1e4 - 0.5, np.inf, 1e30], [-1, 1, 1]),
        (log_cosh, [1e4 - np.log(2), np.inf, 1e30], [-1, 1, 1]),
        (squared_error, [1e8, np.inf, np.inf], [-2e4, np.inf, 2e30]),
    ],
)
def test_extremes(function, values, slopes):
    """1e30 would overflow if it were squared; at infinity the robust losses keep their slope."""
    value, slope = both(function, [-1e4, np.inf, 1e30])
    np.testing.assert_allclose(value, np.float32(values), rtol=1e-6)
    np.testing.assert_allclose(slope, np.float32(slopes), rtol=1e-6)


@pytest.mark.parametrize("function", ALL)
def test_zero_error_has_zero_loss_and_gradient(function):
    value, slope = both(function, [0.0])
    assert value == 0
    assert slope == 0


@pytest.mark.parametrize("function", ALL)
def test_nan_is_not_hidden(function):
    assert np.isnan(function(jnp.array([np.nan]), jnp.array([1.0])))


def test_half_precision_does_not_overflow():
    """300² is beyond float16."""
    loss = squared_error(jnp.float16([300]), jnp.float16([0]))
    np.testing.assert_array_equal(loss, [90000.0])


def test_unsigned_integers_do_not_wrap():
    loss = squared_error(np.uint8([1]), np.uint8([3]))
    np.testing.assert_array_equal(loss, [4.0])


@pytest.mark.parametrize("delta", [0, -1, np.inf, np.nan])
def test_huber_needs_a_positive_delta(delta):
    with pytest.raises(ValueError, match="delta"):
        huber(jnp.ones(2), jnp.ones(2), delta)
