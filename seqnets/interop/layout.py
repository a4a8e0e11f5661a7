"""Common to all foreign layouts: which cells are portable, and the shapes of their arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqnets.cells import (
    GRU,
    LSTM,
    Elman,
    GatedParams,
    GRUResetBefore,
    MGUResetAfter,
    ProjectedLSTM,
)
from seqnets.checks import check_shape
from seqnets.interop.incoming import check_keys, float_array
from seqnets.modules import Stack
from seqnets.modules.layer import as_layers
from seqnets.recurrence import Regularization
from seqnets.typing import Activation, Cell, Float

__all__ = [
    "Exported",
    "PortableCell",
    "cells_of",
    "check_no_bias",
    "check_no_zoneout",
    "export_params",
    "gates_from_width",
    "import_params",
    "make_cell",
    "zero_bias",
]

PortableCell = Elman | LSTM | ProjectedLSTM | GRU | GRUResetBefore | MGUResetAfter


class Exported(NamedTuple):
    """The arrays of `GatedParams`, for export."""

    w_x: Float[np.ndarray, "D G"]
    """[D, G·H] input weights."""
    w_h: Float[np.ndarray, "H G"]
    """[H, G·H] recurrent weights, [P, G·H] with a projection."""
    b: Float[np.ndarray, " G"]
    """[G·H] bias of the input product."""
    b_h: Float[np.ndarray, " G"] | None = None
    """[G·H] bias of the recurrent product, of `GRU` and `MGUResetAfter` only."""
    w_p: Float[np.ndarray, "H P"] | None = None
    """[H, P] projection, of `ProjectedLSTM` only."""


GATES: dict[type, int] = {
    Elman: 1,
    LSTM: 4,
    ProjectedLSTM: 4,
    GRU: 3,
    GRUResetBefore: 3,
    MGUResetAfter: 2,
}


def gates_from_width(name: str, shape: tuple[int, ...], width: int, features: int) -> int:
    """Number of gates, from their total width: H for RNN, 3·H for GRU, 4·H for LSTM.

    Raises:
      ValueError: if the width is not one of these.
    """
    for gates in (1, 3, 4):
        if features > 0 and width == gates * features:
            return gates
    raise ValueError(
        f"{name}: expected gates of total width {features}, {3 * features}, or {4 * features} "
        f"(RNN, GRU, LSTM of hidden size {features}), got {width} (shape {shape})"
    )


def make_cell(
    gates: int, features: int, activation: Activation | None, *, reset_after: bool = True
) -> PortableCell:
    """The cell with this number of gates; ``activation`` is required and used for `Elman` only.

    Raises:
      ValueError: if there is one gate and no activation.
    """
    if gates == 1:
        if activation is None:
            raise ValueError(
                "activation: expected that of the plain RNN, jax.numpy.tanh (the usual one) or "
                "jax.nn.relu, got None"
            )
        return Elman(features, activation=activation)
    if gates == 2:
        return MGUResetAfter(features)
    if gates == 4:
        return LSTM(features)
    return GRU(features) if reset_after else GRUResetBefore(features)


def import_params(
    w_x: Float[np.ndarray, "D G"],
    w_h: Float[np.ndarray, "H G"],
    b: Float[np.ndarray, " G"],
    b_h: Float[np.ndarray, " G"] | None = None,
    w_p: Float[np.ndarray, "H P"] | None = None,
) -> GatedParams:
    """Copy arrays to JAX's default device; float64 is kept only if `jax_enable_x64` is set.

    Copies are needed because JAX may share a NumPy array's memory, and the foreign layer may modify
    it later.
    """
    second, projection = (None if array is None else jnp.array(array) for array in (b_h, w_p))
    return GatedParams(jnp.array(w_x), jnp.array(w_h), jnp.array(b), second, w_p=projection)


def cells_of(stack: Any) -> list[Cell]:
    """The cells of a stack of plain layers.

    Raises:
      ValueError: if there are residual or skip connections, or zoneout, which affects evaluation.
      TypeError: if ``stack`` is not a `Stack`.
    """
    if not isinstance(stack, Stack):
        raise TypeError(f"stack: expected a Stack, got {type(stack).__name__}")
    for option in ("residual", "skip"):
        if getattr(stack, option):
            raise ValueError(
                f"stack: expected no {option} connections, which the target lacks, got "
                f"{option}=True"
            )
    layers = as_layers(stack.layers)
    for number, layer in enumerate(layers):
        check_no_zoneout(f"stack.layers[{number}]", layer.regularization)
    return [layer.cell for layer in layers]


def check_no_zoneout(name: str, regularization: Regularization) -> None:
    """Raise ValueError if there is zoneout, since evaluation uses its expectation."""
    if regularization.zoneout:
        raise ValueError(
            f"{name}: expected no zoneout, which the target lacks, got {regularization.zoneout}"
        )


def zero_bias(kernel: Float[np.ndarray, "*S G"]) -> Float[np.ndarray, " G"]:
    """The bias for a product without one: a zero for each column of its weights."""
    return np.zeros(kernel.shape[-1], kernel.dtype)


def check_no_bias(name: str, bias: Float[np.ndarray, "*S"]) -> None:
    """Raise ValueError unless a bias that the target lacks is zero."""
    if np.any(bias != 0):
        greatest = float(np.abs(bias.astype(np.float64)).max())
        raise ValueError(
            f"{name}: expected zeros, since the target has no such bias, got values up to "
            f"{greatest:.3g}"
        )


def export_params(
    name: str, cell: Any, params: Any, kinds: tuple[type, ...], *, bias: bool = True
) -> Exported:
    """Parameters of one of our cells as writable NumPy arrays, checked against the cell.

    Args:
      name: name of the parameters in messages, such as ``"params['cell']"``.
      cell: one of ``kinds``; not a subclass, which may have other equations.
      params: its `GatedParams`.
      kinds: each `PortableCell` that the target has.
      bias: whether the target has biases.

    Raises:
      ValueError: if an array is missing or superfluous or does not have the shape of the cell, or a
        bias that the target lacks is not zero.
      TypeError: if the cell is of another kind, or ``params`` is not a `GatedParams` of floats.
    """
    if type(cell) not in kinds:
        listed = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"cell: expected one that the target has ({listed}), got {type(cell).__name__}"
        )
    if not isinstance(params, GatedParams):
        raise TypeError(f"{name}: expected GatedParams, got {type(params).__name__}")
    shapes = _shapes(cell, np.shape(params.w_x)[0] if np.ndim(params.w_x) else 0)
    check_keys(name, (k for k, v in params._asdict().items() if v is not None), shapes)
    arrays = {key: float_array(f"{name}.{key}", getattr(params, key)).copy() for key in shapes}
    for key, shape in shapes.items():
        check_shape(f"{name}.{key}", arrays[key], shape, f"of {_sized(cell)}")
        if key in ("b", "b_h") and not bias:
            check_no_bias(f"{name}.{key}", arrays[key])
    return Exported(**arrays)


def _shapes(cell: PortableCell, in_features: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a cell's parameters."""
    hidden = cell.hidden if isinstance(cell, ProjectedLSTM) else cell.features
    width = GATES[type(cell)] * hidden
    shapes = {"w_x": (in_features, width), "w_h": (cell.features, width), "b": (width,)}
    if isinstance(cell, GRU | MGUResetAfter):
        return shapes | {"b_h": (width,)}
    if isinstance(cell, ProjectedLSTM):
        return shapes | {"w_p": (hidden, cell.features)}
    return shapes


def _sized(cell: PortableCell) -> str:
    """The cell with its sizes only: ``LSTM(5)``, ``ProjectedLSTM(2, hidden=5)``."""
    hidden = f", hidden={cell.hidden}" if isinstance(cell, ProjectedLSTM) else ""
    return f"{type(cell).__name__}({cell.features}{hidden})"
