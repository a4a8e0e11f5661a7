"""Every optimizer and schedule, with and without jit, against Optax's or a formula."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import parameterized

from seqnets import optimizers
from seqnets.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    Plateau,
    adam,
    adamw,
    constant,
    cosine,
    decay_mask,
    decoupled_decay,
    exponential,
    linear,
    make_optimizer,
    one_cycle,
    reduce_on_plateau,
    scale_by_progress,
    warmup,
)

RATE, PROGRESS = 0.05, 0.25
TYPES = ("DecayMask", "LearningRate", "Schedule")
SHAPES = {"w": (3, 2), "b": (2,)}


class Row(NamedTuple):
    """A transformation, and one of Optax's that gives the same updates."""

    name: str
    ours: Any
    theirs: optax.GradientTransformation

    @classmethod
    def named(cls, name, theirs, **options):
        return cls(name, OPTIMIZERS[name](RATE, **options), theirs)


def composed():
    return optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1, decay_mask),
        optax.scale(-RATE * (1 - PROGRESS)),
    )


ROWS = [
    Row.named("adadelta", optax.adadelta(RATE, rho=0.9, eps=1e-6)),
    Row.named("adagrad", optax.adagrad(RATE, initial_accumulator_value=0.0, eps=1e-10)),
    Row.named("adam", optax.adam(RATE)),
    Row.named("adamax", optax.adamax(RATE)),
    Row.named("momentum", optax.sgd(RATE, 0.9)),
    Row.named("nadam", optax.nadam(RATE), momentum_decay=1e6),  # Optax's has no warm-up
    Row.named("nesterov", optax.sgd(RATE, 0.9, nesterov=True)),
    Row.named("rmsprop", optax.rmsprop(RATE, 0.99, eps_in_sqrt=False)),
    Row.named("sgd", optax.sgd(RATE)),
    Row("adamw", adamw(RATE), optax.adamw(RATE, weight_decay=0.01, mask=decay_mask)),
    Row("decoupled_decay", decoupled_decay(0.1), optax.add_decayed_weights(-0.1, decay_mask)),
    Row(
        "scale_by_progress",
        scale_by_progress(RATE, linear()),
        optax.scale(RATE * (1 - PROGRESS)),
    ),
    Row(  # the loss below never falls
        "reduce_on_plateau",
        reduce_on_plateau(Plateau(factor=0.5, patience=1, steps=1)),
        optax.scale_by_schedule(lambda count: 0.5**count),
    ),
    Row(
        "make_optimizer",
        make_optimizer(
            adam(1.0), learning_rate=RATE, schedule=linear(), clip_norm=0.5, weight_decay=0.1
        ),
        composed(),
    ),
]


class Curve(NamedTuple):
    """A schedule, and its formula in float64."""

    name: str
    schedule: Callable
    formula: Callable


def half_cosine(start, stop, p):
    return stop + (start - stop) * np.cos(np.pi * p / 2) ** 2


CURVES = [
    Curve("constant", constant(), np.ones_like),
    Curve("linear", linear(0.2), lambda p: 1 - 0.8 * p),
    Curve("cosine", cosine(0.2), lambda p: half_cosine(1, 0.2, p)),
    Curve("exponential", exponential(0.3), lambda p: 0.3**p),
    Curve(
        "one_cycle",
        one_cycle(0.25, 0.1, 0.4),
        lambda p: np.where(
            p < 0.25, half_cosine(0.1, 1, p / 0.25), half_cosine(1, 0.4, (p - 0.25) / 0.75)
        ),
    ),
    Curve(
        "warmup",
        warmup(linear(), 0.25, initial=0.2),
        lambda p: np.where(p < 0.25, 0.2 + 0.8 * p / 0.25, 1 - (p - 0.25) / 0.75),
    ),
]


def test_tables_are_complete():
    public = {
        name
        for name, value in vars(optimizers).items()
        if callable(value) and not isinstance(value, type) and name not in TYPES
    }
    names = {row.name for row in ROWS} | {curve.name for curve in CURVES}
    assert names | {"decay_mask"} == public  # a function of shapes
    assert names >= OPTIMIZERS.keys() | SCHEDULES.keys()


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*ROWS)
    def test_updates_are_those_of_optax_with_and_without_jit(self, ours, theirs):
        rng = np.random.default_rng(5)
        params, *gradients = (
            {name: jnp.float32(rng.normal(size=shape)) for name, shape in SHAPES.items()}
            for _ in range(5)
        )
        ours = optax.with_extra_args_support(ours)
        chex.clear_trace_counter()
        update = self.variant(chex.assert_max_traces(ours.update, n=1))
        told = {"progress": jnp.float32(PROGRESS), "value": jnp.float32(1)}
        state, other = ours.init(params), theirs.init(params)
        for gradient in gradients:
            got, state = update(gradient, state, params, **told)
            want, other = theirs.update(gradient, other, params)
            chex.assert_trees_all_equal_shapes_and_dtypes(got, params)
            chex.assert_tree_all_finite((got, state))
            # 1 - 0.999ᵗ has a relative error of 6e-5 at t = 1 in float32, of steps 0.05 long.
            chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*CURVES)
    def test_schedules_are_their_formulas_with_and_without_jit(self, schedule, formula):
        schedule = self.variant(schedule)
        for p in np.linspace(0, 1, 9):
            rate = schedule(jnp.float32(p))
            chex.assert_shape(rate, ())
            # A few roundings of values of the order of 1.
            chex.assert_trees_all_close(rate, formula(p), rtol=0, atol=5e-7)
