import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.cells import LSTM
from seqnets.optimizers import decay_mask, decoupled_decay


def test_mask_is_of_weights(rng):
    params = LSTM(3).init(np.array([0, 1], np.uint32), 2)
    mask = decay_mask(params)
    assert (mask.w_x, mask.w_h, mask.b, mask.b_h) == (True, True, False, None)
    assert decay_mask({"gain": jnp.float32(1.0), "stack": jnp.ones((2, 3, 4))}) == {
        "gain": False,
        "stack": True,
    }


def test_decay_is_subtracted_from_the_update_of_weights_only(rng):
    params = {"w": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.asarray(rng.normal(size=3))}
    updates = {"w": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.asarray(rng.normal(size=3))}
    optimizer = decoupled_decay(0.1)
    new, _ = optimizer.update(updates, optimizer.init(params), params)
    # One product and one sum of float32.
    np.testing.assert_allclose(new["w"], updates["w"] - 0.1 * params["w"], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(new["b"], updates["b"])
    everything = decoupled_decay(0.1, mask=None)
    new, _ = everything.update(updates, optax.EmptyState(), params)
    np.testing.assert_allclose(new["b"], updates["b"] - 0.1 * params["b"], rtol=1e-6, atol=1e-7)


def test_rejects():
    with pytest.raises(ValueError, match="weight_decay"):
        decoupled_decay(-0.1)
    with pytest.raises(ValueError, match="weight_decay"):
        decoupled_decay(np.inf)
    optimizer = decoupled_decay(0.1)
    with pytest.raises(ValueError, match="params"):
        optimizer.update(jnp.ones((2, 2)), optimizer.init(jnp.ones((2, 2))))
