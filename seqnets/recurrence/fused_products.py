"""The products of the fused strategy: one per step forward, one for all steps backward.

Rows are the last axis of arrays; see `rows_last.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from seqnets.cells.gated import GatedParams, ProductDtypes
from seqnets.cells.product import multiply
from seqnets.recurrence import rows_last as rows
from seqnets.typing import Array, Float

__all__ = ["Projected", "gradients", "products", "projection"]


OfOutput = Callable[[Array], Array]
"""Maps [H, B] to the output [P, B]."""
OfStep = Callable[[Array, Array], tuple[Array, ...]]
"""Maps the prepared inputs of one step and h [H, B] to its z, each [G·H, B]."""


class Projected(NamedTuple):
    """The factors of the gradient of a projection."""

    h: Float[Array, "T H B"]
    """[T, H, B] before the projection."""
    d_h: Float[Array, "T P B"]
    """[T, P, B] cotangents of its results."""


def projection(params: GatedParams, dtypes: ProductDtypes) -> OfOutput | None:
    """The projection as a function; None if the cell has none."""
    w_p = params.w_p
    return None if w_p is None else lambda h: multiply(w_p.T, h, *dtypes)


def products(
    params: GatedParams, xs: Float[Array, "T D B"], dtypes: ProductDtypes, *, together: bool
) -> tuple[Float[Array, "T _ B"], OfStep]:
    """Prepare the inputs ``xs [T, D, B]`` and return a function that computes z for one step.

    The function returns the sum of both products if they are computed together, else both.
    """
    w_x, w_h = (w.astype(dtypes.factors).T for w in (params.w_x, params.w_h))
    if xs.shape[2] == 1:  # reading the weights dominates, so each step reads W_h only
        z_x = _affine(w_x, xs[:, :, 0].T, params.b, dtypes).T[:, :, None]
        if together:
            return z_x, lambda z, h: (z + multiply(w_h, h, *dtypes),)
        return z_x, lambda z, h: (z, _affine(w_h, h, params.b_h, dtypes))
    if together:
        both = jnp.concatenate([w_x, w_h], axis=1)
        return xs, lambda x, h: (
            _affine(both, jnp.concatenate([x, h.astype(x.dtype)]), params.b, dtypes),
        )
    return xs, lambda x, h: (
        _affine(w_x, x, params.b, dtypes),
        _affine(w_h, h, params.b_h, dtypes),
    )


def _affine(w: Array, x: Array, b: Array | None, dtypes: ProductDtypes) -> Array:
    z = multiply(w, x, *dtypes)
    return z if b is None else z + jnp.broadcast_to(b.astype(z.dtype)[:, None], z.shape)


def gradients(
    params: GatedParams,
    xs: Float[Array, "T D B"],
    hs: Float[Array, "T H B"],
    d_z: list[Float[Array, "T G B"]],
    projected: Projected | None,
    dtypes: ProductDtypes,
) -> tuple[GatedParams, Float[Array, "B T D"]]:
    """Cotangents of weights and biases, summed in float32 or wider, and of inputs [B, T, D].

    Args:
      params: the parameters.
      xs: [T, D, B] inputs.
      hs: [T, H, B] inputs of the recurrent product.
      d_z: [T, G·H, B] cotangents of the sum of both products, or of each.
      projected: factors of the gradient of the projection, if the cell has one.
      dtypes: dtypes of factors and sums.
    """
    T, D, B = xs.shape
    xs, hs = xs.astype(dtypes.factors), hs.astype(dtypes.factors)
    d_x, d_h = (
        lax.optimization_barrier(rows.flat(a.astype(dtypes.factors))) for a in (d_z[0], d_z[-1])
    )
    if len(d_z) == 1:
        d_w_x, d_w_h = jnp.split(_outer(rows.flat(jnp.concatenate([xs, hs], 1)), d_x), [D])
    else:
        d_w_x, d_w_h = _outer(rows.flat(xs), d_x), _outer(rows.flat(hs), d_h)
    d_params = GatedParams(
        w_x=d_w_x.astype(params.w_x.dtype),
        w_h=d_w_h.astype(params.w_h.dtype),
        b=_total(d_z[0], params.b),
        b_h=_total(d_z[-1], params.b_h),
    )
    if params.w_p is not None and projected is not None:
        flat = (rows.flat(part.astype(dtypes.factors)) for part in projected)
        d_params = d_params._replace(w_p=_outer(*flat).astype(params.w_p.dtype))
    d_xs = multiply(d_x, params.w_x.T, *dtypes)
    return d_params, jnp.swapaxes(d_xs.reshape(T, B, D), 0, 1)


def _outer(inputs: Array, d_z: Array) -> Array:
    """``Σ inputsᵀ d_z`` over the rows of all steps."""
    dtype = jnp.promote_types(jnp.float32, inputs.dtype)
    return jnp.matmul(inputs.T, d_z, preferred_element_type=dtype)


def _total(d_z: Array, bias: Array | None) -> Array | None:
    if bias is None:
        return None
    dtype = jnp.promote_types(jnp.float32, bias.dtype)
    return jnp.sum(d_z, axis=(0, 2), dtype=dtype).astype(bias.dtype)
