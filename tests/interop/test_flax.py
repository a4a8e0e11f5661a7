"""Flax Linen's own cells, run beside ours: outputs, gradients and round trips."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, Elman, GatedParams, GRUResetBefore, MGUResetAfter
from seqnets.interop import from_flax, to_flax
from seqnets.recurrence import lengths_to_mask, unroll

B, T, D, H = 3, 5, 2, 4
LENGTHS = np.array([5, 2, 1])  # Flax's RNN has no row of length 0
CELLS = {
    "simple": (nn.SimpleCell(H), Elman(H)),
    "simple_relu": (nn.SimpleCell(H, activation_fn=jax.nn.relu), Elman(H, activation=jax.nn.relu)),
    "lstm": (nn.OptimizedLSTMCell(H), LSTM(H)),
    "lstm_plain": (nn.LSTMCell(H), LSTM(H)),
    "gru": (nn.GRUCell(H), GRU(H)),
    "mgu": (nn.MGUCell(H), MGUResetAfter(H)),
}
EVERY_CELL = pytest.mark.parametrize("name", CELLS)

# Both sides are float32, with sums of a few dozen terms of order 1 in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def draw(cell, rng):
    """Random parameters of the shapes of `init`, biases too."""
    xs = jnp.zeros((B, D))
    carry = cell.initialize_carry(jax.random.key(0), xs.shape)
    like = jax.eval_shape(cell.init, jax.random.key(0), carry, xs)["params"]
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), like)


def imported(name, params):
    """`from_flax`, with the activation that the parameters do not know."""
    ours = CELLS[name][1]
    cell, params = from_flax(params, activation=getattr(ours, "activation", jnp.tanh))
    assert cell == ours
    return cell, params


@EVERY_CELL
def test_outputs_and_gradients(name, rng):
    flax_cell = CELLS[name][0]
    params = draw(flax_cell, rng)
    cell, ours = imported(name, params)
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    pull_ys, pull_h = (rng.normal(size=s).astype("float32") for s in [(B, T, H), (B, H)])
    mask = np.array(lengths_to_mask(LENGTHS, T))

    def theirs(params, xs):
        layer = nn.RNN(flax_cell, return_carry=True)
        carry, ys = layer.apply({"params": {"cell": params}}, xs, seq_lengths=LENGTHS)
        h = carry[-1] if isinstance(carry, tuple) else carry
        return jnp.sum(ys * mask[..., None] * pull_ys) + jnp.sum(h * pull_h), (ys, h)

    def loss(ours, xs):
        carry, ys = unroll(cell, ours, None, xs, mask=mask)
        return jnp.sum(ys * pull_ys) + jnp.sum(carry.h * pull_h), (ys, carry.h)

    grad = lambda f: jax.jit(jax.grad(f, argnums=(0, 1), has_aux=True))  # noqa: E731
    (want_params, want_xs), (want_ys, want_h) = grad(theirs)(params, xs)
    (by_params, by_xs), (ys, h) = grad(loss)(ours, xs)
    np.testing.assert_allclose(ys, want_ys * mask[..., None], **CLOSE)
    np.testing.assert_allclose(h, want_h, **CLOSE)
    np.testing.assert_allclose(by_xs, want_xs, **CLOSE)
    if by_params.b_h is not None:
        # Flax's one bias of each gate is our b; a sum of two gradients is not one.
        by_params = by_params._replace(b_h=by_params.b_h.at[:-H].set(0))
    got = to_flax(cell, by_params)
    assert jax.tree.structure(got) == jax.tree.structure(want_params)
    chex.assert_trees_all_close(got, want_params, **CLOSE)


@EVERY_CELL
def test_round_trip(name, rng):
    params = draw(CELLS[name][0], rng)
    cell, ours = imported(name, params)
    assert isinstance(ours, GatedParams)
    back = to_flax(cell, ours)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    chex.assert_trees_all_equal(back, params, strict=True)
    chex.assert_trees_all_equal(imported(name, back)[1], ours, strict=True)


def test_gru_biases_of_the_gates_are_summed(rng):
    cell = GRU(H)
    biases = {"b": jnp.asarray(rng.normal(size=3 * H)), "b_h": jnp.asarray(rng.normal(size=3 * H))}
    params = cell.init(jax.random.key(0), D)._replace(**biases)
    tree = to_flax(cell, params)
    np.testing.assert_array_equal(tree["iz"]["bias"], (biases["b"] + biases["b_h"])[H : 2 * H])
    np.testing.assert_array_equal(tree["in"]["bias"], biases["b"][2 * H :])
    np.testing.assert_array_equal(tree["hn"]["bias"], biases["b_h"][2 * H :])


def test_mgu_bias_of_the_gate_is_summed(rng):
    cell = MGUResetAfter(H)
    biases = {"b": jnp.asarray(rng.normal(size=2 * H)), "b_h": jnp.asarray(rng.normal(size=2 * H))}
    tree = to_flax(cell, cell.init(jax.random.key(0), D)._replace(**biases))
    np.testing.assert_array_equal(tree["if"]["bias"], (biases["b"] + biases["b_h"])[:H])
    np.testing.assert_array_equal(tree["in"]["bias"], biases["b"][H:])
    np.testing.assert_array_equal(tree["hn"]["bias"], biases["b_h"][H:])


# --- mistakes --------------------------------------------------------------------------------


def test_missing_and_unknown_keys_are_all_named(rng):
    params = draw(nn.GRUCell(H), rng)
    del params["iz"], params["hn"]["bias"]
    params |= {"hq": {"kernel": 0}, "scale": 0}
    with pytest.raises(ValueError, match="params: missing") as error:
        from_flax(params)
    listed = str(error.value).partition("expected exactly")[0]
    assert "missing 'iz/kernel', 'iz/bias', 'hn/bias'" in listed
    assert "unknown 'hq/kernel' (did you mean 'iz/kernel'?), 'scale'" in listed
    assert listed.count("'") == 12


def test_whole_variables_are_one_level_too_many(rng):
    with pytest.raises(ValueError, match="unknown 'params/hf/bias'"):
        from_flax({"params": draw(nn.LSTMCell(H), rng)})
    with pytest.raises(ValueError, match="missing 'i/kernel'"):
        from_flax({})
    with pytest.raises(TypeError, match="params: expected a mapping of arrays, got list"):
        from_flax([])


def test_trees_of_layers_and_images_name_the_function_for_them(rng):
    params = draw(nn.GRUCell(H), rng)
    for tree in ({"cell": params}, {"forward_rnn": {"cell": params}}, {"layers_0": params}):
        with pytest.raises(ValueError, match=r"^params: .* a cell.* use from_flax_rnn$"):
            from_flax(tree)
    with pytest.raises(ValueError, match=r"^params: .* use from_flax_conv_lstm$"):
        from_flax({"ih": {"kernel": 0}, "hh": {"kernel": 0}})


@pytest.mark.parametrize(
    ("layer", "leaf", "shape", "expected"),
    [
        ("ii", "kernel", (H,), r"ii/kernel: expected shape \[D, H\].*got \(4,\)"),
        ("hi", "kernel", (H,), r"hi/kernel: expected shape \[H, H\].*got \(4,\)"),
        ("hi", "kernel", (H, 5), r"hi/kernel: expected shape \(4, 4\).*got \(4, 5\)"),
        ("io", "kernel", (3, H), r"io/kernel: expected shape \(2, 4\).*got \(3, 4\)"),
        ("hf", "kernel", (H, 3), r"hf/kernel: expected shape \(4, 4\).*got \(4, 3\)"),
        ("hg", "bias", (1, H), r"hg/bias: expected shape \(4,\).*got \(1, 4\)"),
    ],
)
def test_shapes(layer, leaf, shape, expected, rng):
    params = draw(nn.LSTMCell(H), rng)
    params[layer][leaf] = jnp.zeros(shape)
    with pytest.raises(ValueError, match=expected):
        from_flax(params)


def test_a_simple_cell_without_its_activation(rng):
    with pytest.raises(ValueError, match="activation: expected that of the plain RNN"):
        from_flax(draw(nn.SimpleCell(H), rng))


def test_an_mgu_without_its_reset_gate(rng):
    with pytest.raises(ValueError, match="params: missing 'hn/bias'; expected exactly: if/kernel"):
        from_flax(draw(nn.MGUCell(H, reset_gate=False), rng))


def test_kinds(rng):
    params = draw(nn.SimpleCell(H), rng)
    params["i"]["bias"] = np.zeros(H, int)
    with pytest.raises(TypeError, match="i/bias: expected an array of floats, got dtype int64"):
        from_flax(params)
    before = GRUResetBefore(H)
    with pytest.raises(TypeError, match=r"\(Elman, LSTM, GRU, MGUResetAfter\), got GRUResetBefore"):
        to_flax(before, before.init(jax.random.key(0), D))
    with pytest.raises(ValueError, match=r"params.w_x: expected shape \(2, 16\).*got \(2, 12\)"):
        to_flax(LSTM(H), before.init(jax.random.key(0), D))
    with pytest.raises(TypeError, match=r"cell: expected one .*, got SimpleCell"):
        to_flax(nn.SimpleCell(H), before.init(jax.random.key(0), D))
