"""Flax NNX's own cells, run beside ours: outputs, gradients and round trips."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqnets.cells import GRU, LSTM, Elman, MGUResetAfter
from seqnets.interop import from_flax, to_flax
from seqnets.recurrence import unroll

B, T, D, H = 3, 5, 2, 4
CELLS = {
    "simple_relu": (
        nnx.SimpleCell,
        {"activation_fn": jax.nn.relu},
        Elman(H, activation=jax.nn.relu),
    ),
    "lstm": (nnx.OptimizedLSTMCell, {}, LSTM(H)),
    "lstm_plain": (nnx.LSTMCell, {}, LSTM(H)),
    "gru": (nnx.GRUCell, {}, GRU(H)),
}
EVERY_CELL = pytest.mark.parametrize("name", CELLS)

# Both sides are float32, with sums of a few dozen terms of order 1 in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def made(name, rng):
    """A cell with random parameters, biases too, and the tree of those."""
    kind, options, _ = CELLS[name]
    cell = kind(D, H, rngs=nnx.Rngs(0), **options)
    params = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), params)
    nnx.update(cell, params)
    return cell, params


@EVERY_CELL
def test_outputs_and_gradients(name, rng):
    theirs, params = made(name, rng)
    cell, ours = from_flax(params, activation=jax.nn.relu)
    assert cell == CELLS[name][2]
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, cell.init(jax.random.key(0), D))
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    pull = rng.normal(size=(B, T, H)).astype("float32")
    graph, state = nnx.split(nnx.RNN(theirs))

    def their_loss(state, xs):
        ys = nnx.merge(graph, state)(xs)
        return jnp.sum(ys * pull), ys

    def loss(ours, xs):
        _, ys = unroll(cell, ours, None, xs)
        return jnp.sum(ys * pull), ys

    by_theirs, want = jax.jit(jax.grad(their_loss, has_aux=True, allow_int=True))(state, xs)
    by_ours, ys = jax.jit(jax.grad(loss, has_aux=True))(ours, xs)
    chex.assert_trees_all_close(ys, want, **CLOSE)
    by_theirs = nnx.to_pure_dict(nnx.filter_state(by_theirs, nnx.Param))["cell"]
    if by_ours.b_h is not None:  # NNX's one bias of each gate is our b, and n has no other
        by_ours = by_ours._replace(b_h=jnp.zeros_like(by_ours.b_h))
    if name == "lstm_plain":
        by_theirs["if"] = by_theirs.pop("if_")
    got = to_flax(cell, by_ours, api="linen" if name == "lstm_plain" else "nnx")
    chex.assert_trees_all_close(got, by_theirs, **CLOSE)


@pytest.mark.parametrize("name", [name for name in CELLS if name != "lstm_plain"])
def test_round_trip(name, rng):
    theirs, params = made(name, rng)
    cell, ours = from_flax(nnx.state(theirs, nnx.Param), activation=jax.nn.relu)
    back = to_flax(cell, ours, api="nnx")
    chex.assert_trees_all_equal(back, params)
    fresh = CELLS[name][0](D, H, rngs=nnx.Rngs(1), **CELLS[name][1])
    nnx.update(fresh, back)
    xs = jnp.asarray(rng.normal(size=(B, D)), "float32")
    carry = theirs.initialize_carry(xs.shape, nnx.Rngs(0))
    chex.assert_trees_all_equal(fresh(carry, xs), theirs(carry, xs))


def test_the_two_forms_of_an_lstm_are_one(rng):
    _, params = made("lstm", rng)
    cell, ours = from_flax(params)
    linen = to_flax(cell, ours)
    linen["if_"] = linen.pop("if")  # the tree of nnx.LSTMCell
    chex.assert_trees_all_equal(from_flax(linen)[1], ours)


# --- mistakes --------------------------------------------------------------------------------


def test_a_bias_that_nnx_lacks_is_named(rng):
    cell, params = from_flax(made("gru", rng)[1])
    of_gates = params._replace(b_h=params.b_h.at[: 2 * H].set(1))
    tree = to_flax(cell, of_gates, api="nnx")
    np.testing.assert_array_equal(tree["dense_i"]["bias"], params.b + of_gates.b_h)
    with pytest.raises(ValueError, match=r"^params.b_h, of the candidate: expected zeros.* to 3$"):
        to_flax(cell, params._replace(b_h=params.b_h.at[-1].set(-3)), api="nnx")


def test_keys_and_shapes(rng):
    _, params = made("gru", rng)
    with pytest.raises(ValueError, match=r"^params: missing 'dense_i/bias'; expected exactly: de"):
        from_flax({"dense_i": {"kernel": 0}, "dense_h": params["dense_h"]})
    with pytest.raises(
        ValueError, match=r"^params: unknown 'scale'; expected exactly: dense_i/ker"
    ):
        from_flax({**params, "scale": 0})
    moved = {
        "dense_i": {"kernel": params["dense_i"]["kernel"]},
        "dense_h": params["dense_h"] | {"bias": params["dense_i"]["bias"]},
    }
    expected = r"^params: expected a bias in 'dense_i/bias', where .* GRU of .*, got 'dense_h/bias'"
    with pytest.raises(ValueError, match=expected):
        from_flax(moved)
    for layer, shape, expected in [
        ("dense_h", (H,), r"^dense_h/kernel: expected shape \[H, G·H\].*got \(4,\)"),
        ("dense_h", (H, 8), r"^dense_h/kernel: expected gates of total width 4, 12, or 16 .*got 8"),
        ("dense_i", (D, 11), r"^dense_i/kernel: expected shape \(2, 12\).*got \(2, 11\)"),
        ("dense_i", (H,), r"^dense_i/kernel: expected shape \[D, G·H\].*got \(4,\)"),
    ]:
        wrong = {**params, layer: params[layer] | {"kernel": jnp.zeros(shape)}}
        with pytest.raises(ValueError, match=expected):
            from_flax(wrong)


def test_kinds_and_names_of_the_api(rng):
    mgu = MGUResetAfter(H)
    with pytest.raises(TypeError, match=r"\(Elman, LSTM, GRU\), got MGUResetAfter"):
        to_flax(mgu, mgu.init(jax.random.key(0), D), api="nnx")
    with pytest.raises(ValueError, match=r"^api: expected one of: linen, nnx, got 'haiku'"):
        to_flax(mgu, mgu.init(jax.random.key(0), D), api="haiku")
