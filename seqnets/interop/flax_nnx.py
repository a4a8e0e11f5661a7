"""Trees of Flax NNX cells with one Linear layer per product, the gates in our order.

                        dense_i                        dense_h
    SimpleCell          kernel [D, H]     bias [H]     kernel [H, H]
    GRUCell             kernel [D, 3·H]   bias [3·H]   kernel [H, 3·H]
    OptimizedLSTMCell   kernel [D, 4·H]                kernel [H, 4·H]   bias [4·H]

The GRUCell lacks the bias of the candidate's recurrent product, which Linen's GRUCell has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqnets.cells import GRU, LSTM, Elman
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import check_keys, float_array
from seqnets.interop.layout import Exported, check_no_bias, gates_from_width, zero_bias
from seqnets.typing import Float

__all__ = ["NNX_KINDS", "is_nnx", "read_nnx", "write_nnx"]

NNX_KINDS = (Elman, LSTM, GRU)
KERNELS = ("dense_i/kernel", "dense_h/kernel")
BIASES = ("dense_i/bias", "dense_h/bias")


def is_nnx(flat: Mapping[str, Any]) -> bool:
    """Whether any path belongs to such a tree."""
    return any(key.startswith(("dense_i/", "dense_h/")) for key in flat)


def read_nnx(name: str, flat: Mapping[str, Any], path: str) -> tuple[int, Exported]:
    """Return the number of gates and the arrays; arguments and errors are as for `read_linen`."""
    bias = BIASES[1] if BIASES[1] in flat else BIASES[0]
    check_keys(name, flat, (*KERNELS, bias))
    w_x, w_h, b = (float_array(path + key, flat[key]) for key in (*KERNELS, bias))
    inputs, recurrent = (path + key for key in KERNELS)
    check_rank(recurrent, w_h, 2, "H G·H")
    check_rank(inputs, w_x, 2, "D G·H")
    features, width = w_h.shape
    gates = gates_from_width(recurrent, w_h.shape, width, features)
    if (gates == LSTM.gates) != (bias == BIASES[1]):
        kind = "an LSTM" if gates == LSTM.gates else "an RNN or a GRU"
        raise ValueError(
            f"{name}: expected a bias in {BIASES[gates == LSTM.gates]!r}, where {kind} of hidden "
            f"size {features} has it, got {bias!r}"
        )
    check_shape(inputs, w_x, (w_x.shape[0], width), f"columns of {recurrent}")
    check_shape(path + bias, b, (width,), f"columns of {recurrent}")
    return gates, Exported(w_x, w_h, b, zero_bias(w_h) if gates == GRU.gates else None)


def write_nnx(name: str, arrays: Exported, features: int) -> dict[str, Float[np.ndarray, "*S"]]:
    """The arrays of the tree by path; the two biases of a gate are added.

    Raises:
      ValueError: if the recurrent bias of a GRU's candidate is not zero; the message has ``name``.
    """
    w_x, w_h, b, b_h, _ = arrays
    if b_h is not None:
        check_no_bias(f"{name}.b_h, of the candidate", b_h[-features:])
        b = b + b_h
    biased = BIASES[w_h.shape[1] == LSTM.gates * features]
    flat = dict(zip((*KERNELS, biased), (w_x, w_h, b), strict=True))
    return {key: flat[key] for key in sorted(flat, reverse=True)}
