"""What gated cells share: parameters, the two products, and the errors about sizes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import (
    GRU,
    LSTM,
    MGU,
    CoupledLSTM,
    Elman,
    GatedCell,
    GatedParams,
    GRUResetBefore,
    MGUResetAfter,
)
from seqnets.cells.gated import product_dtypes, project_hidden, project_inputs
from seqnets.initializers import Initialization, chrono

GATES = {
    Elman: 1,
    LSTM: 4,
    CoupledLSTM: 3,
    GRU: 3,
    GRUResetBefore: 3,
    MGU: 2,
    MGUResetAfter: 2,
}
ALL_CELLS = list(GATES)


@pytest.mark.parametrize("kind", ALL_CELLS)
def test_init_shapes_dtypes_and_biases(kind):
    G, D, H = GATES[kind], 3, 5
    params = kind(H).init(jax.random.key(0), in_features=D)
    assert isinstance(params, GatedParams)
    assert params.w_x.shape == (D, G * H)
    assert params.w_h.shape == (H, G * H)
    assert params.b.shape == (G * H,)
    assert params.extra is None
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    if kind in (GRU, MGUResetAfter):
        np.testing.assert_array_equal(params.b_h, np.zeros(G * H))
    else:
        assert params.b_h is None


@pytest.mark.parametrize("kind", ALL_CELLS)
def test_recurrent_blocks_are_orthogonal_and_differ(kind):
    H = 5
    w_h = np.asarray(kind(H).init(jax.random.key(1), 3).w_h)
    blocks = np.split(w_h, GATES[kind], axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-5)  # float32 QR
    for number, block in enumerate(blocks[1:]):
        assert abs(block - blocks[number]).max() > 0.1


@pytest.mark.parametrize("kind", ALL_CELLS)
def test_input_blocks_are_glorot_uniform_by_gate(kind):
    D, H = 40, 60
    w_x = np.asarray(kind(H).init(jax.random.key(2), D).w_x)
    limit = np.sqrt(6 / (D + H))  # of one gate's block [D, H], not of the fused [D, G·H]
    assert abs(w_x).max() <= limit
    assert abs(w_x).max() > 0.99 * limit
    np.testing.assert_allclose(w_x.std(), limit / np.sqrt(3), rtol=0.05)  # 2400 draws or more


@pytest.mark.parametrize("kind", ALL_CELLS)
def test_init_follows_the_key(kind):
    cell = kind(4)
    first, again, other = (cell.init(jax.random.key(k), 3) for k in (0, 0, 1))
    chex.assert_trees_all_equal(first, again, strict=True)
    assert abs(first.w_h - other.w_h).max() > 0.1
    assert abs(first.w_x - other.w_x).max() > 0.1


@pytest.mark.parametrize("kind", ALL_CELLS)
def test_initialization_reaches_every_gate(kind):
    """One initializer a gate, in order, each called for its own block."""
    G, H = GATES[kind], 5

    def constant(value, rows):
        def init(key, shape, dtype):
            assert shape == (rows, H)
            return jnp.full(shape, value, dtype)

        return init

    given = Initialization(
        inputs=tuple(constant(gate, 3) for gate in range(G)),
        recurrent=tuple(constant(10 + gate, H) for gate in range(G)),
        bias=lambda key, shape, dtype: jnp.arange(shape[0], dtype=dtype),
    )
    params = kind(H, initialization=given).init(jax.random.key(0), 3)
    np.testing.assert_array_equal(params.w_x, np.tile(np.repeat(np.arange(G), H), (3, 1)))
    np.testing.assert_array_equal(params.w_h, np.tile(np.repeat(10 + np.arange(G), H), (H, 1)))
    np.testing.assert_array_equal(params.b, np.arange(G * H))
    short = Initialization(recurrent=(constant(0, H),) * (G + 1))
    with pytest.raises(ValueError, match=rf"initializer: .* {G} gates, got {G + 1}"):
        kind(H, initialization=short).init(jax.random.key(0), 3)


def test_initialization_of_one_part_leaves_the_others():
    bias = chrono(50, forget_gate=1, input_gate=0, gates=4)
    cell = LSTM(5, forget_bias=7.0, initialization=Initialization(bias=bias))
    params, plain = (c.init(jax.random.key(0), 3) for c in (cell, LSTM(5)))
    np.testing.assert_array_equal(params.w_x, plain.w_x)
    np.testing.assert_array_equal(params.w_h, plain.w_h)
    i, f, g, o = np.split(np.asarray(params.b), 4)
    np.testing.assert_array_equal(i, -f)
    assert 0 < f.min() < f.max() < np.log(49)
    np.testing.assert_array_equal([g, o], np.zeros((2, 5)))
    assert cell == LSTM(5, forget_bias=7.0, initialization=Initialization(bias=bias))
    assert cell != LSTM(5, forget_bias=7.0)


@pytest.mark.parametrize("kind", ALL_CELLS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_initial_carry_is_zero_and_every_leaf_its_own_buffer(kind, dtype):
    cell = kind(4)
    carry = cell.initial_carry(cell.init(jax.random.key(0), 3), batch=6, dtype=dtype)
    for leaf in carry:
        assert leaf.shape == (6, 4)
        assert leaf.dtype == dtype
        assert not leaf.any()
    # One buffer under two names could not be donated.
    moved = jax.jit(lambda carry: jax.tree.map(lambda a: a + 1, carry), donate_argnums=0)(carry)
    assert all((leaf == 1).all() for leaf in moved)


def test_products_of_one_step_and_of_all_steps(rng):
    params = GatedParams(*(rng.normal(size=s).astype("f4") for s in [(3, 8), (4, 8), (8,), (8,)]))
    xs, h = rng.normal(size=(6, 5, 3)).astype("f4"), rng.normal(size=(5, 4)).astype("f4")
    dtypes = product_dtypes(params, xs, h)
    want = np.einsum("tbd,dg->tbg", xs, params.w_x) + params.b
    np.testing.assert_allclose(project_inputs(params, xs, dtypes), want, atol=1e-5)
    np.testing.assert_allclose(project_inputs(params, xs[2], dtypes), want[2], atol=1e-5)
    products = h @ params.w_h
    np.testing.assert_allclose(project_hidden(params, h, dtypes), products + params.b_h, atol=1e-5)
    bare = params._replace(b=None, b_h=None)
    np.testing.assert_allclose(project_inputs(bare, xs, dtypes), want - params.b, atol=1e-5)
    np.testing.assert_allclose(project_hidden(bare, h, dtypes), products, atol=1e-5)


def test_products_multiply_in_the_narrow_dtype_and_add_in_that_of_the_carry(rng):
    """Exact by construction: factors round to bfloat16 once, their products fit in float32."""
    params = GatedParams(*(rng.normal(size=s).astype("f4") for s in [(3, 8), (4, 8), (8,)]))
    narrow = jax.tree.map(lambda x: jnp.asarray(x, "bfloat16"), params)
    xs, h = rng.normal(size=(5, 3)).astype("f4"), rng.normal(size=(5, 4)).astype("f4")
    dtypes = product_dtypes(narrow, jnp.asarray(xs, "bfloat16"), h)
    assert dtypes == (jnp.dtype("bfloat16"), jnp.dtype("float32"))
    rounded = (np.asarray(jnp.asarray(a, "bfloat16"), "f8") for a in (h, params.w_h))
    got = project_hidden(narrow, h, dtypes)
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, np.matmul(*rounded), rtol=1e-6, atol=1e-6)


def test_a_class_must_say_its_number_of_gates():
    class Unnumbered(GatedCell):
        def initial_carry(self, params, batch, dtype):
            return None

        def pointwise(self, extra, z_x, z_h, carry):
            return carry

    with pytest.raises(TypeError, match=r"Unnumbered\.gates: expected the number of gates"):
        Unnumbered(4)


@pytest.mark.parametrize("kind", ALL_CELLS)
def test_sizes_must_fit(kind):
    with pytest.raises(ValueError, match=r"features: expected a value in \[1, inf\], got 0"):
        kind(0)
    cell = kind(4)
    with pytest.raises(ValueError, match=r"in_features: .* got 0"):
        cell.init(jax.random.key(0), 0)
    params = cell.init(jax.random.key(0), 3)
    carry = cell.initial_carry(params, 2, "float32")
    with pytest.raises(ValueError, match=r"xs: expected 3 features, .* got 5"):
        cell.step(params, carry, jnp.ones((2, 5)))
