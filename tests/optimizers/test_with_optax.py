"""Our optimizers inside Optax's and Flax's own machinery: traced hyperparameters, wrappers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from seqnets.optimizers import (
    OPTIMIZERS,
    adam,
    adamw,
    constant,
    cosine,
    decoupled_decay,
    exponential,
    linear,
    make_optimizer,
    one_cycle,
    rmsprop,
    scale_by_progress,
    sgd,
    warmup,
)
from seqnets.reduction import weighted
from seqnets.training import make_train_step

RATE = 0.05
MAKERS = {**OPTIMIZERS, "adamw": adamw}
EVERY = pytest.mark.parametrize("name", list(MAKERS))
# float64 throughout; the two sides differ in the order of operations.
CLOSE = functools.partial(chex.assert_trees_all_close, rtol=1e-10)

HYPERPARAMETERS = [
    ("sgd", {}),
    ("momentum", {"momentum": 0.7}),
    ("nesterov", {"momentum": 0.7}),
    ("adam", {"beta1": 0.7, "beta2": 0.8, "epsilon": 0.1}),
    ("adamw", {"beta1": 0.7, "beta2": 0.8, "epsilon": 0.1, "weight_decay": 0.3}),
    ("adamax", {"beta1": 0.7, "beta2": 0.8, "epsilon": 0.1}),
    ("nadam", {"beta1": 0.7, "beta2": 0.8, "epsilon": 0.1, "momentum_decay": 0.2}),
    ("rmsprop", {"decay": 0.7, "momentum": 0.8, "epsilon": 0.1}),
    ("adagrad", {"initial_accumulator": 0.2, "epsilon": 0.1}),
    ("adadelta", {"decay": 0.7, "epsilon": 0.1}),
]


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def params(rng):
    return {"w": jnp.asarray(rng.normal(size=(3, 2))), "b": jnp.asarray(rng.normal(size=2))}


def path(optimizer, params, steps=3, **extra):
    """The updates of a few steps along fixed gradients."""
    optimizer = optax.with_extra_args_support(optimizer)
    state, out = optimizer.init(params), []
    for n in range(steps):
        grads = jax.tree.map(lambda p: jnp.cos(7 * p + n), params)  # noqa: B023
        updates, state = optimizer.update(grads, state, params, **extra)
        out.append(updates)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *out)


# --- hyperparameters that are traced ---------------------------------------------------------


@pytest.mark.parametrize("defaults", [True, False])
@pytest.mark.parametrize(("name", "options"), HYPERPARAMETERS)
def test_injected_hyperparameters(name, options, defaults, params):
    options = {} if defaults else options
    injected = optax.inject_hyperparams(MAKERS[name])(learning_rate=RATE, **options)
    want = path(MAKERS[name](RATE, **options), params)
    CLOSE(jax.jit(functools.partial(path, injected))(params), want)


def test_an_injected_learning_rate_may_be_set(params):
    """As a search over learning rates does between two steps."""
    optimizer = optax.inject_hyperparams(adam)(learning_rate=0.0)
    state = optimizer.init(params)
    state.hyperparams["learning_rate"] = jnp.asarray(RATE)
    updates, _ = jax.jit(optimizer.update)(params, state, params)
    plain = adam(RATE)
    CLOSE(updates, plain.update(params, plain.init(params))[0])


def test_an_injected_composition(params):
    make = optax.inject_hyperparams(make_optimizer, static_args="schedule")
    options = dict(learning_rate=RATE, schedule=linear(), clip_norm=0.5, clip_value=0.4)
    options |= {"weight_decay": 0.1, "steps": 3}
    run = jax.jit(functools.partial(path, make(adam(1.0), **options)))
    CLOSE(run(params), path(make_optimizer(adam(1.0), **options), params), rtol=1e-6)
    with pytest.raises(TypeError, match=r"schedule: expected a function .* static_args"):
        optax.inject_hyperparams(make_optimizer)(adam(1.0), **options).init(params)


@pytest.mark.parametrize(("name", "options"), HYPERPARAMETERS)
def test_hyperparameters_may_be_traced_and_mapped(name, options, params):
    def run(options):
        return path(MAKERS[name](**options), params)

    full = {"learning_rate": RATE, **options}
    half = {one: value / 2 for one, value in full.items()}
    want = jax.tree.map(lambda *leaves: jnp.stack(leaves), run(full), run(half))
    CLOSE(jax.jit(jax.vmap(run))({one: jnp.array([full[one], half[one]]) for one in full}), want)


def test_parts_of_a_composition_may_be_traced(params):
    def run(x):
        options = dict(clip_norm=x, clip_value=x / 2, weight_decay=x / 3, learning_rate=x / 4)
        return path(make_optimizer(sgd(1.0), schedule=cosine(), steps=3, **options), params)

    want = jax.tree.map(lambda *leaves: jnp.stack(leaves), run(0.25), run(0.5))
    CLOSE(jax.jit(jax.vmap(run))(jnp.array([0.25, 0.5])), want, rtol=1e-6)  # the rate is a float32


@pytest.mark.parametrize(
    "make",
    [
        lambda x: linear(x),
        lambda x: cosine(x),
        lambda x: exponential(x),
        lambda x: one_cycle(x),
        lambda x: one_cycle(initial=x, final=x),
        lambda x: warmup(constant(), x, x),
    ],
)
def test_arguments_of_schedules_may_be_traced(make):
    p = jnp.linspace(0, 1, 5, dtype=jnp.float32)
    got = jax.jit(lambda x: make(x)(p))(0.3)
    np.testing.assert_allclose(got, make(0.3)(p), rtol=1e-6)  # float32


def test_zero_is_no_other_state_when_traced(params):
    """A momentum or decay of 0 leaves its part out only where it will be 0 for good."""
    assert len(rmsprop(RATE).init(params)) == len(rmsprop(RATE, momentum=0.5).init(params)) - 1
    as_array = rmsprop(RATE, momentum=jnp.asarray(0.0))
    assert len(as_array.init(params)) == len(rmsprop(RATE, momentum=0.5).init(params))
    CLOSE(path(as_array, params), path(rmsprop(RATE), params))


@EVERY
def test_values_at_hand_are_checked(name):
    for value, error in ((-1.0, ValueError), (jnp.asarray(-1.0), ValueError), (True, TypeError)):
        with pytest.raises(error, match="learning_rate: expected a"):
            MAKERS[name](value)


# --- learning rates that are schedules of Optax ----------------------------------------------


@EVERY
def test_a_schedule_of_optax_is_a_learning_rate(name, params):
    """All updates are proportional to the learning rate of their step, the first of count 0."""
    schedule = optax.linear_schedule(RATE, 0.0, 4)
    got = jax.jit(functools.partial(path, MAKERS[name](schedule)))(params)
    unit = path(MAKERS[name](1.0), params)
    rates = RATE * (1 - np.arange(3) / 4)
    want = jax.tree.map(lambda u: u * rates.reshape(3, *[1] * (u.ndim - 1)), unit)
    CLOSE(got, want, rtol=1e-6)  # Optax's schedules compute in float32


def test_a_schedule_of_optax_in_a_composition(params):
    schedule = optax.linear_schedule(RATE, 0.0, 4)
    got = path(make_optimizer(adam(1.0), learning_rate=schedule), params)
    CLOSE(got, path(adam(schedule), params))
    with pytest.raises(TypeError, match="learning_rate: expected a number"):
        make_optimizer(adam(1.0), learning_rate=schedule, schedule=linear())


def test_the_mask_of_decay():
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    rules = {"weights": (1, 0), None: (1, 1), lambda params: {"w": False, "b": True}: (0, 1)}
    for mask, (w, b) in rules.items():
        transform = decoupled_decay(0.5, mask)
        updates, _ = transform.update(zeros, transform.init(params), params)
        CLOSE(updates, {"w": jnp.full((2, 2), -0.5 * w), "b": jnp.full(2, -0.5 * b)})
    with pytest.raises(ValueError, match="mask: expected 'weights', a function, or None, got 'b'"):
        decoupled_decay(0.5, "b")


# --- progress where nobody gives it ----------------------------------------------------------

STEPS = 4
FALLING = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.0]  # and it stays at the end


def falling(steps=STEPS):
    """Descent with a learning rate that falls to 0 in a straight line."""
    return make_optimizer(sgd(1.0), learning_rate=1.0, schedule=linear(), steps=steps)


def updates_of(optimizer, **extra):
    one = {"w": jnp.ones(()), "b": jnp.ones(())}
    optimizer = optax.with_extra_args_support(optimizer)
    state, out, update = optimizer.init(one), [], jax.jit(optimizer.update)
    for _ in FALLING:
        updates, state = update(one, state, one, **extra)
        out.append(float(updates["w"]))
    return out


WRAPPERS = {
    "itself": lambda o: o,
    "chain": lambda o: optax.chain(optax.identity(), o),
    "masked": lambda o: optax.masked(o, {"w": True, "b": False}),
    "multi_transform": lambda o: optax.multi_transform(
        {"ours": o, "theirs": optax.sgd(0.1)}, {"w": "ours", "b": "theirs"}
    ),
    "inject": lambda o: optax.inject_hyperparams(lambda x: o)(1.0),
    "MultiSteps": lambda o: optax.MultiSteps(o, 1),
}


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_updates_are_counted_where_no_progress_is_given(name):
    optimizer = WRAPPERS[name](falling())
    if name == "MultiSteps":
        optimizer = optimizer.gradient_transformation()  # Optax drops extra arguments here
    np.testing.assert_array_equal(updates_of(optimizer), FALLING)


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_progress_that_is_given_comes_first(name):
    optimizer = WRAPPERS[name](falling())
    if name == "MultiSteps":
        one = jnp.ones(())
        state = optimizer.init(one)
        for _ in range(3):
            updates, state = optimizer.update(one, state, one, progress=jnp.float32(0.75))
            assert float(updates) == -0.25
    else:
        got = updates_of(optimizer, progress=jnp.float32(0.75))
        np.testing.assert_array_equal(got, [-0.25] * len(FALLING))


def test_accumulated_gradients_count_as_one_update():
    optimizer = optax.MultiSteps(falling(), 2).gradient_transformation()
    np.testing.assert_array_equal(updates_of(optimizer), [0, -1, 0, -0.75, 0, -0.5])


def test_in_the_state_of_flax():
    state = TrainState.create(apply_fn=None, params={"w": jnp.ones(())}, tx=falling())
    seen = []
    for _ in FALLING:
        before = state
        state = jax.jit(lambda s: s.apply_gradients(grads={"w": jnp.ones(())}))(state)
        seen.append(float(state.params["w"] - before.params["w"]))
    np.testing.assert_array_equal(seen, FALLING)


def test_a_composition_without_a_schedule_needs_no_progress(params):
    CLOSE(path(make_optimizer(adam(1.0), learning_rate=RATE), params), path(adam(RATE), params))


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"progress: expected .* steps=.* progress=\.\.\."):
        updates_of(falling(steps=None))
    for steps, error in ((0, ValueError), (True, TypeError), ("4", TypeError)):
        with pytest.raises(error, match="steps: expected a"):
            scale_by_progress(1.0, linear(), steps)


# --- in a training step ----------------------------------------------------------------------


def train(optimizer, **options):
    """The parameter's changes in a few steps on a loss with a gradient of 1."""

    def loss(params, batch):
        return weighted(batch * params["w"])

    step = make_train_step(loss, optimizer, **options)
    state, changes, jitted = step.init({"w": jnp.zeros(())}, jax.random.key(0)), [], jax.jit(step)
    for _ in FALLING:
        before = state
        state, info = jitted(state, jnp.ones(2))
        assert bool(info.finite)
        changes.append(float(state.params["w"] - before.params["w"]))
    return changes


def test_a_step_that_knows_its_length_says_so():
    np.testing.assert_array_equal(train(falling(None), steps=STEPS), FALLING)
    np.testing.assert_array_equal(train(falling(100), steps=STEPS), FALLING)


def test_a_step_that_does_not_leaves_the_count_to_the_optimizer():
    np.testing.assert_array_equal(train(falling()), FALLING)
    np.testing.assert_array_equal(train(falling(None)), [-1.0] * len(FALLING))


@pytest.mark.parametrize("plain", [False, True])
def test_progress_passes_through_accumulated_gradients(plain):
    optimizer = optax.MultiSteps(falling(None), 2)
    optimizer = optimizer.gradient_transformation() if plain else optimizer
    changes = train(optimizer, steps=STEPS)  # progress at the second of two: 1/4, 3/4, 1
    np.testing.assert_array_equal(changes, [0, -0.75, 0, -0.25, 0, 0])


def test_optimizers_without_extra_arguments_are_given_none():
    plain = optax.GradientTransformation(
        lambda params: (), lambda g, state, params=None: (jax.tree.map(jnp.negative, g), state)
    )
    np.testing.assert_array_equal(train(plain), [-1.0] * len(FALLING))
