"""Files of named arrays in the safetensors format, as PyTorch's weights are often given.

The package `safetensors` is asked for only when a file is read or written.
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
"""Those of the format that NumPy and JAX both have, by the format's names."""

RESERVED = "__metadata__"
"""The key of the format's header that is no array."""


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Shaped[np.ndarray, "*S"]]:
    """All arrays of a file by their names, for instance for `from_pytorch`.

    Raises:
      ImportError: if the package safetensors is not installed; the message says how to install it.
      OSError: if there is no such file, or it is a device or a FIFO.
      ValueError: if it is not of the format, not all there, or a folder.
      TypeError: if an array is of anything but bools, integers and floats of 16 to 64 bits.
    """
    package = require("safetensors", "interop")
    if Path(path).is_dir():
        raise ValueError(f"{path}: expected a file of safetensors, got a folder")
    check_regular(path)
    try:
        with package.safe_open(path, framework="numpy") as file:
            return {name: _read(file, name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except package.SafetensorError as error:
        raise ValueError(f"{path}: expected a file of safetensors, got {error}") from error


def _read(file: Any, name: str) -> np.ndarray:
    """One array of an open file."""
    dtype = file.get_slice(name).get_dtype()
    if dtype not in DTYPES:
        raise TypeError(f"{name}: expected one of {', '.join(DTYPES)}, got {dtype}")
    array: np.ndarray = file.get_tensor(name)
    return array


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write named arrays, for instance those of `to_pytorch`, as `seqnets.files.write_output` does.

    Args:
      path: the file, by custom ``*.safetensors``; written over where it is there already.
      arrays: arrays, or what `numpy.asarray` takes, of bools, integers or floats of
        at most 64 bits.

    Raises:
      ImportError: if the package safetensors is not installed; the message says how to install it.
      ValueError: if an array has the name ``"__metadata__"``, which the format keeps for itself.
      TypeError: if it is not a mapping with strings as keys, or an array is of anything else.
      OSError: if the folder does not exist or the file cannot be written.
    """
    package = require("safetensors.numpy", "interop")
    check_mapping("arrays", arrays)
    if RESERVED in arrays:
        raise ValueError(f"arrays: expected names of arrays, got {RESERVED!r}, kept by the format")
    # Row-major, as the format is: the package writes memory as it lies.
    plain = {name: plain_array(name, array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.name not in DTYPES.values():
            listed = ", ".join(DTYPES.values())
            raise TypeError(f"{name}: expected one of {listed}, got {array.dtype}")
    write_output(path, package.save(plain))
