import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from seqnets.checks import check_levels
from seqnets.heads import HEADS as TABLE
from seqnets.heads import SCALE_FLOOR, GaussianHead, QuantileHead, StudentTHead

LEVELS = (0.05, 0.3, 0.5, 0.6, 0.9)
QUANTILES, GAUSSIAN, STUDENT_T = QuantileHead(LEVELS), GaussianHead(), StudentTHead()
HEADS = pytest.mark.parametrize(
    "head", [QUANTILES, GAUSSIAN, STUDENT_T], ids=lambda head: type(head).__name__
)


def softplus(x):
    return np.logaddexp(0, x)


def frozen(head, raw):
    """SciPy's distribution of the documented formulas, in float64."""
    raw = np.asarray(raw, np.float64)
    scale = softplus(raw[..., -1] + np.log(np.e - 1)) + SCALE_FLOOR
    if isinstance(head, GaussianHead):
        return scipy.stats.norm(raw[..., 0], scale)
    return scipy.stats.t(2 + softplus(raw[..., 0]), raw[..., 1], scale)


def knots_by_a_loop(levels, raw):
    """The quantile head's knots as its docstring has them, one gap after the other."""
    z = scipy.stats.norm.ppf(levels)
    center = int(np.argmin(np.abs(np.array(levels) - 0.5)))
    x = np.zeros(len(levels))
    x[center] = raw[0] + z[center]
    gaps = (z[1:] - z[:-1]) * softplus(np.asarray(raw[1:], np.float64)) / np.log(2)
    for i in range(center, len(levels) - 1):
        x[i + 1] = x[i] + gaps[i]
    for i in range(center, 0, -1):
        x[i - 1] = x[i] - gaps[i - 1]
    return x


def quantile_function(levels, knots):
    """Linear in the level inside, linear in the normal quantile outside."""
    z = scipy.stats.norm.ppf

    def at(q):
        i = int(np.clip(np.searchsorted(levels, q) - 1, 0, len(levels) - 2))
        a, b, c = levels[i], levels[i + 1], q
        if q < levels[0] or q > levels[-1]:
            a, b, c = z(a), z(b), z(c)
        return knots[i] + (c - a) / (b - a) * (knots[i + 1] - knots[i])

    return at


def raws(rng, head, shape=(3, 4), scale=2.0):
    return (scale * rng.normal(size=(*shape, head.size))).astype(np.float32)


@pytest.mark.parametrize("head", [GAUSSIAN, STUDENT_T], ids=lambda head: type(head).__name__)
def test_loss_is_scipys_negative_log_likelihood(rng, head):
    raw, target = raws(rng, head), rng.normal(size=(3, 4)).astype(np.float32)
    got = head.loss(raw, target)
    assert got.shape == target.shape
    # float32 against float64; log gamma differences lose about two digits.
    np.testing.assert_allclose(got, -frozen(head, raw).logpdf(target), rtol=2e-5, atol=2e-5)


def test_quantile_loss_is_twice_the_mean_pinball(rng):
    raw, target = raws(rng, QUANTILES, (5,)), rng.normal(size=5).astype(np.float32)
    for got, r, y in zip(QUANTILES.loss(raw, target), raw, target, strict=True):
        pinball = [
            max(q * (y - x), (q - 1) * (y - x))
            for q, x in zip(LEVELS, knots_by_a_loop(LEVELS, r), strict=True)
        ]
        np.testing.assert_allclose(got, 2 * np.mean(pinball), rtol=1e-5, atol=1e-6)


def test_one_level_alone_is_absolute_error(rng):
    head = QuantileHead((0.5,))
    raw, target = raws(rng, head, (7,)), rng.normal(size=7).astype(np.float32)
    np.testing.assert_allclose(head.loss(raw, target), np.abs(raw[:, 0] - target), rtol=1e-6)
    np.testing.assert_array_equal(head.quantiles(raw, (0.2, 0.7)), np.repeat(raw, 2, axis=1))
    np.testing.assert_array_equal(head.mean(raw), raw[:, 0])
    np.testing.assert_array_equal(head.sample(raw, jax.random.key(0)), raw[:, 0])


@pytest.mark.parametrize("head", [GAUSSIAN, STUDENT_T], ids=lambda head: type(head).__name__)
def test_quantiles_are_scipys(rng, head):
    raw, levels = raws(rng, head), (0.001, 0.1, 0.5, 0.99)
    got = head.quantiles(raw, levels)
    chex.assert_type(got, jnp.float32)
    expected = frozen(head, raw[..., None, :]).ppf(np.array(levels))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)  # parameters in float32


@pytest.mark.parametrize(
    "levels", [LEVELS, (0.1, 0.9), (0.6, 0.7, 0.95), (0.01, 0.2)], ids=lambda x: f"{len(x)}"
)
def test_quantile_head_at_any_level(rng, levels):
    head = QuantileHead(levels)
    raw, asked = raws(rng, head, (6,)), (0.001, 0.02, 0.1, 0.35, 0.55, 0.65, 0.9, 0.999)
    for got, r in zip(head.quantiles(raw, asked), raw, strict=True):
        at = quantile_function(levels, knots_by_a_loop(levels, r))
        np.testing.assert_allclose(got, [at(q) for q in asked], rtol=1e-5, atol=1e-5)


def test_quantile_head_is_exact_at_its_own_levels(rng):
    raw = raws(rng, QUANTILES, (6,))
    expected = [knots_by_a_loop(LEVELS, r) for r in raw]
    np.testing.assert_allclose(QUANTILES.quantiles(raw, LEVELS), expected, rtol=1e-5, atol=1e-5)
    one = QUANTILES.quantiles(raw, (0.3,))
    np.testing.assert_array_equal(one[:, 0], QUANTILES.quantiles(raw, LEVELS)[:, 1])


def test_raw_zeros_are_the_standard_normal_distribution():
    asked = (0.001, 0.3, 0.5, 0.9, 0.99)
    expected = scipy.stats.norm.ppf(asked)
    # float32 knots; the Gaussian's scale has the floor on top.
    np.testing.assert_allclose(QUANTILES.quantiles(np.zeros(5), asked), expected, atol=1e-6)
    np.testing.assert_allclose(GAUSSIAN.quantiles(np.zeros(2), asked), expected, atol=5e-4)
    spread = STUDENT_T.quantiles(np.zeros(3), (0.1, 0.9))
    np.testing.assert_allclose(spread, [-spread[1], spread[1]], rtol=1e-6)
    assert 1.2 < spread[1] < 1.9


@HEADS
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_quantiles_never_cross(rng, head, size):
    raw = raws(rng, head, (500,), size)
    levels = tuple((np.arange(1, 40) / 40).tolist())
    quantiles = np.asarray(head.quantiles(raw, levels))
    assert np.all(np.isfinite(quantiles))
    assert np.all(np.diff(quantiles) >= 0)  # exactly: rounding keeps the order
    if isinstance(head, QuantileHead):
        assert np.all(np.diff(head.quantiles(raw, head.levels)) >= 0)


def test_levels_that_round_to_a_knot_do_not_cross_it(rng):
    raw = raws(rng, QUANTILES, (500,), 30.0)
    levels = np.sort(np.concatenate([np.nextafter(LEVELS, 0), LEVELS, np.nextafter(LEVELS, 1)]))
    assert np.all(np.diff(np.asarray(QUANTILES.quantiles(raw, levels))) >= 0)


def test_the_sides_of_the_quantile_head_do_not_move_each_other(rng):
    raw = raws(rng, QUANTILES, ())
    moved = raw + np.array([0, 0, 0, 0, 1], np.float32)  # the gap between 0.6 and 0.9
    change = QUANTILES.quantiles(moved, LEVELS) - QUANTILES.quantiles(raw, LEVELS)
    assert np.all(change[:4] == 0)
    assert change[4] > 0


@pytest.mark.parametrize("levels", [LEVELS, (0.1, 0.9), (0.6, 0.7)], ids=str)
def test_quantile_mean_is_the_integral_of_the_quantile_function(rng, levels):
    head = QuantileHead(levels)
    raw = raws(rng, head, (2,), 1.0)
    for got, r in zip(head.mean(raw), raw, strict=True):
        at = quantile_function(levels, knots_by_a_loop(levels, r))
        expected, error = scipy.integrate.quad(at, 0, 1, points=levels, limit=200)
        assert error < 1e-5
        np.testing.assert_allclose(got, expected, atol=5e-5)  # the integration's error


def test_means_of_the_others_are_loc(rng):
    np.testing.assert_array_equal(GAUSSIAN.mean(jnp.array([[3.0, 1.0]])), [3.0])
    np.testing.assert_array_equal(STUDENT_T.mean(jnp.array([[3.0, 5.0, 1.0]])), [5.0])


@HEADS
def test_samples_have_the_quantiles(rng, head):
    raw = raws(rng, head, (), 1.0)
    count = 20_000
    draws = head.sample(np.broadcast_to(raw, (count, head.size)), jax.random.key(3))
    assert draws.shape == (count,)
    levels = np.array([0.02, 0.2, 0.45, 0.55, 0.7, 0.97])
    at = np.asarray(head.quantiles(raw, levels))
    below = np.mean(np.asarray(draws)[:, None] <= at, axis=0)
    # Five standard errors of a share among the draws.
    assert np.all(np.abs(below - levels) < 5 * np.sqrt(levels * (1 - levels) / count))


@HEADS
def test_samples_are_repeatable_independent_and_compiled(rng, head):
    raw = jnp.asarray(raws(rng, head, ()))
    pair = jnp.stack([raw, raw])
    sample = jax.jit(head.sample)
    first, again = sample(pair, jax.random.key(0)), sample(pair, jax.random.key(0))
    np.testing.assert_array_equal(first, again)
    assert first[0] != first[1]
    assert not np.any(first == sample(pair, jax.random.key(1)))


@HEADS
def test_loss_and_gradient_are_finite_at_extremes(head):
    numbers = np.array([-1e4, -50.0, 0.0, 50.0, 1e4], np.float32)
    raw = np.stack(np.meshgrid(*[numbers] * head.size), axis=-1).reshape(-1, head.size)
    differentiate = jax.jit(jax.value_and_grad(lambda r, y: jnp.sum(head.loss(r, y))))
    for target in (-1e6, 0.0, 1e6):
        loss, gradient = differentiate(raw, np.full(len(raw), target, np.float32))
        assert np.isfinite(loss)
        assert np.all(np.isfinite(gradient))


@HEADS
def test_sample_and_mean_are_finite_at_extremes(head):
    for size in (-1e4, 1e4):
        raw = np.full((50, head.size), size, np.float32)
        assert np.all(np.isfinite(head.sample(raw, jax.random.key(0))))
        assert np.all(np.isfinite(head.mean(raw)))


@HEADS
def test_minimizing_the_loss_finds_the_distribution(rng, head):
    target = jnp.asarray(3 + 2 * rng.normal(size=2000), jnp.float32)

    @jax.jit
    def descend(raw):
        def loss(raw):
            return jnp.mean(head.loss(jnp.broadcast_to(raw, (2000, head.size)), target))

        return jax.lax.fori_loop(0, 1500, lambda _, r: r - 0.1 * jax.grad(loss)(r), raw)

    asked = (0.1, 0.3, 0.5, 0.6, 0.9)
    fitted = head.quantiles(descend(jnp.zeros(head.size)), asked)
    # The sample's own quantiles are off by about 0.1; level 0.1 lies between two knots.
    np.testing.assert_allclose(fitted, 3 + 2 * scipy.stats.norm.ppf(asked), atol=0.3)


@HEADS
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_everything_is_float32_or_wider(head, dtype):
    raw, target = jnp.zeros((2, head.size), dtype), jnp.ones(2, dtype)
    assert head.loss(raw, target).dtype == jnp.float32
    assert head.mean(raw).dtype == jnp.float32
    assert head.sample(raw, jax.random.key(0)).dtype == jnp.float32
    assert head.quantiles(raw, (0.5,)).dtype == jnp.float32


@HEADS
def test_everything_is_float64_for_float64(rng, head):
    with jax.enable_x64(True):
        raw = jnp.asarray(raws(rng, head), jnp.float64)
        quantiles = head.quantiles(raw, (0.01, 0.5, 0.9))
        chex.assert_type([head.loss(raw, jnp.ones((3, 4))), head.mean(raw)], jnp.float64)
        chex.assert_type([head.sample(raw, jax.random.key(0)), quantiles], jnp.float64)
    if head is not QUANTILES:
        expected = frozen(head, raw[..., None, :]).ppf(np.array((0.01, 0.5, 0.9)))
        np.testing.assert_allclose(quantiles, expected, rtol=1e-10, atol=1e-10)


def methods(head, target, key=None):
    """Every method as a function of the raw numbers alone."""
    key = jax.random.key(1) if key is None else key
    return {
        "loss": lambda raw: head.loss(raw, target),
        "quantiles": lambda raw: head.quantiles(raw, (0.001, 0.3, 0.55, 0.999)),
        "mean": head.mean,
        "sample": lambda raw: head.sample(raw, key),
    }


@HEADS
def test_every_method_can_be_mapped_over_rows(rng, head):
    raw, target = jnp.asarray(raws(rng, head)), jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    for name in methods(head, target):
        mapped = jax.vmap(lambda r, y, k, name=name: methods(head, y, k)[name](r))(
            raw, target, keys
        )
        one_by_one = [methods(head, target[i], keys[i])[name](raw[i]) for i in range(3)]
        chex.assert_trees_all_close(mapped, jnp.stack(one_by_one), rtol=1e-5, atol=1e-5)


@HEADS
def test_quantiles_and_their_gradients_are_finite_at_extremes(head):
    numbers = np.array([-1e4, -50.0, 0.0, 50.0, 1e4], np.float32)
    raw = np.stack(np.meshgrid(*[numbers] * head.size), axis=-1).reshape(-1, head.size)
    total = lambda raw: jnp.sum(head.quantiles(raw, (1e-6, 0.4, 0.999)))  # noqa: E731
    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(total))(raw))


@pytest.mark.parametrize("name", TABLE)
def test_the_table_makes_equal_heads(name):
    first, second = TABLE[name](), TABLE[name]()
    assert first == second
    assert hash(first) == hash(second)
    assert np.all(np.isfinite(first.quantiles(np.zeros((2, first.size)), (0.1, 0.9))))


def test_a_head_is_a_static_argument(rng):
    @chex.assert_max_traces(n=2)
    def quantiles(head, raw):
        return head.quantiles(raw, (0.1, 0.9))

    compiled = jax.jit(quantiles, static_argnums=0)
    for levels in ((0.2, 0.8), [0.2, 0.8], (0.2, 0.5)):
        compiled(QuantileHead(levels), jnp.zeros(len(levels)))


def test_heads_are_values():
    assert QuantileHead([0.1, 0.9]) == QuantileHead((0.1, 0.9))
    assert hash(QuantileHead([0.1, 0.9])) == hash(QuantileHead((0.1, 0.9)))
    assert (QUANTILES.size, GAUSSIAN.size, STUDENT_T.size) == (5, 2, 3)


@HEADS
def test_each_wrong_shape_is_named(head):
    wrong, right = np.zeros((3, head.size + 1)), np.zeros((3, head.size))
    with pytest.raises(ValueError, match="raw"):
        head.loss(right, np.zeros(4))
    with pytest.raises(ValueError, match="raw"):
        head.loss(wrong, np.zeros(3))
    with pytest.raises(ValueError, match="raw"):
        head.quantiles(wrong, (0.5,))
    with pytest.raises(ValueError, match="raw"):
        head.mean(wrong)
    with pytest.raises(ValueError, match="raw"):
        head.sample(wrong, jax.random.key(0))
    with pytest.raises(ValueError, match="levels"):
        head.quantiles(right, (0.5, 0.4))


@pytest.mark.parametrize(
    "levels", [(), (0.0,), (1.0,), (0.5, 0.5), (0.6, 0.5), (0.5, np.nan), 0.5, ((0.1, 0.2),)]
)
def test_wrong_levels_are_named(levels):
    with pytest.raises(ValueError, match=r"levels: expected increasing numbers in \(0, 1\)"):
        check_levels("levels", levels)
    with pytest.raises(ValueError, match="levels"):
        QuantileHead(levels)
