"""PyTorch's recurrent modules: outputs, states and gradients of golden.npz, and round trips."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import CLOSE, arrays, gradients, names, stacked

from seqnets.cells import GRU, LSTM, Elman, GRUResetBefore, ProjectedLSTM
from seqnets.interop import from_pytorch, to_pytorch
from seqnets.modules import Layer, Stack
from seqnets.recurrence import Regularization

CASES = [name for name in names("torch") if not name.endswith("cell")]


def golden(case, group=""):
    return arrays(f"torch/{case}", group)


def activation_of(case):
    return jax.nn.relu if "relu" in case else jnp.tanh


def has_biases(case):
    return "unbiased" not in case


def test_every_case_is_there():
    assert len(CASES) == 16
    assert sum(not has_biases(case) for case in CASES) == 2
    assert sum("mask" in golden(case) for case in CASES) == 5


@pytest.mark.parametrize("case", CASES)
def test_outputs_states_and_gradients(case):
    stack, params = from_pytorch(golden(case, "weights/"), activation=activation_of(case))

    def run(params, xs, mask):
        carry, ys = stack.apply({"params": params}, xs, mask=mask)
        carries = jax.tree.leaves(carry, is_leaf=lambda node: hasattr(node, "h"))
        return {"ys": ys, **stacked(carries)}

    got = to_pytorch(stack, gradients(f"torch/{case}", run, params))
    expected = golden(case, "gradients/")
    assert got.keys() >= expected.keys()
    assert (got.keys() == expected.keys()) == has_biases(case)
    for key, want in expected.items():
        if "gru" not in case:  # both biases of a sum have its gradient, and ours is one
            key = key.replace("bias_hh", "bias_ih")
        np.testing.assert_allclose(got[key], want, err_msg=key, **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case):
    weights = golden(case, "weights/")
    stack, params = from_pytorch(weights, activation=activation_of(case))
    back = to_pytorch(stack, params, bias=has_biases(case))
    if "gru" not in case:
        for key in [key for key in weights if key.startswith("bias_hh")]:
            weights[key.replace("_hh_", "_ih_")] += weights[key]
            weights[key] *= 0
    assert list(back) == list(weights)  # also in PyTorch's order
    for key, want in weights.items():
        np.testing.assert_array_equal(back[key], want, err_msg=key)
        assert back[key].dtype == want.dtype
    again, params_again = from_pytorch(back, activation=activation_of(case))
    assert again == stack
    chex.assert_trees_all_equal(params_again, params, strict=True)


def test_module_and_tree_are_those_of_init():
    stack, params = from_pytorch(golden("lstm_layers_both_ragged", "weights/"))
    assert stack == Stack((LSTM(5), LSTM(5)), bidirectional=True)
    like = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((2, 4, 3)))["params"]
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), like)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == shapes
    stack, params = from_pytorch(golden("lstm_projected_layers_both_ragged", "weights/"))
    assert stack == Stack((ProjectedLSTM(2, hidden=5),) * 2, bidirectional=True)
    like = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((2, 4, 3)))["params"]
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), like)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == shapes
    stack, params = from_pytorch(golden("gru", "weights/"))
    assert stack == Stack((GRU(5),))
    assert params.keys() == {"layer_0"}
    assert from_pytorch(golden("rnn_relu", "weights/"), activation=jax.nn.relu)[0].layers == (
        Elman(5, activation=jax.nn.relu),
    )


def test_takes_nested_lists():
    weights = {
        key: array.astype(float).tolist() for key, array in golden("gru", "weights/").items()
    }
    params = from_pytorch(weights)[1]
    want = from_pytorch(golden("gru", "weights/"))[1]
    chex.assert_trees_all_equal(params, want, strict=True)


@pytest.mark.parametrize("case", ["lstm_unbiased_layers", "gru_unbiased_both"])
def test_absent_biases_are_zeros(case):
    weights = golden(case, "weights/")
    stack, params = from_pytorch(weights)
    like = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((2, 4, 3)))["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(params, like)
    with_biases = to_pytorch(stack, params)
    zeros = {key: array for key, array in with_biases.items() if "bias" in key}
    assert len(zeros) == len(weights)  # two of each
    chex.assert_trees_all_equal(zeros, jax.tree.map(np.zeros_like, zeros))
    chex.assert_trees_all_equal(from_pytorch(with_biases)[1], params)


class Bfloat16Tensor:
    """As a tensor of PyTorch: NumPy has no such dtype, and refuses it; DLPack does not."""

    def __init__(self, array):
        self.array = jnp.asarray(array, jnp.bfloat16)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Got unsupported ScalarType BFloat16")

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_bfloat16_tensors():
    weights = golden("gru_layers", "weights/")
    stack, params = from_pytorch({key: Bfloat16Tensor(x) for key, x in weights.items()})
    want = jax.tree.map(lambda x: x.astype(jnp.bfloat16), from_pytorch(weights)[1])
    chex.assert_trees_all_equal(params, want)
    chex.assert_type(jax.tree.leaves(params), jnp.bfloat16)
    back = to_pytorch(stack, params)
    chex.assert_trees_all_equal(back, {k: x.astype(jnp.bfloat16) for k, x in weights.items()})


def test_part_of_a_larger_module():
    weights = golden("lstm_projected", "weights/")
    whole = {f"encoder.lstm.{key}": array for key, array in weights.items()}
    whole |= {"encoder.lstm2.weight_ih_l0": np.ones(3), "head.bias": np.ones(2, int)}
    stack, params = from_pytorch(whole, prefix="encoder.lstm.")
    want_stack, want = from_pytorch(weights)
    assert stack == want_stack
    chex.assert_trees_all_equal(params, want, strict=True)
    back = to_pytorch(stack, params, prefix="encoder.lstm.")
    assert list(back) == list(whole)[:5]
    np.testing.assert_array_equal(
        back["encoder.lstm.weight_hr_l0"], whole["encoder.lstm.weight_hr_l0"]
    )


# --- mistakes --------------------------------------------------------------------------------


@pytest.fixture
def weights():
    return golden("lstm_layers_both_ragged", "weights/")


def test_prefixes():
    names = [f"{prefix}{key}" for prefix in ("b.", "a.gru.") for key in golden("gru", "weights/")]
    whole = dict.fromkeys([*names, "head.bias"], np.ones(3))
    with pytest.raises(ValueError, match=r"prefix: expected 'a.gru.', 'b.', got 'gru.'"):
        from_pytorch(whole, prefix="gru.")
    with pytest.raises(ValueError, match="prefix: expected none, as there are no recurrent weig"):
        from_pytorch({"head.bias": np.ones(3)}, prefix="gru.")
    for prefix in ("", "b"):  # forgotten, and forgotten the dot
        with pytest.raises(ValueError, match=f"expected 'a.gru.', 'b.', got '{prefix}'"):
            from_pytorch(whole, prefix=prefix)
    del whole["b.bias_hh_l0"]
    with pytest.raises(ValueError, match=r"missing 'b.bias_hh_l0'; expected exactly: b.weight_ih"):
        from_pytorch(whole, prefix="b.")
    whole |= {"b.bias_hh_l0": np.ones(3), "b.weight_hh_l0": np.ones((15, 5))}
    with pytest.raises(ValueError, match=r"b.weight_ih_l0: expected shape \[G·H, D\]"):
        from_pytorch(whole, prefix="b.")
    whole |= {"b.weight_ih_l0": np.ones((15, 3))}
    with pytest.raises(ValueError, match=r"b.bias_ih_l0: expected shape \(15,\).*got \(3,\)"):
        from_pytorch(whole, prefix="b.")


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("weight_hr_l0", (2,), r"weight_hr_l0: expected shape \[P, H\].*got \(2,\)"),
        ("weight_hr_l0", (2, 4), r"weight_ih_l0: expected shape \(16, 3\).*got \(20, 3\)"),
        ("weight_hr_l1", (5, 2), r"weight_hr_l1: expected shape \(2, 5\).*got \(5, 2\)"),
        ("weight_hh_l0", (20,), r"weight_hh_l0: expected shape \[G·H, P\].*got \(20,\)"),
        ("weight_hh_l0", (20, 5), r"weight_hh_l0: expected shape \(20, 2\).*got \(20, 5\)"),
        ("weight_hh_l0", (15, 2), r"weight_hh_l0: expected shape \(20, 2\).*got \(15, 2\)"),
        ("weight_ih_l1", (20, 10), r"weight_ih_l1: expected shape \(20, 4\).*got \(20, 10\)"),
    ],
)
def test_shapes_with_a_projection(key, shape, expected):
    weights = golden("lstm_projected_layers_both_ragged", "weights/")
    weights[key] = np.zeros(shape, "float32")
    with pytest.raises(ValueError, match=expected):
        from_pytorch(weights)


def test_missing_and_unknown_keys_are_all_named(weights):
    del weights["bias_hh_l1"], weights["weight_ih_l0_reverse"]
    weights |= {"bias_hh_l1_": np.ones((2, 5), "float32"), "fc.scale": 0}
    with pytest.raises(ValueError, match="state_dict: missing") as error:
        from_pytorch(weights)
    listed = str(error.value).partition("expected exactly")[0]
    assert "missing 'weight_ih_l0_reverse', 'bias_hh_l1'" in listed
    assert "unknown 'bias_hh_l1_' (did you mean 'bias_hh_l1'?), 'fc.scale'" in listed
    assert listed.count("'") == 10


def test_one_projection_asks_for_all(weights):
    weights["weight_hr_l1"] = np.ones((2, 5), "float32")
    with pytest.raises(ValueError, match=r"missing 'weight_hr_l0', 'weight_hr_l0_reverse', 'w"):
        from_pytorch(weights)


@pytest.mark.parametrize("number", ["99999999999", "9" * 5000, "00", "\u0663"])
def test_a_stray_number_asks_for_no_layers(weights, number):
    weights[f"weight_ih_l{number}"] = np.ones((2, 5), "float32")
    with pytest.raises(ValueError, match=r"missing 'weight_ih_l2'.*; unknown 'weight_ih") as error:
        from_pytorch(weights)
    assert f"unknown 'weight_ih_l{number}'" in str(error.value)
    assert len(str(error.value)) < 12000


@pytest.mark.parametrize("state", [None, [1.0], {3: np.ones(2)}])
def test_no_mapping_of_names(state):
    with pytest.raises(TypeError, match=r"^state_dict: expected (a mapping|keys that are strings)"):
        from_pytorch(state)


def test_rows_of_unequal_length(weights):
    with pytest.raises(TypeError, match=r"^bias_ih_l0: expected an array, got list"):
        from_pytorch(weights | {"bias_ih_l0": [[1.0], [1.0, 2.0]]})


def test_nothing_at_all():
    with pytest.raises(ValueError, match="missing 'weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0'"):
        from_pytorch({})


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("weight_hh_l0", (10, 5), r"weight_hh_l0: .*5, 15, or 20 .* got 10 \(shape \(10, 5\)\)"),
        ("weight_hh_l0", (0, 0), r"weight_hh_l0: .* got 0"),
        ("weight_hh_l0", (20,), r"weight_hh_l0: expected shape \[G·H, H\].*got \(20,\)"),
        ("weight_ih_l0", (20,), r"weight_ih_l0: expected shape \[G·H, D\].*got \(20,\)"),
        ("weight_ih_l0", (19, 3), r"weight_ih_l0: expected shape \(20, 3\).*got \(19, 3\)"),
        ("weight_ih_l0_reverse", (20, 4), r"weight_ih_l0_reverse: .*\(20, 3\).*got \(20, 4\)"),
        ("weight_ih_l1", (20, 5), r"weight_ih_l1: expected shape \(20, 10\).*got \(20, 5\)"),
        ("weight_hh_l1", (20, 6), r"weight_hh_l1: expected shape \(20, 5\).*got \(20, 6\)"),
        ("bias_hh_l1_reverse", (5,), r"bias_hh_l1_reverse: .*\(20,\).*got \(5,\)"),
    ],
)
def test_shapes(weights, key, shape, expected):
    weights[key] = np.zeros(shape, "float32")
    with pytest.raises(ValueError, match=expected):
        from_pytorch(weights)


@pytest.mark.parametrize("kind", ["rnn_tanh", "rnn_relu_both"])
def test_a_plain_rnn_without_its_activation(kind):
    with pytest.raises(ValueError, match="activation: expected that of the plain RNN"):
        from_pytorch(golden(kind, "weights/"))


def test_integers(weights):
    weights["bias_ih_l0"] = np.zeros(20, int)
    with pytest.raises(TypeError, match="bias_ih_l0: expected an array of floats, got dtype int64"):
        from_pytorch(weights)


def test_what_pytorch_lacks(weights):
    stack, params = from_pytorch(weights)
    with pytest.raises(TypeError, match="stack: expected a Stack, got LSTM"):
        to_pytorch(LSTM(5), params)
    with pytest.raises(ValueError, match="residual=True"):
        to_pytorch(stack.clone(residual=True), params)
    with pytest.raises(ValueError, match="expected cells of one kind and size, got"):
        to_pytorch(stack.clone(layers=(LSTM(5), LSTM(6))), params)
    with pytest.raises(ValueError, match="expected cells of one kind and size, got"):
        to_pytorch(stack.clone(layers=()), params)
    with pytest.raises(ValueError, match="expected cells of one kind and size, got"):
        to_pytorch(stack.clone(layers=(Elman(5), Elman(5, activation=jax.nn.relu))), params)
    drawn_otherwise = stack.clone(layers=(LSTM(5, forget_bias=0.0), LSTM(5)))
    assert to_pytorch(drawn_otherwise, params).keys() == weights.keys()
    cells = (ProjectedLSTM(5, hidden=6), ProjectedLSTM(5, hidden=7))
    with pytest.raises(ValueError, match="expected cells of one kind and size, got"):
        to_pytorch(stack.clone(layers=cells), params)
    other = LSTM(5, gate_activation=jax.nn.hard_sigmoid)
    with pytest.raises(ValueError, match="gate_activation: PyTorch's LSTM has sigmoid gates and"):
        to_pytorch(stack.clone(layers=(other, other)), params)
    with pytest.raises(TypeError, match=r"\(Elman, LSTM, ProjectedLSTM, GRU\), got GRUResetB"):
        to_pytorch(Stack((GRUResetBefore(5),)), {"layer_0": {"cell": None}})
    with pytest.raises(TypeError, match=r"layers\[0\]: expected a cell \(init, .*\), got object"):
        to_pytorch(Stack((object(),)), {"layer_0": {"cell": None}})


def test_a_zoneout_is_no_part_of_pytorch(weights):
    stack, params = from_pytorch(weights)
    layers = (LSTM(5), Layer(LSTM(5), Regularization(zoneout=0.1)))
    with pytest.raises(ValueError, match=r"^stack.layers\[1\]: expected no zoneout.*got 0.1"):
        to_pytorch(stack.clone(layers=layers), params)


def test_a_bias_without_a_place_is_named():
    stack, params = from_pytorch(golden("gru_unbiased_both", "weights/"))
    inner = params["layer_0"]["backward"]["cell"]
    for field in ("b", "b_h"):
        biased = inner._replace(**{field: inner.b.at[3].set(-0.25)})
        tree = {"layer_0": {**params["layer_0"], "backward": {"cell": biased}}}
        expected = rf"^params\['layer_0/backward/cell'\].{field}: expected zeros.* up to 0.25$"
        with pytest.raises(ValueError, match=expected):
            to_pytorch(stack, tree, bias=False)


def test_one_bias_asks_for_all():
    weights = golden("lstm_unbiased_layers", "weights/") | {"bias_hh_l1": np.ones(20)}
    with pytest.raises(ValueError, match="missing 'bias_ih_l0', 'bias_hh_l0', 'bias_ih_l1'; exp"):
        from_pytorch(weights)


def test_a_cell_is_no_module():
    with pytest.raises(ValueError, match=r"^state_dict: .*got those of a cell.* from_pytorch_cell"):
        from_pytorch(golden("lstm_cell", "weights/"))


def test_parameters_of_another_module(weights):
    stack, params = from_pytorch(weights)
    one_way = {"layer_0": {"cell": 0, **params["layer_0"]}}
    with pytest.raises(ValueError, match=r"missing 'layer_1/cell'; unknown 'layer_0/forward/cell'"):
        to_pytorch(stack.clone(bidirectional=False), one_way)
    with pytest.raises(TypeError, match="params: expected a mapping of arrays, got list"):
        to_pytorch(stack, [params])
    broken = jax.tree.map(lambda x: x, params)
    inner = broken["layer_1"]["backward"]
    good = inner["cell"]
    inner["cell"] = good._replace(w_x=good.w_x[:5])
    with pytest.raises(ValueError, match=r"weight_ih_l1_reverse: .*\(20, 10\).*got \(20, 5\)"):
        to_pytorch(stack, broken)
    inner["cell"] = good._replace(b_h=good.b)
    with pytest.raises(ValueError, match=r"params\['layer_1/backward/cell'\]: unknown 'b_h'"):
        to_pytorch(stack, broken)
