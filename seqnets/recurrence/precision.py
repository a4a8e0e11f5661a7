"""Mixed precision: products in a narrow dtype, everything else in a wide dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqnets.cells.roles import has_roles, map_role
from seqnets.typing import PyTree

__all__ = ["narrow_weights", "wide", "widen_params"]

PRODUCTS = ("input", "recurrent", "output")
"""Roles of the weights that are factors of products."""


def narrow_weights(params: PyTree, dtype: Any) -> PyTree:
    """Cast the weights of the products of a cell to another dtype.

    Biases, norms, peepholes, and a learned initial carry keep their dtype. Parameters that do not
    declare roles are cast as a whole.
    """

    def cast(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    if not has_roles(params):
        return jax.tree.map(cast, params)
    return map_role(cast, params, PRODUCTS)


def widen_params(params: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Parameters in float32 or wider, and a function that casts them back.

    If they are cast back inside a loop over time, their gradient is summed in the wide dtype.
    """
    dtypes = jax.tree.map(lambda x: x.dtype, params)

    def widen(x: Any) -> Any:
        return x.astype(wide(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def narrow(params: PyTree) -> PyTree:
        return jax.tree.map(lambda x, dtype: x.astype(dtype), params, dtypes)

    return jax.tree.map(widen, params), narrow


def wide(dtype: Any) -> jnp.dtype:
    """The dtype of carries and sums for products in ``dtype``: float32, or ``dtype`` if wider."""
    return jnp.promote_types(jnp.float32, dtype)
