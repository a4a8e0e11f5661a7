"""Whether a gated cell needs its two products separately, found by tracing its equations."""

from __future__ import annotations

from typing import Any

import jax

from seqnets.cells.gated import GatedCell, GatedParams
from seqnets.typing import PyTree

__all__ = ["adds_products"]


def adds_products(cell: GatedCell, params: GatedParams, carry: PyTree, dtype: Any) -> bool:
    """Whether a step uses only the sum ``x W_x + b + h W_h`` of its two products.

    If so, a single product with [x; h] is enough. This is determined by tracing the pointwise
    function: each of the two products must be used once, in their addition. A cell that adds them
    in another way, e.g. gate by gate, runs correctly with two products.

    Args:
      cell: a gated cell.
      params: its parameters.
      carry: a carry; every leaf is [B, ...].
      dtype: dtype of the products.

    Raises:
      ValueError: if the pointwise function does not run on a single row.
      TypeError: if it does not return a carry like the one before the step.
    """
    z = jax.ShapeDtypeStruct(params.w_h.shape[1:], dtype)
    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), carry)
    try:
        program, after = jax.make_jaxpr(cell.pointwise, return_shape=True)(params.extra, z, z, row)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{type(cell).__name__}.pointwise: expected to run on one row, z_x and z_h of shape "
            f"{z.shape} (count axes from the end, axis=-1), got {type(error).__name__}: {error}"
        ) from error
    _check_carry(cell, params, after, row)
    traced = program.jaxpr
    start = len(jax.tree.leaves(params.extra))
    products = traced.invars[start : start + 2]
    uses = [found for found in traced.eqns if any(_reads(found, z) for z in products)]
    return (
        params.b_h is None
        and len(uses) == 1
        and uses[0].primitive.name == "add"
        and all(_reads(uses[0], z) for z in products)
        and not any(z is out for out in traced.outvars for z in products)
    )


def _check_carry(cell: GatedCell, params: GatedParams, after: Any, row: Any) -> None:
    """Raise unless the pointwise function returns a carry like the one before the step."""
    if params.w_p is not None and hasattr(after, "h"):
        row = row._replace(h=jax.ShapeDtypeStruct(params.w_p.shape[:1], row.h.dtype))
    got, expected = (jax.tree.map(lambda x: x.shape, tree) for tree in (after, row))
    if got != expected or type(after) is not type(row):
        raise TypeError(
            f"{type(cell).__name__}.pointwise: expected a carry of shapes {expected}, got {got}"
        )


def _reads(equation: Any, variable: Any) -> bool:
    return any(operand is variable for operand in equation.invars)
