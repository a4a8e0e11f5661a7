"""Weights of several recurrent layers of Keras together: Bidirectional, and stacked layers.

The weights of a Bidirectional wrapper are a flat list, the forward layer first. The weights of
stacked layers or cells are passed as one list per layer, since a flat list does not show where one
layer ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seqnets.cells import GatedParams
from seqnets.checks import check_shape
from seqnets.interop.incoming import check_keys, flatten
from seqnets.interop.keras import NAMES, check_number, export_layer, import_layer
from seqnets.interop.layout import cells_of, check_no_zoneout
from seqnets.modules import Bidirectional, Stack
from seqnets.typing import Activation, Float

__all__ = [
    "from_keras_bidirectional",
    "from_keras_stacked",
    "to_keras_bidirectional",
    "to_keras_stacked",
]

DIRECTIONS = ("forward", "backward")


def from_keras_bidirectional(
    weights: Sequence[Any],
    *,
    activation: Activation | None = None,
    reset_after: bool | None = None,
) -> tuple[Bidirectional, dict[str, Any]]:
    """Import a Bidirectional wrapper around a recurrent layer of Keras.

    Args:
      weights: ``layer.get_weights()``: kernel, recurrent kernel, and bias, if any, of the forward
        layer, then of the backward layer, which may be of another kind or size.
      activation: activation of SimpleRNN layers; see `from_keras`.
      reset_after: option of GRU layers without biases; see `from_keras`.

    Returns:
      ``(module, params)``: ``module.apply({"params": params}, xs)`` computes Keras's layer with
      ``return_sequences=True`` and the default ``merge_mode="concat"``. The mode is not part of the
      weights; for others use ``module.clone(merge="sum")``, say.

    Raises:
      ValueError: if there are not six arrays (four without biases), the shapes do not match, or an
        argument is missing (see `from_keras`).
      TypeError: if ``weights`` is not a list, or an array is not of floats.
    """
    check_number(weights, [f"{direction} {name}" for direction in DIRECTIONS for name in NAMES])
    half = len(weights) // 2
    parts = zip((weights[:half], weights[half:]), DIRECTIONS, strict=True)
    (forward, params), (backward, backward_params) = (
        import_layer(part, activation, reset_after, label=f"{direction} ")
        for part, direction in parts
    )
    _check_inputs("backward kernel", backward_params, params.w_x.shape[0], "the forward layer's")
    tree = {"forward": {"cell": params}, "backward": {"cell": backward_params}}
    return Bidirectional(forward, backward), tree


def to_keras_bidirectional(
    module: Bidirectional, params: Mapping[str, Any], *, bias: bool = True
) -> list[Float[Any, "..."]]:
    """Export to a Bidirectional wrapper of Keras.

    Args:
      module: module with cells of the kinds that `to_keras` accepts, without zoneout.
      params: its parameters, ``variables["params"]``.
      bias: False for layers with ``use_bias=False``; our biases must then be zero.

    Returns:
      The arrays, for ``layer.set_weights``.

    Raises:
      ValueError: if there is zoneout, a key of the parameters is missing or unknown, an array does
        not have the shape of its layer, or a bias that the layers lack is not zero.
      TypeError: if ``module`` is not a `Bidirectional`, a cell is of another kind, or the
        parameters are not `GatedParams` in a mapping.
    """
    if not isinstance(module, Bidirectional):
        raise TypeError(f"module: expected a Bidirectional, got {type(module).__name__}")
    check_no_zoneout("module", module.regularization)
    cells = {"forward/cell": module.forward_cell, "backward/cell": module.backward_cell}
    flat = flatten("params", params)
    check_keys("params", flat, cells)
    forward, backward = (
        export_layer(f"params[{path!r}]", cell, flat[path], bias=bias)
        for path, cell in cells.items()
    )
    shape = (forward[0].shape[0], backward[0].shape[1])
    check_shape("backward kernel", backward[0], shape, "inputs of the forward layer")
    return forward + backward


def from_keras_stacked(
    weights: Sequence[Sequence[Any]],
    *,
    activation: Activation | None = None,
    reset_after: bool | None = None,
) -> tuple[Stack, dict[str, Any]]:
    """Import StackedRNNCells, or stacked recurrent layers, of Keras.

    Args:
      weights: one list per cell, from the input up, ``[cell.get_weights() for cell in
        layer.cell.cells]``; or one per layer, ``[layer.get_weights() for layer in layers]``, where
        all but the last have ``return_sequences=True``.
      activation: activation of SimpleRNN layers; see `from_keras`.
      reset_after: option of GRU layers without biases; see `from_keras`.

    Returns:
      ``(stack, params)``: ``stack.apply({"params": params}, xs)`` computes Keras's layers with
      ``return_sequences=True``.

    Raises:
      ValueError: if there is no list, a list does not have three arrays (two without a bias), the
        shapes do not match each other or the layer below, or an argument is missing (see
        `from_keras`).
      TypeError: if ``weights`` is not a list of lists, or an array is not of floats.
    """
    if not isinstance(weights, Sequence) or not all(isinstance(one, Sequence) for one in weights):
        raise TypeError(
            "weights: expected a list for each layer, [cell.get_weights() for cell in "
            "layer.cell.cells], got a flat list or none"
        )
    cells: list[Any] = []
    params: dict[str, Any] = {}
    for number, one in enumerate(weights):
        check_number(one, NAMES, label=f"weights[{number}]")
        cell, own = import_layer(one, activation, reset_after, label=f"layer {number} ")
        if cells:
            _check_inputs(f"layer {number} kernel", own, cells[-1].features, "the layer below's")
        cells.append(cell)
        params[f"layer_{number}"] = {"cell": own}
    if not cells:
        raise ValueError("weights: expected at least one layer, got none")
    return Stack(tuple(cells)), params


def to_keras_stacked(
    stack: Stack, params: Mapping[str, Any], *, bias: bool = True
) -> list[list[Float[Any, "..."]]]:
    """Export to StackedRNNCells, or to stacked recurrent layers, of Keras.

    Args:
      stack: layers in one direction with cells of the kinds that `to_keras` accepts, without
        residual or skip connections and zoneout.
      params: its parameters, ``variables["params"]``.
      bias: False for layers with ``use_bias=False``; our biases must then be zero.

    Returns:
      One list per layer, for ``set_weights`` of a cell of StackedRNNCells or of a layer.

    Raises:
      ValueError: if the stack is bidirectional or has residual or skip connections or zoneout, a
        key of the parameters is missing or unknown, an array does not have the shape of its layer,
        or a bias that the layers lack is not zero.
      TypeError: if ``stack`` is not a `Stack`, a cell is of another kind, or the parameters are not
        `GatedParams` in a mapping.
    """
    cells = {f"layer_{k}/cell": cell for k, cell in enumerate(cells_of(stack))}
    if stack.bidirectional:
        raise ValueError("stack: expected layers in one direction, got bidirectional=True")
    flat = flatten("params", params)
    check_keys("params", flat, cells)
    arrays = {
        path: export_layer(f"params[{path!r}]", cell, flat[path], bias=bias)
        for path, cell in cells.items()
    }
    return list(arrays.values())


def _check_inputs(name: str, params: GatedParams, expected: int, whose: str) -> None:
    """Raise ValueError unless the layer has ``expected`` inputs."""
    shape = (expected, params.w_x.shape[1])
    check_shape(name, params.w_x, shape, whose)
