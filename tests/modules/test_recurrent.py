"""Linen shells: parameter trees, and equality with the engine they wrap."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.cells import GRU, LSTM, CellStack, Elman, GatedParams, GRUCarry, GRUResetBefore
from seqnets.dropout import dropout, fold_in, fold_in_rows
from seqnets.modules import RNN, Bidirectional, BidirectionalCarry, Layer, Stack
from seqnets.recurrence import Execution, Regularization, lengths_to_mask, unroll

# Compiled once for equal arguments, where each plain call would compile its loop anew.
run = jax.jit(unroll, static_argnums=0, static_argnames="reverse")
apply = jax.jit(nn.Module.apply, static_argnums=0)

B, T, D = 4, 5, 3
LENGTHS = np.array([5, 0, 3, 1])
MASK = np.array(lengths_to_mask(LENGTHS, T))
RESET = np.array([[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]], bool)


@pytest.fixture
def xs(rng):
    return jnp.asarray(rng.normal(size=(B, T, D)), "float32")


@pytest.fixture
def dropout_keys():
    return jax.random.split(jax.random.key(7), B)


def shapes(variables):
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}


def draw(module, rng, features=D):
    """Random variables of the shapes of `init`, which need not run for them."""
    like = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((B, T, features)))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), like)


def close(got, want, tolerance=1e-6):
    chex.assert_trees_all_close(got, want, atol=tolerance)


# --- RNN -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [LSTM(4), GRUResetBefore(4)])
def test_rnn_is_unroll(cell, reverse, xs, rng):
    layer = RNN(cell, reverse=reverse)
    variables = draw(layer, rng)
    params = variables["params"]["cell"]
    carry = cell.initial_carry(params, B, "float32")
    carry = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), carry)
    got = apply(layer, variables, xs, carry, mask=MASK, reset=RESET)
    close(got, run(cell, params, carry, xs, mask=MASK, reset=RESET, reverse=reverse))
    close(apply(layer, variables, xs), run(cell, params, None, xs, reverse=reverse))


def test_rnn_parameters(xs):
    variables = RNN(LSTM(4)).init(jax.random.key(0), xs)
    assert shapes(variables) == {
        "params/cell/w_x": (D, 16),
        "params/cell/w_h": (4, 16),
        "params/cell/b": (16,),
    }
    assert shapes(RNN(GRU(4)).init(jax.random.key(0), xs))["params/cell/b_h"] == (12,)
    other = RNN(LSTM(4)).init(jax.random.key(1), xs)
    assert abs(other["params"]["cell"].w_h - variables["params"]["cell"].w_h).max() > 0.1


def test_inputs_of_no_steps_give_the_initial_carry(xs, rng):
    cells = (LSTM(4), GRU(4))
    stack = Stack(cells, bidirectional=True)
    variables = draw(stack, rng)
    carry, ys = apply(stack, variables, xs[:, :0])
    assert ys.shape == (B, 0, 8)
    want = tuple(
        BidirectionalCarry(*(cell.initial_carry(None, B, "float32") for _ in range(2)))
        for cell in cells
    )
    assert jax.tree.structure(carry) == jax.tree.structure(want)
    close(carry, want)
    close(apply(stack, variables, xs, carry), apply(stack, variables, xs))


# --- Bidirectional ---------------------------------------------------------------------------


def flip_rows(a):
    """The real steps of every row in opposite order, row by row; padding stays at the end."""
    a = np.array(a)
    for row, length in enumerate(LENGTHS):
        a[row, :length] = a[row, :length][::-1]
    return a


def test_bidirectional_is_two_passes_over_ragged_rows(xs, rng):
    layer = Bidirectional(LSTM(4), GRU(2))
    variables = draw(layer, rng)
    assert {name: size for name, size in shapes(variables).items() if name.endswith("w_h")} == {
        "params/forward/cell/w_h": (4, 16),
        "params/backward/cell/w_h": (2, 6),
    }
    forward, backward = (variables["params"][name]["cell"] for name in ("forward", "backward"))
    carry, ys = apply(layer, variables, xs, mask=MASK)
    first, left = run(LSTM(4), forward, None, xs, mask=MASK)
    second, right = run(GRU(2), backward, None, flip_rows(xs), mask=MASK)
    close(carry, BidirectionalCarry(first, second))
    close(ys, np.concatenate([left, flip_rows(right)], axis=-1))


def test_bidirectional_takes_a_carry_for_each_direction(xs, rng):
    layer = Bidirectional(GRU(4), GRU(4))
    variables = draw(layer, rng)
    given = BidirectionalCarry(
        *(GRUCarry(jnp.asarray(rng.normal(size=(B, 4)), "float32")) for _ in range(2))
    )
    carry, ys = apply(layer, variables, xs, given, mask=MASK, reset=RESET)
    for number, (name, reverse) in enumerate((("forward", False), ("backward", True))):
        params = variables["params"][name]["cell"]
        want = run(GRU(4), params, given[number], xs, mask=MASK, reset=RESET, reverse=reverse)
        close((carry[number], ys[..., 4 * number : 4 * number + 4]), want)
    np.testing.assert_array_equal(carry.backward.h[1], given.backward.h[1])  # length 0


def test_bidirectional_rejects_another_carry(xs, rng):
    layer = Bidirectional(GRU(4), GRU(4))
    variables = draw(layer, rng)
    with pytest.raises(TypeError, match="carry: expected a BidirectionalCarry, got GRUCarry"):
        layer.apply(variables, xs, GRUCarry(jnp.zeros((B, 4))))


# --- Stack -----------------------------------------------------------------------------------


def stack_by_hand(cells, params, xs, *, residual=False, rate=0.0, keys=None):
    finals = []
    for number, cell in enumerate(cells):
        if number:
            xs = dropout(xs, fold_in_rows(keys, number), rate)
        final, ys = run(cell, params[f"layer_{number}"]["cell"], None, xs, mask=MASK)
        finals.append(final)
        xs = xs + ys if residual and number else ys
    return tuple(finals), xs


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_stack_is_its_layers(residual, rate, xs, dropout_keys, rng):
    cells = (LSTM(4), GRU(4), Elman(4))
    stack = Stack(cells, dropout=rate, residual=residual)
    variables = draw(stack, rng)
    assert set(variables["params"]) == {"layer_0", "layer_1", "layer_2"}
    assert shapes(variables)["params/layer_1/cell/w_x"] == (4, 12)
    got = apply(stack, variables, xs, mask=MASK, dropout_keys=dropout_keys)
    want = stack_by_hand(
        cells, variables["params"], xs, residual=residual, rate=rate, keys=dropout_keys
    )
    close(got, want)
    np.testing.assert_array_equal(got[1][~MASK], 0)
    quiet = apply(stack, variables, xs, mask=MASK)
    close(quiet, stack_by_hand(cells, variables["params"], xs, residual=residual))
    assert (abs(quiet[1] - got[1]).max() > 1e-3) == (rate > 0)


def test_stack_noise_belongs_to_the_row(xs, dropout_keys, rng):
    stack = Stack((LSTM(4), LSTM(4)), dropout=0.5)
    variables = draw(stack, rng)
    ys = apply(stack, variables, xs, dropout_keys=dropout_keys)[1]
    order = np.array([2, 0])
    fewer = apply(stack, variables, xs[order], dropout_keys=dropout_keys[order])[1]
    np.testing.assert_allclose(fewer, ys[order], atol=1e-6)
    other = apply(stack, variables, xs, dropout_keys=dropout_keys[::-1])[1]
    assert abs(other - ys).max() > 1e-3


def test_stack_has_no_dropout_around_a_single_layer(xs, dropout_keys, rng):
    stack = Stack((LSTM(4),), dropout=0.9)
    variables = draw(stack, rng)
    close(apply(stack, variables, xs, dropout_keys=dropout_keys), apply(stack, variables, xs))


def test_bidirectional_stack(xs, rng):
    stack = Stack((GRU(4), GRU(4)), bidirectional=True, residual=True)
    variables = draw(stack, rng)
    assert shapes(variables)["params/layer_1/backward/cell/w_x"] == (8, 12)
    carry, ys = apply(stack, variables, xs, mask=MASK, reset=RESET)
    layer = Bidirectional(GRU(4), GRU(4))
    weights = variables["params"]
    low, zs = apply(layer, {"params": weights["layer_0"]}, xs, mask=MASK, reset=RESET)
    high, top = apply(layer, {"params": weights["layer_1"]}, zs, mask=MASK, reset=RESET)
    close((carry, ys), ((low, high), zs + top))


def test_stack_goes_on_from_its_carry(xs, rng):
    stack = Stack((LSTM(4), GRU(4)))
    variables = draw(stack, rng)
    whole, ys = apply(stack, variables, xs, mask=MASK)
    carry, first = apply(stack, variables, xs[:, :2], mask=MASK[:, :2])
    carry, second = apply(stack, variables, xs[:, 2:], carry, mask=MASK[:, 2:])
    close((carry, jnp.concatenate([first, second], 1)), (whole, ys))


def test_stack_errors(xs, rng):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="layers: expected at least one layer, got none"):
        Stack(()).init(key, xs)
    with pytest.raises(TypeError, match=r"layers\[1\]: expected a cell \(init, .*\), got Dense"):
        Stack((GRU(4), nn.Dense(4))).init(key, xs)
    with pytest.raises(TypeError, match=r"cells\[0\]: expected a cell \(init, .*\), got Dense"):
        CellStack((nn.Dense(4),))
    with pytest.raises(TypeError, match="layers: expected a tuple of cells, got GRU"):
        Stack(GRU(4)).init(key, xs)
    with pytest.raises(TypeError, match=r"cell: expected a cell \(init, .*\), got Dense"):
        RNN(nn.Dense(4)).init(key, xs)
    with pytest.raises(ValueError, match=r"layers: residual layers must be of one size.*\[3, 4\]"):
        Stack((GRU(4), GRU(3)), residual=True).init(key, xs)
    stack = Stack((GRU(4), GRU(4)), dropout=0.5)
    variables = draw(stack, rng)
    with pytest.raises(ValueError, match="carry: expected one for each of 2 layers, got 1"):
        stack.apply(variables, xs, (GRUCarry(jnp.zeros((B, 4))),))
    with pytest.raises(ValueError, match=r"mask: expected shape \(4, 5\)"):
        stack.apply(variables, xs, mask=MASK[:2])
    with pytest.raises(ValueError, match=r"keys: expected shape \(4,\) \(one key per row\)"):
        stack.apply(variables, xs, dropout_keys=jax.random.split(key, 3))
    with pytest.raises(TypeError, match=r"keys: expected typed keys .* of shape \(4, 2\)"):
        stack.apply(variables, xs, dropout_keys=jax.random.split(jax.random.PRNGKey(0), 4))
    with pytest.raises(ValueError, match=r"rate: expected a value in \[0, 1\), got 1.5"):
        Stack((GRU(4), GRU(4)), dropout=1.5).init(key, xs)


# --- regularization and precision ------------------------------------------------------------

EVERYTHING = Regularization(recurrent_dropout=0.3, zoneout=(("h", 0.3),), weight_drop=0.3)


def test_a_layer_hands_its_draws_to_the_engine(xs, rng, dropout_keys):
    layer = RNN(GRU(4), reverse=True, regularization=EVERYTHING)
    variables = draw(layer, rng)
    params, key = variables["params"]["cell"], jax.random.key(3)
    got = apply(layer, variables, xs, dropout_keys=dropout_keys, weight_key=key)
    want = unroll(
        GRU(4),
        EVERYTHING.drop_weights(params, key),
        None,
        xs,
        reverse=True,
        noise=EVERYTHING.noise(GRU(4), params, B, T, dropout_keys),
    )
    close(got, want)
    still = apply(layer, variables, xs)[1]
    close(still, apply(layer, variables, xs)[1], 0)
    assert np.all(np.any(got[1] != still, axis=(1, 2)))


def test_layers_and_directions_draw_apart(xs, rng, dropout_keys):
    """Equal layers with equal inputs would put out the same, were they given the same noise."""
    for chosen in (Regularization(recurrent_dropout=0.5), Regularization(weight_drop=0.5)):
        both = Bidirectional(GRU(20), GRU(20), regularization=chosen)
        variables = draw(both, rng)
        variables["params"]["backward"] = variables["params"]["forward"]
        keys = {"dropout_keys": dropout_keys, "weight_key": jax.random.key(1)}
        palindrome = jnp.concatenate([xs, xs[:, ::-1]], axis=1)
        _, ys = apply(both, variables, palindrome, **keys)
        assert not np.allclose(ys[..., :20], ys[:, ::-1, 20:], atol=1e-3)
        _, ys = apply(both, variables, palindrome)
        np.testing.assert_allclose(ys[..., :20], ys[:, ::-1, 20:], atol=1e-6)

        stack = Stack((Layer(GRU(D), chosen), Layer(GRU(D), chosen)))
        variables = draw(stack, rng)
        _, noisy = apply(stack, variables, xs, **keys)
        alone = RNN(GRU(D), regularization=chosen)
        keys = {
            "dropout_keys": fold_in_rows(fold_in_rows(dropout_keys, 1), 1),
            "weight_key": fold_in(jax.random.key(1), 1),
        }
        first = {"params": {"cell": variables["params"]["layer_0"]["cell"]}}
        second = {"params": {"cell": variables["params"]["layer_1"]["cell"]}}
        before = {
            "dropout_keys": fold_in_rows(fold_in_rows(dropout_keys, 0), 1),
            "weight_key": fold_in(jax.random.key(1), 0),
        }
        _, middle = apply(alone, first, xs, **before)
        close(apply(alone, second, middle, **keys)[1], noisy)


def test_variational_dropout_is_the_same_at_all_steps(rng, dropout_keys):
    xs = jnp.asarray(rng.normal(size=(B, T, D)), "float32")
    stack = Stack((Elman(6), Elman(6)), dropout=0.5, variational=True)
    variables = draw(stack, rng)
    _, middle = apply(RNN(Elman(6)), {"params": variables["params"]["layer_0"]}, xs)
    dropped = dropout(middle, fold_in_rows(dropout_keys, 1), 0.5, same_steps=True)
    zero = np.asarray(dropped == 0)
    assert zero.any()
    np.testing.assert_array_equal(zero, np.broadcast_to(zero[:, :1], zero.shape))
    want = apply(RNN(Elman(6)), {"params": variables["params"]["layer_1"]}, dropped)[1]
    close(apply(stack, variables, xs, dropout_keys=dropout_keys)[1], want)


@pytest.mark.parametrize("cell", [LSTM(8), GRU(8), GRUResetBefore(8)])
def test_bfloat16_layers_keep_float32_state_and_gradients(cell, rng):
    """Against the same layer in float32: off by bfloat16's 8 bits, and not by more over time."""
    layers = {
        dtype: Stack((cell, cell), execution=Execution(dtype=dtype)) for dtype in (None, "bfloat16")
    }
    steps = 60
    xs = jnp.asarray(rng.normal(size=(B, steps, D)), "float32")
    variables = layers[None].init(jax.random.key(0), xs)
    assert shapes(layers["bfloat16"].init(jax.random.key(0), xs)) == shapes(variables)

    def total(variables, layer):
        carry, ys = layer.apply(variables, xs)
        return jnp.mean(jnp.square(ys.astype("float32"))), (carry, ys)

    results = {}
    for dtype, layer in layers.items():
        function = jax.jit(jax.grad(lambda v, layer=layer: total(v, layer), has_aux=True))
        results[dtype] = function(variables)
    (wide, (_, ys)), (narrow, (carry, zs)) = results[None], results["bfloat16"]
    assert zs.dtype == "bfloat16"
    chex.assert_type(jax.tree.leaves((carry, narrow)), jnp.float32)
    chex.assert_trees_all_close(zs, ys, atol=0.03)
    size = jax.tree.map(lambda g: jnp.abs(g).max(), wide)
    relative = [jax.tree.map(jnp.divide, grads, size) for grads in (narrow, wide)]
    chex.assert_trees_all_close(*relative, atol=0.03)


def test_bfloat16_layers_multiply_by_rounded_weights(xs, rng):
    """Rounding them beforehand therefore changes nothing; of biases it would."""
    layer = RNN(LSTM(4), execution=Execution(dtype="bfloat16"))
    variables = draw(layer, rng)
    params = variables["params"]["cell"]

    def rounded(x):
        return x.astype("bfloat16").astype("float32")

    def outputs(params):
        return apply(layer, {"params": {"cell": params}}, xs)[0].h  # float32: nothing hides

    twice = params._replace(w_x=rounded(params.w_x), w_h=rounded(params.w_h))
    np.testing.assert_array_equal(outputs(twice), outputs(params))
    assert np.any(outputs(params._replace(b=rounded(params.b))) != outputs(params))


def test_a_float32_state_moves_where_a_bfloat16_one_would_stand_still():
    """A state near 1 that gains 0.001 a step: bfloat16 there has steps of 0.004 to 0.008."""

    class Adder(Elman):
        def pointwise(self, extra, z_x, z_h, carry):
            return carry._replace(h=carry.h + z_x)

    cell = Adder(1)
    layer = RNN(cell, execution=Execution(dtype="bfloat16"))
    xs = jnp.full((1, 100, 1), 0.001)
    params = GatedParams(w_x=jnp.ones((1, 1)), w_h=jnp.zeros((1, 1)), b=jnp.zeros(1))
    start = cell.initial_carry(params, 1, "float32")._replace(h=jnp.ones((1, 1)))
    carry, _ = layer.apply({"params": {"cell": params}}, xs, start)
    np.testing.assert_allclose(carry.h, [[1.1]], atol=1e-3)


# --- merged directions and skip connections ----------------------------------------------------


@pytest.mark.parametrize("merge", ["concatenate", "sum", "mean", "multiply"])
def test_directions_are_merged(merge, xs, rng):
    layer = Bidirectional(GRU(4), LSTM(4), merge=merge)
    variables = draw(layer, rng)
    params = variables["params"]
    _, ys = layer.apply(variables, xs, mask=MASK)
    _, forward = RNN(GRU(4)).apply({"params": params["forward"]}, xs, mask=MASK)
    _, backward = RNN(LSTM(4), reverse=True).apply({"params": params["backward"]}, xs, mask=MASK)
    want = {
        "concatenate": np.concatenate([forward, backward], -1),
        "sum": forward + backward,
        "mean": (forward + backward) / 2,
        "multiply": forward * backward,
    }[merge]
    chex.assert_trees_all_close(ys, want, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(ys[~np.asarray(MASK)], jnp.zeros_like(ys[~np.asarray(MASK)]))
    stack = Stack((GRU(4), GRU(4)), bidirectional=True, merge=merge)
    width = 8 if merge == "concatenate" else 4
    assert stack.init_with_output(jax.random.key(0), xs)[0][1].shape[-1] == width


def test_mistakes_in_merging(xs):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="merge: did you mean 'sum'"):
        Bidirectional(GRU(4), GRU(4), merge="sums").init(key, xs)
    with pytest.raises(ValueError, match=r"backward direction: expected shape .* for merge='sum'"):
        Bidirectional(GRU(4), GRU(3), merge="sum").init(key, xs)


def test_skip_connections_are_those_of_a_stack_by_hand(xs, rng):
    stack = Stack((GRU(4), LSTM(3)), skip=True)
    variables = draw(stack, rng)
    params = variables["params"]
    carry, ys = stack.apply(variables, xs, mask=MASK)
    first, h = RNN(GRU(4)).apply({"params": params["layer_0"]}, xs, mask=MASK)
    above = jnp.concatenate([xs, h], axis=-1)
    second, g = RNN(LSTM(3)).apply({"params": params["layer_1"]}, above, mask=MASK)
    chex.assert_trees_all_close((carry, ys), ((first, second), jnp.concatenate([h, g], -1)))
    with pytest.raises(ValueError, match="skip: expected False where residual=True, got True"):
        Stack((GRU(4), GRU(4)), skip=True, residual=True).init(jax.random.key(0), xs)
