"""Mixed precision: products in a narrow dtype, everything else in a wide one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from seqnets.cells.gated import GatedParams
from seqnets.cells.learned import LearnedCarryParams
from seqnets.typing import PyTree

__all__ = ["narrow_weights", "wide"]


def narrow_weights(params: PyTree, dtype: Any) -> PyTree:
    """The parameters of a cell with the weights of its products in another dtype.

    Of gated cells these are ``w_x`` and ``w_h``; biases, norms and peepholes keep their dtype, as
    does a learned first carry. Cells of another form are taken over as a whole.
    """
    if isinstance(params, LearnedCarryParams):
        return params._replace(cell=narrow_weights(params.cell, dtype))
    if isinstance(params, GatedParams):
        return params._replace(w_x=params.w_x.astype(dtype), w_h=params.w_h.astype(dtype))
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params
    )


def wide(dtype: Any) -> jnp.dtype:
    """The dtype of carries and sums beside products in ``dtype``: float32, or that if wider."""
    return jnp.promote_types(jnp.float32, dtype)
