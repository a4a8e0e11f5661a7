import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqnets import reduction
from seqnets.reduction import Weighted, weighted, widen

N = 8  # one size: every other would be compiled again
NUMBERS = arrays(np.float32, N, elements=st.floats(-1e3, 1e3, width=32))
WEIGHTS = arrays(np.float32, N, elements=st.one_of(st.just(0), st.floats(1 / 64, 100, width=32)))
MASKS = arrays(np.bool_, N)
QUICK = settings(max_examples=60, deadline=None)


def test_by_hand():
    total, weight = weighted(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 0.0, 0.5]))
    assert (total, weight) == (3.0, 1.5)
    assert Weighted(total, weight).mean() == 2.0


def test_without_weights(rng):
    values = rng.normal(size=(2, 3)).astype(np.float32)
    total, weight = weighted(values)
    np.testing.assert_allclose(total, values.astype(float).sum(), rtol=1e-5)
    assert weight == 6
    assert total.shape == weight.shape == ()


def test_weights_of_leading_axes(rng):
    """[B, T] weighs the vectors of [B, T, D]; each of their D elements counts."""
    values = rng.normal(size=(2, 3, 4)).astype(np.float32)
    for shape in [(2,), (2, 3), (2, 3, 4)]:
        w = rng.uniform(size=shape).astype(np.float32)
        full = np.broadcast_to(w.reshape(shape + (1,) * (3 - len(shape))), values.shape)
        result = weighted(values, w)
        np.testing.assert_allclose(result.total, (values * full).sum(dtype=float), rtol=1e-5)
        np.testing.assert_allclose(result.weight, full.sum(dtype=float), rtol=1e-6)
        np.testing.assert_allclose(result.mean(), np.average(values, weights=full), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_elements_of_weight_zero_never_matter(bad, rng):
    values = rng.normal(size=(2, 3)).astype(np.float32)
    mask = np.array([[True, True, False], [True, False, False]])
    spoiled = jnp.asarray(np.where(mask, values, bad))
    value, grad = jax.value_and_grad(lambda v: weighted(v, mask).mean())(spoiled)
    np.testing.assert_allclose(value, values[mask].mean(), rtol=1e-6)
    np.testing.assert_allclose(grad, mask / 3, rtol=1e-6)


def test_real_nan_is_not_hidden():
    assert np.isnan(weighted(jnp.array([np.nan, 1.0]), jnp.array([0.5, 1.0])).mean())


@pytest.mark.parametrize("weight", [jnp.zeros(3), jnp.zeros(3, bool)])
def test_nothing_real(weight):
    """Mean 0, and gradient 0 rather than NaN."""
    f = lambda v: weighted(v, weight).mean()  # noqa: E731
    value, grad = jax.value_and_grad(f)(jnp.array([1.0, np.nan, np.inf]))
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


def test_mean_of_weight_zero_has_no_gradient():
    """By the total itself too, where 1/0 would come first and NaN after it."""
    assert jax.grad(lambda total: Weighted(total, jnp.zeros(())).mean())(1.0) == 0


def test_no_elements():
    assert weighted(jnp.zeros((0, 3))).mean() == 0


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda d: d.__name__)
def test_half_precision_is_added_up_in_float32(dtype):
    """3000 · 100 is beyond float16, and 1 is below the resolution of bfloat16 at 300."""
    total, weight = weighted(jnp.full(3000, 100, dtype))
    assert total.dtype == weight.dtype == jnp.float32
    assert (total, weight) == (300000, 3000)
    assert weighted(jnp.ones(3001, dtype), jnp.ones(3001, dtype)).total == 3001
    assert jax.grad(lambda v: weighted(v).mean())(jnp.ones(4, dtype)).dtype == dtype


def test_float64_stays():
    with jax.enable_x64(True):
        total, weight = weighted(jnp.array([1.0, 2.0**-40]), jnp.array([True, True]))
        assert total.dtype == weight.dtype == jnp.float64
        assert total == 1 + 2.0**-40


def test_widen():
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.int32, jnp.uint8, jnp.bool_):
        assert widen(jnp.ones(2, dtype)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert widen(np.ones(2)).dtype == jnp.float64


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 1), (2, 3, 1), (1, 3)])
def test_other_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match="weight: expected shape"):
        weighted(jnp.ones((2, 3)), jnp.ones(shape))


# Of values and weights [3, 4]: a public function, and what it gives in float64.
EVERY = [
    ("weighted", weighted, lambda v, w: Weighted((v * w).sum(), w.sum())),
    ("Weighted", lambda v, w: Weighted(v, w).mean(), lambda v, w: v / w),
    ("widen", lambda v, w: widen(v), lambda v, w: v),
]


def test_table_is_complete():
    assert {name for name, *_ in EVERY} == set(reduction.__all__)


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*EVERY)
    def test_float64_values_with_and_without_jit(self, function, exact):
        rng = np.random.default_rng(5)
        v, w = rng.normal(size=(3, 4)), rng.uniform(1, 2, (3, 4))
        got, want = self.variant(function)(jnp.float32(v), jnp.float32(w)), exact(v, w)
        chex.assert_trees_all_equal_structs(got, want)
        chex.assert_trees_all_equal_shapes(got, want)
        chex.assert_type(jax.tree.leaves(got), jnp.float32)
        chex.assert_trees_all_close(got, want, rtol=1e-6, atol=1e-6)

    @parameterized.named_parameters(*EVERY)
    def test_numerical_gradients_in_both_modes(self, function, exact):
        rng = np.random.default_rng(5)
        v, w = rng.normal(size=(3, 4)), rng.uniform(1, 2, (3, 4))
        with jax.enable_x64(True):
            # Central differences with ε = 1e-4 are right to ε²; chex multiplies by the size.
            tolerance = {"atol": 1e-6 / v.size, "rtol": 1e-6}
            chex.assert_numerical_grads(jax.jit(function), (v, w), 1, eps=1e-4, **tolerance)


def test_it_is_a_pytree():
    result = weighted(jnp.arange(3.0), jnp.array([1, 0, 2]))
    assert jax.tree.map(lambda x: 2 * x, result).mean() == result.mean() == 4 / 3


@QUICK
@given(NUMBERS, WEIGHTS, MASKS)
def test_parts_add_up_to_the_whole(values, weights, part):
    """However the elements are dealt out over batches or devices."""
    whole = weighted(values, weights)
    sum_of_parts = weighted(values, weights * part) + weighted(values, weights * ~part)
    assert isinstance(sum_of_parts, Weighted)
    np.testing.assert_allclose(sum_of_parts, whole, rtol=1e-5, atol=1e-5 * scale(values, weights))


@QUICK
@given(NUMBERS, WEIGHTS)
def test_mean_is_the_average(values, weights):
    mean = weighted(values, weights).mean()
    if weights.sum() == 0:
        assert mean == 0
        return
    want = np.average(values.astype(float), weights=weights.astype(float))
    np.testing.assert_allclose(mean, want, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    real = values[weights > 0]
    slack = 1e-4 * (1 + np.abs(values).max())
    assert real.min() - slack <= mean <= real.max() + slack


@QUICK
@given(NUMBERS, MASKS, st.permutations(range(N)))
def test_order_and_scale_of_weights_do_not_matter(values, mask, order):
    mean = weighted(values, mask).mean()
    other = weighted(values[list(order)], 4.0 * mask[list(order)]).mean()
    np.testing.assert_allclose(other, mean, rtol=1e-5, atol=1e-5 * (1 + np.abs(values).max()))


@QUICK
@given(NUMBERS, WEIGHTS)
def test_gradient_is_the_share(values, weights):
    grad = jax.grad(lambda v: weighted(v, weights).mean())(jnp.asarray(values))
    total = weights.astype(float).sum()
    np.testing.assert_allclose(grad, weights / total if total else 0 * weights, rtol=1e-5)


def scale(values, weights):
    """What rounding errors of a sum are relative to."""
    return 1 + np.sum(np.abs(values) * weights, dtype=float)
