"""Whole recurrent layers of Flax, of Linen and NNX: RNN, Bidirectional, and Sequential.

    RNN             cell/...
    Bidirectional   forward_rnn/cell/...   backward_rnn/cell/...
    Sequential      layers_0/cell/...   layers_1/cell/...   (NNX: layers/0/cell/...)

Linen names a cell created inside a compact method after its class, ``GRUCell_0``, not after the
layer that runs it. Such trees do not contain the order of layers; import them cell by cell with
`from_flax`. Options that are not part of the parameters (``reverse``, ``time_major``,
``merge_fn``) must be set on our side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from seqnets.cells import ConvLSTM
from seqnets.interop.conv_lstm import import_flax_conv_lstm, to_flax_conv_lstm
from seqnets.interop.flax import API, check_api, export_flax, import_flax
from seqnets.interop.incoming import check_keys, flatten
from seqnets.interop.layout import cells_of, check_no_zoneout
from seqnets.modules import RNN, Bidirectional, Stack
from seqnets.typing import Activation

__all__ = ["from_flax_rnn", "to_flax_rnn"]

LAYER = re.compile(r"(layers[_/](0|[1-9][0-9]{0,8}))/(.*)")
DIRECTIONS = {"forward": "forward_rnn/cell", "backward": "backward_rnn/cell"}


class _Options(NamedTuple):
    """Options that are not part of the parameters."""

    activation: Activation | None
    image: Sequence[int] | None


def from_flax_rnn(
    params: Mapping[str, Any],
    *,
    activation: Activation | None = None,
    image: Sequence[int] | None = None,
) -> tuple[RNN | Bidirectional | Stack, dict[str, Any]]:
    """Import an RNN, a Bidirectional, or a Sequential of such layers of Flax.

    Args:
      params: ``variables["params"]`` of a Linen module, or ``nnx.state(module, nnx.Param)`` of an
        NNX module.
      activation: activation of all SimpleCells; see `from_flax`.
      image: sizes of the image axes of ConvLSTMCells; see `from_flax_conv_lstm`.

    Returns:
      ``(module, params)``: an `RNN`, a `Bidirectional`, or, for a Sequential, a `Stack`; its layers
      must be all RNN or all Bidirectional. ``module.apply({"params": params}, xs)`` returns the
      carry and Flax's outputs.

    Raises:
      ValueError: if the tree has another structure, the two cells of a bidirectional layer in a
        Sequential differ, the input size of a layer does not match, or as for `from_flax` and
        `from_flax_conv_lstm`.
      TypeError: if ``params`` is not a mapping, or an array is not of floats.
    """
    flat = flatten("params", _named(params))
    options = _Options(activation, image)
    matches = {key: LAYER.fullmatch(key) for key in flat}
    if not any(matches.values()):
        return _layer(flat, options)
    check_keys("params", flat, (key for key, match in matches.items() if match))
    layers: dict[tuple[int, str], dict[str, Any]] = {}
    for match in filter(None, matches.values()):
        path, number, rest = match.groups()
        layers.setdefault((int(number), path), {})[rest] = flat[match.string]
    return _stack({path: layers[number, path] for number, path in sorted(layers)}, options)


def to_flax_rnn(
    module: RNN | Bidirectional | Stack, params: Mapping[str, Any], *, api: API = "linen"
) -> dict[str, Any]:
    """Export to the corresponding Flax module, the inverse of `from_flax_rnn`.

    Args:
      module: an `RNN`, a `Bidirectional`, or a `Stack` without residual or skip connections, all
        without zoneout.
      params: its parameters, ``variables["params"]``.
      api: ``"linen"`` or ``"nnx"``.

    Returns:
      The tree, for ``module.apply({"params": tree}, ...)`` in Linen or ``nnx.update(module, tree)``
      in NNX.

    Raises:
      ValueError: if the module has residual or skip connections or zoneout, a key of the parameters
        is missing or unknown, or as for `to_flax` and `to_flax_conv_lstm`.
      TypeError: if the module or a cell is of another kind, or as for `to_flax`.
    """
    check_api(api)
    cells = _cells(module)
    flat = flatten("params", params)
    check_keys("params", flat, cells)
    tree: dict[str, Any] = {}
    for path, cell in cells.items():
        name = f"params[{path!r}]"
        for key, array in _export(name, cell, flat[path], api).items():
            tree[f"{_theirs(path, api)}/{key}"] = array
    nested: dict[str, Any] = unflatten_dict(tree, sep="/")
    if api == "nnx" and isinstance(module, Stack):
        nested["layers"] = {int(number): layer for number, layer in nested["layers"].items()}
    return nested


def _named(tree: Any) -> Any:
    """Convert the integer keys that NNX uses for list elements to strings."""
    if not isinstance(tree, Mapping):
        return tree
    return {str(k) if isinstance(k, int) else k: _named(value) for k, value in tree.items()}


def _stack(
    layers: Mapping[str, Mapping[str, Any]], options: _Options
) -> tuple[Stack, dict[str, Any]]:
    """Import layers by path, from the input up."""
    read = {path: _layer(flat, options, path=f"{path}/") for path, flat in layers.items()}
    bidirectional = all(isinstance(module, Bidirectional) for module, _ in read.values())
    cells: list[Any] = []
    for path, (module, own) in read.items():
        if isinstance(module, Bidirectional) != bidirectional:
            raise ValueError("params: expected layers of one kind, got some in both directions")
        if cells:
            below = cells[-1].features * (2 if bidirectional else 1)
            _check_inputs(path, own, below, "outputs of the layer below")
        cells.append(_only_cell(path, module))
    params = {f"layer_{number}": own for number, (_, own) in enumerate(read.values())}
    return Stack(tuple(cells), bidirectional=bidirectional), params


def _only_cell(path: str, module: RNN | Bidirectional) -> Any:
    """The cell of a layer of a stack, which must be the same for both directions."""
    if isinstance(module, RNN):
        return module.cell
    if module.forward_cell != module.backward_cell:
        raise ValueError(
            f"params[{path!r}]: expected two cells of one kind and size, got "
            f"{module.forward_cell} and {module.backward_cell}"
        )
    return module.forward_cell


def _check_inputs(path: str, params: Mapping[str, Any], expected: int, whose: str) -> None:
    """Raise ValueError unless all cells in ``params`` have ``expected`` inputs."""
    for weights in flatten(path, params).values():
        shape = np.shape(weights.w_x)
        if shape[-2] != expected:
            raise ValueError(f"{path}: expected {expected} inputs, {whose}, got {shape[-2]}")


def _layer(
    flat: Mapping[str, Any], options: _Options, *, path: str = ""
) -> tuple[RNN | Bidirectional, dict[str, Any]]:
    """Import an RNN or a Bidirectional; messages prepend ``path``."""
    kinds = [("cell",), tuple(DIRECTIONS.values())]
    parts = next((kind for kind in kinds if _divides(flat, kind)), None)
    if parts is None:
        tops = ", ".join(sorted({repr(key.partition("/")[0]) for key in flat})) or "nothing"
        raise ValueError(
            f"params{f'[{path[:-1]!r}]' if path else ''}: expected 'cell' (RNN), 'forward_rnn' "
            f"and 'backward_rnn' (Bidirectional), or 'layers' (Sequential), got {tops}; for a "
            "layer of a larger module pass its subtree, and for a cell use from_flax"
        )
    cells, params = {}, {}
    for part in parts:
        own = {k.removeprefix(f"{part}/"): v for k, v in flat.items() if k.startswith(f"{part}/")}
        cells[part], params[part] = _cell(own, options, path + part)
    if len(parts) == 1:
        return RNN(cells["cell"]), params
    forward, backward = parts
    inputs = params[forward].w_x.shape[-2]
    _check_inputs(path + backward, {"cell": params[backward]}, inputs, "as the forward direction")
    tree = {ours: {"cell": params[theirs]} for ours, theirs in DIRECTIONS.items()}
    return Bidirectional(cells[forward], cells[backward]), tree


def _divides(flat: Mapping[str, Any], parts: Sequence[str]) -> bool:
    """Whether every array belongs to one of the parts, and every part has one."""
    found = [next((p for p in parts if key.startswith(f"{p}/")), None) for key in flat]
    return set(found) == set(parts)


def _cell(flat: Mapping[str, Any], options: _Options, path: str) -> tuple[Any, Any]:
    if not any(key.startswith(("ih/", "hh/")) for key in flat):
        return import_flax(flat, options.activation, path=path)
    if options.image is None:
        raise ValueError("image: expected the image size of the ConvLSTMCell, got None")
    return import_flax_conv_lstm(flat, options.image, path=path)


def _cells(module: Any) -> dict[str, Any]:
    """Our cells by path in our tree."""
    if isinstance(module, Stack):
        parts = ("/forward", "/backward") if module.bidirectional else ("",)
        cells = enumerate(cells_of(module))
        return {f"layer_{k}{part}/cell": cell for k, cell in cells for part in parts}
    if not isinstance(module, RNN | Bidirectional):
        raise TypeError(
            f"module: expected an RNN, a Bidirectional, or a Stack, got {type(module).__name__}"
        )
    check_no_zoneout("module", module.regularization)
    if isinstance(module, RNN):
        return {"cell": module.cell}
    return {"forward/cell": module.forward_cell, "backward/cell": module.backward_cell}


def _theirs(path: str, api: API) -> str:
    """The path of one of our cells in Flax's tree."""
    for ours, theirs in DIRECTIONS.items():
        path = path.replace(f"{ours}/cell", theirs)
    return path.replace("layer_", "layers_" if api == "linen" else "layers/")


def _export(name: str, cell: Any, params: Any, api: API) -> dict[str, np.ndarray]:
    if isinstance(cell, ConvLSTM) and api == "linen":  # NNX has none
        return flatten(name, to_flax_conv_lstm(cell, params))
    return export_flax(name, cell, params, api)
