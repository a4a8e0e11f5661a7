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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqnets.cells import GRU, LSTM, Elman, GatedParams, GRUResetBefore
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import check_keys, flatten, float_array
from seqnets.interop.layout import (
    PortableCell,
    export_params,
    gates_from_width,
    import_params,
    make_cell,
)
from seqnets.modules import Bidirectional
from seqnets.typing import Activation, Float

__all__ = ["from_keras", "from_keras_bidirectional", "to_keras", "to_keras_bidirectional"]

NAMES = ("kernel", "recurrent_kernel", "bias")
DIRECTIONS = ("forward", "backward")


def from_keras(
    weights: Sequence[Any], *, activation: Activation | None = None
) -> tuple[PortableCell, GatedParams]:
    """Cell and parameters of one Keras layer: SimpleRNN, LSTM or GRU.

    The kind is told by the width of the gates. See `from_keras_bidirectional` for the wrapper.

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
      TypeError: if it is not a list, or an array not of floats.
    """
    _check_number(weights, NAMES)
    return _import(weights, NAMES, activation)


def to_keras(cell: PortableCell, params: GatedParams) -> list[Float[np.ndarray, "..."]]:
    """The list for ``layer.set_weights`` of the Keras layer of the same kind and size.

    Args:
      cell: `Elman` for SimpleRNN, `LSTM`, `GRU` for GRU with ``reset_after=True``, or
        `GRUResetBefore` for the one with ``reset_after=False``.
      params: its parameters.

    Raises:
      ValueError: if the parameters do not have the arrays and shapes of the cell.
      TypeError: if the cell is of another kind, or the parameters are not `GatedParams`.
    """
    return _export("params", cell, params)


def from_keras_bidirectional(
    weights: Sequence[Any], *, activation: Activation | None = None
) -> tuple[Bidirectional, dict[str, Any]]:
    """Module and parameters of Keras' Bidirectional wrapper around one of its recurrent layers.

    Args:
      weights: ``layer.get_weights()``: kernel, recurrent kernel and bias of the forward layer,
        then those of the backward one, which may be of another kind or size.
      activation: that of SimpleRNN layers, which must be given; the other kinds have their own.

    Returns:
      ``(module, params)``: ``module.apply({"params": params}, xs)`` is Keras' with
      ``return_sequences=True`` and ``merge_mode="concat"``, its default.

    Raises:
      ValueError: if there are not six arrays, one has another shape than the others ask, or a
        SimpleRNN comes without its activation.
      TypeError: if it is not a list, or an array not of floats.
    """
    names = [tuple(f"{direction} {name}" for name in NAMES) for direction in DIRECTIONS]
    _check_number(weights, names[0] + names[1])
    forward, params = _import(weights[:3], names[0], activation)
    backward, backward_params = _import(weights[3:], names[1], activation)
    shape = (params.w_x.shape[0], backward_params.w_x.shape[1])
    check_shape(names[1][0], backward_params.w_x, shape, "inputs of the forward layer")
    tree = {"forward": {"cell": params}, "backward": {"cell": backward_params}}
    return Bidirectional(forward, backward), tree


def to_keras_bidirectional(
    module: Bidirectional, params: Mapping[str, Any]
) -> list[Float[np.ndarray, "..."]]:
    """The list for ``layer.set_weights`` of a Bidirectional wrapper.

    Args:
      module: cells of the kinds that `to_keras` takes.
      params: its parameters, ``variables["params"]``.

    Raises:
      ValueError: if a key of the parameters is missing or unknown, or an array does not have the
        shape that the layer has.
      TypeError: if it is not a `Bidirectional`, a cell is of another kind, or its parameters not
        `GatedParams` in a mapping.
    """
    if not isinstance(module, Bidirectional):
        raise TypeError(f"module: expected a Bidirectional, got {type(module).__name__}")
    flat = flatten("params", params)
    paths = {f"{direction}/cell": direction for direction in DIRECTIONS}
    check_keys("params", flat, paths)
    arrays = [
        _export(f"params[{path!r}]", getattr(module, f"{direction}_cell"), flat[path])
        for path, direction in paths.items()
    ]
    forward, backward = (half[0] for half in arrays)
    shape = (forward.shape[0], backward.shape[1])
    check_shape("backward kernel", backward, shape, "inputs of the forward layer")
    return arrays[0] + arrays[1]


def _check_number(weights: Any, names: Sequence[str]) -> None:
    if not isinstance(weights, Sequence):
        raise TypeError(f"weights: expected a list of arrays, got {type(weights).__name__}")
    if len(weights) != len(names):
        raise ValueError(
            f"weights: expected {len(names)} ({', '.join(names)}), got {len(weights)} arrays"
        )


def _import(
    weights: Sequence[Any], names: Sequence[str], activation: Activation | None
) -> tuple[PortableCell, GatedParams]:
    """One layer; ``names`` are those of its arrays in messages."""
    kernel, recurrent, bias = map(float_array, names, weights)
    check_rank(names[1], recurrent, 2, "H G·H")
    check_rank(names[0], kernel, 2, "D G·H")
    features, width = recurrent.shape
    gates = gates_from_width(names[1], recurrent.shape, width, features)
    check_shape(names[0], kernel, (kernel.shape[0], width), f"columns of {names[1]}")
    if gates != GRU.gates:
        check_shape(names[2], bias, (width,), f"columns of {names[1]}")
        return make_cell(gates, features, activation), import_params(kernel, recurrent, bias)
    reset_after = bias.ndim == 2
    hint = "of a GRU with reset_after" if reset_after else "of a GRU without reset_after"
    check_shape(names[2], bias, (2, width) if reset_after else (width,), hint)
    cell = make_cell(gates, features, activation, reset_after=reset_after)
    kernel, recurrent, bias = map(_swap_first_gates, (kernel, recurrent, bias))
    biases = tuple(bias) if reset_after else (bias,)
    return cell, import_params(kernel, recurrent, *biases)


def _export(name: str, cell: Any, params: Any) -> list[Float[np.ndarray, "..."]]:
    """One layer; ``name`` is where its parameters come from."""
    kinds = (Elman, LSTM, GRU, GRUResetBefore)
    w_x, w_h, b, b_h, _ = export_params(name, cell, params, kinds)
    arrays = [w_x, w_h, b if b_h is None else np.stack([b, b_h])]
    if isinstance(cell, GRU | GRUResetBefore):
        return [_swap_first_gates(array) for array in arrays]
    return arrays


def _swap_first_gates(array: np.ndarray) -> np.ndarray:
    """z, r, h to r, z, n and back: the first two of three blocks on the last axis."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)
