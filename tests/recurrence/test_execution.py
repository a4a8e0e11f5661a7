"""How a layer is computed: the table of strategies, and products in a narrow dtype."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import (
    GRU,
    LSTM,
    MGU,
    SRU,
    CellStack,
    ConvLSTM,
    GRUResetBefore,
    IndRNN,
    LearnedCarry,
    ProjectedLSTM,
)
from seqnets.recurrence import Execution, unroll
from seqnets.recurrence.contract import Steps
from seqnets.recurrence.strategies import STRATEGIES, choose

B, T, D, H = 2, 5, 3, 4
NAMES = [strategy.name for strategy in STRATEGIES]


def chosen(name, cell, context=None):
    params = cell.init(jax.random.key(0), D)
    carry = cell.initial_carry(params, B, "float32")
    xs = jnp.zeros((B, T, D))
    return choose(name, cell, params, carry, Steps(xs, None, None, None, context=context)).name


def test_auto_takes_the_first_that_can_and_pays():
    assert chosen("auto", LSTM(H)) == "fused"
    assert chosen("auto", GRUResetBefore(H)) == "scan"
    assert chosen("auto", CellStack((LSTM(H),))) == "scan"
    assert NAMES.index("fused") < NAMES.index("scan") < NAMES.index("cudnn")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_takes_that_one_or_says_why_not(name):
    if name == "cudnn":
        with pytest.raises(TypeError, match="strategy 'cudnn': device: expected an NVIDIA GPU"):
            chosen(name, LSTM(H))
    else:
        assert chosen(name, LSTM(H)) == name


def test_a_learned_first_carry_does_not_hide_the_cell(rng):
    cell = LearnedCarry(LSTM(H))
    params = cell.init(jax.random.key(0), D)
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    got, want = (
        unroll(cell, params, None, xs, execution=Execution(name)) for name in ("fused", "scan")
    )
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)  # other orders of the sums


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "fast"}, "strategy: unknown name 'fast'"),
        ({"strategy": None}, "strategy: unknown name None"),
        ({"remat": 0}, "remat: expected a value in"),
        ({"dtype": "int32"}, "dtype: expected one of floats, got int32"),
        ({"dtype": "float13"}, "dtype: expected one of floats, got 'float13'"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        Execution(**given)


def test_executions_are_values():
    assert Execution(dtype=jnp.bfloat16) == Execution(dtype="bfloat16")
    assert len({Execution(), Execution("auto"), Execution(dtype=jnp.bfloat16)}) == 2


# Of rows that vary slowly, so that a long sum of equal signs shows what a narrow sum loses.
LONG = 2000
SERIES = {
    "gru": GRU(8),
    "gru_reset_before": GRUResetBefore(8),
    "mgu": MGU(8),
    "sru": SRU(8),
    "ind_rnn": IndRNN(8, activation=jnp.tanh),
    "lstm": LSTM(8),
    "projected": ProjectedLSTM(4, hidden=8),
    "stack": CellStack((LSTM(8), GRUResetBefore(4))),
}


def relative_error(got, want):
    return max(
        float(jnp.linalg.norm((a - b).ravel()) / (jnp.linalg.norm(b.ravel()) + 1e-12))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    )


@pytest.mark.parametrize("name", SERIES)
def test_gradients_of_weights_are_summed_over_time_in_float32(name, rng):
    """Summed in bfloat16 they stop growing: the error is then a fourth and more."""
    cell = SERIES[name]
    params = cell.init(jax.random.key(0), D)
    xs = jnp.asarray(0.5 + 0.1 * rng.normal(size=(1, LONG, D)), "float32")

    def gradient(execution):
        @jax.jit
        @jax.grad
        def run(params):
            return jnp.mean(unroll(cell, params, None, xs, execution=execution)[1].astype("f4"))

        return run(params)

    narrow = gradient(Execution(dtype="bfloat16"))
    chex.assert_trees_all_equal_dtypes(narrow, params)
    # bfloat16 has 8 bits: each factor is off by up to 0.004, and their errors mostly average.
    assert relative_error(narrow, gradient(Execution())) < 0.03


def test_narrow_weights_given_as_such_are_summed_in_float32_too(rng):
    cell = LSTM(8)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.asarray(0.5 + 0.1 * rng.normal(size=(1, LONG, D)), "float32")

    def gradient(params, strategy):
        def loss(params):
            ys = unroll(cell, params, None, xs, execution=Execution(strategy))[1]
            return jnp.mean(ys.astype("float32"))

        return jax.tree.map(lambda g: g.astype("float32"), jax.jit(jax.grad(loss))(params))

    low = jax.tree.map(lambda p: p.astype("bfloat16"), params)
    rounded = jax.tree.map(lambda p: p.astype("float32"), low)
    want = gradient(rounded, "scan")
    for strategy in ("fused", "scan"):
        assert relative_error(gradient(low, strategy), want) < 0.03


def test_images_are_convolved_in_a_narrow_dtype(rng):
    cell = ConvLSTM(3, image=(4, 4), kernel=(3, 3))
    params = cell.init(jax.random.key(0), 2)
    xs = jnp.asarray(rng.normal(size=(B, T, 4, 4, 2)), "float32")
    carry, ys = unroll(cell, params, None, xs, execution=Execution(dtype="bfloat16"))
    assert ys.dtype == "bfloat16"
    chex.assert_type(jax.tree.leaves(carry), "float32")
    _, want = unroll(cell, params, None, xs)
    np.testing.assert_allclose(ys.astype("float32"), want, atol=0.03)
    mixed, _ = unroll(cell, params, None, xs.astype("bfloat16"))
    chex.assert_tree_all_finite(mixed)


def test_the_function_and_its_dtype_are_the_modules(rng):
    """Products of bfloat16 factors, sums and carries of float32: told by the traced program."""
    cell = GRUResetBefore(H)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    run = lambda params: unroll(  # noqa: E731
        cell, params, None, xs, execution=Execution(dtype="bfloat16")
    )
    text = str(jax.make_jaxpr(run)(params))
    assert 0 < text.count("dot_general") == text.count("preferred_element_type=float32")
    carry, ys = run(params)
    assert (carry.h.dtype, ys.dtype) == ("float32", "bfloat16")
