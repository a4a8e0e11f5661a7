"""Weights of PyTorch's ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU``: the arrays of a ``state_dict``.

    weight_ih_l0 [G·H, D]   weight_hh_l0 [G·H, H]   bias_ih_l0 [G·H]   bias_hh_l0 [G·H]

and so on for the layers l1, l2, ..., with ``_reverse`` at the end for the backward direction. The
gates have our order (LSTM i, f, g, o; GRU r, z, n); the matrices are ours transposed. RNN and
LSTM only use the sum of the two biases, which is our ``b``; the GRU needs both. An LSTM with
``proj_size=P`` has ``weight_hr_l0`` [P, H] beside them and ``weight_hh_l0`` [G·H, P], and is our
`ProjectedLSTM`. Modules must have been made with ``bias=True``. PyTorch itself is not imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from seqnets.cells import GRU, LSTM, Elman, GatedParams, ProjectedLSTM
from seqnets.checks import check_rank, check_shape
from seqnets.interop.incoming import check_keys, check_mapping, flatten, float_array
from seqnets.interop.layout import (
    Exported,
    PortableCell,
    export_params,
    gates_from_width,
    import_params,
    make_cell,
)
from seqnets.modules import Stack
from seqnets.modules.layer import as_layers
from seqnets.typing import Activation, Float

__all__ = ["from_pytorch", "to_pytorch"]

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
PROJECTION = "weight_hr"
KEY = re.compile(rf"({'|'.join((*NAMES, PROJECTION))})_l(\d+)(_reverse)?$")
KINDS = (Elman, LSTM, ProjectedLSTM, GRU)


class _Layers(NamedTuple):
    """What the keys say: how many layers, in which directions, with a projection or not."""

    number: int
    bidirectional: bool
    projected: bool
    prefix: str

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the arrays of one direction of one layer, in PyTorch's order."""
        return (*NAMES, PROJECTION) if self.projected else NAMES

    def ends(self) -> dict[str, str]:
        """For every direction of every layer, its path in our tree and what its keys end in."""
        if not self.bidirectional:
            return {f"layer_{k}/cell": f"_l{k}" for k in range(self.number)}
        suffixes = {"forward": "", "backward": "_reverse"}
        return {
            f"layer_{k}/{direction}/cell": f"_l{k}{suffix}"
            for k in range(self.number)
            for direction, suffix in suffixes.items()
        }

    def keys(self, end: str) -> list[str]:
        """Those of one direction of one layer."""
        return [self.prefix + name + end for name in self.names]


class _Sizes(NamedTuple):
    """What the shapes say."""

    gates: int
    hidden: int
    features: int
    """Size of the output: that of the projection, else the hidden size."""


def from_pytorch(
    state_dict: Mapping[str, Any], *, prefix: str = "", activation: Activation | None = None
) -> tuple[Stack, dict[str, Any]]:
    """Module and parameters of a recurrent module of PyTorch, of any number of layers.

    The kind is told by the ratio of rows to hidden size: 1 for RNN, 3 for GRU, 4 for LSTM.

    Args:
      state_dict: ``module.state_dict()``: arrays, or what `numpy.asarray` takes.
      prefix: what the keys of the module start with where it is part of a larger one,
        ``"encoder.lstm."``; all other keys are then ignored.
      activation: the nonlinearity of an RNN, which is not part of its weights: `jax.numpy.tanh`
        or `jax.nn.relu`. An RNN needs it; the other kinds have their own.

    Returns:
      ``(stack, params)``: ``stack.apply({"params": params}, xs)`` is PyTorch's with
      ``batch_first=True``; ``stack.layers`` are the cells. PyTorch's dropout between layers is not
      part of the weights: ``stack.clone(dropout=0.1)``.

    Raises:
      ValueError: if no recurrent weights have the prefix, a key is missing or unknown, an array
        has another shape than the others ask, or an RNN comes without its activation.
      TypeError: if it is not a mapping with strings as keys, or an array is not of floats.

    Example:
      >>> shapes = {"weight_ih": (12, 2), "weight_hh": (12, 4), "bias_ih": 12, "bias_hh": 12}
      >>> state = {f"{name}_l0": np.ones(shape, "float32") for name, shape in shapes.items()}
      >>> stack, params = from_pytorch(state)
      >>> type(stack.layers[0]).__name__, params["layer_0"]["cell"].w_x.shape
      ('GRU', (2, 12))
    """
    check_mapping("state_dict", state_dict)
    layers = _layers_of(state_dict, prefix)
    ends = layers.ends()
    expected = [key for end in ends.values() for key in layers.keys(end)]
    check_keys("state_dict", (key for key in state_dict if key.startswith(prefix)), expected)
    arrays = {key: float_array(key, state_dict[key]) for key in expected}
    sizes = _check_shapes(arrays, layers)
    flat = {path: _import([arrays[k] for k in layers.keys(e)], sizes) for path, e in ends.items()}
    params: dict[str, Any] = unflatten_dict(flat, sep="/")
    cells = (_cell(sizes, activation, projected=layers.projected),) * layers.number
    return Stack(cells, bidirectional=layers.bidirectional), params


def to_pytorch(
    stack: Stack, params: Mapping[str, Any], *, prefix: str = ""
) -> dict[str, Float[np.ndarray, "*S"]]:
    """Arrays for ``module.load_state_dict``, once each is made a tensor.

    For RNN and LSTM our one bias becomes ``bias_ih`` and zeros become ``bias_hh``: the outputs
    only know the sum, so weights that came from PyTorch go back with their two biases added.

    Args:
      stack: layers without residual connections, of cells of one kind and size: `Elman` (of one
        activation), `LSTM`, `ProjectedLSTM` (``proj_size=features, hidden_size=hidden``) or `GRU`.
      params: its parameters, ``variables["params"]``.
      prefix: put before every key, ``"encoder.lstm."``.

    Raises:
      ValueError: if the stack has residual connections or unequal cells, a key of the parameters
        is missing or unknown, or an array does not have the shape that the layer has.
      TypeError: if it is not a `Stack`, the cells are of another kind, or their parameters not
        `GatedParams` in a mapping.
    """
    if not isinstance(stack, Stack):
        raise TypeError(f"stack: expected a Stack, got {type(stack).__name__}")
    if stack.residual:
        raise ValueError("stack: PyTorch has no residual connections, got residual=True")
    cells = [layer.cell for layer in as_layers(stack.layers)]
    if len({_equations(cell) for cell in cells}) != 1:
        raise ValueError(f"stack: expected cells of one kind and size, got {cells}")
    cell = cells[0]
    projected = isinstance(cell, ProjectedLSTM)
    layers = _Layers(len(cells), stack.bidirectional, projected, prefix)
    flat = flatten("params", params)
    check_keys("params", flat, layers.ends())
    state: dict[str, np.ndarray] = {}
    for path, end in layers.ends().items():
        arrays = _export(export_params(f"params[{path!r}]", cell, flat[path], KINDS))
        state |= zip(layers.keys(end), arrays, strict=True)
    _check_shapes(state, layers)
    return state


def _equations(cell: Any) -> tuple[Any, ...]:
    """What must be equal in all layers: everything but how parameters are drawn."""
    return type(cell), *(getattr(cell, name, None) for name in ("features", "hidden", "activation"))


def _layers_of(state_dict: Mapping[str, Any], prefix: str) -> _Layers:
    """Read the keys; ValueError if those of a recurrent module start with something else."""
    found = [match for key in state_dict if (match := _matched(key, prefix))]
    elsewhere = {match.string[: match.start()] for match in map(KEY.search, state_dict) if match}
    if not found and (prefix or elsewhere):
        listed = (
            ", ".join(map(repr, sorted(elsewhere))) or "none, as there are no recurrent weights"
        )
        raise ValueError(f"prefix: expected {listed}, got {prefix!r}, with which none starts")
    return _Layers(
        # Not the greatest number: one stray key would ask for a million layers.
        number=max(1, len({match[2] for match in found})),
        bidirectional=any(match[3] for match in found),
        projected=any(match[1] == PROJECTION for match in found),
        prefix=prefix,
    )


def _matched(key: str, prefix: str) -> re.Match[str] | None:
    return KEY.fullmatch(key, len(prefix)) if key.startswith(prefix) else None


def _cell(sizes: _Sizes, activation: Activation | None, *, projected: bool) -> PortableCell:
    if projected:
        return ProjectedLSTM(sizes.features, hidden=sizes.hidden)
    return make_cell(sizes.gates, sizes.features, activation)


def _check_shapes(arrays: Mapping[str, np.ndarray], layers: _Layers) -> _Sizes:
    """Check every array against those of the first layer."""
    sizes = _sizes(arrays, layers)
    width = sizes.gates * sizes.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "weight_hh": (width, sizes.features),
        "bias_ih": (width,),
        "bias_hh": (width,),
        PROJECTION: (sizes.features, sizes.hidden),
    }
    lowest = arrays[f"{layers.prefix}weight_ih_l0"].shape[1]
    higher = sizes.features * (2 if layers.bidirectional else 1)
    for end in layers.ends().values():
        shapes["weight_ih"] = (width, lowest if end.startswith("_l0") else higher)
        for name, key in zip(layers.names, layers.keys(end), strict=True):
            why = "as the first layer and the number of directions ask"
            check_shape(key, arrays[key], shapes[name], why)
    return sizes


def _sizes(arrays: Mapping[str, np.ndarray], layers: _Layers) -> _Sizes:
    """Sizes of the first layer."""
    inputs, recurrent, projection = (
        f"{layers.prefix}{name}_l0" for name in ("weight_ih", "weight_hh", PROJECTION)
    )
    check_rank(inputs, arrays[inputs], 2, "G·H D")
    check_rank(recurrent, arrays[recurrent], 2, "G·H P" if layers.projected else "G·H H")
    if not layers.projected:
        width, features = arrays[recurrent].shape
        gates = gates_from_width(recurrent, (width, features), width, features)
        return _Sizes(gates, features, features)
    check_rank(projection, arrays[projection], 2, "P H")
    features, hidden = arrays[projection].shape
    return _Sizes(LSTM.gates, hidden, features)


def _import(arrays: list[np.ndarray], sizes: _Sizes) -> GatedParams:
    """One direction of one layer, its arrays in PyTorch's order."""
    w_x, w_h, b, b_h, *projection = arrays
    if sizes.gates == GRU.gates:
        return import_params(w_x.T, w_h.T, b, b_h)
    return import_params(w_x.T, w_h.T, b + b_h, w_p=projection[0].T if projection else None)


def _export(exported: Exported) -> list[np.ndarray]:
    """The reverse of `_import`; zeros are the second bias of cells that have but one."""
    w_x, w_h, b, b_h, w_p = exported
    second = np.zeros_like(b) if b_h is None else b_h
    projection = [] if w_p is None else [np.ascontiguousarray(w_p.T)]
    return [np.ascontiguousarray(w_x.T), np.ascontiguousarray(w_h.T), b, second, *projection]
