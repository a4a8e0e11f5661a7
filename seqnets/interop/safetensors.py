"""Files of named arrays in the safetensors format, often used for PyTorch weights.

The package `safetensors` is imported only when a file is read or written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.extras import require
from seqnets.files import check_regular, write_output
from seqnets.interop.incoming import check_mapping, plain_array
from seqnets.typing import Shaped

__all__ = ["read_safetensors", "write_safetensors"]

DTYPES = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}
"""The format's dtypes that both NumPy and JAX have, by the format's names."""

RESERVED = "__metadata__"
"""The key in the format's header that is not an array."""


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Shaped[np.ndarray, "*S"]]:
    """Read all arrays of a file, such as for `from_pytorch`.

    Args:
      path: the file.

    Returns:
      The arrays by name.

    Raises:
      ImportError: if the package safetensors is not installed; the message says how to install it.
      OSError: if the file does not exist, or is a device or a FIFO.
      ValueError: if the file is not in the format, is incomplete, or is a folder.
      TypeError: if an array is of anything but bools, integers, and floats of 16 to 64 bits.
    """
    package = require("safetensors", "interop")
    if Path(path).is_dir():
        raise ValueError(f"{path}: expected a safetensors file, got a folder")
    check_regular(path)
    try:
        with package.safe_open(path, framework="numpy") as file:
            return {name: _read(file, name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except package.SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got {error}") from error


def _read(file: Any, name: str) -> np.ndarray:
    """One array of an open file."""
    dtype = file.get_slice(name).get_dtype()
    if dtype not in DTYPES:
        raise TypeError(f"{name}: expected one of {', '.join(DTYPES)}, got {dtype}")
    array: np.ndarray = file.get_tensor(name)
    return array


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write named arrays, such as those of `to_pytorch`, to a file.

    Args:
      path: the file, usually ``*.safetensors``; an existing file is replaced atomically.
      arrays: arrays by name, or what `numpy.asarray` accepts, of bools, integers, or floats of 16
        to 64 bits.

    Raises:
      ImportError: if the package safetensors is not installed; the message says how to install it.
      ValueError: if an array is named ``"__metadata__"``, which is reserved by the format.
      TypeError: if ``arrays`` is not a mapping with strings as keys, or an array has another dtype.
      OSError: if the folder does not exist or the file cannot be written.
    """
    package = require("safetensors.numpy", "interop")
    check_mapping("arrays", arrays)
    if RESERVED in arrays:
        raise ValueError(f"arrays: the name {RESERVED!r} is reserved by the format")
    # Row-major, as in the format, since the package writes memory unchanged.
    plain = {name: plain_array(name, array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.name not in DTYPES.values():
            listed = ", ".join(DTYPES.values())
            raise TypeError(f"{name}: expected one of {listed}, got {array.dtype}")
    write_output(path, package.save(plain))
