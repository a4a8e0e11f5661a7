"""Checksum that identifies parameters."""

from __future__ import annotations

import hashlib

import jax
import numpy as np

from seqnets.typing import PyTree, Shaped

__all__ = ["bytes_of", "parameters_sha256"]


def parameters_sha256(params: PyTree) -> str:
    """SHA-256 over the paths, dtypes, shapes, and bytes of all leaves, sorted by path.

    Two trees have the same checksum if and only if they have the same arrays, bit for bit, under
    the same names, whether they are NumPy or JAX arrays and whatever their devices.

    Args:
      params: pytree of arrays.

    Returns:
      64 hexadecimal digits.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(bytes_of(array))
    return digest.hexdigest()


def bytes_of(array: Shaped[np.ndarray, "*S"]) -> Shaped[np.ndarray, " n"]:
    """The bytes of the elements in C order, as a flat uint8 array, little-endian."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
