import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.optimizers import adam, adamax, adamw, nadam


def first_update(optimizer, g, params=None):
    g = jnp.asarray(g, jnp.float32)
    return np.asarray(optimizer.update(g, optimizer.init(g), params)[0])


def test_first_steps_by_hand():
    g = [3.0, -4.0]
    # Both corrections undo the decay: m̂ = g, √ŝ = |g|. 1 - 0.999 is 6e-5 off in float32.
    close = dict(rtol=1e-4)
    np.testing.assert_allclose(first_update(adam(1.0, epsilon=1.0), g), [-0.75, 0.8], **close)
    np.testing.assert_allclose(first_update(adamax(1.0, epsilon=1.0), g), [-0.75, 0.8], **close)
    # ψ = 0: μ = β₁/2 = 1/4 throughout, n = g/4 · 1/2 / (15/16) + (3/4 g) / (3/4).
    ahead = nadam(1.0, beta1=0.5, epsilon=1.0, momentum_decay=0.0)
    n = 1 + 1 / 4 / 2 * 16 / 15
    np.testing.assert_allclose(first_update(ahead, g), [-0.75 * n, 0.8 * n], **close)


def test_adamw_decays_weights_and_not_vectors_by_default():
    weights, vector = jnp.full((1, 2), 10.0), jnp.full(2, 10.0)
    optimizer = adamw(0.5, weight_decay=0.1)
    np.testing.assert_allclose(first_update(optimizer, jnp.zeros((1, 2)), weights), [[-0.5, -0.5]])
    np.testing.assert_array_equal(first_update(optimizer, jnp.zeros(2), vector), [0, 0])
    everything = adamw(0.5, weight_decay=0.1, mask=None)
    np.testing.assert_allclose(first_update(everything, jnp.zeros(2), vector), [-0.5, -0.5])


def test_adamw_needs_params():
    with pytest.raises(ValueError, match="params"):
        first_update(adamw(0.1), [1.0])


@pytest.mark.parametrize("make", [adam, adamax, nadam])
def test_no_gradient_no_step(make):
    np.testing.assert_array_equal(first_update(make(1.0), [0.0, 0.0]), [0.0, 0.0])


@pytest.mark.parametrize("make", [adam, adamw, adamax, nadam])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", np.inf),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("beta2", 1.0),
        ("epsilon", 0.0),
    ],
)
def test_rejects(make, name, value):
    with pytest.raises(ValueError, match=name):
        make(**{"learning_rate": 0.1, name: value})


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (adamw, "weight_decay", -0.1),
        (adamw, "weight_decay", np.inf),
        (nadam, "momentum_decay", -1.0),
    ],
)
def test_rejects_its_own(make, name, value):
    with pytest.raises(ValueError, match=name):
        make(0.1, **{name: value})
