"""What every loss of the package holds: values, shapes, float types, derivatives."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special as sp
import scipy.stats as st
from absl.testing import parameterized

from seqnets import losses

B, S, K = 2, 3, 4


class Row(NamedTuple):
    """A loss, how its arguments are drawn, and what it is according to others, in float64."""

    name: str
    arguments: Mapping[str, Callable]
    exact: Callable
    options: Mapping = MappingProxyType({})

    def draw(self, rng):
        return {name: draw(rng) for name, draw in self.arguments.items()}

    def function(self):
        return functools.partial(getattr(losses, self.name), **self.options)


def real(rng):
    return rng.normal(size=(B, S))


def positive(rng):
    return rng.uniform(0.3, 3, (B, S))


def counts(rng):
    return rng.poisson(3.0, (B, S)).astype(float)


def binary(rng):
    return rng.integers(0, 2, (B, S)).astype(float)


def probability(rng):
    return rng.uniform(0.1, 0.9, (B, S))


def logits(rng):
    return rng.normal(size=(B, S, K))


def classes(rng):
    return rng.integers(0, K, (B, S))


def distribution(rng):
    return rng.dirichlet(np.ones(K), (B, S))


def keys(rng):
    return jax.random.split(jax.random.key(0), B)


def log_p(logits, targets):
    """Of the true class."""
    return np.take_along_axis(sp.log_softmax(logits, -1), targets[..., None], -1)[..., 0]


def smoothed(logits, targets):
    labels = optax.smooth_labels(jax.nn.one_hot(targets, K), 0.1)
    return optax.softmax_cross_entropy(logits, labels)


def negative_binomial(y, mean, dispersion):
    return -st.nbinom.logpmf(y, 1 / dispersion, 1 / (1 + dispersion * mean))


def generalized_dice(p, t):
    weight = t.sum(1) ** -2.0
    both = (np.einsum("bsk,bk->b", x, weight) for x in (2 * p * t, p + t))
    return 1 - np.divide(*both)


def penalty(real, fake, keys):
    """The slope of a linear critic is its weights, wherever it is taken."""
    return np.full(B, (np.sqrt(1 + 4 + 9) - 1) ** 2)


def linear_critic(x):
    return x @ jnp.asarray([1, 2, 3], x.dtype)


PAIR = {"prediction": real, "target": real}
CLASSES = {"logits": logits, "targets": classes}
BINARY = {"logits": real, "targets": binary}
NORMAL = {"target": real, "loc": real, "scale": positive}
STUDENT_T = {"target": real, "df": positive, "loc": real, "scale": positive}
COUNTS = {"target": counts, "mean": positive, "dispersion": positive}
DISTRIBUTIONS = {"logits": logits, "distributions": distribution}
BOTH, FAKE = {"real": real, "fake": real}, {"fake": real}
LEVELS = np.array([0.1, 0.4, 0.5, 0.9])

# fmt: off
ROWS = [
    Row("squared_error", PAIR, lambda y, t: (y - t) ** 2),
    Row("absolute_error", PAIR, lambda y, t: np.abs(y - t)),
    Row("huber", PAIR, lambda y, t: optax.huber_loss(y, t, delta=0.7), {"delta": 0.7}),
    Row("log_cosh", PAIR, lambda y, t: optax.log_cosh(y, t)),
    Row("cross_entropy", CLASSES, lambda x, t: -log_p(x, t)),
    Row("cross_entropy", CLASSES, smoothed, {"label_smoothing": 0.1}),
    Row("categorical_cross_entropy", DISTRIBUTIONS, lambda x, q: optax.softmax_cross_entropy(x, q)),
    Row("binary_cross_entropy", BINARY, lambda x, t: optax.sigmoid_binary_cross_entropy(x, t)),
    Row("focal", CLASSES, lambda x, t: -((1 - np.exp(log_p(x, t))) ** 1.5) * log_p(x, t),
        {"gamma": 1.5}),
    Row("binary_focal", BINARY, lambda x, t: optax.sigmoid_focal_loss(x, t, alpha=0.25, gamma=2),
        {"alpha": 0.25}),
    Row("gaussian", NORMAL, lambda y, loc, scale: -st.norm.logpdf(y, loc, scale)),
    Row("student_t", STUDENT_T, lambda y, df, loc, scale: -st.t.logpdf(y, df, loc, scale)),
    Row("negative_binomial", COUNTS, negative_binomial),
    Row("dice", {"probabilities": probability, "targets": binary},
        lambda p, t: 1 - (2 * (p * t).sum(1) + 1) / ((p + t).sum(1) + 1)),
    Row("generalized_dice", {"probabilities": distribution, "targets": distribution},
        generalized_dice),
]
# Of a single argument, or of arguments whose shapes may differ; rejected as their own tests say.
APART = [
    Row("non_saturating_generator", FAKE, lambda fake: np.logaddexp(0, -fake)),
    Row("least_squares_generator", FAKE, lambda fake: (fake - 1) ** 2 / 2),
    Row("hinge_generator", FAKE, lambda fake: -fake),
    Row("wasserstein_generator", FAKE, lambda fake: -fake),
    Row("non_saturating_discriminator", BOTH,
        lambda real, fake: (np.logaddexp(0, -real), np.logaddexp(0, fake))),
    Row("least_squares_discriminator", BOTH,
        lambda real, fake: ((real - 1) ** 2 / 2, fake**2 / 2)),
    Row("hinge_discriminator", BOTH,
        lambda real, fake: (np.maximum(1 - real, 0), np.maximum(1 + fake, 0))),
    Row("wasserstein_discriminator", BOTH, lambda real, fake: (-real, fake)),
    Row("gradient_penalty", {**BOTH, "keys": keys}, penalty, {"critic": linear_critic}),
    Row("pinball", {"target": real, "quantiles": logits},
        lambda y, q: np.where(y[..., None] > q, LEVELS, LEVELS - 1) * (y[..., None] - q),
        {"levels": tuple(LEVELS)}),
    Row("activity", {"ys": logits}, lambda ys: np.square(ys).mean(-1)),
    Row("temporal_activity", {"ys": logits},
        lambda ys: np.square(np.diff(ys, axis=1, prepend=ys[:, :1])).mean(-1)),
]
# fmt: on
TABLE = pytest.mark.parametrize("row", ROWS, ids=lambda r: "_".join([r.name, *r.options]))
EVERY = [("_".join([row.name, *row.options]), row) for row in ROWS + APART]
ALL = pytest.mark.parametrize("row", ROWS + APART, ids=[name for name, _ in EVERY])


def test_table_is_complete():
    public = {name for name, value in vars(losses).items() if callable(value)}
    assert {row.name for row in ROWS + APART} == public


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*EVERY)
    def test_values_according_to_others_with_and_without_jit(self, row):
        arguments = row.draw(np.random.default_rng(5))
        with jax.enable_x64(True):
            want = row.exact(*arguments.values())
        loss = self.variant(row.function())(**jax.tree.map(in_float32, arguments))
        chex.assert_type(jax.tree.leaves(loss), jnp.float32)
        chex.assert_trees_all_equal_shapes(loss, want)
        # A few roundings of terms of about 10.
        chex.assert_trees_all_close(loss, want, rtol=1e-5, atol=1e-5)


def in_float32(x):
    return jnp.asarray(x, jnp.float32) if x.dtype == np.float64 else x


@TABLE
def test_unequal_shapes_are_an_error(row, rng):
    """None of the shapes that NumPy would broadcast passes, for any argument."""
    arguments = row.draw(rng)
    for name, array in arguments.items():
        others = [array[:1], array[..., None], array[0]]
        if (row.arguments, name) != (CLASSES, "logits"):  # there it would be one class
            others.append(array[..., :1])
        for other in others:
            with pytest.raises(ValueError, match="shape"):
                row.function()(**{**arguments, name: other})


@TABLE
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
def test_half_precision_is_computed_in_float32(row, dtype, rng):
    """Exactly the loss of the rounded arguments, and gradients of the arguments' own type."""
    drawn = row.draw(rng)
    halves = {
        k: jnp.asarray(v, dtype) if v.dtype.kind == "f" else jnp.asarray(v)
        for k, v in drawn.items()
    }
    wide = {k: v.astype(jnp.float32) if v.dtype == dtype else v for k, v in halves.items()}
    value = row.function()(**halves)
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, row.function()(**wide))
    first = next(iter(halves))
    grad = jax.grad(lambda x: row.function()(**{**halves, first: x}).sum())(halves[first])
    assert grad.dtype == dtype


@ALL
def test_derivatives_in_float64(row, rng):
    """Against finite differences, first and second order, by every argument of floats."""
    with jax.enable_x64(True):
        drawn = jax.tree.map(jnp.asarray, row.draw(rng))
        varied = [k for k, v in drawn.items() if v.dtype == jnp.float64 and k != "targets"]
        if row.name == "negative_binomial":
            varied.remove("target")  # counts

        @jax.jit
        def total(*values):
            loss = row.function()(**{**drawn, **dict(zip(varied, values, strict=True))})
            return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(loss))

        values = [drawn[k] for k in varied]
        chex.assert_type(total(*values), jnp.float64)
        # Central differences with step ε are right to ε² in the first derivative. The tolerance
        # is multiplied by the size of the first argument.
        tolerance = {"atol": 1e-5 / values[0].size, "rtol": 1e-5}
        chex.assert_numerical_grads(total, values, 2, modes=["rev"], eps=1e-4, **tolerance)


@ALL
def test_each_row_alone_is_what_it_is_in_the_batch(row, rng):
    arguments = jax.tree.map(in_float32, row.draw(rng))
    one = jax.tree.map(lambda x: x[:, None], arguments)
    alone = jax.jit(jax.vmap(lambda arguments: row.function()(**arguments)))(one)
    batch = jax.tree.map(lambda x: x[:, None], row.function()(**arguments))
    # Fused operations may round once less: a few units in the last place of terms about 10.
    chex.assert_trees_all_close(alone, batch, rtol=1e-5, atol=1e-6, strict=True)
