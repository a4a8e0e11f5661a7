"""Weights of PyTorch's ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU``: the arrays of a ``state_dict``.

    weight_ih_l0 [G·H, D]   weight_hh_l0 [G·H, H]   bias_ih_l0 [G·H]   bias_hh_l0 [G·H]

and so on for the layers l1, l2, ..., with ``_reverse`` at the end for the backward direction. The
gates have our order (LSTM i, f, g, o; GRU r, z, n); the matrices are ours transposed. RNN and
LSTM only use the sum of the two biases, which is our ``b``; the GRU needs both. Modules must have
been made with ``bias=True`` and ``proj_size=0``. PyTorch itself is not imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from seqnets.cells import GRU, GatedParams, GRUResetBefore
from seqnets.checks import check_rank, check_shape
from seqnets.interop.layout import (
    Exported,
    check_keys,
    export_params,
    flatten,
    float_array,
    gates_from_width,
    import_params,
    make_cell,
)
from seqnets.modules import Stack
from seqnets.typing import Activation

__all__ = ["from_pytorch", "to_pytorch"]

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KEY = re.compile(rf"(?:{'|'.join(NAMES)})_l(\d+)(_reverse)?")


def from_pytorch(
    state_dict: Mapping[str, Any], *, activation: Activation | None = None
) -> tuple[Stack, dict[str, Any]]:
    """Module and parameters of a recurrent module of PyTorch, of any number of layers.

    The kind is told by the ratio of rows to hidden size: 1 for RNN, 3 for GRU, 4 for LSTM.

    Args:
      state_dict: ``module.state_dict()``: arrays, or what `numpy.asarray` takes.
      activation: the nonlinearity of an RNN, which is not part of its weights: `jax.numpy.tanh`
        or `jax.nn.relu`. An RNN needs it; the other kinds have their own.

    Returns:
      ``(stack, params)``: ``stack.apply({"params": params}, xs)`` is PyTorch's with
      ``batch_first=True``; ``stack.cells`` are the cells. PyTorch's dropout between layers is not
      part of the weights: ``stack.clone(dropout=0.1)``.

    Raises:
      ValueError: if a key is missing or unknown, an array has another shape than the others
        ask, or an RNN comes without its activation.
      TypeError: if an array is not of floats.

    Example:
      >>> shapes = {"weight_ih": (12, 2), "weight_hh": (12, 4), "bias_ih": 12, "bias_hh": 12}
      >>> state = {f"{name}_l0": np.ones(shape, "float32") for name, shape in shapes.items()}
      >>> stack, params = from_pytorch(state)
      >>> type(stack.cells[0]).__name__, params["layer_0"]["cell"].w_x.shape
      ('GRU', (2, 12))
    """
    found = [match for match in map(KEY.fullmatch, state_dict) if match]
    layers = 1 + max((int(match[1]) for match in found), default=0)
    bidirectional = any(match[2] for match in found)
    ends = _ends(layers, bidirectional=bidirectional)
    check_keys("state_dict", state_dict, (name + end for end in ends.values() for name in NAMES))
    arrays = {key: float_array(key, value) for key, value in state_dict.items()}
    gates, features = _check_shapes(arrays, 2 if bidirectional else 1)
    flat = {path: _import(arrays, end, gates) for path, end in ends.items()}
    cell = make_cell(gates, features, activation)
    params: dict[str, Any] = unflatten_dict(flat, sep="/")
    return Stack((cell,) * layers, bidirectional=bidirectional), params


def to_pytorch(stack: Stack, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays for ``module.load_state_dict``, once each is made a tensor.

    For RNN and LSTM our one bias becomes ``bias_ih`` and zeros become ``bias_hh``: the outputs
    only know the sum, so weights that came from PyTorch go back with their two biases added.

    Args:
      stack: layers without residual connections, of cells of one kind and size: `Elman` (of one
        activation), `LSTM` or `GRU`.
      params: its parameters, ``variables["params"]``.

    Raises:
      ValueError: if the stack has residual connections or unequal cells, a key of the parameters
        is missing or unknown, or an array does not have the shape that the layer has.
      TypeError: if the cells are of another kind, or their parameters not `GatedParams`
        in a mapping.
    """
    if stack.residual:
        raise ValueError("stack: PyTorch has no residual connections, got residual=True")
    if len({_equations(cell) for cell in stack.cells}) != 1:
        raise ValueError(f"stack: expected cells of one kind and size, got {stack.cells}")
    cell = stack.cells[0]
    if isinstance(cell, GRUResetBefore):
        raise TypeError("cell: PyTorch has no GRU with reset before the product; expected GRU")
    ends = _ends(len(stack.cells), bidirectional=stack.bidirectional)
    flat = flatten("params", params)
    check_keys("params", flat, ends)
    state: dict[str, np.ndarray] = {}
    for path, end in ends.items():
        state |= _export(export_params(f"params[{path!r}]", cell, flat[path]), end)
    _check_shapes(state, 2 if stack.bidirectional else 1)
    return state


def _equations(cell: Any) -> tuple[Any, ...]:
    """What must be equal in all layers: everything but how parameters are drawn."""
    return type(cell), getattr(cell, "features", None), getattr(cell, "activation", None)


def _ends(layers: int, *, bidirectional: bool) -> dict[str, str]:
    """For every direction of every layer, its path in our tree and what its keys end in."""
    if not bidirectional:
        return {f"layer_{k}/cell": f"_l{k}" for k in range(layers)}
    suffixes = {"forward": "", "backward": "_reverse"}
    return {
        f"layer_{k}/{direction}/cell": f"_l{k}{suffix}"
        for k in range(layers)
        for direction, suffix in suffixes.items()
    }


def _check_shapes(arrays: Mapping[str, np.ndarray], directions: int) -> tuple[int, int]:
    """Check every array against those of the first layer; return gates and hidden size."""
    check_rank("weight_hh_l0", arrays["weight_hh_l0"], 2, "G·H H")
    check_rank("weight_ih_l0", arrays["weight_ih_l0"], 2, "G·H D")
    width, features = arrays["weight_hh_l0"].shape
    gates = gates_from_width("weight_hh_l0", (width, features), width, features)
    for key, array in arrays.items():
        shape: tuple[int, ...] = (width,)
        if key.startswith("weight_hh"):
            shape = (width, features)
        elif key.startswith("weight_ih"):
            lowest = key.removesuffix("_reverse") == "weight_ih_l0"
            inputs = arrays["weight_ih_l0"].shape[1] if lowest else directions * features
            shape = (width, inputs)
        check_shape(key, array, shape, "as the first layer and the number of directions ask")
    return gates, features


def _import(arrays: Mapping[str, np.ndarray], end: str, gates: int) -> GatedParams:
    """One direction of one layer; ``end`` is what its keys end in."""
    w_x, w_h, b, b_h = (arrays[name + end] for name in NAMES)
    if gates == GRU.gates:
        return import_params(w_x.T, w_h.T, b, b_h)
    return import_params(w_x.T, w_h.T, b + b_h)


def _export(exported: Exported, end: str) -> dict[str, np.ndarray]:
    """The reverse of `_import`; zeros are the second bias of cells that have but one."""
    w_x, w_h, b, b_h = exported
    second = np.zeros_like(b) if b_h is None else b_h
    arrays = (np.ascontiguousarray(w_x.T), np.ascontiguousarray(w_h.T), b, second)
    return {name + end: array for name, array in zip(NAMES, arrays, strict=True)}
