"""The state before the first step, and keys that belong to rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.training.state import create_state, row_keys, step_keys


def test_create_state():
    params, carry, key = {"w": jnp.arange(3.0)}, jnp.ones((2, 4)), jax.random.key(3)
    optimizer = optax.adam(0.1)
    state = create_state(params, optimizer, key, carry)
    assert state.step.dtype == "int32"
    assert int(state.step) == 0
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(optimizer.init(params))
    assert (state.params, state.carry, state.key) == (params, carry, key)
    assert create_state(params, optimizer, key).carry == ()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_row_keys_belong_to_the_row_of_the_global_batch():
    key = jax.random.key(5)
    alone = row_keys(key, 8, None)
    assert alone.shape == (8,)
    spread = jax.vmap(lambda _: row_keys(key, 2, "devices"), axis_name="devices")(np.arange(4))
    data = jax.random.key_data
    np.testing.assert_array_equal(data(spread).reshape(8, -1), data(alone))
    np.testing.assert_array_equal(data(row_keys(key, 3, None)), data(alone)[:3])
    assert len(np.unique(data(alone), axis=0)) == 8
    assert not (data(row_keys(jax.random.key(6), 8, None)) == data(alone)).all(-1).any()


def test_step_keys_depend_on_the_step_and_one_is_shared():
    data, key = jax.random.key_data, jax.random.key(5)
    first, second = (step_keys(key, jnp.int32(step), 4, None) for step in (0, 1))
    np.testing.assert_array_equal(
        data(first.rows), data(row_keys(jax.random.fold_in(key, 0), 4, None))
    )
    every = np.concatenate([data(part).reshape(-1, 2) for part in (*first, *second)])
    assert len(np.unique(every, axis=0)) == 10
    spread = jax.vmap(
        lambda _: step_keys(key, jnp.int32(0), 2, "devices").shared, axis_name="devices"
    )(np.arange(2))
    np.testing.assert_array_equal(data(spread), np.stack([data(first.shared)] * 2))
