"""The reference strategy itself: what it puts inside the loop, and its second derivatives."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import LSTM, Elman
from seqnets.recurrence.contract import Steps
from seqnets.recurrence.scan import scan


@dataclasses.dataclass(frozen=True)
class Plain:
    """A cell of which only the protocol is known."""

    inner: LSTM

    @property
    def features(self):
        return self.inner.features

    def init(self, key, in_features):
        return self.inner.init(key, in_features)

    def initial_carry(self, params, batch, dtype):
        return self.inner.initial_carry(params, batch, dtype)

    def step(self, params, carry, x):
        return self.inner.step(params, carry, x)


def products_in_the_loop(cell, params, carry, steps):
    jaxpr = jax.make_jaxpr(lambda *a: scan(cell, *a, reverse=False))(params, carry, steps)
    (loop,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
    return str(loop.params["jaxpr"]).count("dot_general")


def test_the_input_product_of_a_gated_cell_is_taken_for_all_steps_at_once(rng):
    cell = LSTM(4)
    params = cell.init(jax.random.key(0), 3)
    carry = cell.initial_carry(params, 2, "float32")
    steps = Steps(jnp.asarray(rng.normal(size=(2, 5, 3)), "float32"), None, None, carry)
    assert products_in_the_loop(cell, params, carry, steps) == 1
    assert products_in_the_loop(Plain(cell), params, carry, steps) == 2
    hoisted = scan(cell, params, carry, steps, reverse=True)
    plain = scan(Plain(cell), params, carry, steps, reverse=True)
    chex.assert_trees_all_close(hoisted, plain, atol=1e-6)


def test_second_derivatives(rng):
    """Forward over reverse equals differences of the gradient."""
    with jax.enable_x64(True):
        cell = Elman(3)
        carry = cell.initial_carry(None, 2, "float64")
        xs, v = jnp.asarray(rng.normal(size=(2, 2, 4, 3)))
        params = jax.tree.map(lambda p: p.astype("float64"), cell.init(jax.random.key(0), 3))

        def value(xs):
            return jnp.sum(
                jnp.sin(scan(cell, params, carry, Steps(xs, None, None, carry), reverse=False)[1])
            )

        @jax.jit
        def both(xs, v):
            gradient, eps = jax.grad(value), 1e-5
            numerical = (gradient(xs + eps * v) - gradient(xs - eps * v)) / (2 * eps)
            return jax.jvp(gradient, (xs,), (v,))[1], numerical

        np.testing.assert_allclose(*both(xs, v), atol=1e-7)  # eps² and 1e-16 / eps
