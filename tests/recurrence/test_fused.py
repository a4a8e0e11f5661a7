"""The fused strategy against the plain scan: values, gradients, and what it can be put under."""

import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, Elman, GRUResetBefore, LayerNormGRU
from seqnets.recurrence import Execution, Noise, lengths_to_mask, unroll

B, T, D, H = 3, 6, 4, 5
CELLS = {"elman": Elman(H), "lstm": LSTM(H), "gru": GRU(H)}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def draw(cell, rng, dtype="float32"):
    """Parameters, carry and inputs with nothing left at zero."""
    params = cell.init(jax.random.key(0), D)
    carry = cell.initial_carry(params, B, "float32")
    tree = (params, carry, jnp.zeros((B, T, D)))
    return jax.tree.map(lambda x: jnp.asarray(x + 0.4 * rng.normal(size=x.shape), dtype), tree)


def loss(cell, strategy, params, carry, xs, **flags):
    final, ys = unroll(cell, params, carry, xs, execution=Execution(strategy), **flags)
    return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves((final, ys)))


def check_as_scanned(cell, point, **flags):
    """Values and gradients are those of the plain scan, up to float64 sums in another order."""
    got, want = (
        jax.jit(jax.value_and_grad(functools.partial(loss, cell, way, **flags), (0, 1, 2)))(*point)
        for way in ("fused", "scan")
    )
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-12)


# The even half has every combination of any three; both have every combination of all four.
@every_cell
@pytest.mark.parametrize("half", ["even", pytest.param("odd", marks=pytest.mark.slow)])
def test_values_and_gradients_are_those_of_the_scan(cell, half, rng):
    """With every combination of direction, padding, resets, and noise, in float64."""
    with jax.enable_x64(True):
        point = draw(cell, rng, "float64")
        mask, reset = rng.random((B, T)) < 0.7, rng.random((B, T)) < 0.4
        updates = [jnp.asarray(rng.random((B, T, H)) < 0.7), jnp.full((1, T), 0.6)]
        noise = Noise(
            hidden=jnp.asarray(rng.random((B, H))),
            updates=jax.tree.unflatten(jax.tree.structure(point[1]), updates[: len(point[1])]),
        )
        for chosen in itertools.product((False, True), repeat=4):
            if (sum(chosen) % 2 == 1) != (half == "odd"):
                continue
            reverse, masked, resets, noisy = chosen
            check_as_scanned(
                cell,
                point,
                reverse=reverse,
                mask=jnp.asarray(mask) if masked else None,
                reset=jnp.asarray(reset) if resets else None,
                noise=noise if noisy else None,
            )


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_a_single_row(cell, reverse, rng):
    """Its inputs' products are done before the loop."""
    with jax.enable_x64(True):
        params, carry, xs = draw(cell, rng, "float64")
        point = (params, jax.tree.map(lambda leaf: leaf[:1], carry), xs[:1])
        mask = jnp.asarray(rng.random((1, T)) < 0.7)
        check_as_scanned(cell, point, reverse=reverse, mask=mask)


@every_cell
def test_bfloat16_products_with_a_float32_carry(cell, rng):
    """The carry keeps its dtype, weights' gradients are summed in float32, dtypes are kept."""
    params, carry, xs = draw(cell, rng)
    low = jax.tree.map(lambda x: x.astype("bfloat16"), (params, xs))
    final, _ = unroll(cell, low[0], carry, low[1], execution=Execution("fused"))
    chex.assert_type(jax.tree.leaves(final), jnp.float32)
    wide, _ = unroll(cell, params, carry, xs, execution=Execution("scan"))
    chex.assert_trees_all_close(final, wide, atol=0.1)
    grads = jax.grad(functools.partial(loss, cell, "fused"), (0, 1, 2))(low[0], carry, low[1])
    chex.assert_trees_all_equal_dtypes(grads, (low[0], carry, low[1]))
    exact = jax.grad(functools.partial(loss, cell, "scan"), (0, 1, 2))(params, carry, xs)
    size = jax.tree.map(lambda g: jnp.abs(g).max(), exact)
    relative = [jax.tree.map(jnp.divide, tree, size) for tree in (grads, exact)]
    chex.assert_trees_all_close(*relative, atol=0.15)  # bfloat16 has 8 bits; six steps add up


def test_second_derivatives(rng):
    with jax.enable_x64(True):
        cell = GRU(H)
        params, carry, xs = draw(cell, rng, "float64")
        along = jnp.asarray(rng.normal(size=xs.shape))

        def slope(way):
            def directional(xs):
                return jnp.vdot(jax.grad(lambda x: loss(cell, way, params, carry, x))(xs), along)

            return jax.jit(jax.grad(directional))(xs)

        np.testing.assert_allclose(slope("fused"), slope("scan"), rtol=1e-10)


@every_cell
def test_vmap_and_checkpoint(cell, rng):
    with jax.enable_x64(True):
        params, carry, xs = draw(cell, rng, "float64")
        gradient = jax.grad(functools.partial(loss, cell, "fused", params), argnums=1)
        many = jnp.stack([xs, 2 * xs, -xs])
        for one, mapped in zip(many, jax.vmap(lambda x: gradient(carry, x))(many), strict=True):
            np.testing.assert_allclose(gradient(carry, one), mapped, rtol=1e-10, atol=1e-12)
        again = jax.grad(jax.checkpoint(functools.partial(loss, cell, "fused")), argnums=2)
        np.testing.assert_allclose(again(params, carry, xs), gradient(carry, xs), rtol=1e-10)


def test_forward_mode_says_what_is_wrong(rng):
    params, carry, xs = draw(LSTM(H), rng)
    value = functools.partial(loss, LSTM(H), "auto", params, carry)
    way_out = r'needs execution=Execution\(strategy="scan"\)'
    with pytest.raises(TypeError, match=way_out):
        jax.jvp(value, (xs,), (xs,))
    with pytest.raises(TypeError, match=way_out):
        jax.hessian(value)(xs)
    scanned = functools.partial(loss, LSTM(H), "scan", params, carry)
    slope = jnp.vdot(jax.grad(value)(xs), xs)
    np.testing.assert_allclose(jax.jvp(scanned, (xs,), (xs,))[1], slope, rtol=1e-4)


def test_no_steps_and_unused_results(rng):
    cell = LSTM(H)
    params, carry, xs = draw(cell, rng)
    final, ys = unroll(cell, params, carry, xs[:, :0], execution=Execution("fused"))
    assert ys.shape == (B, 0, H)
    chex.assert_trees_all_equal(final, carry, strict=True)
    grads = jax.grad(lambda p: unroll(cell, p, carry, xs, execution=Execution("fused"))[0].c.sum())(
        params
    )
    assert np.any(grads.w_x != 0)


def test_auto_chooses_by_the_cell(rng):
    """Only the fused strategy has a custom derivative, which its jaxpr shows."""
    xs = jnp.zeros((B, T, D))
    for cell, chosen in ((LSTM(H), True), (GRUResetBefore(H), False)):
        params = cell.init(jax.random.key(0), D)
        jaxpr = str(jax.make_jaxpr(lambda x, c=cell, p=params: unroll(c, p, None, x))(xs))
        assert ("custom_vjp" in jaxpr) == chosen


def test_fused_needs_a_gated_cell():
    cell = GRUResetBefore(H)
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(TypeError, match="'fused': cell: expected a GatedCell, got GRUResetBefore"):
        unroll(cell, params, None, jnp.zeros((B, T, D)), execution=Execution("fused"))


@pytest.mark.parametrize(
    "cell", [LSTM(H), GRU(H), LayerNormGRU(H)], ids=lambda cell: type(cell).__name__
)
@pytest.mark.parametrize("masked", [False, True])
def test_no_step_copies_what_all_steps_share(cell, masked):
    """A buffer of T steps that a step copies makes the time quadratic, and shows in no result."""
    steps = 50
    params, xs = cell.init(jax.random.key(0), D), jnp.ones((B, steps, D))
    mask = lengths_to_mask(jnp.array([steps, 7, 0]), steps) if masked else None
    function = jax.grad(lambda p, x: jnp.sum(unroll(cell, p, None, x, mask=mask)[1] ** 2), (0, 1))
    program = jax.jit(function).lower(params, xs).compile().as_text()
    bodies = re.findall(r"body=(%[\w.\-]+)", program)
    assert len(bodies) == 2
    parts = {part.split()[0]: part for part in re.split(r"\n(?=%)", program)}
    for body in bodies:
        assert not re.findall(rf"%copy\S* = f32\[{steps},\d+,{B}\]", parts[body])
