import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.dropout import as_key, check_keys, dropout, fold_in_rows


def keys(rows, seed=0):
    return jax.random.split(jax.random.key(seed), rows)


def test_elements_are_zero_or_scaled(rng):
    xs = rng.normal(size=(3, 4, 50)).astype(np.float32)
    ys = np.asarray(dropout(xs, keys(3), 0.3))
    dropped = ys == 0
    np.testing.assert_allclose(ys[~dropped], xs[~dropped] / 0.7, rtol=1e-6)
    # 600 draws at 0.3: the standard error of the share is 0.019.
    assert abs(dropped.mean() - 0.3) < 0.08


def test_mean_is_kept():
    ys = dropout(jnp.ones((10, 2000)), keys(10), 0.5)
    assert abs(float(ys.mean()) - 1) < 0.03  # standard error 0.007


def test_rows_draw_apart_and_alone():
    """Different rows differ; a row's noise is that of its key, whatever rows are beside it."""
    xs = jnp.ones((4, 64))
    ys = dropout(xs, keys(4), 0.5)
    assert len(np.unique(np.asarray(ys), axis=0)) == 4
    np.testing.assert_array_equal(dropout(xs[2:], keys(4)[2:], 0.5), ys[2:])
    shuffled = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(dropout(xs, keys(4)[shuffled], 0.5), ys[shuffled])


def test_no_keys_or_no_rate_is_the_identity(rng):
    xs = rng.normal(size=(2, 5))
    np.testing.assert_array_equal(dropout(xs, None, 0.9), xs)
    np.testing.assert_array_equal(dropout(xs, keys(2), 0.0), xs)


def test_gradient_follows_the_kept(rng):
    xs = jnp.asarray(rng.normal(size=(2, 20)), jnp.float32)
    grad = jax.grad(lambda x: dropout(x, keys(2), 0.25).sum())(xs)
    kept = np.asarray(dropout(xs, keys(2), 0.25)) != 0
    np.testing.assert_allclose(grad, kept / 0.75, rtol=1e-6)


def test_dropped_infinity_is_zero():
    ys = np.asarray(dropout(jnp.full((1, 40), jnp.inf), keys(1), 0.5))
    assert set(np.unique(ys)) == {0.0, np.inf}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda d: d.__name__)
def test_dtype_is_kept(dtype):
    ys = jax.jit(lambda x: dropout(x, keys(2), 0.5))(jnp.ones((2, 8), dtype))
    assert ys.dtype == dtype
    assert set(np.unique(ys.astype(np.float32))) == {0.0, 2.0}


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, np.nan])
def test_rates_outside_the_range(rate):
    with pytest.raises(ValueError, match="rate"):
        dropout(jnp.ones((2, 3)), None, rate)


def test_rejects():
    with pytest.raises(ValueError, match="keys"):
        dropout(jnp.ones((2, 3)), keys(3), 0.5)
    with pytest.raises(ValueError, match="keys"):
        dropout(jnp.ones((2, 3)), jax.random.key(0), 0.5)
    with pytest.raises(TypeError, match="xs"):
        dropout(jnp.ones((2, 3), int), keys(2), 0.5)


def test_fold_in_rows():
    assert fold_in_rows(None, 3) is None
    folded = fold_in_rows(keys(3), 7)
    assert folded.shape == (3,)
    want = jax.random.key_data(jax.random.fold_in(keys(3)[1], 7))
    np.testing.assert_array_equal(jax.random.key_data(folded)[1], want)
    data = [jax.random.key_data(fold_in_rows(keys(3), number)) for number in range(3)]
    assert len(np.unique(np.concatenate(data), axis=0)) == 9


def test_raw_keys_are_wrapped_or_named():
    raw = jax.random.PRNGKey(3)
    assert as_key("key", raw) == jax.random.key(3) == as_key("key", jax.random.key(3))
    for wrong in (3, np.zeros(2, np.uint32), jnp.zeros(2)):
        with pytest.raises(TypeError, match="key: expected a random key from"):
            as_key("key", wrong)
    with pytest.raises(ValueError, match=r"key: expected shape \(\) \(one key\), got \(2,\)"):
        as_key("key", keys(2))
    check_keys("keys", keys(2), 2)
    with pytest.raises(TypeError, match=r"keys: expected typed keys .* of shape \(2, 2\)"):
        check_keys("keys", jax.random.split(raw), 2)
    with pytest.raises(ValueError, match=r"keys: expected shape \(3,\)"):
        check_keys("keys", keys(2), 3)
