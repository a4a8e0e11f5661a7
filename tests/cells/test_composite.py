"""Composite cells: stacks and an attention decoder, over time and one time step at once."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, SRU, CellStack, CompositeCell, LearnedCarry
from seqnets.modules import RNN
from seqnets.recurrence import Execution, Noise, Regularization, unroll

B, T, S, D, H = 3, 6, 5, 2, 4
LENGTHS = np.array([6, 2, 0])


@dataclasses.dataclass(frozen=True)
class AttentionDecoder(CompositeCell):
    """A GRU that reads its input beside a sum of the memory, weighed by dot products."""

    features: int

    def init(self, key, in_features):
        return GRU(self.features).init(key, in_features + self.features)

    def initial_carry(self, params, batch, dtype):
        return GRU(self.features).initial_carry(params, batch, dtype)

    def step(self, params, carry, x, context=None):
        memory, real = context
        scores = jnp.einsum("bsh,bh->bs", memory, carry.h)
        weights = jax.nn.softmax(jnp.where(real, scores, -jnp.inf), axis=-1)
        found = jnp.einsum("bs,bsh->bh", weights, memory)
        carry, y = GRU(self.features).step(params, carry, jnp.concatenate([x, found], axis=-1))
        return carry, {"y": y, "weights": weights}


@pytest.fixture
def case(rng):
    cell = AttentionDecoder(H)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    memory = jnp.asarray(rng.normal(size=(B, S, H)), "float32")
    real = jnp.arange(S)[None, :] < jnp.array([[5], [3], [1]])
    return cell, params, xs, (memory, real)


MASK = jnp.asarray(np.arange(T) < LENGTHS[:, None])


def test_teacher_forcing_is_decoding_one_time_step_at_once(case):
    cell, params, xs, context = case
    final, ys = unroll(cell, params, None, xs, mask=MASK, context=context)
    chex.assert_shape(ys["y"], (B, T, H))
    chex.assert_shape(ys["weights"], (B, T, S))
    carry = cell.initial_carry(params, B, "float32")
    for t in range(T):
        flags = MASK[:, t : t + 1]
        carry, y = unroll(cell, params, carry, xs[:, t : t + 1], mask=flags, context=context)
        want = jax.tree.map(lambda leaf, t=t: leaf[:, t : t + 1], ys)
        chex.assert_trees_all_close(y, want, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(carry, final, rtol=1e-5, atol=1e-6)
    for leaf in jax.tree.leaves(ys):
        np.testing.assert_array_equal(leaf[~np.asarray(MASK)], 0)


def test_a_row_depends_on_its_own_context_alone(case):
    cell, params, xs, (memory, real) = case
    _, ys = unroll(cell, params, None, xs, context=(memory, real))
    changed = jnp.where(real[..., None], memory, 1e6)  # padded memory never matters
    _, same = unroll(cell, params, None, xs, context=(changed, real))
    chex.assert_trees_all_equal(same, ys)
    for b in range(B):
        row = slice(b, b + 1)
        _, alone = unroll(cell, params, None, xs[row], context=(memory[row], real[row]))
        want = jax.tree.map(lambda leaf, row=row: leaf[row], ys)
        chex.assert_trees_all_close(alone, want, rtol=1e-5, atol=1e-6)


def test_gradients_of_parameters_inputs_and_context(case):
    cell, params, xs, (memory, real) = case
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, "float64"), (params, xs, memory))
        leaves, structure = jax.tree.flatten(wide)

        def loss(*leaves):
            params, xs, memory = jax.tree.unflatten(structure, leaves)
            context = (memory, real)
            carry, ys = unroll(cell, params, None, xs, mask=MASK, context=context)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((carry, ys)))

        chex.assert_numerical_grads(loss, leaves, order=1, atol=1e-6)


def test_beams_are_a_map_over_rows(case):
    cell, params, xs, context = case
    beams = jnp.stack([xs, xs + 1, xs - 1])
    run = lambda xs: unroll(cell, params, None, xs, context=context)[1]["y"]  # noqa: E731
    together = jax.vmap(run)(beams)
    for k in range(3):
        chex.assert_trees_all_close(together[k], run(beams[k]), rtol=1e-5, atol=1e-6)


def test_remat_keeps_values_and_gradients(case):
    cell, params, xs, context = case

    def loss(params, execution):
        _, ys = unroll(cell, params, None, xs, mask=MASK, context=context, execution=execution)
        return jnp.sum(jnp.square(ys["y"]))

    plain, chunked = Execution(), Execution(remat=4)
    chex.assert_trees_all_close(
        jax.grad(loss)(params, chunked), jax.grad(loss)(params, plain), rtol=1e-4, atol=1e-6
    )


def test_a_module_runs_it(case):
    cell, _, xs, context = case
    layer = RNN(cell)
    variables = layer.init(jax.random.key(1), xs, context=context)
    _, ys = layer.apply(variables, xs, mask=MASK, context=context)
    want = unroll(cell, variables["params"]["cell"], None, xs, mask=MASK, context=context)[1]
    chex.assert_trees_all_equal(ys, want)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_stack_of_cells_is_its_cells_one_on_the_other(rng, reverse):
    cells = (LSTM(4), LearnedCarry(GRU(3)), GRU(2))
    stack = CellStack(cells)
    params = stack.init(jax.random.key(0), D)
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    reset = jnp.asarray(rng.random((B, T)) < 0.3)
    final, ys = unroll(stack, params, None, xs, mask=MASK, reset=reset, reverse=reverse)
    want, finals = xs, []
    for cell, own in zip(cells, params, strict=True):
        carry, want = unroll(cell, own, None, want, mask=MASK, reset=reset, reverse=reverse)
        finals.append(carry)
    chex.assert_trees_all_close((final, ys), (tuple(finals), want), rtol=1e-5, atol=1e-6)
    assert stack.features == 2


def test_what_composites_lack_is_refused(case):
    cell, params, xs, context = case
    for noise in (Regularization(recurrent_dropout=0.5), Regularization(zoneout=0.5)):
        with pytest.raises(TypeError, match="regularization: expected no recurrent dropout"):
            noise.noise(cell, params, B, T, None)
    with pytest.raises(TypeError, match="strategy 'fused': cell: expected a GatedCell"):
        unroll(cell, params, None, xs, context=context, execution=Execution("fused"))
    with pytest.raises(ValueError, match=r"context\[0\]: expected 3 rows, as in xs, got 2"):
        unroll(cell, params, None, xs, context=(jnp.zeros((2, 4, 4)), context[1]))
    with pytest.raises(
        ValueError, match=r"context: expected an array with rows first, .* got a scalar"
    ):
        unroll(cell, params, None, xs, context=3.0)
    with pytest.raises(ValueError, match="number of cells"):
        CellStack(())
    with pytest.raises(TypeError, match=r"noise\.hidden"):
        unroll(CellStack((GRU(2),)), CellStack((GRU(2),)).init(jax.random.key(0), D), None, xs,
               noise=Noise(hidden=jnp.ones((B, 2))))  # fmt: skip


@pytest.mark.parametrize("cell", [LSTM(H), LearnedCarry(LSTM(H)), SRU(H)], ids=str)
def test_a_context_is_refused_by_cells_that_read_none(cell):
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(TypeError, match="context: expected None"):
        unroll(cell, params, None, jnp.zeros((B, T, D)), context=jnp.zeros((B, 2)))


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_step_of_a_stack_is_the_steps_of_its_cells(self):
        rng, stack = np.random.default_rng(5), CellStack((LSTM(H), GRU(3), SRU(3)))
        params = stack.init(jax.random.key(0), D)
        zeros = stack.initial_carry(params, B, "float32")
        carry = jax.tree.map(lambda c: jnp.asarray(rng.normal(size=c.shape), c.dtype), zeros)
        x = y = jnp.asarray(rng.normal(size=(B, D)), "float32")
        after = []
        for cell, own, before in zip(stack.cells, params, carry, strict=True):
            state, y = cell.step(own, before, y)
            after.append(state)
        got = self.variant(stack.step)(params, carry, x)
        chex.assert_trees_all_equal_shapes_and_dtypes(got[0], carry)
        chex.assert_trees_all_close(got, (tuple(after), y), rtol=1e-5, atol=1e-6)
