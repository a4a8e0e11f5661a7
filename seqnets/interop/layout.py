"""What every foreign layout shares: complete keys, checked shapes, and which cells are portable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from seqnets.cells import GRU, LSTM, Elman, GatedParams, GRUResetBefore
from seqnets.checks import check_dtype, check_shape
from seqnets.typing import Activation

__all__ = [
    "Exported",
    "PortableCell",
    "check_keys",
    "export_params",
    "flatten",
    "float_array",
    "gates_from_width",
    "import_params",
    "make_cell",
]

PortableCell = Elman | LSTM | GRU | GRUResetBefore


class Exported(NamedTuple):
    """The arrays of `GatedParams` on their way out."""

    w_x: np.ndarray
    """[D, G·H] input weights."""
    w_h: np.ndarray
    """[H, G·H] recurrent weights."""
    b: np.ndarray
    """[G·H] bias of the input product."""
    b_h: np.ndarray | None = None
    """[G·H] bias of the recurrent product, of `GRU` only."""


GATES: dict[type, int] = {Elman: 1, LSTM: 4, GRU: 3, GRUResetBefore: 3}


def check_keys(name: str, got: Iterable[str], expected: Iterable[str]) -> None:
    """Raise ValueError unless both hold the same keys; the message names all that differ."""
    got, expected = list(got), list(expected)
    missing = [key for key in expected if key not in got]
    unknown = [key for key in got if key not in expected]
    if missing or unknown:
        parts = [("missing", missing), ("unknown", unknown)]
        listed = "; ".join(f"{what} {', '.join(map(repr, keys))}" for what, keys in parts if keys)
        raise ValueError(f"{name}: {listed}; expected exactly: {', '.join(expected)}")


def flatten(name: str, tree: Any) -> dict[str, Any]:
    """Leaves of nested mappings by their paths, ``"layer_0/cell"``; TypeError for anything else."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"{name}: expected a mapping of parameters, got {type(tree).__name__}")
    flat: dict[str, Any] = flatten_dict(dict(tree), sep="/")
    return flat


def float_array(name: str, value: Any) -> np.ndarray:
    """Anything that `numpy.asarray` takes, as an array; TypeError unless it is of floats."""
    array = np.asarray(value)
    check_dtype(name, array, "float")
    return array


def gates_from_width(name: str, shape: tuple[int, ...], width: int, features: int) -> int:
    """Number of gates, told by their joint width: H for RNN, 3·H for GRU, 4·H for LSTM.

    Raises:
      ValueError: if it is another multiple, or none, of ``features``.
    """
    for gates in sorted(set(GATES.values())):
        if features > 0 and width == gates * features:
            return gates
    raise ValueError(
        f"{name}: expected gates of width {features}, {3 * features} or {4 * features} in all "
        f"(RNN, GRU, LSTM of hidden size {features}), got {width} (shape {shape})"
    )


def make_cell(
    gates: int, features: int, activation: Activation | None, *, reset_after: bool = True
) -> PortableCell:
    """The cell of so many gates; only `Elman` has a use for ``activation``, and must have it.

    Raises:
      ValueError: if there is one gate and no activation.
    """
    if gates == 1:
        if activation is None:
            raise ValueError(
                "activation: a plain RNN's is not part of its weights; give jax.numpy.tanh "
                "(the usual one) or jax.nn.relu, got None"
            )
        return Elman(features, activation=activation)
    if gates == 4:
        return LSTM(features)
    return GRU(features) if reset_after else GRUResetBefore(features)


def import_params(
    w_x: np.ndarray, w_h: np.ndarray, b: np.ndarray, b_h: np.ndarray | None = None
) -> GatedParams:
    """Copies on JAX's default device, float64 only where `jax_enable_x64` is set.

    Copies, because JAX may use a NumPy array's memory as its own, and the foreign layer may
    write to it later.
    """
    second = None if b_h is None else jnp.array(b_h)
    return GatedParams(jnp.array(w_x), jnp.array(w_h), jnp.array(b), second)


def export_params(name: str, cell: Any, params: Any) -> Exported:
    """Parameters of one of our cells as writable NumPy arrays, checked against the cell.

    Args:
      name: where the parameters come from, ``"params['cell']"``.
      cell: a `PortableCell`; other cells have no counterpart elsewhere.
      params: its `GatedParams`.

    Raises:
      ValueError: if an array is missing, too many, or not of the shape that the cell has.
      TypeError: if the cell is of another kind, or ``params`` is not a `GatedParams` of floats.
    """
    if type(cell) not in GATES:
        kinds = ", ".join(kind.__name__ for kind in GATES)
        raise TypeError(f"cell: expected one of {kinds}, got {type(cell).__name__}")
    if not isinstance(params, GatedParams):
        raise TypeError(f"{name}: expected GatedParams, got {type(params).__name__}")
    expected = ("w_x", "w_h", "b", "b_h") if isinstance(cell, GRU) else ("w_x", "w_h", "b")
    check_keys(name, (k for k, v in params._asdict().items() if v is not None), expected)
    arrays = {key: float_array(f"{name}.{key}", getattr(params, key)).copy() for key in expected}
    width = GATES[type(cell)] * cell.features
    in_features = arrays["w_x"].shape[0] if arrays["w_x"].ndim else 0
    shapes = {"w_x": (in_features, width), "w_h": (cell.features, width), "b": (width,)}
    for key, array in arrays.items():
        check_shape(
            f"{name}.{key}",
            array,
            shapes.get(key, (width,)),
            f"of {type(cell).__name__}({cell.features})",
        )
    return Exported(**arrays)
