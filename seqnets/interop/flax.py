"""Parameters of Flax Linen's own recurrent cells: one Dense layer a gate and product.

    SimpleCell          i,           h             bias in i
    OptimizedLSTMCell   ii if ig io, hi hf hg ho   biases in the four of h
    GRUCell             ir iz in,    hr hz hn      biases in the three of i, and in hn
    MGUCell             if in,       hf hn         biases in the two of i, and in hn

``params`` is the tree below ``variables["params"]``. LSTMCell has the tree and the mathematics of
OptimizedLSTMCell. The GRUCell resets after the product, as our `GRU`, and the MGUCell is our
`MGUResetAfter`. A SimpleCell must have been made without ``residual``, an MGUCell with
``reset_gate=True``, and the gates of all with Flax's default activations. For ConvLSTMCell see
`from_flax_conv_lstm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from seqnets.cells import GRU, LSTM, Elman, GatedParams, MGUResetAfter
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import check_keys, flatten, float_array
from seqnets.interop.layout import PortableCell, export_params, import_params, make_cell
from seqnets.typing import Activation, Float

__all__ = ["from_flax", "to_flax"]


class _Names(NamedTuple):
    """How one of Flax's cells names what we hold side by side."""

    gates: tuple[str, ...]
    """Last letters of the Dense layers, in our order of gates."""
    bias_side: str
    """First letter of the layers whose biases make our ``b``."""
    biased: frozenset[str]
    """Layers that have a bias."""

    def paths(self) -> list[str]:
        """Paths of all arrays: ``"hi/kernel"``."""
        layers = [side + gate for side in "ih" for gate in self.gates]
        return [f"{x}/{leaf}" for x in layers for leaf in self.leaves(x)]

    def leaves(self, layer: str) -> tuple[str, ...]:
        """Names of the arrays of one Dense layer."""
        return ("kernel", "bias") if layer in self.biased else ("kernel",)


CELLS = {
    1: _Names(("",), "i", frozenset({"i"})),
    4: _Names(("i", "f", "g", "o"), "h", frozenset({"hi", "hf", "hg", "ho"})),
    3: _Names(("r", "z", "n"), "i", frozenset({"ir", "iz", "in", "hn"})),
    2: _Names(("f", "n"), "i", frozenset({"if", "in", "hn"})),
}
KINDS = (Elman, LSTM, GRU, MGUResetAfter)


def from_flax(
    params: Mapping[str, Any], *, activation: Activation | None = None
) -> tuple[PortableCell, GatedParams]:
    """Cell and parameters of a SimpleCell, OptimizedLSTMCell, GRUCell or MGUCell of Linen.

    Args:
      params: ``variables["params"]`` of the cell.
      activation: ``activation_fn`` of a SimpleCell, which is not part of its parameters and must
        be given; the other kinds have their own.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`. The recurrent biases of the gates of GRU and MGU, which Flax lacks,
      are zeros.

    Raises:
      ValueError: if a key is missing or unknown, an array has another shape than the others
        ask, or a SimpleCell comes without its activation.
      TypeError: if params is not a mapping, or an array not of floats.
    """
    flat = flatten("params", params)
    gates = max(CELLS, key=lambda gates: len(flat.keys() & set(CELLS[gates].paths())))
    names = CELLS[gates]
    check_keys("params", flat, names.paths())
    arrays = {key: float_array(key, value) for key, value in flat.items()}
    features = _check_shapes(arrays, names)

    def joined(side: str, leaf: str) -> np.ndarray:
        absent = np.zeros(features, arrays[f"h{names.gates[0]}/kernel"].dtype)
        return np.concatenate(
            [arrays.get(f"{side}{gate}/{leaf}", absent) for gate in names.gates], axis=-1
        )

    b_h = joined("h", "bias") if gates in (2, 3) else None
    imported = import_params(
        joined("i", "kernel"), joined("h", "kernel"), joined(names.bias_side, "bias"), b_h
    )
    return make_cell(gates, features, activation), imported


def to_flax(
    cell: PortableCell, params: GatedParams
) -> dict[str, dict[str, Float[np.ndarray, "*S"]]]:
    """Tree for ``{"params": tree}`` of the Flax Linen cell of the same kind and size.

    Flax's GRUCell has one bias for each of r and z, its MGUCell one for f: the sum of our two,
    which is all that their equations see. So these biases come back from `from_flax` summed.

    Args:
      cell: `Elman` for SimpleCell, `LSTM` for OptimizedLSTMCell, `GRU` for GRUCell, or
        `MGUResetAfter` for MGUCell.
      params: its parameters.

    Raises:
      ValueError: if the parameters do not have the arrays and shapes of the cell.
      TypeError: if the cell is of another kind, or the parameters are not `GatedParams`.
    """
    w_x, w_h, b, b_h, _ = export_params("params", cell, params, KINDS)
    names = CELLS[w_h.shape[1] // cell.features]
    if b_h is not None:
        own = b.size - cell.features  # the candidate, last of the gates, has both biases
        b = np.concatenate([(b + b_h)[:own], b[own:]])
    other = b if b_h is None else b_h  # biases of the side that is not ``bias_side``
    flat: dict[str, np.ndarray] = {}
    for side, kernel in (("i", w_x), ("h", w_h)):
        bias = b if side == names.bias_side else other
        parts = zip(*(np.split(x, len(names.gates), axis=-1) for x in (kernel, bias)), strict=True)
        for gate, (kernel_part, bias_part) in zip(names.gates, parts, strict=True):
            flat[f"{side}{gate}/kernel"] = kernel_part
            flat[f"{side}{gate}/bias"] = bias_part
    tree: dict[str, dict[str, np.ndarray]] = unflatten_dict(
        {key: flat[key] for key in names.paths()}, sep="/"
    )
    return tree


def _check_shapes(arrays: Mapping[str, np.ndarray], names: _Names) -> int:
    """Check every array against the first kernel of either side; return the hidden size."""
    first_x, first_h = (f"{side}{names.gates[0]}/kernel" for side in "ih")
    check_rank(first_x, arrays[first_x], 2, "D H")
    check_rank(first_h, arrays[first_h], 2, "H H")
    in_features, features = arrays[first_x].shape[0], arrays[first_h].shape[0]
    for key, array in arrays.items():
        rows = in_features if key.startswith("i") else features
        shape = (rows, features) if key.endswith("kernel") else (features,)
        check_shape(key, array, shape, f"hidden size {features} of {first_h}")
    return features
