"""Whole layers of Flax, Linen and NNX, run beside ours: outputs, and round trips."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqnets.cells import GRU, LSTM, ConvLSTM, Elman, GRUResetBefore
from seqnets.interop import from_flax_rnn, to_flax_rnn
from seqnets.modules import RNN, Bidirectional, Layer, Stack
from seqnets.recurrence import Regularization, lengths_to_mask

B, T, D, H = 3, 5, 2, 4
LENGTHS = np.array([5, 2, 1])  # Flax's RNN has no row of length 0
LINEN = {
    "rnn": (nn.RNN(nn.GRUCell(H)), RNN(GRU(H))),
    "rnn_simple": (
        nn.RNN(nn.SimpleCell(H, activation_fn=jax.nn.relu)),
        RNN(Elman(H, activation=jax.nn.relu)),
    ),
    "both": (
        nn.Bidirectional(nn.RNN(nn.OptimizedLSTMCell(H)), nn.RNN(nn.GRUCell(3))),
        Bidirectional(LSTM(H), GRU(3)),
    ),
    "sequence": (
        nn.Sequential([nn.RNN(nn.OptimizedLSTMCell(H)), nn.RNN(nn.GRUCell(3))]),
        Stack((LSTM(H), GRU(3))),
    ),
    "sequence_both": (
        nn.Sequential([nn.Bidirectional(*(nn.RNN(nn.GRUCell(H)) for _ in "fb")) for _ in "ab"]),
        Stack((GRU(H), GRU(H)), bidirectional=True),
    ),
}


def nnx_modules():
    rngs = nnx.Rngs(0)

    def both():
        return nnx.Bidirectional(
            nnx.RNN(nnx.LSTMCell(D, H, rngs=rngs)), nnx.RNN(nnx.OptimizedLSTMCell(D, H, rngs=rngs))
        )

    return {
        "rnn": (nnx.RNN(nnx.GRUCell(D, H, rngs=rngs)), RNN(GRU(H))),
        "both": (both(), Bidirectional(LSTM(H), LSTM(H))),
        "sequence": (
            nnx.Sequential(
                nnx.RNN(nnx.OptimizedLSTMCell(D, H, rngs=rngs)),
                nnx.RNN(nnx.GRUCell(H, 3, rngs=rngs)),
            ),
            Stack((LSTM(H), GRU(3))),
        ),
        "sequence_both": (nnx.Sequential(both()), Stack((LSTM(H),), bidirectional=True)),
    }


# Both sides are float32, with sums of a few dozen terms of order 1 in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def normal(rng, shape):
    return jnp.asarray(rng.normal(size=shape), "float32")


def draw(module, rng, shape=(B, T, D)):
    """Random parameters of the shapes of `init`, biases too."""
    like = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))["params"]
    return jax.tree.map(lambda x: normal(rng, x.shape), like)


@pytest.mark.parametrize("name", LINEN)
def test_outputs_and_round_trip_of_linen(name, rng):
    theirs, expected = LINEN[name]
    params, xs = draw(theirs, rng), normal(rng, (B, T, D))
    module, ours = from_flax_rnn(params, activation=jax.nn.relu)
    assert module == expected
    want = jax.jit(theirs.apply)({"params": params}, xs)
    _, ys = jax.jit(module.apply)({"params": ours}, xs)
    chex.assert_trees_all_close(ys, want, **CLOSE)
    like = jax.eval_shape(module.init, jax.random.key(0), xs)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, like)
    chex.assert_trees_all_equal(to_flax_rnn(module, ours), params)


def test_ragged_rows_and_carries_of_both_directions(rng):
    theirs, _ = LINEN["both"]
    params, xs = draw(theirs, rng), normal(rng, (B, T, D))
    module, ours = from_flax_rnn(params)
    mask = lengths_to_mask(LENGTHS, T)
    theirs = theirs.clone(return_carry=True)
    want = jax.jit(theirs.apply)({"params": params}, xs, seq_lengths=LENGTHS)
    ((c, h), h_back), want_ys = want
    carry, ys = jax.jit(module.apply)({"params": ours}, xs, mask=mask)
    chex.assert_trees_all_close((carry.forward.c, carry.forward.h), (c, h), **CLOSE)
    chex.assert_trees_all_close(carry.backward.h, h_back, **CLOSE)
    chex.assert_trees_all_close(ys, want_ys * mask[..., None], **CLOSE)


@pytest.mark.parametrize("name", ["rnn", "both", "sequence", "sequence_both"])
def test_outputs_and_round_trip_of_nnx(name, rng):
    theirs, expected = nnx_modules()[name]
    state = nnx.state(theirs, nnx.Param)
    state = jax.tree.map(lambda x: normal(rng, x.shape), state)
    nnx.update(theirs, state)
    module, ours = from_flax_rnn(state)
    assert module == expected
    xs = normal(rng, (B, T, D))
    chex.assert_trees_all_close(module.apply({"params": ours}, xs)[1], theirs(xs), **CLOSE)
    back = to_flax_rnn(module, ours, api="nnx")
    if "both" not in name:  # one of their cells there is the LSTMCell of the other form
        chex.assert_trees_all_equal(back, nnx.to_pure_dict(state))
    chex.assert_trees_all_equal(from_flax_rnn(back), (module, ours))


def test_images(rng):
    theirs = nn.Sequential([nn.RNN(nn.ConvLSTMCell(3, (3,))), nn.RNN(nn.ConvLSTMCell(2, (2,)))])
    params, xs = draw(theirs, rng, (B, T, 5, D)), normal(rng, (B, T, 5, D))
    module, ours = from_flax_rnn(params, image=(5,))
    cells = [ConvLSTM(size, image=(5,), kernel=(k,)) for size, k in ((3, 3), (2, 2))]
    assert module == Stack(tuple(cells))
    want = jax.jit(theirs.apply)({"params": params}, xs)
    chex.assert_trees_all_close(jax.jit(module.apply)({"params": ours}, xs)[1], want, **CLOSE)
    back = to_flax_rnn(module, ours)
    chex.assert_trees_all_equal_structs(back, params)
    again = from_flax_rnn(back, image=(5,))[1]
    chex.assert_trees_all_close(again, ours, rtol=0, atol=5e-7)  # 1 was taken off and added
    with pytest.raises(ValueError, match=r"^image: expected the image size of the ConvLSTMCell"):
        from_flax_rnn(params)


def test_layers_are_taken_in_the_order_of_their_numbers(rng):
    params = draw(LINEN["sequence"][0], rng)
    moved = {"layers_10": params["layers_1"], "layers_9": params["layers_0"]}
    module, ours = from_flax_rnn(moved)
    assert module == Stack((LSTM(H), GRU(3)))
    chex.assert_trees_all_equal(to_flax_rnn(module, ours), params)


# --- mistakes --------------------------------------------------------------------------------


def test_trees_of_another_form(rng):
    params = draw(LINEN["rnn"][0], rng)
    whole = (
        r"expected 'cell' \(RNN\), 'forward_rnn' and 'backward_rnn' \(Bi.*\), or 'layers' .*, got"
    )
    for tree, found in [
        ({"encoder": params}, "'encoder'"),
        (params["cell"], "'hn', 'hr', 'hz', 'in', 'ir', 'iz'"),
        ({"forward_rnn": params}, "'forward_rnn'"),
        ({"cell": params["cell"], "head": np.ones(2)}, "'cell', 'head'"),
        ({}, "nothing"),
    ]:
        with pytest.raises(ValueError, match=rf"^params: {whole} {found}; for"):
            from_flax_rnn(tree)
    dense = {"layers_0": params, "layers_1": {"kernel": np.ones((H, 2)), "bias": np.ones(2)}}
    with pytest.raises(ValueError, match=rf"^params\['layers_1'\]: {whole} 'bias', 'kernel'; for"):
        from_flax_rnn(dense)
    with pytest.raises(
        ValueError, match=r"^params: unknown 'head/bias'; expected exactly: layers_"
    ):
        from_flax_rnn({"layers_0": params, "head": {"bias": np.ones(2)}})
    with pytest.raises(TypeError, match=r"^params: expected a mapping of arrays, got list"):
        from_flax_rnn([params])


def test_arrays_are_named_by_their_whole_path(rng):
    params = draw(LINEN["sequence"][0], rng)
    params["layers_1"]["cell"]["hz"]["kernel"] = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"^layers_1/cell/hz/kernel: expected shape \(3, 3\)"):
        from_flax_rnn(params)
    del params["layers_1"]["cell"]["hz"]
    with pytest.raises(ValueError, match=r"^params\['layers_1/cell'\]: missing 'hz/kernel'"):
        from_flax_rnn(params)


def test_layers_that_do_not_fit(rng):
    params = draw(LINEN["sequence"][0], rng)
    with pytest.raises(
        ValueError, match=r"^layers_1: expected 4 inputs, outputs of the layer be.*2"
    ):
        from_flax_rnn({"layers_0": params["layers_0"], "layers_1": params["layers_0"]})
    both = draw(LINEN["both"][0], rng)
    with pytest.raises(ValueError, match=r"^params: expected layers of one kind, got some in both"):
        from_flax_rnn({"layers_0": params["layers_0"], "layers_1": both})
    with pytest.raises(ValueError, match=r"^params\['layers_0'\]: expected two cells of one kind"):
        from_flax_rnn({"layers_0": both})
    backward = {"backward_rnn": draw(nn.RNN(nn.GRUCell(3)), rng, (B, T, 7))}
    expected = r"^backward_rnn/cell: expected 2 inputs, as the forward direction, got 7"
    with pytest.raises(ValueError, match=expected):
        from_flax_rnn(both | backward)


def test_modules_that_flax_lacks(rng):
    module, ours = from_flax_rnn(draw(LINEN["sequence"][0], rng))
    with pytest.raises(TypeError, match=r"^module: expected an RNN, a Bi.*, or a Stack, got LSTM"):
        to_flax_rnn(LSTM(H), ours)
    with pytest.raises(ValueError, match=r"^stack: expected no residual connections"):
        to_flax_rnn(module.clone(residual=True), ours)
    zoned = Regularization(zoneout=0.1)
    with pytest.raises(ValueError, match=r"^stack.layers\[0\]: expected no zoneout"):
        to_flax_rnn(module.clone(layers=(Layer(LSTM(H), zoned), GRU(3))), ours)
    with pytest.raises(ValueError, match=r"^module: expected no zoneout.*got 0.1"):
        to_flax_rnn(RNN(LSTM(H), regularization=zoned), ours["layer_0"])
    with pytest.raises(ValueError, match=r"^params: missing 'layer_1/cell'; expected exactly"):
        to_flax_rnn(module, {"layer_0": ours["layer_0"]})
    with pytest.raises(TypeError, match=r"got GRUResetBefore"):
        to_flax_rnn(RNN(GRUResetBefore(3)), {"cell": ours["layer_1"]["cell"]})
    with pytest.raises(ValueError, match=r"^api: expected one of: linen, nnx, got 'torch'"):
        to_flax_rnn(module, ours, api="torch")
    images = ConvLSTM(2, image=(5,), kernel=(3,))
    with pytest.raises(TypeError, match=r"\(Elman, LSTM, GRU\), got ConvLSTM"):
        to_flax_rnn(RNN(images), {"cell": images.init(jax.random.key(0), D)}, api="nnx")
