"""AR and TAR against loops, at padding and at resets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.losses import activity, temporal_activity

B, T, H = 3, 6, 4


@pytest.fixture
def ys(rng):
    return rng.normal(size=(B, T, H)).astype("f4")


def test_activity_is_the_mean_of_squares(ys):
    np.testing.assert_allclose(activity(ys), np.square(ys).mean(-1), rtol=1e-6)
    assert activity(jnp.asarray(ys, "bfloat16")).dtype == "float32"


def test_temporal_activity_is_of_neighbours_in_one_segment(ys, rng):
    mask, reset = rng.random((B, T)) < 0.7, rng.random((B, T)) < 0.3
    want, masked = np.zeros((B, T)), np.zeros((B, T))
    for row in range(B):
        for t in range(1, T):
            want[row, t] = np.square(ys[row, t] - ys[row, t - 1]).mean()
            if mask[row, t] and mask[row, t - 1] and not reset[row, t]:
                masked[row, t] = want[row, t]
    np.testing.assert_allclose(temporal_activity(ys), want, rtol=1e-5)
    got = temporal_activity(ys, jnp.asarray(mask), jnp.asarray(reset))
    np.testing.assert_allclose(got, masked, rtol=1e-5)


def test_padded_values_never_matter(ys):
    mask = np.arange(T) < 4
    mask = np.broadcast_to(mask, (B, T))
    spoiled = np.where(mask[..., None], ys, np.nan).astype("f4")
    got, grads = jax.value_and_grad(lambda y: temporal_activity(y, jnp.asarray(mask)).sum())(
        jnp.asarray(spoiled)
    )
    np.testing.assert_allclose(got, temporal_activity(ys[:, :4]).sum(), rtol=1e-5)
    assert np.isfinite(grads).all()


def test_errors(ys):
    with pytest.raises(ValueError, match=r"ys: expected shape \[B, T, H\]"):
        activity(ys[0])
    with pytest.raises(TypeError, match="ys: expected an array of floats"):
        temporal_activity(ys.astype(int))
    with pytest.raises(ValueError, match="mask: expected shape"):
        temporal_activity(ys, jnp.ones((B, T + 1), bool))
    with pytest.raises(TypeError, match="reset: expected an array of bools"):
        temporal_activity(ys, reset=jnp.ones((B, T)))
