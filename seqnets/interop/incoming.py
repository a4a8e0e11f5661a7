"""Checks of foreign weights: mappings, keys, and arrays, with their names in error messages."""

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
    """Raise TypeError unless ``value`` is a mapping whose keys are strings."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of arrays, got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{name}: expected keys that are strings, got {key!r}")


def check_keys(name: str, got: Iterable[str], expected: Iterable[str]) -> None:
    """Raise ValueError unless both have the same keys.

    The message lists all differences, with a similar missing key for each unknown one, if any.
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
    """Unknown keys, each with the most similar missing key that is not used as a hint yet."""
    free, hinted = list(missing), []
    for key in unknown:
        near = difflib.get_close_matches(key, free, n=1)
        if near:
            free.remove(near[0])
        hinted.append(repr(key) + (f" (did you mean {near[0]!r}?)" if near else ""))
    return hinted


def flatten(name: str, tree: Any) -> dict[str, Any]:
    """Flatten nested mappings to leaves by path, such as ``"layer_0/cell"``.

    Raises:
      TypeError: if ``tree`` is not a mapping, or a key at any depth is not a string.
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
    """Convert anything that `numpy.asarray` accepts to a row-major array, else raise TypeError.

    Tensors with a dtype that NumPy lacks (bfloat16) are read through DLPack.
    """
    try:
        return np.asarray(value, order="C")
    except (RuntimeError, TypeError, ValueError) as error:  # ValueError: rows of unequal length
        kind = type(value).__name__
        try:
            return np.asarray(jnp.from_dlpack(value), order="C")
        except Exception:  # an exporter may raise anything
            raise TypeError(f"{name}: expected an array, got {kind} ({error})") from error


def float_array(name: str, value: Any) -> Float[np.ndarray, "*S"]:
    """Convert to a `plain_array` of floats in native byte order.

    Raises:
      TypeError: if the array is not of floats, or of more than 64 bits, which JAX lacks.
    """
    array = plain_array(name, value)
    check_dtype(name, array, "float")
    if array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected floats of at most 64 bits, got dtype {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
