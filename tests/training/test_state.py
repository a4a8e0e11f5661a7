"""The state before the first step, and keys that belong to rows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.reduction import weighted
from seqnets.training import TrainState, make_train_step
from seqnets.training.state import row_keys, step_keys, to_host

data = jax.random.key_data


def test_the_state_before_the_first_step():
    params, carry, key = {"w": jnp.arange(3.0)}, jnp.ones((2, 4)), jax.random.key(3)
    optimizer = optax.adam(0.1)
    step = make_train_step(lambda params, batch: weighted(batch), optimizer)
    state = step.init(params, key, carry=carry)
    assert state.step.dtype == "int32"
    assert int(state.step) == 0
    chex.assert_trees_all_equal(state.opt_state, {"loss": optimizer.init(params)}, strict=True)
    assert (state.params, state.carry, state.key) == (params, carry, key)
    assert state.variables == ()
    assert step.init(params, key).carry == ()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_row_keys_belong_to_the_row_of_the_global_batch():
    key = jax.random.key(5)
    alone = row_keys(key, 8)
    assert alone.shape == (8,)
    spread = jax.vmap(lambda first: row_keys(key, 2, first))(2 * np.arange(4))
    np.testing.assert_array_equal(data(spread).reshape(8, -1), data(alone))
    np.testing.assert_array_equal(data(row_keys(key, 3)), data(alone)[:3])
    assert len(np.unique(data(alone), axis=0)) == 8
    assert not (data(row_keys(jax.random.key(6), 8)) == data(alone)).all(-1).any()


def test_step_keys_depend_on_the_step_and_one_is_shared():
    key = jax.random.key(5)
    first, second = (step_keys(key, jnp.int32(step), 4) for step in (0, 1))
    np.testing.assert_array_equal(data(first.rows), data(row_keys(jax.random.fold_in(key, 0), 4)))
    every = np.concatenate([data(part).reshape(-1, 2) for part in (*first, *second)])
    assert len(np.unique(every, axis=0)) == 10
    shared = [step_keys(key, 0, 2, number).shared for number in (0, 2)]
    assert shared[0] == shared[1] == first.shared


def test_a_state_on_the_host_is_a_copy():
    array = np.arange(3.0)
    keys = jax.random.split(jax.random.key(2, impl="rbg"), 3)
    state = TrainState(jnp.int32(4), {"w": array}, {}, (), (), keys)
    host = to_host(state)
    array[:] = 0
    assert type(host.step) is np.ndarray
    np.testing.assert_array_equal(host.params["w"], [0, 1, 2])
    assert (host.key == keys).all()
    assert host.key.dtype == keys.dtype
