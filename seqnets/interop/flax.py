"""Parameters of Flax's recurrent cells, of Linen and NNX.

``params`` is ``variables["params"]`` in Linen and ``nnx.state(cell, nnx.Param)`` in NNX; see
`flax_linen` and `flax_nnx` for their arrays. LSTMCell and OptimizedLSTMCell have the same
equations. GRUCell resets after the product, as our `GRU` does, and MGUCell is our `MGUResetAfter`.
A SimpleCell must not have ``residual``, and an MGUCell must have ``reset_gate=True``. Activations
are not part of the parameters: imported cells use sigmoid and tanh; change them with
``dataclasses.replace(cell, gate_activation=...)``. For ConvLSTMCell see `from_flax_conv_lstm`, for
whole layers `from_flax_rnn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax.traverse_util import unflatten_dict

from seqnets.cells import GatedParams
from seqnets.checks import did_you_mean
from seqnets.interop.flax_linen import LINEN_KINDS, read_linen, write_linen
from seqnets.interop.flax_nnx import NNX_KINDS, is_nnx, read_nnx, write_nnx
from seqnets.interop.incoming import flatten
from seqnets.interop.layout import PortableCell, export_params, import_params, make_cell
from seqnets.typing import Activation, Float

__all__ = ["API", "check_api", "export_flax", "from_flax", "import_flax", "to_flax"]

API = Literal["linen", "nnx"]
"""Flax's two module systems."""

OTHERS = (
    ({"cell", "forward_rnn", "backward_rnn", "layers", "layers_0"}, "a layer", "from_flax_rnn"),
    ({"ih", "hh"}, "a ConvLSTMCell", "from_flax_conv_lstm"),
)
"""Top-level names of trees that other functions import."""


def from_flax(
    params: Mapping[str, Any], *, activation: Activation | None = None
) -> tuple[PortableCell, GatedParams]:
    """Import a SimpleCell, LSTMCell, OptimizedLSTMCell, GRUCell, or MGUCell of Flax.

    Args:
      params: ``variables["params"]`` of a Linen cell, or ``nnx.state(cell, nnx.Param)`` of an NNX
        cell; the keys tell which.
      activation: ``activation_fn`` of a SimpleCell, required since it is not part of the
        parameters; ignored for other cells.

    Returns:
      ``(cell, params)``, for `seqnets.recurrence.unroll` or, as ``{"cell": params}``, for
      `seqnets.modules.RNN`. The recurrent biases of the gates of GRU and MGU, which Flax lacks,
      are zero.

    Raises:
      ValueError: if a key is missing or unknown, the shapes do not match, or the activation of a
        SimpleCell is missing.
      TypeError: if ``params`` is not a mapping, or an array is not of floats.
    """
    flat = flatten("params", params)
    for names, what, function in OTHERS:
        if found := sorted(names & {key.partition("/")[0] for key in flat}):
            raise ValueError(
                f"params: expected the tree of a cell, got that of {what} ({found[0]!r}); "
                f"use {function}"
            )
    return import_flax(flat, activation)


def to_flax(
    cell: PortableCell, params: GatedParams, *, api: API = "linen"
) -> dict[str, dict[str, Float[np.ndarray, "*S"]]]:
    """Export to the Flax cell of the same kind and size.

    Flax's GRUCell has a single bias for each of r and z, and Linen's MGUCell for f. It becomes the
    sum of our two biases, so `from_flax` returns these biases summed.

    Args:
      cell: `Elman` for SimpleCell, `LSTM` for OptimizedLSTMCell, `GRU` for GRUCell, or
        `MGUResetAfter` for MGUCell, which NNX lacks.
      params: its parameters.
      api: ``"linen"`` or ``"nnx"``.

    Returns:
      The tree, for ``cell.apply({"params": tree}, ...)`` in Linen or ``nnx.update(cell, tree)`` in
      NNX.

    Raises:
      ValueError: if the parameters do not have the arrays and shapes of the cell, ``api`` is
        unknown, or a GRU has a recurrent bias of the candidate that NNX lacks.
      TypeError: if the cell is of another kind, or the parameters are not `GatedParams`.
    """
    check_api(api)
    tree: dict[str, dict[str, np.ndarray]] = unflatten_dict(
        export_flax("params", cell, params, api), sep="/"
    )
    return tree


def check_api(api: str) -> None:
    """Raise ValueError unless ``api`` is one of the two names."""
    if api not in ("linen", "nnx"):
        raise ValueError(f"api: {did_you_mean(str(api), ('linen', 'nnx'))}, got {api!r}")


def import_flax(
    flat: Mapping[str, Any], activation: Activation | None, *, path: str = ""
) -> tuple[PortableCell, GatedParams]:
    """Import a cell from its arrays by path; messages prepend ``path``."""
    read = read_nnx if is_nnx(flat) else read_linen
    name, prefix = (f"params[{path!r}]", f"{path}/") if path else ("params", "")
    gates, arrays = read(name, flat, prefix)
    cell = make_cell(gates, arrays.w_h.shape[0], activation)
    return cell, import_params(*arrays)


def export_flax(name: str, cell: Any, params: Any, api: API) -> dict[str, Float[np.ndarray, "*S"]]:
    """Export a cell to arrays by path; messages call its parameters ``name``."""
    kinds = LINEN_KINDS if api == "linen" else NNX_KINDS
    arrays = export_params(name, cell, params, kinds)
    if api == "linen":
        return write_linen(arrays, cell.features)
    return write_nnx(name, arrays, cell.features)
