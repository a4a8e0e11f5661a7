"""The one driver of every recurrent layer: a cell, run over the time axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.cells.gated import GatedCell
from seqnets.cells.learned import LearnedCarry
from seqnets.cells.prepared import PreparedCell
from seqnets.checks import check_cell, check_rows
from seqnets.recurrence.contract import (
    Noise,
    Steps,
    check_carry,
    check_noise,
    check_steps,
    segment_starts,
)
from seqnets.recurrence.execution import Execution
from seqnets.recurrence.lengths import mask_of
from seqnets.recurrence.precision import narrow_weights, wide
from seqnets.recurrence.remat import in_chunks
from seqnets.recurrence.strategies import choose
from seqnets.typing import Array, Bool, Cell, Float, Int, PyTree
from seqnets.varying import vary_alike

__all__ = ["unroll"]


def unroll(
    cell: Cell,
    params: PyTree,
    carry: PyTree | None,
    xs: Float[Array, "B T *D"],
    *,
    mask: Bool[Array, "B T"] | None = None,
    lengths: Int[Array, " B"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    reverse: bool = False,
    context: PyTree = None,
    noise: Noise | None = None,
    execution: Execution = Execution(),
) -> tuple[PyTree, Float[Array, "B T *H"]]:
    """Run a cell over the time axis of a batch of rows, which may differ in length.

        carry, y_t = cell.step(params, carry, x_t)      for every real step, in reading order

    Padded steps leave the carry as it is and give zero outputs, wherever they lie, so the
    final carry is each row's carry after its last real step, and the given carry for a row of
    length 0. Reading backwards therefore starts at each row's last real step. `contract.py`
    holds the whole meaning as a loop.

    Args:
      cell: what happens in one step.
      params: parameters, from ``cell.init``.
      carry: carry before the first step, or None for the cell's own initial carry, in the dtype
        to which xs and params promote. Its dtypes are those of the final carry too.
      xs: inputs, [B, T, D]; values at padded steps are ignored, NaN included.
      mask: True at real steps; None means all are real.
      lengths: [B] integers in [0, T], in the place of a mask: the first ``lengths[b]`` steps of row
        b are real.
      reset: True where a new segment starts: the cell's initial carry is put back before that
        step, for several sequences packed into one row. The flags are the same for both
        directions; those at padded steps are ignored.
      reverse: read from the last step to the first; outputs stay at their inputs' positions.
      context: what the steps of a composite cell are given beside their inputs: a pytree with
        leaves [B, ...], the same at all time steps of a row.
      noise: disturbs the recurrence while training; see `Regularization`, which draws it.
      execution: how it is computed. `jax.grad` (of any order), `jax.vmap`, `jax.jit`, and
        `jax.checkpoint` work with all strategies; forward mode (`jax.jvp`, `jax.jacfwd`) only with
        ``Execution(strategy="scan")``, and raises TypeError otherwise.

    Returns:
      ``(carry, ys)``: the last carry of each row, and outputs [B, T, H], zero at padded steps.

    Raises:
      ValueError: if xs is not [B, T, D], mask or reset is not [B, T], there are both a mask and
        lengths, lengths is not [B] or out of range, the carry does not have the structure and
        shapes of the cell's initial carry, or the context has other rows.
      TypeError: if cell is no cell, mask or reset is not of bools, the carry is not of floats
        where the initial one is, the strategy cannot run the cell on the device or with an
        argument, or there is a context for a cell that reads none.

    Example:
      >>> import jax
      >>> from seqnets.cells import LSTM
      >>> cell = LSTM(features=5)
      >>> params = cell.init(jax.random.key(0), in_features=3)
      >>> xs = jax.random.normal(jax.random.key(1), (2, 7, 3))
      >>> carry, ys = unroll(cell, params, None, xs, lengths=[7, 4])
      >>> ys.shape, bool((ys[1, 4:] == 0).all())
      ((2, 7, 5), True)
    """
    check_cell("cell", cell)
    xs = jnp.asarray(xs)
    mask, reset = (None if flags is None else jnp.asarray(flags) for flags in (mask, reset))
    # A learned first carry is in the initial carry; the steps are those of the cell inside.
    inner = cell.cell if isinstance(cell, LearnedCarry) else cell
    check_steps(inner, xs, mask, reset)
    check_rows("context", context, xs.shape[0], "xs")
    if context is not None and isinstance(inner, GatedCell | PreparedCell):
        raise TypeError(f"context: expected None, since {inner} reads its inputs alone")
    if execution.dtype is not None:
        if carry is None:
            carry = cell.initial_carry(params, xs.shape[0], wide(execution.dtype))
        xs, params = xs.astype(execution.dtype), narrow_weights(params, execution.dtype)
    initial = cell.initial_carry(params, xs.shape[0], _promoted_dtype(xs, params))
    if carry is None:
        carry = initial
    check_carry(carry, initial)
    mask = mask_of(mask, lengths, xs)
    if mask is not None:
        # A padded NaN would reach the gradient through the unused branch of the selection.
        xs = jnp.where(mask.reshape(mask.shape + (1,) * (xs.ndim - 2)), xs, jnp.zeros_like(xs))
    noise = noise or Noise()
    check_noise(noise, carry, xs.shape[1])
    starts = segment_starts(mask, reset, reverse=reverse)
    fresh = None
    if starts is not None:
        fresh = jax.tree.map(lambda new, old: new.astype(old.dtype), initial, carry)
    steps = Steps(xs, mask, starts, fresh, noise, context)
    params, carry, steps = vary_alike((params, carry, steps))
    weights = params.cell if isinstance(cell, LearnedCarry) else params
    strategy = choose(execution.strategy, inner, weights, carry, steps)

    def run(carry: PyTree, steps: Steps) -> tuple[PyTree, PyTree]:
        return strategy.run(inner, weights, carry, steps, reverse=reverse)

    if execution.remat is None:
        carry, ys = run(carry, steps)
    else:
        carry, ys = in_chunks(run, carry, steps, every=execution.remat, reverse=reverse)
    if execution.dtype is not None:
        ys = jax.tree.map(lambda y: y.astype(execution.dtype), ys)
    return carry, ys


def _promoted_dtype(xs: Array, params: PyTree) -> jnp.dtype:
    """The dtype of products of inputs and floating parameters."""
    leaves = [p for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.inexact)]
    return jnp.result_type(xs, *leaves)
