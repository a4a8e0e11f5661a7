"""What comes from outside: mappings, their keys and arrays, checked with names in messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from seqnets.checks import check_dtype
from seqnets.typing import Float, Shaped

__all__ = ["check_keys", "check_mapping", "flatten", "float_array", "plain_array"]


def check_mapping(name: str, value: Any) -> None:
    """Raise TypeError unless it is a mapping whose keys are strings."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of arrays, got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{name}: expected keys that are strings, got {key!r}")


def check_keys(name: str, got: Iterable[str], expected: Iterable[str]) -> None:
    """Raise ValueError unless both hold the same keys.

    The message names all that differ, and beside an unknown key the missing one that it may be.
    """
    got, expected = list(got), list(expected)
    missing = [key for key in expected if key not in got]
    unknown = [key for key in got if key not in expected]
    if missing or unknown:
        parts = [
            ("missing", [repr(key) for key in missing]),
            ("unknown", _hinted(unknown, missing)),
        ]
        listed = "; ".join(f"{what} {', '.join(keys)}" for what, keys in parts if keys)
        raise ValueError(f"{name}: {listed}; expected exactly: {', '.join(expected)}")


def _hinted(unknown: list[str], missing: list[str]) -> list[str]:
    """Unknown keys, each beside the nearest of the missing ones that stand beside none yet."""
    free, hinted = list(missing), []
    for key in unknown:
        near = difflib.get_close_matches(key, free, n=1)
        if near:
            free.remove(near[0])
        hinted.append(repr(key) + (f" (did you mean {near[0]!r}?)" if near else ""))
    return hinted


def flatten(name: str, tree: Any) -> dict[str, Any]:
    """Leaves of nested mappings by their paths, ``"layer_0/cell"``.

    Raises:
      TypeError: if it is not a mapping, or a key at any depth is not a string.
    """
    check_mapping(name, tree)
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{rest}": leaf for rest, leaf in flatten(name, value).items()}
        else:
            flat[key] = value
    return flat


def plain_array(name: str, value: Any) -> Shaped[np.ndarray, "*S"]:
    """Anything that `numpy.asarray` takes, as a row-major array; TypeError for anything else.

    A tensor of a dtype that NumPy itself lacks (bfloat16) is read through DLPack.
    """
    try:
        return np.asarray(value, order="C")
    except (RuntimeError, TypeError, ValueError) as error:  # the last for rows of unequal length
        kind = type(value).__name__
        try:
            return np.asarray(jnp.from_dlpack(value), order="C")
        except Exception:  # what an exporter raises is its own affair
            raise TypeError(f"{name}: expected an array, got {kind} ({error})") from error


def float_array(name: str, value: Any) -> Float[np.ndarray, "*S"]:
    """A `plain_array` of floats in the machine's byte order.

    Raises:
      TypeError: if it is not of floats, or of more than 64 bits, which JAX does not have.
    """
    array = plain_array(name, value)
    check_dtype(name, array, "float")
    if array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected floats of at most 64 bits, got dtype {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
