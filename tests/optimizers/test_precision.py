"""Optimizers of float16 and bfloat16 parameters: the same numbers as in float32, rounded once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.optimizers import (
    OPTIMIZERS,
    Plateau,
    adam,
    adamw,
    linear,
    make_optimizer,
    rmsprop,
    scale_by_progress,
    sgd,
)
from seqnets.reduction import weighted
from seqnets.training import make_train_step

NARROW = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
MAKERS = {
    **OPTIMIZERS,
    "adamw": adamw,
    "rmsprop_both": lambda rate: rmsprop(rate, momentum=0.9, centered=True),
    "composed": lambda rate: make_optimizer(
        optax.adam(1.0), learning_rate=rate, clip_norm=1.0, clip_value=0.5, weight_decay=0.1
    ),
}
EVERY = pytest.mark.parametrize("name", list(MAKERS))


def draw(rng, dtype):
    """Gradients over five orders of magnitude, with zeros."""
    size = 10.0 ** rng.uniform(-4, 1, size=(3, 2))
    w = rng.normal(size=(3, 2)) * size * np.array([[1, 0], [1, 1], [1, 1]])
    return {"w": jnp.asarray(w, dtype), "b": jnp.zeros(2, dtype)}


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


@NARROW
@EVERY
def test_updates_are_those_of_float32_rounded_once(rng, name, dtype):
    optimizer = MAKERS[name](1e-2)
    params = draw(rng, dtype)
    state, wide = optimizer.init(params), optimizer.init(cast(params, "float32"))
    for _ in range(3):
        grads = draw(rng, dtype)
        updates, state = optimizer.update(grads, state, params)
        want, wide = optimizer.update(cast(grads, "float32"), wide, cast(params, "float32"))
        chex.assert_trees_all_equal(updates, cast(want, dtype), strict=True)
        chex.assert_trees_all_equal(state, wide, strict=True)
        chex.assert_tree_all_finite(updates)


@NARROW
@EVERY
def test_parameters_without_a_gradient_stay_in_a_training_step(name, dtype):
    """0 / (√0 + ε) is 0 only where ε is not 0."""

    def loss(params, batch):
        return weighted(batch * params["used"].astype("float32"))

    step = make_train_step(loss, MAKERS[name](1e-2))
    params = {name: jnp.ones((), dtype) for name in ("used", "unused")}
    new, info = jax.jit(step)(step.init(params, jax.random.key(0)), np.ones(4, "f4"))
    assert bool(info.finite)
    chex.assert_tree_all_finite(new[1:4])
    assert float(new.params["unused"]) == 1
    # Adadelta's first step is √ε = 1e-3 times the rate, less than half a spacing below 1.
    assert float(new.params["used"]) < 1 or name == "adadelta"


def test_a_norm_beyond_float16_is_clipped():
    """The squares of 6e4 and their sum are infinite in float16."""
    optimizer = make_optimizer(sgd(1.0), learning_rate=1.0, clip_norm=1.0)
    grads = jnp.full(4, 6e4, jnp.float16)
    updates, _ = optimizer.update(grads, optimizer.init(grads))
    np.testing.assert_array_equal(updates, np.full(4, -0.5, "f2"))


@pytest.mark.parametrize(
    "optimizer",
    [
        sgd(1e-8),
        make_optimizer(sgd(1.0), learning_rate=1e-8),
        make_optimizer(sgd(1.0), learning_rate=1e-8, schedule=linear()),
        optax.chain(optax.scale(-1.0), scale_by_progress(1e-8, linear())),
    ],
)
def test_a_learning_rate_below_float16_still_moves(optimizer):
    """1e-8 is 0 in float16, 1e4 times as much is not."""
    grads = jnp.float16(1e4)
    optimizer = optax.with_extra_args_support(optimizer)
    updates, _ = optimizer.update(grads, optimizer.init(grads), progress=jnp.float32(0))
    assert updates.dtype == jnp.float16
    np.testing.assert_allclose(updates, -1e-4, rtol=1e-3)  # one rounding: 2⁻¹¹


def test_a_plateau_keeps_the_dtype():
    optimizer = make_optimizer(sgd(1.0), learning_rate=1.0, plateau=Plateau())
    grads = jnp.bfloat16(3)
    updates, _ = optimizer.update(grads, optimizer.init(grads), value=jnp.float32(1))
    chex.assert_trees_all_equal(updates, jnp.bfloat16(-3), strict=True)


def test_wider_dtypes_and_integers_pass():
    params = {"f4": jnp.ones(2), "f8": np.ones(2), "f2": jnp.ones(2, jnp.float16)}
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, params)
        optimizer = adam(0.1)
        updates, state = optimizer.update(params, optimizer.init(params))
        assert {name: leaf.dtype.str[1:] for name, leaf in updates.items()} == {
            name: name for name in params
        }
        mean = state[0].mu
        assert (mean["f2"].dtype, mean["f4"].dtype, mean["f8"].dtype) == ("f4", "f4", "f8")
