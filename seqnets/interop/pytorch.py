"""Weights of PyTorch's recurrent modules and cells: the arrays of a ``state_dict``.

    weight_ih_l0 [G·H, D]   weight_hh_l0 [G·H, H]   bias_ih_l0 [G·H]   bias_hh_l0 [G·H]

and so on for the layers l1, l2, ..., with the suffix ``_reverse`` for the backward direction; a
cell (RNNCell, LSTMCell, GRUCell) has the four names without a suffix. The gates have our order
(LSTM i, f, g, o; GRU r, z, n); the matrices are ours transposed. RNN and LSTM only use the sum of
the two biases, which is our ``b``; the GRU needs both. An LSTM with ``proj_size=P`` also has
``weight_hr_l0`` [P, H], its ``weight_hh_l0`` is [G·H, P], and it is our `ProjectedLSTM`. Biases
missing with ``bias=False`` become zeros. PyTorch itself is not imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from seqnets.cells import GRU, LSTM, Elman, GatedParams, ProjectedLSTM
from seqnets.interop.incoming import check_keys, check_mapping, flatten, float_array
from seqnets.interop.layout import (
    PortableCell,
    cells_of,
    export_params,
    import_params,
    make_cell,
    zero_bias,
)
from seqnets.interop.pytorch_keys import (
    BIASES,
    PROJECTION,
    WEIGHTS,
    Form,
    Sizes,
    cell_form,
    check_shapes,
    form_of_cell,
    form_of_module,
    module_form,
)
from seqnets.modules import Stack
from seqnets.typing import Activation, Float

__all__ = ["from_pytorch", "from_pytorch_cell", "to_pytorch", "to_pytorch_cell"]

KINDS = (Elman, LSTM, ProjectedLSTM, GRU)
CELL_KINDS = (Elman, LSTM, GRU)


def from_pytorch(
    state_dict: Mapping[str, Any], *, prefix: str = "", activation: Activation | None = None
) -> tuple[Stack, dict[str, Any]]:
    """Import an ``nn.RNN``, ``nn.LSTM``, or ``nn.GRU`` of PyTorch, with any number of layers.

    The ratio of rows to hidden size tells the kind: 1 for RNN, 3 for GRU, 4 for LSTM.

    Args:
      state_dict: ``module.state_dict()``: tensors, including bfloat16, or what `numpy.asarray`
        accepts. The parameters keep its dtypes.
      prefix: prefix of the module's keys if it is part of a larger module, such as
        ``"encoder.lstm."``; all other keys are then ignored.
      activation: nonlinearity of an RNN, `jax.numpy.tanh` or `jax.nn.relu`, required since it is
        not part of the weights; ignored for other modules.

    Returns:
      ``(stack, params)``: ``stack.apply({"params": params}, xs)`` computes PyTorch's module with
      ``batch_first=True``; ``stack.layers`` are the cells. PyTorch's dropout between layers is not
      part of the weights; set it with ``stack.clone(dropout=0.1)``.

    Raises:
      ValueError: if no recurrent weights have the prefix, a key is missing or unknown, the shapes
        do not match, the activation of an RNN is missing, or the keys are those of a cell.
      TypeError: if ``state_dict`` is not a mapping with strings as keys, or an array is not of
        floats.

    Example:
      >>> shapes = {"weight_ih": (12, 2), "weight_hh": (12, 4), "bias_ih": 12, "bias_hh": 12}
      >>> state = {f"{name}_l0": np.ones(shape, "float32") for name, shape in shapes.items()}
      >>> stack, params = from_pytorch(state)
      >>> type(stack.layers[0]).__name__, params["layer_0"]["cell"].w_x.shape
      ('GRU', (2, 12))
    """
    check_mapping("state_dict", state_dict)
    form = form_of_module(state_dict, prefix)
    flat, sizes = _import(state_dict, form)
    params: dict[str, Any] = unflatten_dict(flat, sep="/")
    if form.projected:
        cell: PortableCell = ProjectedLSTM(sizes.features, hidden=sizes.hidden)
    else:
        cell = make_cell(sizes.gates, sizes.features, activation)
    layers = (cell,) * len(params)
    return Stack(layers, bidirectional=form.bidirectional), params


def to_pytorch(
    stack: Stack, params: Mapping[str, Any], *, prefix: str = "", bias: bool = True
) -> dict[str, Float[np.ndarray, "*S"]]:
    """Export to an ``nn.RNN``, ``nn.LSTM``, or ``nn.GRU`` of PyTorch.

    For RNN and LSTM, our bias becomes ``bias_ih``, and ``bias_hh`` is zero: only their sum matters,
    so weights imported from PyTorch are exported with their two biases added. Convert each array to
    a tensor; for bfloat16 use ``torch.from_dlpack(jax.numpy.asarray(array))``, since
    ``torch.tensor`` does not accept it.

    Args:
      stack: layers with equal cells, of kind `Elman`, `LSTM`, `ProjectedLSTM`
        (``proj_size=features, hidden_size=hidden``), or `GRU`, without residual or skip connections
        and zoneout.
      params: its parameters, ``variables["params"]``.
      prefix: prefix of every key, such as ``"encoder.lstm."``.
      bias: False for a module with ``bias=False``; our biases must then be zero.

    Returns:
      Arrays by key, for ``module.load_state_dict``.

    Raises:
      ValueError: if the stack has residual or skip connections, zoneout, a merge of directions or
        activations of gates that PyTorch lacks, or unequal cells; a key of the parameters is
        missing or unknown; an array does not have the shape of its layer; or a bias that the module
        lacks is not zero.
      TypeError: if ``stack`` is not a `Stack`, the cells are of another kind, or the parameters are
        not `GatedParams` in a mapping.
    """
    cells = cells_of(stack)
    if stack.bidirectional and stack.merge != "concatenate":
        raise ValueError(f"stack: PyTorch concatenates both directions, got merge={stack.merge!r}")
    if len({_equations(cell) for cell in cells}) != 1:
        raise ValueError(f"stack: expected cells of one kind and size, got {cells}")
    form = module_form(
        len(cells),
        bidirectional=stack.bidirectional,
        bias=bias,
        projected=isinstance(cells[0], ProjectedLSTM),
        prefix=prefix,
    )
    flat = flatten("params", params)
    check_keys("params", flat, form.ends)
    state: dict[str, np.ndarray] = {}
    for path, end in form.ends.items():
        arrays = _export(f"params[{path!r}]", cells[0], flat[path], KINDS, bias=bias)
        state |= zip(form.keys(end), (arrays[name] for name in form.names), strict=True)
    check_shapes(state, form)
    return state


def from_pytorch_cell(
    state_dict: Mapping[str, Any], *, prefix: str = "", activation: Activation | None = None
) -> tuple[PortableCell, GatedParams]:
    """Import an RNNCell, LSTMCell, or GRUCell of PyTorch.

    Args:
      state_dict: ``cell.state_dict()``; see `from_pytorch`.
      prefix: prefix of the cell's keys if it is part of a larger module.
      activation: nonlinearity of an RNNCell, required since it is not part of the weights; ignored
        for other cells.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`.

    Raises:
      ValueError: as for `from_pytorch`, or if the keys are those of a module.
      TypeError: as for `from_pytorch`.
    """
    check_mapping("state_dict", state_dict)
    flat, sizes = _import(state_dict, form_of_cell(state_dict, prefix))
    return make_cell(sizes.gates, sizes.features, activation), flat["cell"]


def to_pytorch_cell(
    cell: PortableCell, params: GatedParams, *, prefix: str = "", bias: bool = True
) -> dict[str, Float[np.ndarray, "*S"]]:
    """Export to an RNNCell, LSTMCell, or GRUCell of PyTorch; see `to_pytorch`.

    Args:
      cell: `Elman` for RNNCell, `LSTM` for LSTMCell, or `GRU` for GRUCell.
      params: its parameters.
      prefix: prefix of every key.
      bias: False for a cell with ``bias=False``; our biases must then be zero.

    Returns:
      Arrays by key, for ``cell.load_state_dict`` once converted to tensors.

    Raises:
      ValueError: if the parameters do not have the arrays and shapes of the cell, its gates have
        activations that PyTorch lacks, or a bias that the target lacks is not zero.
      TypeError: if the cell is of another kind, or the parameters are not `GatedParams`.
    """
    arrays = _export("params", cell, params, CELL_KINDS, bias=bias)
    form = cell_form(bias=bias, prefix=prefix)
    return dict(zip(form.keys(""), (arrays[name] for name in form.names), strict=True))


def _equations(cell: Any) -> tuple[Any, ...]:
    """What must be equal in all layers: everything but the initialization of parameters."""
    names = ("features", "hidden", "activation", "gate_activation")
    return type(cell), *(getattr(cell, name, None) for name in names)


def _check_activations(cell: Any) -> None:
    """Raise unless the gates have the fixed activations of PyTorch's modules."""
    usual = {field.name: field.default for field in dataclasses.fields(cell)}
    for option in () if isinstance(cell, Elman) else ("activation", "gate_activation"):
        if getattr(cell, option) is not usual[option]:
            raise ValueError(
                f"{option}: PyTorch's {type(cell).__name__} has sigmoid gates and tanh, "
                f"got {getattr(cell, option)}"
            )


def _import(state_dict: Mapping[str, Any], form: Form) -> tuple[dict[str, GatedParams], Sizes]:
    """The parameters by path in our tree, and the sizes."""
    expected = [key for end in form.ends.values() for key in form.keys(end)]
    check_keys("state_dict", (key for key in state_dict if key.startswith(form.prefix)), expected)
    arrays = {key: float_array(key, state_dict[key]) for key in expected}
    sizes = check_shapes(arrays, form)
    flat = {}
    for path, end in form.ends.items():
        named = dict(zip(form.names, (arrays[key] for key in form.keys(end)), strict=True))
        flat[path] = _import_direction(named, two_biases=sizes.gates == GRU.gates)
    return flat, sizes


def _import_direction(named: Mapping[str, np.ndarray], *, two_biases: bool) -> GatedParams:
    """Import one direction of one layer from its arrays by PyTorch's names."""
    w_x, w_h = (named[name].T for name in WEIGHTS)
    b, b_h = (named.get(name, zero_bias(w_x)) for name in BIASES)
    if two_biases:
        return import_params(w_x, w_h, b, b_h)
    projection = named[PROJECTION].T if PROJECTION in named else None
    return import_params(w_x, w_h, b + b_h, w_p=projection)


def _export(
    name: str, cell: Any, params: Any, kinds: tuple[type, ...], *, bias: bool
) -> dict[str, np.ndarray]:
    """The inverse of `_import_direction`; the second bias of cells with only one is zero."""
    w_x, w_h, b, b_h, projection = export_params(name, cell, params, kinds, bias=bias)
    _check_activations(cell)
    named = {"weight_ih": w_x.T, "weight_hh": w_h.T, "bias_ih": b}
    named["bias_hh"] = np.zeros_like(b) if b_h is None else b_h
    if projection is not None:
        named[PROJECTION] = projection.T
    return {key: np.ascontiguousarray(array) for key, array in named.items()}
