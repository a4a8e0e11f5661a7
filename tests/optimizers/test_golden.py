"""Every algorithm against trajectories of PyTorch's and Keras' own (see golden.py)."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.optimizers import (
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    make_optimizer,
    momentum,
    nadam,
    nesterov,
    one_cycle,
    rmsprop,
    sgd,
)

GOLDEN = dict(np.load(Path(__file__).with_name("golden.npz")))
STEPS, RATE, TUNED = 20, 0.05, 0.1
NAMES = ("w", "b")

# Twenty steps of float64 arithmetic on either side, operations in another order.
DOUBLE = 1e-11
# `scale_by_progress` computes the rate in float32.
SINGLE = 1e-6

BETAS = {"beta1": 0.8, "beta2": 0.95, "epsilon": TUNED}


def halved(progress):
    return jnp.where(progress < 0.5, 1.0, 0.5)


def scheduled(algorithm):
    return make_optimizer(algorithm, learning_rate=RATE, schedule=halved)


CLIPPED = make_optimizer(sgd(1.0), learning_rate=RATE, clip_value=2.0, clip_norm=1.5)
COMPOSED = make_optimizer(adam(1.0), learning_rate=RATE, weight_decay=0.3)

SAME = [
    ("torch/sgd", sgd(RATE), DOUBLE),
    ("torch/momentum", momentum(RATE), DOUBLE),
    ("torch/momentum_halved", scheduled(momentum(1.0)), SINGLE),
    ("torch/nesterov", nesterov(RATE), DOUBLE),
    ("torch/nesterov_halved", scheduled(nesterov(1.0)), SINGLE),
    ("torch/adam", adam(RATE), DOUBLE),
    ("torch/adam_tuned", adam(RATE, **BETAS), DOUBLE),
    ("torch/adamw", adamw(RATE, mask=None), DOUBLE),
    ("torch/adamw_tuned", adamw(RATE, **BETAS, weight_decay=0.3, mask=None), DOUBLE),
    ("torch/adamw_masked", adamw(RATE, weight_decay=0.3), DOUBLE),
    ("torch/adamw_masked", COMPOSED, SINGLE),
    ("torch/rmsprop", rmsprop(RATE), DOUBLE),
    ("torch/rmsprop_tuned", rmsprop(RATE, decay=0.8, epsilon=TUNED), DOUBLE),
    ("torch/rmsprop_momentum", rmsprop(RATE, momentum=0.7, epsilon=TUNED), DOUBLE),
    ("torch/rmsprop_centered", rmsprop(RATE, centered=True, epsilon=TUNED), DOUBLE),
    ("torch/rmsprop_both", rmsprop(RATE, centered=True, momentum=0.7, epsilon=TUNED), DOUBLE),
    ("torch/adagrad", adagrad(RATE), DOUBLE),
    ("torch/adagrad_tuned", adagrad(RATE, initial_accumulator=0.3, epsilon=TUNED), DOUBLE),
    ("torch/adadelta", adadelta(RATE), DOUBLE),
    ("torch/adadelta_tuned", adadelta(RATE, decay=0.8, epsilon=TUNED), DOUBLE),
    ("torch/adamax", adamax(RATE), DOUBLE),
    ("torch/adamax_tuned", adamax(RATE, **BETAS), DOUBLE),
    ("torch/nadam", nadam(RATE), DOUBLE),
    ("torch/nadam_tuned", nadam(RATE, **BETAS, momentum_decay=0.5), DOUBLE),
    # PyTorch adds 1e-6 to the norm, which here is never below 0.1.
    ("torch/clipped", CLIPPED, 1e-5),
    ("keras/sgd", sgd(RATE), DOUBLE),
    ("keras/momentum", momentum(RATE), DOUBLE),
    ("keras/nesterov", nesterov(RATE), DOUBLE),
    ("keras/adadelta", adadelta(RATE, decay=0.95, epsilon=TUNED), DOUBLE),
    ("keras/nadam", nadam(RATE, epsilon=TUNED, momentum_decay=1.0), DOUBLE),
]


def golden(name):
    return {leaf: GOLDEN[f"{name}/{leaf}"] for leaf in NAMES}


def run(optimizer, dtype):
    """Parameters after every step, under jit, from the golden start and gradients."""
    optimizer = optax.with_extra_args_support(optimizer)
    params = {n: jnp.asarray(GOLDEN[f"start/{n}"], dtype) for n in NAMES}
    state = optimizer.init(params)

    @jax.jit
    def advance(params, state, gradients, progress):
        updates, state = optimizer.update(gradients, state, params, progress=progress)
        return optax.apply_updates(params, updates), state

    path = []
    for step in range(STEPS):
        gradients = {n: jnp.asarray(GOLDEN[f"gradients/{n}"][step], dtype) for n in NAMES}
        params, state = advance(params, state, gradients, jnp.float32(step / STEPS))
        path.append(params)
    return {n: np.stack([point[n] for point in path]) for n in NAMES}


def assert_close(path, expected, **tolerance):
    chex.assert_trees_all_close(path, expected, **tolerance)


@pytest.mark.parametrize(("name", "optimizer", "tolerance"), SAME, ids=[row[0] for row in SAME])
def test_trajectory(name, optimizer, tolerance):
    with jax.enable_x64(True):
        path = run(optimizer, jnp.float64)
    assert path["w"].dtype == np.float64
    assert_close(path, golden(name), rtol=tolerance, atol=tolerance)  # values are of the order of 1


SINGLE_NAMES = {"adam", "rmsprop_both", "adagrad", "adadelta", "adamax", "nadam", "clipped"}
SINGLE_ROWS = [row[:2] for row in SAME if row[0].removeprefix("torch/") in SINGLE_NAMES]


@pytest.mark.parametrize(("name", "optimizer"), SINGLE_ROWS, ids=[row[0] for row in SINGLE_ROWS])
def test_trajectory_in_single_precision(name, optimizer):
    path = run(optimizer, jnp.float32)
    assert path["w"].dtype == np.float32
    # 1 - 0.999ᵗ has a relative error of 6e-5 at t = 1 in float32, of steps that are 0.05 long.
    assert_close(path, golden(name), rtol=0, atol=1e-5)


# What Keras does otherwise, as the docstrings say it: direction of every step from the gradients.


def keras_adam(gradients):
    m = s = 0.0
    for t, g in enumerate(gradients, 1):
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
        corrected = np.sqrt(1 - 0.999**t)  # our epsilon would be TUNED / corrected
        yield m / (1 - 0.9**t) / (np.sqrt(s) / corrected + TUNED / corrected)


def keras_adamax(gradients):
    m = u = 0.0
    for t, g in enumerate(gradients, 1):
        m, u = 0.9 * m + 0.1 * g, np.maximum(0.8 * u, np.abs(g))
        yield m / (1 - 0.9**t) / (u + TUNED)


def keras_adagrad(gradients):
    s = 0.1
    for g in gradients:
        s = s + g**2
        yield g / np.sqrt(s + TUNED)


def keras_rmsprop(gradients, *, centered=False, momentum=0.0):
    m = s = v = 0.0
    for g in gradients:
        m, s = 0.9 * m + 0.1 * g, 0.9 * s + 0.1 * g**2
        v = momentum * v + g / np.sqrt(s - centered * m**2 + TUNED)
        yield v


def keras_momentum(gradients, *, nesterov=False):
    """``v`` of Keras over RATE: the learning rate is inside the momentum, and halved midway."""
    v = 0.0
    for t, g in enumerate(gradients):
        rate = 1.0 if t < STEPS // 2 else 0.5
        v = 0.9 * v + rate * g
        yield rate * g + 0.9 * v if nesterov else v


DIFFERENT = [
    ("keras/adam", adam(RATE, epsilon=TUNED), keras_adam, {}),
    ("keras/adamax", adamax(RATE, beta2=0.8, epsilon=TUNED), keras_adamax, {}),
    ("keras/adagrad", adagrad(RATE, initial_accumulator=0.1, epsilon=TUNED), keras_adagrad, {}),
    ("keras/rmsprop", rmsprop(RATE, decay=0.9, epsilon=TUNED), keras_rmsprop, {}),
    (
        "keras/rmsprop_centered",
        rmsprop(RATE, decay=0.9, epsilon=TUNED, centered=True),
        keras_rmsprop,
        {"centered": True},
    ),
    (
        "keras/rmsprop_momentum",
        rmsprop(RATE, decay=0.9, epsilon=TUNED, momentum=0.7),
        keras_rmsprop,
        {"momentum": 0.7},
    ),
    ("keras/momentum_halved", scheduled(momentum(1.0)), keras_momentum, {}),
    ("keras/nesterov_halved", scheduled(nesterov(1.0)), keras_momentum, {"nesterov": True}),
]


@pytest.mark.parametrize(
    ("name", "optimizer", "variant", "options"), DIFFERENT, ids=[row[0] for row in DIFFERENT]
)
def test_keras_differs_as_stated(name, optimizer, variant, options):
    stated = {}
    for leaf in NAMES:
        directions = np.stack(list(variant(GOLDEN[f"gradients/{leaf}"], **options)))
        stated[leaf] = GOLDEN[f"start/{leaf}"] - RATE * np.cumsum(directions, axis=0)
    assert_close(stated, golden(name), rtol=DOUBLE)
    with jax.enable_x64(True):
        path = run(optimizer, jnp.float64)
    assert np.max(np.abs(path["w"] - golden(name)["w"])) > 1e-3


def test_keras_adamw_is_keras_adam_with_the_same_decay_on_every_leaf():
    for leaf in NAMES:
        point = GOLDEN[f"start/{leaf}"]
        for step, direction in enumerate(keras_adam(GOLDEN[f"gradients/{leaf}"])):
            point = point * (1 - RATE * 0.3) - RATE * direction
            np.testing.assert_allclose(
                point, GOLDEN[f"keras/adamw/{leaf}"][step], rtol=DOUBLE, err_msg=leaf
            )


def test_optax_nadam_is_ours_without_the_warm_up():
    with jax.enable_x64(True):
        ours = run(nadam(RATE, momentum_decay=1e6), jnp.float64)
        theirs = run(optax.nadam(RATE), jnp.float64)
    assert_close(ours, theirs, rtol=DOUBLE)


def test_one_cycle_is_that_of_torch_with_the_peak_on_a_whole_step():
    # PyTorch's peak is at step 0.3 · 20 - 1 of steps 0 ... 19.
    schedule = one_cycle(peak_at=5 / 19)
    rates = [schedule(jnp.float32(step / 19)) for step in range(STEPS)]
    # Float32 cosines of values near 1, and differences of fractions near each other.
    np.testing.assert_allclose(rates, GOLDEN["torch/one_cycle"], rtol=0, atol=1e-6)
