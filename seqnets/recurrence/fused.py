"""The fast strategy of gated cells: one derivative, written once, serves every one of them.

Reverse-mode differentiation of a plain scan gathers the gradients of the weights step by step.
Here the loops hold only what must be in order; with z the products and δ the cotangents:

    forwards     z_t = x_t W_x + b + h W_h + b_h,   carry, y_t = pointwise(z_t, carry)
    backwards    δz_t, δcarry = ∂ pointwise (δcarry, δy_t),   δh += δz_t W_hᵀ

and the gradients of weights, biases and inputs are one large product each over all steps:

    δW_x = Σ_t x_tᵀ δz_t      δW_h = Σ_t h_{t-1}ᵀ δz_t      δx_t = δz_t W_xᵀ

The forward loop saves z and the carry before each step; the pointwise function is computed
again on the way back, which is cheaper than to save what it went through.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqnets.cells.gated import GatedCell, GatedParams, project_hidden, project_inputs
from seqnets.recurrence.contract import Steps, align, select
from seqnets.typing import Array, PyTree

__all__ = ["fused"]


def fused(
    cell: GatedCell, params: GatedParams, carry: PyTree, steps: Steps, *, reverse: bool
) -> tuple[PyTree, Array]:
    """Run a gated cell over time.

    Works under `jax.grad` (again and again), `jax.vmap`, `jax.jit` and `jax.checkpoint`;
    forward-mode differentiation (`jax.jvp`) raises TypeError, use the strategy ``SCAN`` for it.

    Args:
      cell: a gated cell.
      params: its parameters.
      carry: carry before the first step read.
      steps: inputs [B, T, D] and flags.
      reverse: read from the last step to the first.

    Returns:
      ``(carry, ys)``, ys [B, T, ...] at the positions of their inputs.
    """
    xs = jnp.swapaxes(steps.xs, 0, 1)
    mask, starts = (
        None if flags is None else jnp.swapaxes(flags, 0, 1) for flags in (steps.mask, steps.starts)
    )
    fresh = None if starts is None else steps.fresh
    carry, ys = _run(cell, reverse, params, _Inputs(carry, fresh, xs, mask, starts))
    return carry, jnp.swapaxes(ys, 0, 1)


class _Inputs(NamedTuple):
    """What a run is given beside its parameters, time first."""

    carry: PyTree
    """Carry before the first step read."""
    fresh: PyTree
    """What is put back where a segment starts; None where none does."""
    xs: Array
    """[T, B, D]."""
    mask: Array | None
    """[T, B] bool."""
    starts: Array | None
    """[T, B] bool."""


class _Saved(NamedTuple):
    """What the forward loop leaves for the way back, every leaf [T, B, ...]."""

    z: tuple[Array, ...]
    """The sum of both products where only that counts, else both."""
    before: PyTree
    """The carry before each step, after a reset."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(
    cell: GatedCell, reverse: bool, params: GatedParams, inputs: _Inputs
) -> tuple[PyTree, Array]:
    return _forward(cell, reverse, params, inputs, save=False)[0]


def _forward(
    cell: GatedCell, reverse: bool, params: GatedParams, inputs: _Inputs, *, save: bool
) -> tuple[tuple[PyTree, Array], _Saved | None]:
    def step(carry: PyTree, now: tuple) -> tuple[PyTree, tuple[Array, _Saved | None]]:
        x, real, start = now
        before = carry if start is None else select(start, inputs.fresh, carry)
        z = _products(cell, project_inputs(params, x), project_hidden(params, before.h))
        # Kept apart from the pointwise function, which XLA would otherwise compute for each gate
        # out of a slice of the product, in short and unaligned vectors.
        z = lax.optimization_barrier(z)
        after, y = _advance(cell, params.extra, z, before)
        if real is not None:
            after = select(real, after, carry)
            y = jnp.where(align(real, y), y, jnp.zeros_like(y))
        return after, (y, _Saved(z, before) if save else None)

    steps = (inputs.xs, inputs.mask, inputs.starts)
    carry, (ys, saved) = lax.scan(step, inputs.carry, steps, reverse=reverse)
    return (carry, ys), saved


def _products(cell: GatedCell, z_x: Array, z_h: Array) -> tuple[Array, ...]:
    return (z_x + z_h,) if cell.adds_products else (z_x, z_h)


def _advance(
    cell: GatedCell, extra: PyTree, z: tuple[Array, ...], before: PyTree
) -> tuple[PyTree, Array]:
    """The pointwise function, the carry in the dtypes it had."""
    z_x, z_h = z if len(z) == 2 else (z[0], jnp.zeros((), z[0].dtype))
    after, y = cell.pointwise(extra, z_x, z_h, before)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), after, before), y


def _run_forward(
    cell: GatedCell, reverse: bool, params: GatedParams, inputs: _Inputs
) -> tuple[Any, Any]:
    out, saved = _forward(cell, reverse, params, inputs, save=True)
    return out, (params, inputs, saved)


def _run_backward(cell: GatedCell, reverse: bool, residuals: Any, cotangents: Any) -> Any:
    params, inputs, saved = residuals
    d_carry, d_ys = cotangents
    weight = lax.optimization_barrier(params.w_h.T)

    def step(d: tuple[PyTree, PyTree, PyTree], now: tuple) -> tuple[tuple, tuple[Array, ...]]:
        d_after, d_extra, d_fresh = d
        dy, z, before, real, start = now
        d_kept = None
        if real is not None:  # a padded step hands its carry on and has no output
            dy = jnp.where(align(real, dy), dy, jnp.zeros_like(dy))
            nothing = jax.tree.map(jnp.zeros_like, d_after)
            d_kept, d_after = select(real, nothing, d_after), select(real, d_after, nothing)
        _, pull = jax.vjp(functools.partial(_advance, cell), params.extra, z, before)
        d_more, dz, d_before = pull((d_after, dy))
        dz = lax.optimization_barrier(dz)
        d_h = (dz[-1] @ weight).astype(d_before.h.dtype)
        d_before = d_before._replace(h=d_before.h + d_h)
        d_extra = jax.tree.map(jnp.add, d_extra, d_more)
        if start is not None:
            nothing = jax.tree.map(jnp.zeros_like, d_before)
            d_fresh = jax.tree.map(jnp.add, d_fresh, select(start, d_before, nothing))
            d_before = select(start, nothing, d_before)
        if d_kept is not None:
            d_before = jax.tree.map(jnp.add, d_before, d_kept)
        return (d_before, d_extra, d_fresh), dz

    zero = functools.partial(jax.tree.map, jnp.zeros_like)
    (d_carry, d_extra, d_fresh), dz = lax.scan(
        step,
        (d_carry, zero(params.extra), zero(inputs.fresh)),
        (d_ys, saved.z, saved.before, inputs.mask, inputs.starts),
        reverse=not reverse,
    )
    d_params = GatedParams(
        w_x=_gather(inputs.xs, dz[0], params.w_x),
        w_h=_gather(saved.before.h, dz[-1], params.w_h),
        b=_total(dz[0], params.b),
        b_h=_total(dz[-1], params.b_h),
        extra=d_extra,
    )
    d_xs = (dz[0] @ params.w_x.T).astype(inputs.xs.dtype)
    return d_params, _Inputs(d_carry, d_fresh, d_xs, None, None)  # flags have no cotangent


_run.defvjp(_run_forward, _run_backward)


def _gather(inputs: Array, dz: Array, weight: Array) -> Array:
    """``Σ_t inputs_tᵀ dz_t`` in float32 or wider, then in the dtype of the weight."""
    dtype = jnp.promote_types(jnp.float32, weight.dtype)
    both = jnp.promote_types(inputs.dtype, dz.dtype)
    # Rows of all steps together, and one of the two transposed by hand: XLA's own product over
    # two axes, or over the rows, is slower on a CPU.
    inputs, dz = (a.reshape(-1, a.shape[-1]).astype(both) for a in (inputs, dz))
    return jnp.matmul(dz.T, inputs, preferred_element_type=dtype).T.astype(weight.dtype)


def _total(dz: Array, bias: Array | None) -> Array | None:
    if bias is None:
        return None
    dtype = jnp.promote_types(jnp.float32, bias.dtype)
    return jnp.sum(dz, axis=(0, 1), dtype=dtype).astype(bias.dtype)
