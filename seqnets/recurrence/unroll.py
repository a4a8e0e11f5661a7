"""`unroll`, which runs a cell over the time axis and underlies every recurrent layer."""

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

        carry, y_t = cell.step(params, carry, x_t)      for every real time step, in reading order

    Padded time steps, at any position, do not change the carry, and their outputs are zero. The
    final carry of a row is the carry after its last real time step, or the given carry if the row
    has length 0. Reading backward therefore starts at the last real time step of each row.
    `contract.py` defines the result as a loop.

    Args:
      cell: any `Cell`.
      params: parameters, from ``cell.init``.
      carry: carry before the first step, or None for the initial carry of the cell, in the promoted
        dtype of xs and params. The final carry has the same dtypes.
      xs: inputs, [B, T, D]; values at padded steps are ignored, even NaN.
      mask: [B, T] bool, True at real steps; None means that all are real.
      lengths: [B] integers in [0, T], as an alternative to mask: the first ``lengths[b]`` steps of
        row b are real.
      reset: [B, T] bool, True where a new segment starts: the carry is reset to the initial carry
        of the cell before that step, for several sequences packed into one row. The flags do not
        depend on the direction; at padded steps they are ignored.
      reverse: if True, read from the last step to the first; outputs keep the positions of their
        inputs.
      context: further input of every step of a composite cell: a pytree with leaves [B, ...] that
        are the same at all time steps of a row.
      noise: noise in the recurrence for training, from `Regularization.noise`.
      execution: how to compute the result. `jax.grad`, `jax.vmap`, `jax.jit`, and `jax.checkpoint`
        work with ``"fused"`` and ``"scan"``; forward mode (`jax.jvp`, `jax.jacfwd`) of gated cells
        needs ``Execution(strategy="scan")`` and raises TypeError otherwise.

    Returns:
      ``(carry, ys)``: the final carry of each row, and outputs [B, T, H], zero at padded steps.

    Raises:
      ValueError: if xs is not [B, T, D], mask or reset is not [B, T], both mask and lengths are
        given, lengths is not [B] or out of range, the carry does not have the structure and
        shapes of the initial carry of the cell, or the context has a different number of rows.
      TypeError: if cell is not a cell, one of its methods returns something other than its contract
        says, mask or reset is not of bools, the carry is not of floats
        where the initial carry is, the strategy cannot run the cell with these arguments or on
        this device, or a context is given for a cell that does not use one.

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
    # A learned carry only affects the initial carry; the steps are those of the inner cell.
    inner = cell.cell if isinstance(cell, LearnedCarry) else cell
    check_steps(inner, xs, mask, reset)
    check_rows("context", context, xs.shape[0], "xs")
    if context is not None and isinstance(inner, GatedCell | PreparedCell):
        raise TypeError(f"context: expected None, since {inner} does not use a context")
    if execution.dtype is not None:
        if carry is None:
            carry = cell.initial_carry(params, xs.shape[0], wide(execution.dtype))
        xs, params = xs.astype(execution.dtype), narrow_weights(params, execution.dtype)
    initial = cell.initial_carry(params, xs.shape[0], _promoted_dtype(xs, params))
    if carry is None:
        carry = initial
    if isinstance(inner, GatedCell) and not hasattr(initial, "h"):
        kind = type(initial).__name__
        raise TypeError(f"cell.initial_carry: expected a NamedTuple with a field h, got {kind}")
    check_carry(carry, initial)
    mask = mask_of(mask, lengths, xs)
    if mask is not None:
        # A NaN at a padded step would reach the gradient through the unused branch of a `where`.
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
    """The promoted dtype of the inputs and the floating parameters."""
    leaves = [p for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.inexact)]
    return jnp.result_type(xs, *leaves)
