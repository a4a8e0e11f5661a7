"""The fast strategy for gated cells, with one custom derivative for all of them.

Reverse-mode differentiation of a plain scan accumulates the gradients of the weights step by step.
Here the loops contain only sequential work; with the products z and cotangents δ:

    forwards     z_t = x_t W_x + b + h W_h + b_h,   carry = pointwise(z_t, carry),   y_t = h
    backwards    δz_t, δcarry = ∂ pointwise (δcarry),   δh += δz_t W_hᵀ + δy_t

and the gradients of weights, biases, and inputs are one large product each over all steps:

    δW_x = Σ_t x_tᵀ δz_t      δW_h = Σ_t h_{t-1}ᵀ δz_t      δx_t = δz_t W_xᵀ

The forward loop saves z and the carry after each step. The backward loop recomputes the pointwise
function, which is cheaper than saving its intermediate values, and overwrites z with δz. If a cell
projects its output, the backward loop also collects the factors of the gradient of the projection,
which is one large product, too.

Inside the loops, rows are the *last* axis, [H, B]. A product then multiplies weights [G·H, H] by a
narrow [H, B], for which CPU libraries need not repack the weights at every step, and each gate is
a contiguous block of [G·H, B].
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqnets.cells.gated import GatedCell, GatedParams, ProductDtypes, check_inputs, product_dtypes
from seqnets.cells.product import multiply
from seqnets.recurrence import rows_last as rows
from seqnets.recurrence.adds_products import adds_products
from seqnets.recurrence.contract import Steps, zone_out
from seqnets.recurrence.fused_products import Projected, gradients, products, projection
from seqnets.recurrence.precision import widen_params
from seqnets.recurrence.scan import scan
from seqnets.typing import Array, Float, PyTree

__all__ = ["fused"]


def fused(
    cell: GatedCell, params: GatedParams, carry: PyTree, steps: Steps, *, reverse: bool
) -> tuple[PyTree, Float[Array, "B T *H"]]:
    """Run a gated cell over time.

    Works under `jax.grad` (of any order), `jax.vmap`, `jax.jit`, and `jax.checkpoint`.
    Forward-mode differentiation (`jax.jvp`) raises a TypeError that names the strategy to use.

    Args:
      cell: a gated cell.
      params: its parameters.
      carry: carry before the first step read.
      steps: inputs [B, T, D], flags, and noise.
      reverse: read from the last step to the first.

    Returns:
      ``(carry, ys)``, ys [B, T, ...] at the positions of their inputs.
    """
    check_inputs(params, steps.xs)
    if steps.xs.shape[1] == 0:
        return scan(cell, params, carry, steps, reverse=reverse)
    with _forward_mode_explained():
        return _run(cell, reverse, params, carry, steps)


@contextlib.contextmanager
def _forward_mode_explained() -> Iterator[None]:
    """Replace JAX's error by one that names the strategy with forward-mode differentiation."""
    try:
        yield
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise TypeError(
            "forward-mode differentiation (jax.jvp, jax.jacfwd, jax.hessian) of a gated cell "
            'needs execution=Execution(strategy="scan")'
        ) from error


class _Saved(NamedTuple):
    """What the forward loop saves for the backward loop; every leaf is [T, ..., B]."""

    z: tuple[Array, ...]
    """The sum of both products if the cell uses only the sum, else both."""
    after: PyTree
    """The carry after each step."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(
    cell: GatedCell, reverse: bool, params: GatedParams, carry: PyTree, steps: Steps
) -> tuple[PyTree, Array]:
    return _forward(cell, reverse, params, carry, steps, save=False)[0]


def _run_forward(
    cell: GatedCell, reverse: bool, params: GatedParams, carry: PyTree, steps: Steps
) -> tuple[Any, Any]:
    out, saved = _forward(cell, reverse, params, carry, steps, save=True)
    # The saved values are functions of the other residuals, through which higher derivatives go.
    return out, (params, carry, steps, lax.stop_gradient(saved))


def _run_backward(cell: GatedCell, reverse: bool, residuals: Any, cotangents: Any) -> Any:
    with _forward_mode_explained():
        d_params, d_carry, d_xs, d_fresh = _pull(cell, reverse, *residuals, cotangents)
    return d_params, d_carry, Steps(d_xs, None, None, d_fresh, None)  # type: ignore[arg-type]


_run.defvjp(_run_forward, _run_backward)


def _forward(
    cell: GatedCell, reverse: bool, params: GatedParams, carry: PyTree, steps: Steps, *, save: bool
) -> tuple[tuple[PyTree, Array], _Saved | None]:
    dtypes = product_dtypes(params, steps.xs, carry.h)
    now, fresh, hidden = _rows_last(steps, dtypes)
    together = adds_products(cell, params, carry, dtypes.sums)
    prepared, of_step = products(params, now.x, dtypes, together=together)
    project = projection(params, dtypes)

    def step(carry: PyTree, now: _Now) -> tuple[PyTree, tuple]:
        before = carry if now.start is None else rows.select(now.start, fresh, carry)
        # Separated from the pointwise function, so that XLA does not fuse the sum into it.
        z = lax.optimization_barrier(of_step(now.x, rows.times(before.h, hidden)))
        after = _finish(_advance(cell, params.extra, z, before), project, now.updates, before)
        if now.real is not None:
            after = rows.select(now.real, after, carry)
        return after, (z, after) if save else after.h

    start, steps_now = jax.tree.map(rows.last, carry), now._replace(x=prepared)
    carry, kept = lax.scan(step, start, steps_now, reverse=reverse)
    saved = _Saved(*kept) if save else None
    ys: Any = kept if saved is None else saved.after.h
    if now.real is not None:
        ys = rows.select(now.real, ys, jnp.zeros_like(ys))
    return (jax.tree.map(rows.first, carry), jnp.moveaxis(ys, -1, 0)), saved


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pull(
    cell: GatedCell,
    reverse: bool,
    params: GatedParams,
    carry: PyTree,
    steps: Steps,
    saved: _Saved,
    cotangents: Any,
) -> tuple[GatedParams, PyTree, Array, PyTree]:
    """Cotangents of the parameters, the first carry, the inputs, and the carry after resets."""
    d_carry, d_ys = cotangents
    dtypes = product_dtypes(params, steps.xs, carry.h)
    now, fresh, hidden = _rows_last(steps, dtypes)
    d_hs = rows.last(d_ys)
    if now.real is not None:  # a padded step has no output
        d_hs = rows.select(now.real, d_hs, jnp.zeros_like(d_hs))
    before = _carries_before(carry, saved.after, now.start, fresh, reverse=reverse)
    weight, project = params.w_h.astype(dtypes.factors), projection(params, dtypes)
    extra, narrow = widen_params(params.extra)

    def step(d: _Cotangents, xs: tuple) -> tuple[_Cotangents, Projected | None]:
        t, now, before, d_h = xs
        # A padded step passes its cotangent on; a step after a reset adds it to the fresh carry.
        d_after, d_kept = (d.carry, None) if now.real is None else _divide(now.real, d.carry)
        d_after = d_after._replace(h=d_after.h + d_h)
        z_now = d.z_now or [_at(z, t) for z in d.z]
        gates = [jnp.split(z, cell.gates) for z in z_now]

        def again(
            extra: PyTree, gates: Any, before: PyTree, shift: Array | None
        ) -> tuple[PyTree, Array]:
            # The gates are separate arguments, so that their cotangents are never concatenated.
            z = tuple(jnp.concatenate(parts) for parts in gates)
            inside = _advance(cell, narrow(extra), z, before)
            return _finish(inside, project, now.updates, before, shift), inside.h

        no_shift = None if project is None else jnp.zeros_like(before.h, dtype=dtypes.sums)
        _, pull, h = jax.vjp(again, extra, gates, before, no_shift, has_aux=True)
        d_extra, d_gates, d_before, d_h = lax.optimization_barrier(pull(d_after))
        d_z = [_put(z, t, parts) for z, parts in zip(d.z, d_gates, strict=True)]
        last = lax.optimization_barrier(_at(d_z[-1], t))
        d_read = multiply(weight, last, *dtypes).astype(d_before.h.dtype)
        d_before = d_before._replace(h=d_before.h + rows.times(d_read, hidden))
        d_reset, d_before = (None, d_before) if now.start is None else _divide(now.start, d_before)
        return _Cotangents(
            carry=_add(d_before, d_kept),
            extra=_add(d.extra, d_extra),
            fresh=_add(d.fresh, d_reset),
            z=d_z,
            z_now=[_at(z, t + 1 if reverse else t - 1) for z in d_z if len(d_z) > 1],
        ), Projected(h, d_h) if project else None

    T = steps.xs.shape[1]
    # Unsigned, because JAX would check a signed index for being negative.
    ts = jnp.arange(T, dtype=jnp.uint32)
    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    start = _Cotangents(
        carry=jax.tree.map(rows.last, d_carry),
        extra=zeros(extra),
        fresh=zeros(fresh),
        z=list(saved.z),
        z_now=[z[0 if reverse else T - 1] for z in saved.z if len(saved.z) > 1],
    )
    d, projected = lax.scan(step, start, (ts, now, before, d_hs), reverse=not reverse)
    read = rows.times(before.h, hidden)
    d_params, d_xs = gradients(params, now.x, read, d.z, projected, dtypes)
    return (
        d_params._replace(extra=narrow(d.extra)),
        jax.tree.map(rows.first, d.carry),
        d_xs.astype(steps.xs.dtype),
        jax.tree.map(rows.first, d.fresh),
    )


class _Cotangents(NamedTuple):
    """The carry of the backward loop."""

    carry: PyTree
    """Cotangent of the carry after the step about to be processed."""
    extra: PyTree
    """Cotangent of ``params.extra``, summed so far."""
    fresh: PyTree
    """Cotangent of the carry that resets restore, summed so far; None without resets."""
    z: list[Array]
    """``[T, G·H, B]``: z at the steps still to be processed, its cotangent at the others."""
    z_now: list[Array]
    """``[G·H, B]``: if there are two arrays z, their values at the next step, read ahead: reading
    one after writing to the other would make XLA copy the whole array. Otherwise empty."""


def _divide(flags: Array, d: PyTree) -> tuple[PyTree, PyTree]:
    """Split rows by a flag into two trees, each with zeros in the rows of the other."""
    nothing = jax.tree.map(jnp.zeros_like, d)
    return rows.select(flags, d, nothing), rows.select(flags, nothing, d)


def _put(z: Array, t: Array, gates: list[Array]) -> Array:
    """Write step ``t`` of z gate by gate, in place, so that the loop needs no second buffer."""
    zero, width = jnp.zeros_like(t), gates[0].shape[0]
    for number, gate in enumerate(gates):
        z = lax.dynamic_update_slice(z, gate[None], (t, zero + number * width, zero))
    return z


def _at(z: Array, t: Array) -> Array:
    return lax.dynamic_index_in_dim(z, t, 0, keepdims=False)


def _add(a: PyTree, b: PyTree) -> PyTree:
    return a if b is None else jax.tree.map(jnp.add, a, b)


def _pull_forward(cell: GatedCell, reverse: bool, *arguments: Any) -> tuple[Any, Any]:
    params, carry, steps, _, cotangents = arguments
    return _pull(cell, reverse, *arguments), (params, carry, steps, cotangents)


def _pull_backward(cell: GatedCell, reverse: bool, residuals: Any, d_out: Any) -> Any:
    """Higher derivatives are those of the plain scan; they are too rare to need more code."""
    params, carry, steps, cotangents = residuals

    def pull(params: PyTree, carry: PyTree, xs: Array, fresh: PyTree, cotangents: Any) -> Any:
        def run(params: PyTree, carry: PyTree, xs: Array, fresh: PyTree) -> Any:
            return scan(cell, params, carry, steps._replace(xs=xs, fresh=fresh), reverse=reverse)

        return jax.vjp(run, params, carry, xs, fresh)[1](cotangents)

    _, again = jax.vjp(pull, params, carry, steps.xs, steps.fresh, cotangents)
    d_params, d_carry, d_xs, d_fresh, d_cotangents = again(d_out)
    return d_params, d_carry, Steps(d_xs, None, None, d_fresh, None), None, d_cotangents  # type: ignore[arg-type]


_pull.defvjp(_pull_forward, _pull_backward)


# --- one step --------------------------------------------------------------------------------


class _Now(NamedTuple):
    """The inputs of one step, or of all steps with time first."""

    x: Array
    """[D, B]."""
    real: Array | None
    """[B] bool."""
    start: Array | None
    """[B] bool."""
    updates: PyTree
    """See `Noise`; for one step."""


def _rows_last(steps: Steps, dtypes: ProductDtypes) -> tuple[_Now, PyTree, Array | None]:
    """All steps with time first and rows last, the carry for resets, and the factor on h."""
    real, start, updates = (
        jax.tree.map(rows.last, x) for x in (steps.mask, steps.starts, steps.noise.updates)
    )
    fresh, hidden = (jax.tree.map(rows.last, part) for part in (steps.fresh, steps.noise.hidden))
    xs = rows.last(steps.xs.astype(dtypes.factors))
    return _Now(xs, real, start, updates), fresh, hidden


def _advance(cell: GatedCell, extra: PyTree, z: tuple[Array, ...], before: PyTree) -> Any:
    """Apply the pointwise function to every row."""

    def row(z: tuple[Array, ...], before: PyTree) -> PyTree:
        z_x, z_h = z if len(z) == 2 else (z[0], jnp.zeros((), z[0].dtype))
        return cell.pointwise(extra, z_x, z_h, before)

    return jax.vmap(row, in_axes=-1, out_axes=-1)(z, before)


def _finish(
    after: Any,
    project: Callable[[Array], Array] | None,
    updates: PyTree,
    before: PyTree,
    shift: Array | None = None,
) -> Any:
    """Project and shift h, restore the dtypes of the carry, and apply zoneout.

    The shift is zero; its cotangent is that of the result of the projection.
    """
    if project is not None:
        h = project(after.h)
        after = after._replace(h=h if shift is None else h + shift)
    after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, before)
    return zone_out(updates, after, before)


# --- all steps -------------------------------------------------------------------------------


def _carries_before(
    first: PyTree, after: PyTree, starts: Array | None, fresh: PyTree, *, reverse: bool
) -> PyTree:
    """The carry before each step, after resets, from the carry after each; [T, ..., B]."""

    def shifted(first: Array, after: Array) -> Array:
        parts = (
            [after[1:], rows.last(first)[None]] if reverse else [rows.last(first)[None], after[:-1]]
        )
        return jnp.concatenate(parts)[: after.shape[0]]

    before = jax.tree.map(shifted, first, after)
    if starts is None:
        return before
    everywhere = jax.tree.map(lambda new, old: jnp.broadcast_to(new, old.shape), fresh, before)
    return rows.select(starts, everywhere, before)
