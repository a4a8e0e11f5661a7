"""Weights of Keras' recurrent layers: lists of arrays, as ``layer.get_weights()`` gives them.

    kernel [D, G·H]   recurrent_kernel [H, G·H]   bias [G·H], or [2, 3·H]; none without use_bias

Keras' LSTM has the gates i, f, c, o, which are ours under other letters; its GRU has them in the
order z, r, h, where ours is r, z, n. A GRU with ``reset_after=True`` (Keras' default) has the
biases of the two products as the two rows of its bias and is our `GRU`; one with
``reset_after=False`` has one bias and is our `GRUResetBefore`. The biases that a layer with
``use_bias=False`` lacks are zeros here. Activations are not part of the weights: cells have Keras'
defaults, sigmoid and tanh, and ``dataclasses.replace(cell, gate_activation=jax.nn.hard_sigmoid)``
gives them others. A layer and its cell have the same list. At masked steps Keras repeats the last
output, unless ``zero_output_for_mask``, where `seqnets.recurrence.unroll` gives zeros; the carries
agree.
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
    """Cell and parameters of one Keras layer or cell: SimpleRNN, LSTM, or GRU.

    The kind is told by the width of the gates. See `from_keras_bidirectional` for the wrapper.

    Args:
      weights: ``layer.get_weights()``: kernel, recurrent kernel, and bias unless the layer was
        made with ``use_bias=False``.
      activation: that of a SimpleRNN, which is not part of its weights and must be given; the
        other kinds have their own.
      reset_after: that of a GRU without biases, which must be given; the shape of the biases tells
        it otherwise.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`.

    Raises:
      ValueError: if there are not three arrays, or two without a bias, one has another shape than
        the others ask, a SimpleRNN comes without its activation, or a GRU without biases comes
        without ``reset_after``.
      TypeError: if it is not a list, or an array not of floats.
    """
    check_number(weights, NAMES)
    return import_layer(weights, activation, reset_after)


def to_keras(
    cell: PortableCell, params: GatedParams, *, bias: bool = True
) -> list[Float[np.ndarray, "..."]]:
    """The list for ``layer.set_weights`` of the Keras layer of the same kind and size.

    Args:
      cell: `Elman` for SimpleRNN, `LSTM`, `GRU` for GRU with ``reset_after=True``, or
        `GRUResetBefore` for the one with ``reset_after=False``.
      params: its parameters.
      bias: False for a layer that was made with ``use_bias=False``; ours must then be zeros.

    Raises:
      ValueError: if the parameters do not have the arrays and shapes of the cell, or a bias that
        the layer lacks is not zero.
      TypeError: if the cell is of another kind, or the parameters are not `GatedParams`.
    """
    return export_layer("params", cell, params, bias=bias)


def check_number(weights: Any, names: Sequence[str], *, label: str = "weights") -> None:
    """Raise unless it is a list of as many arrays as names, or of those that are no biases."""
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
    """One layer from its two or three arrays; ``label`` comes before their names in messages."""
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
    """The two variants; ``name`` is that of the bias in messages."""
    if reset_after is None:
        if bias is None:
            raise ValueError(
                "reset_after: that of a GRU without biases is not part of its weights; give True "
                "(Keras' default) or False, got None"
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
    """The reverse of `import_layer`; ``name`` is where the parameters come from."""
    kinds = (Elman, LSTM, GRU, GRUResetBefore)
    w_x, w_h, b, b_h, _ = export_params(name, cell, params, kinds, bias=bias)
    arrays = [w_x, w_h]
    if bias:
        arrays.append(b if b_h is None else np.stack([b, b_h]))
    if isinstance(cell, GRU | GRUResetBefore):
        return [_swap_first_gates(array) for array in arrays]
    return arrays


def _swap_first_gates(array: np.ndarray) -> np.ndarray:
    """z, r, h to r, z, n and back: the first two of three blocks on the last axis."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)
