"""Trees of Flax cells with one Dense layer per gate and product: Linen's, and NNX's LSTMCell.

    SimpleCell               i,           h             bias in i
    OptimizedLSTMCell        ii if ig io, hi hf hg ho   biases in the four of h
    GRUCell                  ir iz in,    hr hz hn      biases in the three of i, and in hn
    MGUCell                  if in,       hf hn         biases in the two of i, and in hn

NNX's LSTMCell has the second tree, but with ``if_`` instead of ``if``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from seqnets.cells import GRU, LSTM, Elman, MGUResetAfter
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import check_keys, float_array
from seqnets.interop.layout import Exported
from seqnets.typing import Float

__all__ = ["LINEN_KINDS", "read_linen", "write_linen"]

LINEN_KINDS = (Elman, LSTM, GRU, MGUResetAfter)


class _Names(NamedTuple):
    """Names of the Dense layers of a cell, whose arrays we concatenate."""

    gates: tuple[str, ...]
    """Last letters of the Dense layers, in our order of gates."""
    bias_side: str
    """First letter of the layers whose biases form our ``b``."""
    biased: frozenset[str]
    """Layers that have a bias."""

    def paths(self) -> list[str]:
        """Paths of all arrays, such as ``"hi/kernel"``."""
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


def read_linen(name: str, flat: Mapping[str, Any], path: str) -> tuple[int, Exported]:
    """Return the number of gates, and the arrays concatenated in our order of gates.

    Args:
      name: name of the tree in messages about keys.
      flat: arrays by path.
      path: prefix of the paths in messages, empty or ending with a slash.

    Raises:
      ValueError: if a key is missing or unknown, or the shapes do not match.
      TypeError: if an array is not of floats.
    """
    flat = {"if/kernel" if key == "if_/kernel" else key: value for key, value in flat.items()}
    gates = max(CELLS, key=lambda gates: len(flat.keys() & set(CELLS[gates].paths())))
    names = CELLS[gates]
    check_keys(name, flat, names.paths())
    arrays = {key: float_array(path + key, value) for key, value in flat.items()}
    features = _check_shapes(arrays, names, path)

    def joined(side: str, leaf: str) -> np.ndarray:
        absent = np.zeros(features, arrays[f"h{names.gates[0]}/kernel"].dtype)
        return np.concatenate(
            [arrays.get(f"{side}{gate}/{leaf}", absent) for gate in names.gates], axis=-1
        )

    b_h = joined("h", "bias") if gates in (2, 3) else None
    b = joined(names.bias_side, "bias")
    return gates, Exported(joined("i", "kernel"), joined("h", "kernel"), b, b_h)


def write_linen(arrays: Exported, features: int) -> dict[str, Float[np.ndarray, "*S"]]:
    """The arrays of the tree by path; two biases of a gate are added if only their sum matters."""
    w_x, w_h, b, b_h, _ = arrays
    names = CELLS[w_h.shape[1] // features]
    if b_h is not None:
        own = b.size - features  # the candidate, last of the gates, has both biases
        b = np.concatenate([(b + b_h)[:own], b[own:]])
    other = b if b_h is None else b_h  # biases of the side that is not ``bias_side``
    flat: dict[str, np.ndarray] = {}
    for side, kernel in (("i", w_x), ("h", w_h)):
        bias = b if side == names.bias_side else other
        parts = zip(*(np.split(x, len(names.gates), axis=-1) for x in (kernel, bias)), strict=True)
        for gate, (kernel_part, bias_part) in zip(names.gates, parts, strict=True):
            flat[f"{side}{gate}/kernel"] = kernel_part
            flat[f"{side}{gate}/bias"] = bias_part
    return {key: flat[key] for key in names.paths()}


def _check_shapes(arrays: Mapping[str, np.ndarray], names: _Names, path: str) -> int:
    """Check every array against the first kernel of each side; return the hidden size."""
    first_x, first_h = (f"{side}{names.gates[0]}/kernel" for side in "ih")
    check_rank(path + first_x, arrays[first_x], 2, "D H")
    check_rank(path + first_h, arrays[first_h], 2, "H H")
    in_features, features = arrays[first_x].shape[0], arrays[first_h].shape[0]
    for key, array in arrays.items():
        rows = in_features if key.startswith("i") else features
        shape = (rows, features) if key.endswith("kernel") else (features,)
        check_shape(path + key, array, shape, f"hidden size {features} of {path + first_h}")
    return features
