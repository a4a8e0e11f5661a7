"""The reference strategy: one `jax.lax.scan` over the steps of the cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqnets.cells.gated import (
    GatedCell,
    product_dtypes,
    project_hidden,
    project_inputs,
    project_output,
)
from seqnets.cells.prepared import PreparedCell
from seqnets.recurrence.contract import Steps, check_result, check_structure, select, zone_out
from seqnets.recurrence.precision import widen_params
from seqnets.typing import Array, Cell, Float, PyTree

__all__ = ["scan"]


def scan(
    cell: Cell, params: PyTree, carry: PyTree, steps: Steps, *, reverse: bool
) -> tuple[PyTree, Float[Array, "B T *H"]]:
    """Run any cell over time; differentiable in both modes, to any order.

    Args:
      cell: any `Cell`.
      params: its parameters.
      carry: carry before the first step read.
      steps: inputs, flags, and noise, batch-major.
      reverse: read from the last step to the first.

    Returns:
      ``(carry, ys)``, ys ``[B, T, ...]`` at the positions of their inputs.
    """
    params, narrow = widen_params(params)
    prepared, step = _split_step(cell, params, narrow, carry, steps)

    def body(carry: PyTree, now: tuple) -> tuple[PyTree, Array]:
        x, real, start, updates = now
        before = carry if start is None else select(start, steps.fresh, carry)
        after, y = step(before, x)
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)
        if updates is not None:
            after = zone_out(updates, after, before)
            y = getattr(after, "h", y)
        if real is not None:
            after = select(real, after, carry)
            y = select(real, y, jax.tree.map(jnp.zeros_like, y))
        return after, y

    now = (prepared, *_time_first((steps.mask, steps.starts, steps.noise.updates)))
    carry, ys = jax.lax.scan(body, carry, now, reverse=reverse)
    return carry, _time_first(ys)


def _time_first(tree: PyTree) -> Any:
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def _split_step(
    cell: Cell, params: PyTree, narrow: Callable[[PyTree], PyTree], carry: PyTree, steps: Steps
) -> tuple[PyTree, Callable[[PyTree, Array], tuple[PyTree, Array]]]:
    """Inputs prepared for all steps at once, time first, and a function for the rest of a step.

    Weights are cast to their narrow dtype inside the loop, so that the loop of the gradient sums
    in the wide dtype.
    """
    xs = _time_first(steps.xs)

    def read(carry: PyTree) -> PyTree:
        if steps.noise.hidden is None:
            return carry
        return carry._replace(h=carry.h * steps.noise.hidden.astype(carry.h.dtype))

    if isinstance(cell, GatedCell):
        dtypes = product_dtypes(narrow(params), xs, carry.h)

        def gated_step(carry: PyTree, z_x: Array) -> tuple[PyTree, Array]:
            z_h = project_hidden(params, read(carry).h, dtypes)
            after = cell.pointwise(params.extra, z_x, z_h, carry)
            check_structure("cell.pointwise: returned carry", after, carry)
            after = project_output(params, after, dtypes)
            return after, after.h.astype(carry.h.dtype)

        return project_inputs(params, xs, dtypes), gated_step
    dtype = _real_dtype((xs, narrow(params), carry))

    def checked(method: str, result: Any, carry: PyTree) -> tuple[PyTree, PyTree]:
        after, y = check_result(method, result, carry)
        # y may have the dtype of the sums
        return after, jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_real(leaf) else leaf, y)

    if isinstance(cell, PreparedCell):
        prepared = cell.prepare(narrow(params), xs)
        return prepared, lambda carry, x: checked(
            "cell.advance", cell.advance(narrow(params), read(carry), x), carry
        )
    further = () if steps.context is None else (steps.context,)
    return xs, lambda carry, x: checked(
        "cell.step", cell.step(narrow(params), read(carry), x, *further), carry
    )


def _is_real(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _real_dtype(tree: PyTree) -> Any:
    """The promoted dtype of the real floating arrays of a tree; float32 if there are none."""
    real = [x for x in jax.tree.leaves(tree) if _is_real(x)]
    return jnp.result_type(*real) if real else jnp.float32
