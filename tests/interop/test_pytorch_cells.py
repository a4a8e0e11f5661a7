"""PyTorch's recurrent cells: outputs, states and gradients of golden.npz, and round trips."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import CLOSE, arrays, gradients, names, stacked

from seqnets.cells import GRU, LSTM, Elman, GRUResetBefore, ProjectedLSTM
from seqnets.interop import from_pytorch_cell, to_pytorch_cell
from seqnets.recurrence import unroll

CELLS = {
    "rnn_relu_cell": Elman(5, activation=jax.nn.relu),
    "lstm_cell": LSTM(5),
    "lstm_unbiased_cell": LSTM(5),
    "gru_cell": GRU(5),
}
EVERY_CELL = pytest.mark.parametrize("case", CELLS)


def weights_of(case):
    return arrays(f"torch/{case}", "weights/")


def imported(case, **options):
    return from_pytorch_cell(weights_of(case), activation=jax.nn.relu, **options)


def test_every_case_is_there():
    assert set(CELLS) == {name for name in names("torch") if name.endswith("cell")}


@EVERY_CELL
def test_outputs_states_and_gradients(case):
    cell, params = imported(case)
    assert cell == CELLS[case]

    def run(params, xs, mask):
        carry, ys = unroll(cell, params, None, xs, mask=mask)
        return {"ys": ys, **stacked([carry])}

    got = to_pytorch_cell(cell, gradients(f"torch/{case}", run, params))
    for key, want in arrays(f"torch/{case}", "gradients/").items():
        if "gru" not in case:  # both biases of a sum have its gradient, and ours is one
            key = key.replace("bias_hh", "bias_ih")
        np.testing.assert_allclose(got[key], want, err_msg=key, **CLOSE)


@EVERY_CELL
def test_round_trip(case):
    weights = weights_of(case)
    back = to_pytorch_cell(*imported(case), bias="unbiased" not in case)
    assert list(back) == list(weights)
    if "gru" not in case and "bias_hh" in weights:
        weights["bias_ih"], weights["bias_hh"] = weights["bias_ih"] + weights["bias_hh"], 0
    chex.assert_trees_all_equal(
        back, {k: np.broadcast_to(x, back[k].shape) for k, x in weights.items()}
    )


def test_part_of_a_larger_module():
    weights = weights_of("gru_cell")
    whole = {f"decoder.cell.{key}": x for key, x in weights.items()} | {
        "head.bias": np.ones(2, int)
    }
    cell, params = from_pytorch_cell(whole, prefix="decoder.cell.")
    chex.assert_trees_all_equal(params, imported("gru_cell")[1])
    back = to_pytorch_cell(cell, params, prefix="decoder.cell.")
    assert list(back) == list(whole)[:4]
    with pytest.raises(ValueError, match=r"^prefix: expected 'decoder.cell.', .*got 'decoder.'"):
        from_pytorch_cell(whole, prefix="decoder.")


# --- mistakes --------------------------------------------------------------------------------


def test_a_module_is_no_cell():
    with pytest.raises(ValueError, match=r"^state_dict: .*got those of a module.* from_pytorch$"):
        from_pytorch_cell(arrays("torch/lstm", "weights/"))


def test_keys_shapes_and_activation():
    weights = weights_of("lstm_cell")
    with pytest.raises(ValueError, match=r"^state_dict: missing 'bias_hh'; expected exactly: weig"):
        from_pytorch_cell({k: x for k, x in weights.items() if k != "bias_hh"})
    with pytest.raises(ValueError, match="missing 'weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'"):
        from_pytorch_cell({})
    with pytest.raises(ValueError, match=r"^weight_ih: expected shape \(20, 3\).*got \(19, 3\)"):
        from_pytorch_cell(weights | {"weight_ih": np.ones((19, 3))})
    with pytest.raises(ValueError, match=r"^weight_hh: expected gates of total width 5, 15, or 20"):
        from_pytorch_cell(weights | {"weight_hh": np.ones((10, 5))})
    with pytest.raises(ValueError, match=r"^activation: expected that of the plain RNN"):
        from_pytorch_cell(weights_of("rnn_relu_cell"))
    with pytest.raises(TypeError, match=r"^state_dict: expected a mapping of arrays, got NoneType"):
        from_pytorch_cell(None)


def test_export_checks_the_cell_and_its_biases():
    for cell in (GRUResetBefore(5), ProjectedLSTM(5, hidden=6)):
        with pytest.raises(TypeError, match=r"\(Elman, LSTM, GRU\), got"):
            to_pytorch_cell(cell, cell.init(jax.random.key(0), 3))
    cell, params = imported("lstm_cell")
    with pytest.raises(ValueError, match=r"^params.b: expected zeros.* got values up to 2.5$"):
        to_pytorch_cell(cell, params._replace(b=jnp.zeros(20).at[7].set(2.5)), bias=False)
