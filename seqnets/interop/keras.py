"""Weights of Keras's recurrent layers: lists of arrays, as returned by ``layer.get_weights()``.

    kernel [D, G·H]   recurrent_kernel [H, G·H]   bias [G·H], or [2, 3·H]; none without use_bias

Keras's LSTM has our order of gates, i, f, c, o; its GRU has the order z, r, h, ours r, z, n. A GRU
with ``reset_after=True`` (Keras's default) has the biases of the two products as the two rows of
its bias and is our `GRU`; with ``reset_after=False`` it has one bias and is our `GRUResetBefore`.
Biases missing with ``use_bias=False`` become zeros. Activations are not part of the weights:
imported cells use Keras's defaults, sigmoid and tanh; change them with
``dataclasses.replace(cell, gate_activation=jax.nn.hard_sigmoid)``. A layer and its cell have the
same list. At masked time steps, Keras repeats the last output (unless ``zero_output_for_mask`` is
set), and `seqnets.recurrence.unroll` returns zeros; the carries agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqnets.cells import GRU, LSTM, Elman, GatedParams, GRUResetBefore
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import float_array
from seqnets.interop.layout import (
    PortableCell,
    export_params,
    gates_from_width,
    import_params,
    make_cell,
    zero_bias,
)
from seqnets.typing import Activation, Float

__all__ = ["NAMES", "check_number", "export_layer", "from_keras", "import_layer", "to_keras"]

NAMES = ("kernel", "recurrent_kernel", "bias")


def from_keras(
    weights: Sequence[Any], *, activation: Activation | None = None, reset_after: bool | None = None
) -> tuple[PortableCell, GatedParams]:
    """Import a SimpleRNN, LSTM, or GRU layer or cell of Keras.

    The width of the gates tells the kind. See `from_keras_bidirectional` for the wrapper.

    Args:
      weights: ``layer.get_weights()``: kernel, recurrent kernel, and bias unless the layer has
        ``use_bias=False``.
      activation: activation of a SimpleRNN, required since it is not part of the weights; ignored
        for other layers.
      reset_after: option of a GRU, required if it has no biases; otherwise, their shape tells it.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`.

    Raises:
      ValueError: if there are not three arrays (two without a bias), the shapes do not match, or
        the activation of a SimpleRNN or ``reset_after`` of a GRU without biases is missing.
      TypeError: if ``weights`` is not a list, or an array is not of floats.
    """
    check_number(weights, NAMES)
    return import_layer(weights, activation, reset_after)


def to_keras(
    cell: PortableCell, params: GatedParams, *, bias: bool = True
) -> list[Float[np.ndarray, "..."]]:
    """Export to the Keras layer or cell of the same kind and size.

    Args:
      cell: `Elman` for SimpleRNN, `LSTM` for LSTM, `GRU` for GRU with ``reset_after=True``, or
        `GRUResetBefore` for GRU with ``reset_after=False``.
      params: its parameters.
      bias: False for a layer with ``use_bias=False``; our biases must then be zero.

    Returns:
      The arrays, for ``layer.set_weights``.

    Raises:
      ValueError: if the parameters do not have the arrays and shapes of the cell, or a bias that
        the layer lacks is not zero.
      TypeError: if the cell is of another kind, or the parameters are not `GatedParams`.
    """
    return export_layer("params", cell, params, bias=bias)


def check_number(weights: Any, names: Sequence[str], *, label: str = "weights") -> None:
    """Raise unless ``weights`` is a list with an array for each name, or each but biases."""
    if not isinstance(weights, Sequence):
        raise TypeError(f"{label}: expected a list of arrays, got {type(weights).__name__}")
    without = sum(not name.endswith(NAMES[-1]) for name in names)
    if len(weights) not in (len(names), without):
        raise ValueError(
            f"{label}: expected {len(names)} ({', '.join(names)}), or {without} without a bias, "
            f"got {len(weights)} arrays"
        )


def import_layer(
    weights: Sequence[Any],
    activation: Activation | None,
    reset_after: bool | None,
    *,
    label: str = "",
) -> tuple[PortableCell, GatedParams]:
    """Import one layer from its two or three arrays; messages prepend ``label`` to their names."""
    names = [label + name for name in NAMES]
    kernel, recurrent, *biases = map(float_array, names, weights)
    check_rank(names[1], recurrent, 2, "H G·H")
    check_rank(names[0], kernel, 2, "D G·H")
    features, width = recurrent.shape
    gates = gates_from_width(names[1], recurrent.shape, width, features)
    check_shape(names[0], kernel, (kernel.shape[0], width), f"columns of {names[1]}")
    if gates == GRU.gates:
        return _import_gru(kernel, recurrent, *biases, reset_after=reset_after, name=names[2])
    bias = biases[0] if biases else zero_bias(kernel)
    check_shape(names[2], bias, (width,), f"columns of {names[1]}")
    return make_cell(gates, features, activation), import_params(kernel, recurrent, bias)


def _import_gru(
    kernel: np.ndarray,
    recurrent: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    reset_after: bool | None,
    name: str,
) -> tuple[PortableCell, GatedParams]:
    """Import either variant of the GRU; messages call the bias ``name``."""
    if reset_after is None:
        if bias is None:
            raise ValueError(
                "reset_after: expected True (Keras's default) or False for a GRU without biases, "
                "got None"
            )
        reset_after = bias.ndim == 2
    features, width = recurrent.shape
    shape = (2, width) if reset_after else (width,)
    bias = np.zeros(shape, kernel.dtype) if bias is None else bias
    check_shape(name, bias, shape, f"of a GRU {'with' if reset_after else 'without'} reset_after")
    kernel, recurrent, bias = map(_swap_first_gates, (kernel, recurrent, bias))
    cell = make_cell(GRU.gates, features, None, reset_after=reset_after)
    return cell, import_params(kernel, recurrent, *(bias if reset_after else [bias]))


def export_layer(
    name: str, cell: Any, params: Any, *, bias: bool = True
) -> list[Float[np.ndarray, "..."]]:
    """The inverse of `import_layer`; messages call the parameters ``name``."""
    kinds = (Elman, LSTM, GRU, GRUResetBefore)
    w_x, w_h, b, b_h, _ = export_params(name, cell, params, kinds, bias=bias)
    arrays = [w_x, w_h]
    if bias:
        arrays.append(b if b_h is None else np.stack([b, b_h]))
    if isinstance(cell, GRU | GRUResetBefore):
        return [_swap_first_gates(array) for array in arrays]
    return arrays


def _swap_first_gates(array: np.ndarray) -> np.ndarray:
    """Swap the first two of three blocks on the last axis: z, r, h to r, z, n and back."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)
