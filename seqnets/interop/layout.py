"""What every foreign layout shares: complete keys, checked shapes, and which cells are portable."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from seqnets.cells import GRU, LSTM, Elman, GatedParams, GRUResetBefore, ProjectedLSTM
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

PortableCell = Elman | LSTM | ProjectedLSTM | GRU | GRUResetBefore


class Exported(NamedTuple):
    """The arrays of `GatedParams` on their way out."""

    w_x: np.ndarray
    """[D, G·H] input weights."""
    w_h: np.ndarray
    """[H, G·H] recurrent weights, [P, G·H] with a projection."""
    b: np.ndarray
    """[G·H] bias of the input product."""
    b_h: np.ndarray | None = None
    """[G·H] bias of the recurrent product, of `GRU` only."""
    extra: np.ndarray | None = None
    """[H, P] projection, of `ProjectedLSTM` only."""


GATES: dict[type, int] = {Elman: 1, LSTM: 4, ProjectedLSTM: 4, GRU: 3, GRUResetBefore: 3}


def check_keys(name: str, got: Iterable[str], expected: Iterable[str]) -> None:
    """Raise ValueError unless both hold the same keys.

    The message names all that differ, and beside an unknown key the missing one nearest to it.
    """
    got, expected = list(got), list(expected)
    missing = [key for key in expected if key not in got]
    unknown = [key for key in got if key not in expected]
    if missing or unknown:
        hinted = [repr(key) + _nearest(key, missing) for key in unknown]
        parts = [("missing", [repr(key) for key in missing]), ("unknown", hinted)]
        listed = "; ".join(f"{what} {', '.join(keys)}" for what, keys in parts if keys)
        raise ValueError(f"{name}: {listed}; expected exactly: {', '.join(expected)}")


def _nearest(key: str, missing: list[str]) -> str:
    near = difflib.get_close_matches(key, missing, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


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
    gates: int, features: int, activation: Activation, *, reset_after: bool = True
) -> PortableCell:
    """The cell of so many gates; only `Elman` has a use for ``activation``."""
    if gates == 1:
        return Elman(features, activation=activation)
    if gates == 4:
        return LSTM(features)
    return GRU(features) if reset_after else GRUResetBefore(features)


def import_params(
    w_x: np.ndarray,
    w_h: np.ndarray,
    b: np.ndarray,
    b_h: np.ndarray | None = None,
    extra: np.ndarray | None = None,
) -> GatedParams:
    """Copies on JAX's default device, float64 only where `jax_enable_x64` is set.

    Copies, because JAX may use a NumPy array's memory as its own, and the foreign layer may
    write to it later.
    """
    arrays = (w_x, w_h, b, b_h, extra)
    return GatedParams(*(None if array is None else jnp.array(array) for array in arrays))


def export_params(name: str, cell: Any, params: Any, kinds: tuple[type, ...]) -> Exported:
    """Parameters of one of our cells as writable NumPy arrays, checked against the cell.

    Args:
      name: where the parameters come from, ``"params['cell']"``.
      cell: one of ``kinds``, a child of them is not; it may have other equations.
      params: its `GatedParams`.
      kinds: those `PortableCell` that there are on the other side.

    Raises:
      ValueError: if an array is missing, too many, or not of the shape that the cell has.
      TypeError: if the cell is of another kind, or ``params`` is not a `GatedParams` of floats.
    """
    if type(cell) not in kinds:
        listed = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"cell: expected one with a counterpart there ({listed}), got {type(cell).__name__}"
        )
    if not isinstance(params, GatedParams):
        raise TypeError(f"{name}: expected GatedParams, got {type(params).__name__}")
    shapes = _shapes(cell, np.shape(params.w_x)[0] if np.ndim(params.w_x) else 0)
    check_keys(name, (k for k, v in params._asdict().items() if v is not None), shapes)
    arrays = {key: float_array(f"{name}.{key}", getattr(params, key)).copy() for key in shapes}
    for key, shape in shapes.items():
        check_shape(f"{name}.{key}", arrays[key], shape, f"of {_sized(cell)}")
    return Exported(**arrays)


def _shapes(cell: PortableCell, in_features: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in the parameters of a cell."""
    hidden = cell.hidden if isinstance(cell, ProjectedLSTM) else cell.features
    width = GATES[type(cell)] * hidden
    shapes = {"w_x": (in_features, width), "w_h": (cell.features, width), "b": (width,)}
    if isinstance(cell, GRU):
        return shapes | {"b_h": (width,)}
    if isinstance(cell, ProjectedLSTM):
        return shapes | {"extra": (hidden, cell.features)}
    return shapes


def _sized(cell: PortableCell) -> str:
    """The cell with its sizes alone: ``LSTM(5)``, ``ProjectedLSTM(2, hidden=5)``."""
    hidden = f", hidden={cell.hidden}" if isinstance(cell, ProjectedLSTM) else ""
    return f"{type(cell).__name__}({cell.features}{hidden})"
