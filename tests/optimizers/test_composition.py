import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.optimizers import (
    Plateau,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    cosine,
    linear,
    make_optimizer,
    momentum,
    nadam,
    nesterov,
    rmsprop,
    scale_by_progress,
    sgd,
    warmup,
)

ALGORITHMS = {
    "sgd": sgd(1.0),
    "momentum": momentum(1.0),
    "nesterov": nesterov(1.0),
    "adam": adam(1.0),
    "adamw": adamw(1.0),
    "rmsprop": rmsprop(1.0),
    "rmsprop_both": rmsprop(1.0, momentum=0.9, centered=True),
    "adagrad": adagrad(1.0),
    "adadelta": adadelta(),
    "adamax": adamax(1.0),
    "nadam": nadam(1.0),
}


def full(algorithm):
    return make_optimizer(
        algorithm,
        learning_rate=0.1,
        schedule=warmup(cosine(), 0.2),
        clip_norm=1.0,
        clip_value=0.5,
        weight_decay=0.01,
        plateau=Plateau(patience=1, steps=2),
    )


def make_params(rng, dtype):
    return {
        "w": jnp.asarray(rng.normal(size=(3, 2)), dtype),
        "b": jnp.asarray(rng.normal(size=2), dtype),
    }


def step(optimizer, gradients, params, progress=0.0, **extra):
    state = optimizer.init(params)
    return optimizer.update(gradients, state, params, progress=jnp.float32(progress), **extra)[0]


def descend(gradients, **options):
    """Updates of plain descent with a learning rate of 1."""
    optimizer = make_optimizer(sgd(1.0), learning_rate=1.0, **options)
    gradients = jax.tree.map(jnp.float32, gradients)
    return jax.tree.map(np.asarray, step(optimizer, gradients, gradients))


def test_clipping_by_value():
    out = descend({"a": [3.0, -4.0], "b": [0.5]}, clip_value=2.0)
    np.testing.assert_array_equal(out["a"], [-2, 2])
    np.testing.assert_array_equal(out["b"], [-0.5])


def test_clipping_by_the_norm_of_all_leaves_together():
    gradients = {"a": [3.0, 0.0], "b": [4.0]}
    out = descend(gradients, clip_norm=1.0)
    # One root, two products.
    np.testing.assert_allclose(out["a"], [-0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(out["b"], [-0.8], rtol=1e-6)
    below = descend(gradients, clip_norm=5.5)
    np.testing.assert_array_equal(below["a"], [-3, 0])
    np.testing.assert_array_equal(descend({"a": [0.0]}, clip_norm=1.0)["a"], [0])


def test_value_is_clipped_before_the_norm():
    out = descend({"a": [3.0], "b": [40.0]}, clip_value=4.0, clip_norm=1.0)
    np.testing.assert_allclose([out["a"][0], out["b"][0]], [-0.6, -0.8], rtol=1e-6)


def test_decay_is_not_clipped_and_is_scaled_with_the_learning_rate():
    params = {"w": jnp.full((2, 2), 8.0), "b": jnp.full(2, 8.0)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = make_optimizer(
        sgd(1.0), learning_rate=0.5, schedule=linear(), clip_norm=1e-3, weight_decay=0.25
    )
    out = step(optimizer, zeros, params, progress=0.5)
    np.testing.assert_array_equal(out["w"], np.full((2, 2), -0.25 * 8 * 0.5 * 0.5))
    np.testing.assert_array_equal(out["b"], [0, 0])


def test_progress_sets_the_rate_and_other_arguments_are_ignored():
    optimizer = scale_by_progress(0.5, linear())
    one = jnp.float32(1)
    rates = [
        float(step(optimizer, one, one, progress, value=one, other=None))
        for progress in (-1.0, 0.0, 0.25, 1.0, 2.0)
    ]
    assert rates == [0.5, 0.5, 0.375, 0.0, 0.0]


def test_a_schedule_may_return_a_python_number():
    assert float(step(scale_by_progress(0.5, lambda p: 0.5), jnp.float32(1), None)) == 0.25


def test_plateau_reduces_what_the_schedule_left():
    optimizer = make_optimizer(
        sgd(1.0), learning_rate=1.0, plateau=Plateau(factor=0.5, patience=1, steps=1)
    )
    one = jnp.float32(1)
    state, out = optimizer.init(one), []
    for loss in (1.0, 1.0, 1.0):
        update, state = optimizer.update(one, state, one, progress=one, value=jnp.float32(loss))
        out.append(float(update))
    assert out == [-1, -0.5, -0.25]


def types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_state_is_arrays_whose_types_never_change(rng, name, dtype):
    params, optimizer = make_params(rng, dtype), full(ALGORITHMS[name])
    state = optimizer.init(params)
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    # No two leaves are one buffer, so that the state can be donated.
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    updates, after = jax.eval_shape(
        lambda g, s, p, progress, value: optimizer.update(g, s, p, progress=progress, value=value),
        *(params, state, params, scalar, scalar),
    )
    assert types(updates) == types(params)
    assert types(after) == types(state)


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_algorithms_need_no_progress(rng, name):
    params = make_params(rng, jnp.float32)
    optimizer = ALGORITHMS[name]
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    chex.assert_tree_all_finite(updates)


def test_devices_agree_with_one(rng):
    params = make_params(rng, jnp.float32)
    optimizer = full(adam(1.0))

    def three(params):
        state, losses = optimizer.init(params), jnp.float32([1, 1, 1])

        def advance(carry, value):
            params, state = carry
            updates, state = optimizer.update(
                params, state, params, progress=jnp.float32(0.5), value=value
            )
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(advance, (params, state), losses)[0]

    one = jax.jit(three)(params)
    devices = jax.local_device_count()
    copies, expected = (
        jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), tree) for tree in (params, one)
    )
    # The same program, perhaps fused another way.
    chex.assert_trees_all_close(jax.pmap(three)(copies), expected, rtol=1e-6)


def test_bfloat16_parameters_move(rng):
    params = make_params(rng, jnp.bfloat16)
    updates = step(full(nadam(1.0)), params, params, progress=0.5, value=jnp.float32(1))
    new = optax.apply_updates(params, updates)
    assert new["w"].dtype == jnp.bfloat16
    assert jnp.abs(new["w"]).sum() < jnp.abs(params["w"]).sum()  # gradient and decay both shrink


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -0.1),
        ("learning_rate", np.inf),
        ("clip_norm", 0.0),
        ("clip_value", -1.0),
        ("weight_decay", -0.1),
        ("weight_decay", np.nan),
    ],
)
def test_rejects(name, value):
    with pytest.raises(ValueError, match=name):
        make_optimizer(sgd(1.0), **{"learning_rate": 0.1, name: value})


def test_scale_by_progress_rejects_learning_rates():
    with pytest.raises(ValueError, match="learning_rate"):
        scale_by_progress(-1.0, linear())


def test_missing_arguments_of_update_are_named():
    params = jnp.ones((2, 2))
    optimizer = full(sgd(1.0))
    state, given = optimizer.init(params), jnp.float32(0)
    with pytest.raises(ValueError, match="progress"):
        optimizer.update(params, state, params, value=given)
    with pytest.raises(ValueError, match="progress"):
        optimizer.update(params, state, params, progress=jnp.zeros(2), value=given)
    with pytest.raises(ValueError, match="value"):
        optimizer.update(params, state, params, progress=given)
    with pytest.raises(ValueError, match="params"):
        optimizer.update(params, state, progress=given, value=given)
