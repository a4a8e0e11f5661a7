"""Values and first and second derivatives against float64 formulas, in every float type."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as sp
from absl.testing import parameterized

from seqnets import activations
from seqnets.activations import log_softmax, prelu, softmax

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
ALPHA, LAMBDA = 1.6732632423543772, 1.0507009873554805
INF = np.inf


class Row(NamedTuple):
    """A function, its float64 value and slope, and their limits (at -∞, at ∞) by hand."""

    name: str
    value: Callable
    slope: Callable
    limits: tuple[float, float]
    slopes: tuple[float, float]
    options: Mapping = MappingProxyType({})


def sech2(x):
    return 1 / np.square(np.cosh(x))


def normal_pdf(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def cubic(x):
    return np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def tanh_gelu_slope(x):
    inner = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x * x)
    left, right = sp.expit(2 * cubic(x)), sp.expit(-2 * cubic(x))
    return left + 2 * x * left * right * inner


def mish_slope(x):
    y = np.logaddexp(0, x)
    return np.tanh(y) + x * sech2(y) * sp.expit(x)


def step(low, high):
    """1 strictly between two numbers."""
    return lambda x: np.where((x > low) & (x < high), 1.0, 0.0)


ROWS = [
    Row("linear", lambda x: x, np.ones_like, (-INF, INF), (1, 1)),
    Row("sigmoid", sp.expit, lambda x: sp.expit(x) * sp.expit(-x), (0, 1), (0, 0)),
    Row("tanh", np.tanh, sech2, (-1, 1), (0, 0)),
    Row("relu", lambda x: np.maximum(x, 0), step(0, INF), (0, INF), (0, 1)),
    Row(
        "leaky_relu",
        lambda x: np.where(x >= 0, x, 0.01 * x),
        lambda x: np.where(x >= 0, 1, 0.01),
        (-INF, INF),
        (0.01, 1),
    ),
    Row(
        "leaky_relu",
        lambda x: np.where(x >= 0, x, 0.3 * x),
        lambda x: np.where(x >= 0, 1, 0.3),
        (-INF, INF),
        (0.3, 1),
        {"negative_slope": 0.3},
    ),
    Row(
        "elu",
        lambda x: np.where(x > 0, x, np.expm1(x)),
        lambda x: np.where(x > 0, 1, np.exp(x)),
        (-1, INF),
        (0, 1),
    ),
    Row(
        "elu",
        lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)),
        lambda x: np.where(x > 0, 1, 0.5 * np.exp(x)),
        (-0.5, INF),
        (0, 1),
        {"alpha": 0.5},
    ),
    Row(
        "selu",
        lambda x: LAMBDA * np.where(x > 0, x, ALPHA * np.expm1(x)),
        lambda x: LAMBDA * np.where(x > 0, 1, ALPHA * np.exp(x)),
        (-LAMBDA * ALPHA, INF),
        (0, LAMBDA),
    ),
    Row(
        "celu",
        lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2)),
        lambda x: np.where(x > 0, 1, np.exp(x / 2)),
        (-2, INF),
        (0, 1),
        {"alpha": 2.0},
    ),
    Row(
        "gelu",
        lambda x: x * sp.ndtr(x),
        lambda x: sp.ndtr(x) + x * normal_pdf(x),
        (0, INF),
        (0, 1),
    ),
    Row(
        "gelu",
        lambda x: x * sp.expit(2 * cubic(x)),  # (1 + tanh u) / 2 without the cancellation
        tanh_gelu_slope,
        (0, INF),
        (0, 1),
        {"approximate": True},
    ),
    Row(
        "silu",
        lambda x: x * sp.expit(x),
        lambda x: sp.expit(x) + x * sp.expit(x) * sp.expit(-x),
        (0, INF),
        (0, 1),
    ),
    Row("mish", lambda x: x * np.tanh(np.logaddexp(0, x)), mish_slope, (0, INF), (0, 1)),
    Row("softplus", lambda x: np.logaddexp(0, x), sp.expit, (0, INF), (0, 1)),
    Row(
        "softsign",
        lambda x: x / (1 + np.abs(x)),
        lambda x: 1 / np.square(1 + np.abs(x)),
        (-1, 1),
        (0, 0),
    ),
    Row(
        "hard_sigmoid",
        lambda x: np.clip(x / 6 + 0.5, 0, 1),
        lambda x: step(-3, 3)(x) / 6,
        (0, 1),
        (0, 0),
    ),
    Row("hard_tanh", lambda x: np.clip(x, -1, 1), step(-1, 1), (-1, 1), (0, 0)),
    Row("relu6", lambda x: np.clip(x, 0, 6), step(0, 6), (0, 6), (0, 0)),
    Row("log_sigmoid", sp.log_expit, lambda x: sp.expit(-x), (-INF, 0), (1, 0)),
]
TABLE = pytest.mark.parametrize(
    "index", range(len(ROWS)), ids=["_".join([row.name, *row.options]) for row in ROWS]
)


FAR = [-1e4, -200, -90, -30, -11, -1e-3, 0, 1e-3, 11, 30, 90, 200, 1e4]
# Random points and far points, none of them a kink except 0; then the limits.
POINTS = np.concatenate([np.random.default_rng(7).uniform(-5.5, 5.5, 200), FAR])
LIMITS = np.array([-INF, INF, np.nan])


@functools.cache
def run(dtype):
    """Value, slope and second derivative of every row, in one program."""

    def three(row, x):
        f = function_of(row)
        slope = jax.grad(f)
        return f(x), jax.vmap(slope)(x), jax.vmap(jax.grad(slope))(x)

    x = jnp.asarray(np.concatenate([POINTS, LIMITS]), dtype)
    return x, jax.jit(lambda x: [three(row, x) for row in ROWS])(x)


# What is not element by element, or has a parameter: the function and its float64 value.
OTHERS = {
    "prelu": (lambda x: prelu(x, 0.25), lambda x: np.where(x >= 0, x, 0.25 * x)),
    "softmax": (softmax, lambda x: sp.softmax(x, -1)),
    "log_softmax": (log_softmax, lambda x: sp.log_softmax(x, -1)),
}


def function_of(row):
    return functools.partial(getattr(activations, row.name), **row.options)


EVERY = [("_".join([row.name, *row.options]), function_of(row), row.value) for row in ROWS]
EVERY += [(name, *pair) for name, pair in OTHERS.items()]


def test_table_is_complete():
    assert {row.name for row in ROWS} | OTHERS.keys() == set(activations.__all__)


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*EVERY)
    def test_float64_values_with_and_without_jit(self, function, exact):
        x = np.random.default_rng(5).normal(0, 3, (4, 6)).astype(np.float32)
        y = self.variant(function)(x)
        chex.assert_shape(y, x.shape)
        chex.assert_type(y, jnp.float32)
        # A few roundings, at the size of the result or of 1.
        chex.assert_trees_all_close(np.float64(y), exact(np.float64(x)), rtol=2e-6, atol=2e-6)

    @parameterized.named_parameters(*EVERY)
    def test_numerical_gradients_in_both_modes(self, function, exact):
        x = np.random.default_rng(6).normal(0, 3, (2, 3))  # none of them within ε of a kink
        with jax.enable_x64(True):
            # Central differences with ε = 1e-4 are right to ε² = 1e-8; chex multiplies by x.size.
            tolerance = {"atol": 1e-6 / x.size, "rtol": 1e-6}
            chex.assert_numerical_grads(jax.jit(function), (x,), 1, eps=1e-4, **tolerance)


@TABLE
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_formula(index, dtype):
    row, (x, results) = ROWS[index], run(dtype)
    assert all(array.dtype == dtype and array.shape == x.shape for array in results[index])
    value, slope, second = (np.asarray(array, np.float64)[:-3] for array in results[index])
    exact = np.asarray(x, np.float64)[:-3]
    with np.errstate(over="ignore", under="ignore"):
        values, slopes = row.value(exact), row.slope(exact)
        h = 1e-5
        seconds = (row.slope(exact + h) - row.slope(exact - h)) / (2 * h)
    # Rounding errors of the type, at the size of the result or of 1; the slope of the cubic in
    # gelu's approximation multiplies those of σ by up to 20.
    eps = float(jnp.finfo(dtype).eps)
    close = {"rtol": 16 * eps, "atol": 16 * eps}
    np.testing.assert_allclose(value, values, **close)
    np.testing.assert_allclose(slope, slopes, **close)
    assert np.all(np.isfinite(second))
    if dtype == jnp.float32:  # the cubic again, twice; the difference itself is right to 1e-9
        smooth = (np.abs(exact) > 1e-4) & (np.abs(np.abs(exact)[:, None] - [1, 3, 6]) > 1e-4).all(1)
        np.testing.assert_allclose(second[smooth], seconds[smooth], atol=3e-5)


@TABLE
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_limits(index, dtype):
    """At -∞ and ∞; and NaN stays NaN."""
    row, (_, results) = ROWS[index], run(dtype)
    value, slope, second = (np.asarray(array, np.float64)[-3:] for array in results[index])
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(value[:2], row.limits, rtol=2 * eps)
    np.testing.assert_allclose(slope[:2], row.slopes, rtol=2 * eps)
    np.testing.assert_array_equal(second[:2], 0)
    assert np.isnan(value[2])


NARROW = pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda d: d.__name__)


def spacing(x, dtype):
    """The distance of neighboring numbers of a dtype about x, and where float32 may give 0."""
    tiny, eps = float(jnp.finfo(dtype).tiny), float(jnp.finfo(dtype).eps)
    floor = 2.0**-118 if dtype == jnp.bfloat16 else 0  # a factor below 2**-126 is taken as 0
    return np.maximum(2.0 ** np.floor(np.log2(np.maximum(np.abs(x), tiny))) * eps, floor)


@functools.cache
def run_on_all(dtype):
    """Every number of a narrow dtype that float32 does not take as 0, with values and slopes."""
    x = jax.lax.bitcast_convert_type(jnp.arange(2**16, dtype=jnp.uint16), dtype)
    x = x[jnp.isfinite(x)]
    size = np.abs(np.asarray(x, np.float64))
    x = x[(size >= 2.0**-126) | (size == 0)]

    def both(row, x):
        f = functools.partial(getattr(activations, row.name), **row.options)
        return f(x), jax.vmap(jax.grad(f))(x)

    return x, jax.jit(lambda x: [both(row, x) for row in ROWS])(x)


@TABLE
@NARROW
def test_narrow_floats_are_rounded_once(index, dtype):
    """Over the whole range of the dtype, relative to each number's own size."""
    row, (x, results) = ROWS[index], run_on_all(dtype)
    exact = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        wants = row.value(exact), row.slope(exact)
    kinks = np.isin(exact, {"hard_tanh": [-1, 1], "relu6": [6]}.get(row.name, []))
    for got, want in zip(results[index], wants, strict=True):
        assert got.dtype == dtype
        inside = np.isfinite(want) & (np.abs(want) < float(jnp.finfo(dtype).max)) & ~kinks
        error = np.abs(np.asarray(got, np.float64) - want)[inside]
        # Half a spacing is a rounding; where a slope is nearly 0, errors of float32 show as well.
        assert np.max(error / spacing(want[inside], dtype)) < 1.25


@NARROW
def test_narrow_softmaxes_are_rounded_once(rng, dtype):
    x = jnp.asarray(5 * rng.normal(size=(50, 30)), dtype)
    g = jnp.asarray(rng.normal(size=x.shape), dtype)
    exact, weight = np.asarray(x, np.float64), np.asarray(g, np.float64)
    p = sp.softmax(exact, -1)
    pulled = {
        softmax: p * (weight - (p * weight).sum(-1, keepdims=True)),
        log_softmax: weight - p * weight.sum(-1, keepdims=True),
    }
    for function, value in ((softmax, p), (log_softmax, sp.log_softmax(exact, -1))):
        y, pull = jax.vjp(jax.jit(function), x)
        for got, want in ((y, value), (pull(g)[0], pulled[function])):
            assert got.dtype == dtype
            # A rounding, and the error in float32 of sums of 30 terms of about 1.
            error = np.abs(np.asarray(got, np.float64) - want) - 0.51 * spacing(want, dtype)
            assert np.max(error) < 30 * 2.0**-24


@NARROW
def test_narrow_slopes_are_summed_in_float32(dtype):
    """Of 1000 numbers the sum in the dtype itself is off by several per cent."""
    x = jnp.full(1000, -1.1, dtype)
    by_slope = jax.grad(lambda a: prelu(x, a).astype(jnp.float32).sum())(jnp.float32(0.25))
    np.testing.assert_allclose(by_slope, 1000 * float(x[0]), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_floats_go_straight_to_jax(dtype):
    """Their programs are those of JAX, as fast as before, without conversions."""
    with jax.enable_x64(True):
        x = jnp.ones(3, dtype)
        for name in ("sigmoid", "softplus", "log_sigmoid", "softmax", "log_softmax"):
            ours, theirs = (getattr(room, name) for room in (activations, jax.nn))
            assert str(jax.make_jaxpr(ours)(x)) == str(jax.make_jaxpr(theirs)(x))
        assert str(jax.make_jaxpr(activations.tanh)(x)) == str(jax.make_jaxpr(jnp.tanh)(x))


def test_float64_tails():
    """The saturation of silu, mish and gelu starts only where float64 has the limit itself."""
    x = np.array([-740.0, -700, -300, -37, 37, 300, 700, 1e300])
    with jax.enable_x64(True):
        for row in ROWS:
            if row.name in ("silu", "mish", "softplus", "sigmoid"):
                with np.errstate(over="ignore", under="ignore"):
                    want = row.value(x)
                got = np.asarray(getattr(activations, row.name)(jnp.asarray(x)))
                # exp of a large number: its relative error is about that number in eps
                np.testing.assert_allclose(got[1:], want[1:], rtol=1e-12, err_msg=row.name)


def test_softsign_slope_where_the_square_overflows():
    """In float16 (1 + 300)² is infinite; the slope is still 1/301²."""
    slope = jax.grad(activations.softsign)(jnp.float16(300))
    np.testing.assert_allclose(float(slope), 1 / 301**2, rtol=5e-3)  # a subnormal of 6e-8 steps


def test_zero_is_a_kink_with_a_stated_slope():
    slopes = {
        name: float(jax.grad(getattr(activations, name))(0.0))
        for name in ("relu", "leaky_relu", "elu", "relu6")
    }
    assert slopes == {"relu": 0.0, "leaky_relu": 1.0, "elu": 1.0, "relu6": 0.0}
    assert float(jax.grad(prelu)(0.0, 0.25)) == 1.0


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("per_feature", [False, True])
def test_prelu(rng, dtype, per_feature):
    x = jnp.asarray(rng.normal(size=(2, 3, 4)), dtype)
    slope = jnp.asarray(rng.uniform(0.1, 0.9, (4,) if per_feature else ()), jnp.float32)
    y = jax.jit(prelu)(x, slope)
    rounded = np.asarray(slope.astype(dtype), np.float64)
    exact = np.asarray(x, np.float64)
    assert y.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(y, np.float64),
        np.where(exact >= 0, exact, rounded * exact),
        rtol=float(jnp.finfo(dtype).eps),
    )


def test_prelu_gradients(rng):
    x = rng.normal(size=(5, 4)).astype(np.float32)
    slope = jnp.full(4, 0.25)
    by_x, by_slope = jax.grad(lambda x, a: prelu(x, a).sum(), (0, 1))(jnp.asarray(x), slope)
    np.testing.assert_allclose(by_x, np.where(x >= 0, 1, 0.25))
    np.testing.assert_allclose(by_slope, np.minimum(x, 0).sum(0), rtol=1e-6)
    by_one = jax.grad(lambda a: prelu(jnp.asarray(x), a).sum())(0.25)
    np.testing.assert_allclose(by_one, np.minimum(x, 0).sum(), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_prelu_at_the_extremes(dtype):
    x = jnp.asarray([-1e4, 1e4, INF, -INF], dtype)
    by_x, by_slope = jax.vmap(jax.grad(prelu, (0, 1)), (0, None))(x, jnp.asarray(0.25, dtype))
    np.testing.assert_array_equal(np.asarray(by_x, np.float64), [0.25, 1, 1, 0.25])
    want = [float(x[0]), 0, 0, -INF]
    np.testing.assert_array_equal(np.asarray(by_slope, np.float64), want)
    assert np.isnan(prelu(jnp.asarray(np.nan, dtype), 0.25))
    np.testing.assert_array_equal(np.asarray(prelu(x[2:], 0.25), np.float64), [INF, -INF])


@pytest.mark.parametrize("slope_shape", [(3,), (2, 4), (1,)])
def test_prelu_rejects_slopes_of_other_shapes(slope_shape):
    with pytest.raises(ValueError, match="slope"):
        prelu(jnp.ones((2, 4)), jnp.ones(slope_shape))


@pytest.mark.parametrize(
    "function", [softmax, log_softmax, activations.softsign, lambda x: prelu(x, 0.25)]
)
def test_integers_are_rejected(function):
    with pytest.raises(TypeError, match="x: expected an array of floats"):
        function(jnp.arange(3))


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan])
def test_celu_needs_a_positive_alpha(alpha):
    with pytest.raises(ValueError, match="alpha"):
        activations.celu(jnp.ones(3), alpha)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("scale", [1, 1e4])
def test_softmax_and_its_logarithm(rng, dtype, scale):
    x = jnp.asarray(scale * rng.uniform(-1, 1, (3, 5, 4)), dtype)
    exact = np.asarray(x, np.float64)
    eps = float(jnp.finfo(dtype).eps)
    for axis in (-1, 1):
        p, log_p = softmax(x, axis), log_softmax(x, axis)
        assert p.dtype == log_p.dtype == dtype
        want = sp.softmax(exact, axis)
        np.testing.assert_allclose(np.asarray(p, np.float64), want, atol=4 * eps)
        want = sp.log_softmax(exact, axis)
        np.testing.assert_allclose(np.asarray(log_p, np.float64), want, rtol=4 * eps, atol=4 * eps)


def test_softmax_gradients(rng):
    """The Jacobians are diag(p) - p pᵀ and 1 - p, at entries of -∞ too."""
    x = np.append(rng.normal(size=4), -INF)
    p = sp.softmax(x)
    jacobian = jax.jacobian(softmax)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(jacobian, np.diag(p) - np.outer(p, p), atol=1e-6)
    jacobian = jax.jacrev(lambda x: log_softmax(x)[:4])(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(jacobian, np.eye(4, 5) - p, atol=1e-6)


def test_softmax_at_infinity():
    np.testing.assert_array_equal(softmax(jnp.array([-INF, 0.0, -1e4])), [0, 1, 0])
    np.testing.assert_array_equal(log_softmax(jnp.array([-INF, 0.0, -1e4])), [-INF, 0, -1e4])
    for x in ([INF, 0.0], [-INF, -INF]):
        assert np.isnan(softmax(jnp.array(x))).all()
        assert np.isnan(log_softmax(jnp.array(x))[0])
