"""The one driver of every recurrent layer: a cell, run over the time axis."""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp

from seqnets.cells.gated import GatedCell
from seqnets.cells.learned import LearnedCarry
from seqnets.checks import check_dtype, check_range, check_rank
from seqnets.recurrence.contract import (
    Noise,
    Steps,
    check_carry,
    check_noise,
    check_steps,
    segment_starts,
)
from seqnets.recurrence.cudnn import cudnn, why_not_cudnn
from seqnets.recurrence.fused import fused
from seqnets.recurrence.remat import in_chunks
from seqnets.recurrence.scan import scan
from seqnets.typing import Array, Bool, Cell, Float, PyTree

__all__ = ["Strategy", "lengths_to_mask", "unroll"]


class Strategy(enum.Enum):
    """How a cell is run over time: the same results, to rounding, by different ways.

    The parameters are the same for all, so a checkpoint does not know which was used.
    """

    AUTO = "auto"
    """FUSED for gated cells, else SCAN."""
    SCAN = "scan"
    """One plain scan: any cell, both modes of differentiation."""
    FUSED = "fused"
    """Gated cells only, with a derivative of its own: faster, but no forward mode."""
    CUDNN = "cudnn"
    """NVIDIA's kernel: plain LSTM, float32, rows of equal length, first derivatives. Never chosen
    by AUTO, since it has not been measured beside FUSED."""


def unroll(
    cell: Cell,
    params: PyTree,
    carry: PyTree | None,
    xs: Float[Array, "B T *D"],
    *,
    mask: Bool[Array, "B T"] | None = None,
    reset: Bool[Array, "B T"] | None = None,
    reverse: bool = False,
    remat: int | None = None,
    strategy: Strategy = Strategy.AUTO,
    noise: Noise | None = None,
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
      reset: True where a new segment starts: the cell's initial carry is put back before that
        step, for several sequences packed into one row. The flags are the same for both
        directions; those at padded steps are ignored.
      reverse: read from the last step to the first; outputs stay at their inputs' positions.
      remat: keep for the gradient only the carry before every ``remat`` steps, and compute what
        is between again on the way back; about √T needs least memory. None keeps everything.
      strategy: how it is computed. `jax.grad` (of any order), `jax.vmap`, `jax.jit` and
        `jax.checkpoint` work with all of them; forward mode (`jax.jvp`, `jax.jacfwd`) only with
        ``Strategy.SCAN``, and raises TypeError otherwise.
      noise: disturbs the recurrence while training; see `Regularization`, which draws it.

    Returns:
      ``(carry, ys)``: the last carry of each row, and outputs [B, T, H], zero at padded steps.

    Raises:
      ValueError: if xs is not [B, T, D], mask or reset is not [B, T], or the carry does not
        have the structure and shapes of the cell's initial carry, or remat is below 1.
      TypeError: if mask or reset is not of bools, or the carry not of floats where the initial
        one is, or the strategy is FUSED and the cell not a gated one, or it is CUDNN and the device
        or an argument is not for it.

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
    # A learned first carry is in the initial carry; the steps are those of the cell inside.
    inner, weights = cell, params
    if isinstance(cell, LearnedCarry):
        inner, weights = cell.cell, params.cell
    if strategy is Strategy.FUSED and not isinstance(inner, GatedCell):
        raise TypeError(f"cell: the strategy FUSED needs a GatedCell, got {cell}")
    if remat is not None:
        check_range("remat", remat, 1)
    xs = jnp.asarray(xs)
    mask, reset = (None if flags is None else jnp.asarray(flags) for flags in (mask, reset))
    check_steps(xs, mask, reset)
    initial = cell.initial_carry(params, xs.shape[0], _promoted_dtype(xs, params))
    if carry is None:
        carry = initial
    check_carry(carry, initial)
    if mask is not None:
        # A padded NaN would reach the gradient through the unused branch of the selection.
        xs = jnp.where(mask.reshape(mask.shape + (1,) * (xs.ndim - 2)), xs, jnp.zeros_like(xs))
    noise = noise or Noise()
    check_noise(noise, carry, xs.shape[1])
    starts = segment_starts(mask, reset, reverse=reverse)
    fresh = None
    if starts is not None:
        fresh = jax.tree.map(lambda new, old: new.astype(old.dtype), initial, carry)
    steps = Steps(xs, mask, starts, fresh, noise)

    if strategy is Strategy.CUDNN and (reason := why_not_cudnn(inner, weights, carry, steps)):
        raise TypeError(f"strategy CUDNN: {reason}")

    def run(carry: PyTree, steps: Steps) -> tuple[PyTree, Array]:
        if strategy is Strategy.CUDNN:
            return cudnn(inner, weights, carry, steps, reverse=reverse)
        if strategy is not Strategy.SCAN and isinstance(inner, GatedCell):
            return fused(inner, weights, carry, steps, reverse=reverse)
        return scan(inner, weights, carry, steps, reverse=reverse)

    if remat is None:
        return run(carry, steps)
    return in_chunks(run, carry, steps, every=remat, reverse=reverse)


def _promoted_dtype(xs: Array, params: PyTree) -> jnp.dtype:
    """The dtype of products of inputs and floating parameters."""
    leaves = [p for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.inexact)]
    return jnp.result_type(xs, *leaves)


def lengths_to_mask(lengths: Array, steps: int) -> Bool[Array, "B T"]:
    """Mask of rows padded on the right: True at the first ``lengths[b]`` of ``steps`` steps.

    Args:
      lengths: [B] integers in [0, steps].
      steps: padded length T.

    Raises:
      ValueError: if lengths is not [B].
      TypeError: if lengths is not of integers.
    """
    lengths = jnp.asarray(lengths)
    check_rank("lengths", lengths, 1, "B")
    check_dtype("lengths", lengths, "int")
    return jnp.arange(steps)[None, :] < lengths[:, None]
