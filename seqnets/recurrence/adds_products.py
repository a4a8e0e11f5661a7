"""Whether a gated cell needs its two products apart, read off its equations."""

from __future__ import annotations

from typing import Any

import jax

from seqnets.cells.gated import GatedCell
from seqnets.typing import PyTree

__all__ = ["adds_products"]


def adds_products(cell: GatedCell, extra: PyTree, z: jax.ShapeDtypeStruct, carry: PyTree) -> bool:
    """Whether the pointwise function looks at nothing but the sum ``z_x + z_h``.

    One product of [x; h] is then enough. It is read off the traced function: each of the two
    arrays must have one use, the addition to the other. A cell that adds them in another way,
    gate by gate say, runs correctly with two products.

    Args:
      cell: a gated cell.
      extra: ``params.extra``, arrays or their shapes and dtypes.
      z: shape and dtype of either product of one row, [G·H].
      carry: shapes and dtypes of the carry of one row.
    """
    traced = jax.make_jaxpr(cell.pointwise)(extra, z, z, carry).jaxpr
    start = len(jax.tree.leaves(extra))
    z_x, z_h = traced.invars[start : start + 2]
    uses = [equation for equation in traced.eqns if _reads(equation, z_x) or _reads(equation, z_h)]
    return (
        len(uses) == 1
        and uses[0].primitive.name == "add"
        and all(_reads(uses[0], part) for part in (z_x, z_h))
        and not any(part is out for out in traced.outvars for part in (z_x, z_h))
    )


def _reads(equation: Any, variable: Any) -> bool:
    return any(operand is variable for operand in equation.invars)
