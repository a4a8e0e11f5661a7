"""The reference strategy: one `jax.lax.scan` over the steps of the cell."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from seqnets.cells.gated import GatedCell, project_hidden, project_inputs
from seqnets.cells.prepared import PreparedCell
from seqnets.recurrence.contract import Steps, align, select
from seqnets.typing import Array, Cell, PyTree

__all__ = ["scan"]


def scan(
    cell: Cell, params: PyTree, carry: PyTree, steps: Steps, *, reverse: bool
) -> tuple[PyTree, Array]:
    """Run any cell over time; differentiable in both modes, and as often as wanted.

    Args:
      cell: any `Cell`.
      params: its parameters.
      carry: carry before the first step read.
      steps: inputs and flags, batch-major.
      reverse: read from the last step to the first.

    Returns:
      ``(carry, ys)``, ys ``[B, T, ...]`` at the positions of their inputs.
    """
    prepare, step = _split_step(cell, params)

    def body(carry: PyTree, now: tuple[PyTree, Array | None, Array | None]) -> tuple[PyTree, Array]:
        x, real, start = now
        before = carry if start is None else select(start, steps.fresh, carry)
        after, y = step(before, x)
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)
        if real is not None:
            after = select(real, after, carry)
            y = jnp.where(align(real, y), y, jnp.zeros_like(y))
        return after, y

    xs, mask, starts = (
        None if array is None else jnp.swapaxes(array, 0, 1)
        for array in (steps.xs, steps.mask, steps.starts)
    )
    carry, ys = jax.lax.scan(body, carry, (prepare(xs), mask, starts), reverse=reverse)
    return carry, jnp.swapaxes(ys, 0, 1)


def _split_step(cell: Cell, params: PyTree) -> tuple[Callable, Callable]:
    """What can be done for all steps at once, and the rest, done inside the loop."""
    if isinstance(cell, GatedCell):
        return (
            lambda xs: project_inputs(params, xs),
            lambda carry, z_x: cell.pointwise(
                params.extra, z_x, project_hidden(params, carry.h), carry
            ),
        )
    if isinstance(cell, PreparedCell):
        return (
            functools.partial(cell.prepare, params),
            lambda carry, prepared: cell.advance(params, carry, prepared),
        )
    return (lambda xs: xs), (lambda carry, x: cell.step(params, carry, x))
