"""Checks of arguments, which raise a ValueError or TypeError that names the argument.

All checks use only static information (shapes, dtypes, Python values). Under `jax.jit` they run
once, at trace time, and cost nothing afterwards. Since only the shape and dtype of a traced number
are known, its range is not checked.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.typing import Array, Float, PyTree

__all__ = [
    "check_cell",
    "check_dtype",
    "check_levels",
    "check_like",
    "check_number",
    "check_range",
    "check_rank",
    "check_rows",
    "check_same_shape",
    "check_shape",
    "did_you_mean",
]


def check_rank(name: str, x: Any, rank: int, letters: str) -> None:
    """Raise unless ``x`` has ``rank`` axes; ``letters`` names the axes, e.g. ``"B T D"``."""
    if np.ndim(x) != rank:
        raise ValueError(
            f"{name}: expected shape [{letters.replace(' ', ', ')}] ({rank} axes), "
            f"got {np.shape(x)} ({np.ndim(x)} axes)"
        )


def check_shape(name: str, x: Any, shape: tuple[int, ...], why: str = "") -> None:
    """Raise unless ``x.shape == shape``; ``why`` explains the expected shape in the message."""
    if np.shape(x) != tuple(shape):
        hint = f" ({why})" if why else ""
        raise ValueError(f"{name}: expected shape {tuple(shape)}{hint}, got {np.shape(x)}")


def check_same_shape(**arrays: Any) -> None:
    """Raise unless all arrays have the same shape; this library never broadcasts silently."""
    shapes = {name: np.shape(x) for name, x in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected equal shapes, got {listed}; reshape or broadcast explicitly")


def check_rows(name: str, tree: PyTree, rows: int | None = None, whose: str = "") -> int:
    """Raise unless every leaf of a tree is [B, ...], with the same number of rows B; return B.

    Args:
      name: name of the tree in error messages.
      tree: the arrays.
      rows: B if it is known; a tree without arrays is then accepted.
      whose: name of the argument that has ``rows`` rows, for error messages.
    """
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    if not counts and rows is None:
        raise ValueError(f"{name}: expected arrays with rows first, [B, ...], got none")
    fits = len(counts) == 1 and () not in counts if rows is None else counts <= {(rows,)}
    if not fits:
        _raise_for_rows(name, tree, rows, whose)
    return rows if rows is not None else counts.pop()[0]


def _raise_for_rows(name: str, tree: PyTree, rows: int | None, whose: str) -> NoReturn:
    """Raise for the first leaf that is not [B, ...]; separate because naming leaves is slow."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    hint = "" if whose else "; arrays without rows belong in the parameters or the variables"
    whose = whose or name + jax.tree_util.keystr(leaves[0][0])
    for path, leaf in leaves:
        label = name + jax.tree_util.keystr(path)
        if np.ndim(leaf) == 0:
            raise ValueError(f"{label}: expected an array with rows first, [B, ...], got a scalar")
        rows = leaf.shape[0] if rows is None else rows
        if leaf.shape[0] != rows:
            raise ValueError(
                f"{label}: expected {rows} rows, as in {whose}, got {leaf.shape[0]}{hint}"
            )
    raise AssertionError("every leaf is [B, ...]")


def check_like(name: str, got: PyTree, expected: PyTree) -> None:
    """Raise unless a tree has the structure, shapes, and dtypes of its value before the step."""
    kinds = [
        jax.tree.map(lambda x: f"{jnp.asarray(x).dtype}{list(jnp.shape(x))}", tree)
        for tree in (expected, got)
    ]
    structures = [str(jax.tree.structure(tree)) for tree in (expected, got)]
    if kinds[0] != kinds[1] or structures[0] != structures[1]:
        raise ValueError(f"{name}: expected {kinds[0]}, as before the step, got {kinds[1]}")


def check_cell(name: str, cell: Any) -> None:
    """Raise TypeError unless an object has the methods of a `Cell`."""
    if not all(hasattr(type(cell), method) for method in ("init", "initial_carry", "step")):
        got = type(cell).__name__
        if isinstance(cell, type):
            got = f"the class {cell.__name__}; make an instance of it"
        raise TypeError(f"{name}: expected a cell (init, initial_carry, step), got {got}")


def check_dtype(name: str, x: Any, kind: Literal["float", "int", "bool"]) -> None:
    """Raise TypeError unless the dtype of ``x`` is of ``kind``."""
    kinds = {"float": jnp.floating, "int": jnp.integer, "bool": jnp.bool_}
    dtype = jnp.asarray(x).dtype if not hasattr(x, "dtype") else x.dtype
    if not jnp.issubdtype(dtype, kinds[kind]):
        raise TypeError(f"{name}: expected an array of {kind}s, got dtype {dtype}")


def check_number(name: str, value: Any) -> None:
    """Raise TypeError unless ``value`` is a real number or a scalar array of one.

    True, "1", and None are not numbers. A traced number is a number.
    """
    if isinstance(value, numbers.Real):
        number = not isinstance(value, bool)
    else:
        dtype = getattr(value, "dtype", np.bool_)
        real = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
        number = real and np.shape(value) == ()
    if not number:
        raise TypeError(f"{name}: expected a number, got {value!r}")


def check_range(
    name: str,
    value: float | Float[Array, ""],
    low: float = -np.inf,
    high: float = np.inf,
    *,
    closed: Literal["both", "left", "right", "neither"] = "both",
) -> None:
    """Raise TypeError unless ``value`` is a number, ValueError unless between ``low`` and ``high``.

    ``closed`` says which ends belong to the range: ``"both"``, ``"left"``, ``"right"``, or
    ``"neither"``. NaN is never in the range; traced numbers are not checked.
    """
    check_number(name, value)
    if isinstance(value, jax.core.Tracer):
        return
    above = value >= low if closed in ("both", "left") else value > low
    below = value <= high if closed in ("both", "right") else value < high
    if not (above and below):
        left = "[" if closed in ("both", "left") else "("
        right = "]" if closed in ("both", "right") else ")"
        raise ValueError(f"{name}: expected a value in {left}{low}, {high}{right}, got {value}")


def check_levels(
    name: str, levels: Sequence[float] | Float[np.ndarray, " Q"]
) -> Float[np.ndarray, " Q"]:
    """Quantile levels as a float64 array [Q].

    Raises:
      TypeError: if a level is not a number.
      ValueError: unless the levels are increasing in (0, 1).
    """
    if np.ndim(levels) == 1:
        for place, level in enumerate(levels):
            check_number(f"{name}[{place}]", level)
    array = np.asarray(levels, np.float64)
    inside = array.ndim == 1 and array.size > 0 and bool(np.all((array > 0) & (array < 1)))
    if not inside or not np.all(np.diff(array) > 0):
        raise ValueError(f"{name}: expected increasing numbers in (0, 1), got {levels}")
    return array


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for error messages that names the closest match in ``known``, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}expected one of: {', '.join(names)}"
