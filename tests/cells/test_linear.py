"""Linear cells: the laws of their elements, and the loop that evaluates them."""

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import LinearCell
from seqnets.recurrence import unroll

B, T, D, H = 3, 7, 2, 4


class Carry(NamedTuple):
    h: jax.Array


class Params(NamedTuple):
    w: jax.Array


@dataclasses.dataclass(frozen=True)
class Decay(LinearCell):
    """``h = a ∘ h + b`` with a and b from the input."""

    def init(self, key, in_features):
        return Params(jax.random.normal(key, (in_features, 2 * self.features)))

    def initial_carry(self, params, batch, dtype):
        return Carry(jnp.zeros((batch, self.features), dtype))

    def elements(self, params, xs):
        a, b = jnp.split(xs @ params.w, 2, axis=-1)
        return jax.nn.sigmoid(a), b

    def combine(self, first, then):
        return first[0] * then[0], then[0] * first[1] + then[1]

    def identity(self, like):
        return jnp.ones_like(like[0]), jnp.zeros_like(like[1])

    def act(self, element, carry):
        return Carry(element[0] * carry.h + element[1])


@dataclasses.dataclass(frozen=True)
class Rotation(Decay):
    """Pairs of units turned by an angle: elements that do not commute with their translation."""

    def elements(self, params, xs):
        angle, shift = jnp.split(xs @ params.w, 2, axis=-1)
        return jnp.exp(1j * angle), shift.astype(complex)

    def initial_carry(self, params, batch, dtype):
        return Carry(jnp.zeros((batch, self.features), "complex64"))

    def read(self, params, carry, x):
        return carry.h.real


CELLS = pytest.mark.parametrize("cell", [Decay(H), Rotation(H)], ids=["decay", "rotation"])


@pytest.fixture
def xs(rng):
    return jnp.asarray(rng.normal(size=(B, T, D)), "float32")


@CELLS
def test_laws(cell, xs):
    params = cell.init(jax.random.key(0), D)
    a, b, c = (cell.elements(params, xs[:, t]) for t in range(3))
    close = lambda x, y: chex.assert_trees_all_close(x, y, rtol=1e-5, atol=1e-6)  # noqa: E731
    close(cell.combine(cell.combine(a, b), c), cell.combine(a, cell.combine(b, c)))
    nothing = cell.identity(a)
    close(cell.combine(nothing, a), a)
    close(cell.combine(a, nothing), a)
    carry = cell.act(c, cell.initial_carry(params, B, "float32"))
    close(cell.act(cell.combine(a, b), carry), cell.act(b, cell.act(a, carry)))
    close(cell.act(nothing, carry), carry)


@CELLS
@pytest.mark.parametrize("reverse", [False, True])
def test_the_loop_is_the_scan_over_elements(cell, xs, reverse, rng):
    params = cell.init(jax.random.key(0), D)
    mask = jnp.asarray(rng.random((B, T)) < 0.7)
    final, ys = unroll(cell, params, None, xs, mask=mask, reverse=reverse)
    for b in range(B):
        times = [t for t in range(T) if mask[b, t]]
        times = times[::-1] if reverse else times
        steps = [cell.elements(params, xs[b : b + 1, t]) for t in times]
        start = cell.initial_carry(params, 1, "float32")
        for number, t in enumerate(times):
            whole = steps[0]
            for element in steps[1 : number + 1]:
                whole = cell.combine(whole, element)
            y = cell.read(params, cell.act(whole, start), xs[b : b + 1, t])
            np.testing.assert_allclose(ys[b, t], y[0], rtol=1e-4, atol=1e-5)
        if steps:
            np.testing.assert_allclose(
                final.h[b], cell.act(whole, start).h[0], rtol=1e-4, atol=1e-5
            )
    np.testing.assert_array_equal(ys[~np.asarray(mask)], 0)


def test_gradients(xs):
    cell = Decay(H)
    params = cell.init(jax.random.key(0), D)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, "float64"), (params, xs))
        leaves, structure = jax.tree.flatten(wide)

        def loss(*leaves):
            params, xs = jax.tree.unflatten(structure, leaves)
            return jnp.sum(jnp.sin(unroll(cell, params, None, xs)[1]))

        chex.assert_numerical_grads(loss, leaves, order=1, atol=1e-6)
