"""Weights of Keras' recurrent layers: lists of arrays, as ``layer.get_weights()`` gives them.

    kernel [D, G·H]   recurrent_kernel [H, G·H]   bias [G·H], or [2, 3·H]

Keras' LSTM has the gates i, f, c, o, which are ours under other letters; its GRU has them in the
order z, r, h, where ours is r, z, n. A GRU with ``reset_after=True`` (Keras' default) has the
biases of the two products as the two rows of its bias and is our `GRU`; one with
``reset_after=False`` has one bias and is our `GRUResetBefore`. Layers must have been made with
``use_bias=True`` and the gates' activations of Keras' defaults (sigmoid and tanh).
At masked steps Keras repeats the last output, unless ``zero_output_for_mask``, where
`seqnets.recurrence.unroll` gives zeros; the carries agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqnets.cells import GRU, GatedParams, GRUResetBefore
from seqnets.checks import check_rank, check_shape
from seqnets.interop.layout import (
    PortableCell,
    export_params,
    float_array,
    gates_from_width,
    import_params,
    make_cell,
)
from seqnets.typing import Activation

__all__ = ["from_keras", "to_keras"]

NAMES = ("kernel", "recurrent_kernel", "bias")


def from_keras(
    weights: Sequence[Any], *, activation: Activation | None = None
) -> tuple[PortableCell, GatedParams]:
    """Cell and parameters of one Keras layer: SimpleRNN, LSTM or GRU.

    The kind is told by the width of the gates. A Bidirectional layer's list is that of its
    forward layer and then that of its backward one: give each half apart.

    Args:
      weights: ``layer.get_weights()``: kernel, recurrent kernel and bias.
      activation: that of a SimpleRNN, which is not part of its weights and must be given; the
        other kinds have their own.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`.

    Raises:
      ValueError: if there are not three arrays, one has another shape than the others ask, or a
        SimpleRNN comes without its activation.
      TypeError: if an array is not of floats.
    """
    if len(weights) != len(NAMES):
        raise ValueError(f"weights: expected {', '.join(NAMES)}, got {len(weights)} arrays")
    kernel, recurrent, bias = map(float_array, NAMES, weights)
    check_rank("recurrent_kernel", recurrent, 2, "H G·H")
    check_rank("kernel", kernel, 2, "D G·H")
    features, width = recurrent.shape
    gates = gates_from_width("recurrent_kernel", recurrent.shape, width, features)
    check_shape("kernel", kernel, (kernel.shape[0], width), "columns of recurrent_kernel")
    if gates != 3:
        check_shape("bias", bias, (width,), "columns of recurrent_kernel")
        return make_cell(gates, features, activation), import_params(kernel, recurrent, bias)
    reset_after = bias.ndim == 2
    hint = "of a GRU with reset_after" if reset_after else "of a GRU without reset_after"
    check_shape("bias", bias, (2, width) if reset_after else (width,), hint)
    cell = make_cell(gates, features, activation, reset_after=reset_after)
    kernel, recurrent, bias = map(_swap_first_gates, (kernel, recurrent, bias))
    biases = tuple(bias) if reset_after else (bias,)
    return cell, import_params(kernel, recurrent, *biases)


def to_keras(cell: PortableCell, params: GatedParams) -> list[np.ndarray]:
    """The list for ``layer.set_weights`` of the Keras layer of the same kind and size.

    Args:
      cell: `Elman` for SimpleRNN, `LSTM`, `GRU` for GRU with ``reset_after=True``, or
        `GRUResetBefore` for the one with ``reset_after=False``.
      params: its parameters.

    Raises:
      ValueError: if the parameters do not have the arrays and shapes of the cell.
      TypeError: if the cell is of another kind, or the parameters are not `GatedParams`.
    """
    w_x, w_h, b, b_h = export_params("params", cell, params)
    arrays = [w_x, w_h, b if b_h is None else np.stack([b, b_h])]
    if isinstance(cell, GRU | GRUResetBefore):
        return [_swap_first_gates(array) for array in arrays]
    return arrays


def _swap_first_gates(array: np.ndarray) -> np.ndarray:
    """z, r, h to r, z, n and back: the first two of three blocks on the last axis."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)
