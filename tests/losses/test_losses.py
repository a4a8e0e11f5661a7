"""What every loss of the package holds: shapes, float types, derivatives."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from seqnets import losses

B, S, K = 2, 3, 4


class Row(NamedTuple):
    """A loss and how its arguments are drawn; shapes of all of them must agree."""

    name: str
    arguments: Mapping[str, Callable]
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


PAIR = {"prediction": real, "target": real}
CLASSES = {"logits": logits, "targets": classes}
BINARY = {"logits": real, "targets": binary}
ROWS = [
    Row("squared_error", PAIR),
    Row("absolute_error", PAIR),
    Row("huber", PAIR, {"delta": 0.7}),
    Row("log_cosh", PAIR),
    Row("cross_entropy", CLASSES),
    Row("cross_entropy", CLASSES, {"label_smoothing": 0.1}),
    Row("categorical_cross_entropy", {"logits": logits, "distributions": distribution}),
    Row("binary_cross_entropy", BINARY),
    Row("focal", CLASSES, {"gamma": 1.5}),
    Row("binary_focal", BINARY, {"alpha": 0.25}),
    Row("gaussian", {"target": real, "loc": real, "scale": positive}),
    Row("student_t", {"target": real, "df": positive, "loc": real, "scale": positive}),
    Row("negative_binomial", {"target": counts, "mean": positive, "dispersion": positive}),
    Row("dice", {"probabilities": probability, "targets": binary}),
    Row("generalized_dice", {"probabilities": distribution, "targets": distribution}),
]
TABLE = pytest.mark.parametrize("row", ROWS, ids=lambda r: "_".join([r.name, *r.options]))


def test_table_is_complete():
    """Adversarial pairs, pinball and penalties have rules of their own, tested beside them."""
    public = {name for name, value in vars(losses).items() if callable(value)}
    apart = {name for name in public if name.endswith(("generator", "discriminator"))}
    own = {"activity", "gradient_penalty", "pinball", "temporal_activity"}
    assert {row.name for row in ROWS} == public - apart - own


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


@TABLE
def test_derivatives_in_float64(row, rng):
    """Against finite differences, first and second order, by every argument of floats."""
    with jax.enable_x64(True):
        drawn = {k: jnp.asarray(v) for k, v in row.draw(rng).items()}
        varied = [k for k, v in drawn.items() if v.dtype == jnp.float64 and k != "targets"]
        if row.name == "negative_binomial":
            varied.remove("target")  # counts

        @jax.jit
        def total(*values):
            return row.function()(**{**drawn, **dict(zip(varied, values, strict=True))}).sum()

        assert total(*[drawn[k] for k in varied]).dtype == jnp.float64
        # Central differences with step ε are right to ε² in the first derivative.
        check_grads(total, [drawn[k] for k in varied], 2, ["rev"], eps=1e-4, atol=1e-5, rtol=1e-5)


@TABLE
def test_jit_and_vmap_change_nothing(row, rng):
    """Under vmap each row is computed as it is in the batch."""
    arguments = {k: jnp.asarray(v, jnp.float32) for k, v in row.draw(rng).items()}
    if "targets" in arguments and row.arguments["targets"] is classes:
        arguments["targets"] = arguments["targets"].astype(jnp.int32)
    names = list(arguments)
    f = jax.jit(lambda *values: row.function()(**dict(zip(names, values, strict=True))))
    batch = row.function()(**arguments)
    # Fused operations may round once less: a few units in the last place of terms about 10.
    np.testing.assert_allclose(f(*arguments.values()), batch, rtol=1e-5, atol=1e-6)
    if row.name.endswith("dice"):
        return
    by_row = jax.vmap(f)(*arguments.values())
    np.testing.assert_allclose(by_row, batch, rtol=1e-5, atol=1e-6)
