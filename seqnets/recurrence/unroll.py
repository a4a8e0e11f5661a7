"""The one driver of every recurrent layer: a cell, run over the time axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from seqnets.recurrence.contract import Steps, check_steps, segment_starts
from seqnets.recurrence.scan import scan
from seqnets.typing import Array, Bool, Cell, Float, PyTree

__all__ = ["lengths_to_mask", "unroll"]


def unroll(
    cell: Cell,
    params: PyTree,
    carry: PyTree | None,
    xs: Float[Array, "B T *D"],
    *,
    mask: Bool[Array, "B T"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    reverse: bool = False,
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
      carry: carry before the first step, or None for the cell's own initial carry.
      xs: inputs, [B, T, D]; values at padded steps are ignored, NaN included.
      mask: True at real steps; None means all are real.
      reset: True where a new segment starts: the cell's initial carry is put back before that
        step, for several sequences packed into one row. The flags are the same for both
        directions; those at padded steps are ignored.
      reverse: read from the last step to the first; outputs stay at their inputs' positions.

    Returns:
      ``(carry, ys)``: the last carry of each row, and outputs [B, T, H], zero at padded steps.

    Raises:
      ValueError: if xs is not [B, T, D], mask or reset is not [B, T], or the carry does not
        have the structure and shapes of the cell's initial carry.
      TypeError: if mask or reset is not of bools.

    Example:
      >>> import jax
      >>> from seqnets.cells import LSTM
      >>> cell = LSTM(features=5)
      >>> params = cell.init(jax.random.key(0), in_features=3)
      >>> xs = jax.random.normal(jax.random.key(1), (2, 7, 3))
      >>> carry, ys = unroll(cell, params, None, xs, mask=lengths_to_mask([7, 4], 7))
      >>> ys.shape, bool((ys[1, 4:] == 0).all())
      ((2, 7, 5), True)
    """
    xs = jnp.asarray(xs)
    check_steps(cell, params, carry, xs, mask, reset)
    if carry is None:
        dtype = jnp.result_type(xs, *jax.tree.leaves(params))
        carry = cell.initial_carry(params, xs.shape[0], dtype)
    if mask is not None:
        # A padded NaN would reach the gradient through the unused branch of the selection.
        xs = jnp.where(mask.reshape(mask.shape + (1,) * (xs.ndim - 2)), xs, jnp.zeros_like(xs))
    steps = Steps(xs, mask, segment_starts(mask, reset, reverse=reverse))
    return scan(cell, params, carry, steps, reverse=reverse)


def lengths_to_mask(lengths: Array, steps: int) -> Bool[Array, "B T"]:
    """Mask of rows padded on the right: True at the first ``lengths[b]`` of ``steps`` steps.

    Args:
      lengths: [B] integers in [0, steps].
      steps: padded length T.

    Raises:
      ValueError: if lengths is not [B].
    """
    lengths = jnp.asarray(lengths)
    if lengths.ndim != 1:
        raise ValueError(f"lengths: expected shape [B], got {lengths.shape}")
    return jnp.arange(steps)[None, :] < lengths[:, None]
