"""Weights of several recurrent layers of Keras together: Bidirectional, and one on the other.

Keras lists the arrays of a Bidirectional wrapper flat, those of the forward layer first. Those of
layers or cells one on the other are taken as one list a layer, since a flat list does not say where
the arrays of one end.
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
    """Module and parameters of Keras' Bidirectional wrapper around one of its recurrent layers.

    Args:
      weights: ``layer.get_weights()``: kernel, recurrent kernel, and bias, if any, of the forward
        layer, then those of the backward one, which may be of another kind or size.
      activation, reset_after: those of both layers; see `from_keras`.

    Returns:
      ``(module, params)``: ``module.apply({"params": params}, xs)`` is Keras' with
      ``return_sequences=True`` and ``merge_mode="concat"``, its default; other modes are not part
      of the weights: ``module.clone(merge="sum")``.

    Raises:
      ValueError: if there are not six arrays, or four without biases, one has another shape than
        the others ask, or an argument must be given (see `from_keras`).
      TypeError: if it is not a list, or an array not of floats.
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
    """The list for ``layer.set_weights`` of a Bidirectional wrapper.

    Args:
      module: cells of the kinds that `to_keras` takes.
      params: its parameters, ``variables["params"]``.
      bias: False for layers that were made with ``use_bias=False``; ours must then be zeros.

    Raises:
      ValueError: if a key of the parameters is missing or unknown, an array does not have the
        shape that the layer has, or a bias that the layers lack is not zero.
      TypeError: if it is not a `Bidirectional`, a cell is of another kind, or its parameters not
        `GatedParams` in a mapping.
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
    """Module and parameters of Keras' StackedRNNCells, or of recurrent layers one on the other.

    Args:
      weights: one list a cell, from the input up, ``[cell.get_weights() for cell in
        layer.cell.cells]``; or one a layer, ``[layer.get_weights() for layer in layers]``, where
        all but the last have ``return_sequences=True``.
      activation, reset_after: those of all layers; see `from_keras`.

    Returns:
      ``(stack, params)``: ``stack.apply({"params": params}, xs)`` is Keras' with
      ``return_sequences=True``.

    Raises:
      ValueError: if a list does not have three arrays, or two without a bias, one has another
        shape than the others and the layer below ask, or an argument must be given (see
        `from_keras`).
      TypeError: if it is not a list of lists, or an array not of floats.
    """
    if not isinstance(weights, Sequence) or not all(isinstance(one, Sequence) for one in weights):
        raise TypeError(
            "weights: expected a list for each layer, [cell.get_weights() for cell in "
            "layer.cell.cells], got one flat list or none"
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
    """One list a layer, each for ``set_weights`` of a cell of StackedRNNCells, or of a layer.

    Args:
      stack: layers in one direction, without residual connections, of cells of the kinds that
        `to_keras` takes.
      params: its parameters, ``variables["params"]``.
      bias: False for layers that were made with ``use_bias=False``; ours must then be zeros.

    Raises:
      ValueError: if the stack has residual connections or two directions, a key of the parameters
        is missing or unknown, an array does not have the shape that the layer has, or a bias that
        the layers lack is not zero.
      TypeError: if it is not a `Stack`, a cell is of another kind, or its parameters not
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
    """Raise ValueError unless the layer reads inputs of the size that it gets."""
    shape = (expected, params.w_x.shape[1])
    check_shape(name, params.w_x, shape, whose)
