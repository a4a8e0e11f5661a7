import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.optimizers import adadelta, adagrad, rmsprop


def first_update(optimizer, g):
    g = jnp.asarray(g, jnp.float32)
    return np.asarray(optimizer.update(g, optimizer.init(g))[0])


def test_first_steps_by_hand():
    g = [3.0, -4.0]
    # One division and one root of float32 each.
    close = dict(rtol=1e-6)
    np.testing.assert_allclose(first_update(adagrad(1.0, epsilon=1.0), g), [-0.75, 0.8], **close)
    started = adagrad(1.0, initial_accumulator=7.0, epsilon=1.0)
    np.testing.assert_allclose(first_update(started, g), [-0.6, 4 / (23**0.5 + 1)], **close)
    # s = g²/4, so that √s = |g|/2
    plain = rmsprop(1.0, decay=0.75, epsilon=0.5)
    np.testing.assert_allclose(first_update(plain, g), [-1.5, 1.6], **close)
    # s - m² = g²/2 - g²/4, so that the root is |g|/2
    centered = rmsprop(1.0, decay=0.5, epsilon=0.5, centered=True)
    np.testing.assert_allclose(first_update(centered, g), [-1.5, 1.6], **close)
    # √(ε / (g² + ε)) with decay 0
    whole = adadelta(decay=0.0, epsilon=9.0)
    np.testing.assert_allclose(first_update(whole, g), [-3 / 2**0.5, 12 / 5], **close)


@pytest.mark.parametrize("make", [adagrad, rmsprop, adadelta])
def test_no_gradient_no_step(make):
    np.testing.assert_array_equal(first_update(make(1.0), [0.0, 0.0]), [0.0, 0.0])


def test_centered_rmsprop_is_finite_where_rounding_makes_the_variance_negative(rng):
    g = jnp.asarray(rng.normal(size=256), jnp.float32)

    def last_of_many(optimizer):
        state, _ = jax.lax.scan(
            lambda state, _: (optimizer.update(g, state)[1], None), optimizer.init(g), length=300
        )
        return optimizer.update(g, state)[0]

    assert jnp.isfinite(last_of_many(rmsprop(0.1, decay=0.8, centered=True))).all()
    theirs = optax.rmsprop(0.1, decay=0.8, centered=True, eps_in_sqrt=False)
    assert jnp.isnan(last_of_many(theirs)).any()  # so the input does show the problem


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (adagrad, "learning_rate", -1.0),
        (adagrad, "initial_accumulator", -0.1),
        (adagrad, "initial_accumulator", np.inf),
        (adagrad, "epsilon", 0.0),
        (rmsprop, "learning_rate", np.inf),
        (rmsprop, "decay", 1.0),
        (rmsprop, "decay", -0.1),
        (rmsprop, "momentum", 1.0),
        (rmsprop, "epsilon", -1e-8),
        (adadelta, "learning_rate", np.nan),
        (adadelta, "decay", 1.5),
        (adadelta, "epsilon", 0.0),
    ],
)
def test_rejects(make, name, value):
    with pytest.raises(ValueError, match=name):
        make(**{"learning_rate": 0.1, name: value})
