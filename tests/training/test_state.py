"""The state before the first step, and keys that belong to rows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.training import make_train_step
from seqnets.training.state import row_keys, step_keys


def test_the_state_before_the_first_step():
    params, carry, key = {"w": jnp.arange(3.0)}, jnp.ones((2, 4)), jax.random.key(3)
    step = make_train_step(lambda params, batch: None, optax.adam(0.1))
    state = step.init(params, key, carry=carry)
    assert state.step.dtype == "int32"
    assert int(state.step) == 0
    chex.assert_trees_all_equal_structs(state.opt_state, {"loss": optax.adam(0.1).init(params)})
    assert (state.params, state.carry, state.key) == (params, carry, key)
    assert (step.init(params, key).carry, step.init(params, key).variables) == ((), ())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert step.init(params, jax.random.PRNGKey(3)).key == key  # a raw key is wrapped


def test_row_keys_belong_to_the_row_of_the_global_batch():
    key = jax.random.key(5)
    alone = row_keys(key, 8)
    assert alone.shape == (8,)
    spread = jax.vmap(lambda first: row_keys(key, 2, first))(2 * np.arange(4))
    data = jax.random.key_data
    np.testing.assert_array_equal(data(spread).reshape(8, -1), data(alone))
    np.testing.assert_array_equal(data(row_keys(key, 3)), data(alone)[:3])
    assert len(np.unique(data(alone), axis=0)) == 8
    assert not (data(row_keys(jax.random.key(6), 8)) == data(alone)).all(-1).any()


def test_step_keys_depend_on_the_step_and_one_is_shared():
    data, key = jax.random.key_data, jax.random.key(5)
    first, second = (step_keys(key, jnp.int32(step), 4) for step in (0, 1))
    np.testing.assert_array_equal(data(first.rows), data(row_keys(jax.random.fold_in(key, 0), 4)))
    every = np.concatenate([data(part).reshape(-1, 2) for part in (*first, *second)])
    assert len(np.unique(every, axis=0)) == 10
    spread = jax.vmap(lambda first: step_keys(key, jnp.int32(0), 2, first).shared)(np.arange(2))
    np.testing.assert_array_equal(data(spread), np.stack([data(first.shared)] * 2))
