"""What running a cell over time means, whichever way it is computed.

For one row with inputs ``xs [T, D]``, read forwards, the meaning is this loop:

    for t in range(T):                          # T-1 … 0 where reverse
        if not mask[t]:
            ys[t] = 0                           # the carry stays as it is
        else:
            if starts[t]:
                carry = cell.initial_carry(params)
            carry, ys[t] = cell.step(params, carry, xs[t])
    return carry, ys

With a `Noise`, the step reads ``hidden ∘ h`` in the place of h where a gated cell's product does
(of other cells: everywhere), and the parts of the carry where ``updates`` is not set keep their
old values; the output of a cell whose carry has a part h is that h.

``starts`` is ``reset`` when reading forwards. Reading backwards, a segment is entered at its
end, so there it marks the steps whose next real step, in time, has its flag set. Values of
``xs`` and ``reset`` at padded steps never matter. The carry keeps its dtypes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqnets.cells.gated import GatedCell
from seqnets.cells.prepared import PreparedCell
from seqnets.checks import check_dtype, check_rank, check_shape
from seqnets.typing import Array, Bool, Cell, Float, PyTree, Shaped

__all__ = [
    "Noise",
    "Steps",
    "align",
    "check_carry",
    "check_noise",
    "check_steps",
    "segment_starts",
    "select",
    "zone_out",
]


class Noise(NamedTuple):
    """What disturbs the recurrence in training, drawn before the run. Nothing is learned by it."""

    hidden: Float[Array, "B H"] | None = None
    """[B, H] factor on h where it enters the step, the same at all steps; None: 1."""
    updates: PyTree = None
    """Built like the carry. Of each part [B, T, ...] bool, True where it takes its new value, or
    [1, T] float, the weight of the new value, which only parts of floats heed; None: always."""


class Steps(NamedTuple):
    """The steps of a batch of rows, as every strategy receives them."""

    xs: Float[Array, "B T *D"]
    """[B, T, D] inputs (cells that take more axes: [B, T, ...]), finite at padded steps."""
    mask: Bool[Array, "B T"] | None
    """[B, T] bool, True at real steps; None: all are real."""
    starts: Bool[Array, "B T"] | None
    """[B, T] bool, True where the carry is put back before the step; None: nowhere."""
    fresh: PyTree
    """What is put back there: the cell's initial carry, in the dtypes of the carry; else None."""
    noise: Noise = Noise()
    """Of the recurrence."""
    context: PyTree = None
    """What the step is given beside its input, leaves [B, ...], the same at all time steps."""


def check_steps(
    cell: Cell,
    xs: Float[Array, "B T *D"],
    mask: Bool[Array, "B T"] | None,
    reset: Bool[Array, "B T"] | None,
) -> None:
    """Raise ValueError or TypeError unless the steps given to `unroll` fit together."""
    letters = "B T D"
    if isinstance(cell, GatedCell | PreparedCell):
        letters = f"B T {cell.input_letters}"
    if isinstance(cell, GatedCell | PreparedCell) or xs.ndim < 3:
        check_rank("xs", xs, len(letters.split()), letters)
    if isinstance(cell, GatedCell | PreparedCell):
        check_dtype("xs", xs, "float")
    for name, flags in (("mask", mask), ("reset", reset)):
        if flags is not None:
            check_shape(name, flags, xs.shape[:2], "batch and time of xs")
            check_dtype(name, flags, "bool")


def check_carry(carry: PyTree, initial: PyTree) -> None:
    """Raise unless ``carry`` is built like the cell's own initial carry for the same rows."""
    want: Any = jax.tree.structure(initial)
    got: Any = jax.tree.structure(carry)
    if want != got:
        raise ValueError(f"carry: expected the structure {want}, got {got}")
    paths = jax.tree_util.tree_leaves_with_path(initial)
    for (path, leaf), value in zip(paths, jax.tree.leaves(carry), strict=True):
        name = "carry" + jax.tree_util.keystr(path)
        check_shape(name, value, leaf.shape, "the cell's initial carry for the rows of xs")
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            check_dtype(name, value, "float")


def check_noise(noise: Noise, carry: PyTree, steps: int) -> None:
    """Raise unless the noise fits a carry of this form and a number of steps."""
    if noise.hidden is not None:
        if not hasattr(carry, "h"):
            raise TypeError(f"noise.hidden: expected a carry with a part h, got {type(carry)}")
        check_shape("noise.hidden", noise.hidden, carry.h.shape, "the part h of the carry")
    if noise.updates is None:
        return
    want: Any = jax.tree.structure(carry)
    got: Any = jax.tree.structure(noise.updates)
    if want != got:
        raise ValueError(f"noise.updates: expected the structure {want}, got {got}")
    for leaf, part in zip(jax.tree.leaves(noise.updates), jax.tree.leaves(carry), strict=True):
        flags = leaf.dtype == jnp.bool_
        shape = (part.shape[0], steps, *part.shape[1:]) if flags else (1, steps)
        check_shape("noise.updates", leaf, shape, "bool: rows and steps of a part; float: steps")


def zone_out(updates: PyTree, after: PyTree, before: PyTree) -> PyTree:
    """The carry after a step of which not all parts take their new values (see `Noise`).

    Each leaf of ``updates`` is of one step: flags like its part, or one weight. Between two
    integers, or two flags, there is no mean: such a part takes its new value whatever the weight.
    """

    def part(update: Array, new: Array, old: Array) -> Array:
        if update.dtype == jnp.bool_:
            return jnp.where(update, new, old)
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return old + update.reshape(()).astype(new.dtype) * (new - old)

    return after if updates is None else jax.tree.map(part, updates, after, before)


def segment_starts(
    mask: Bool[Array, "B T"] | None, reset: Bool[Array, "B T"] | None, *, reverse: bool
) -> Bool[Array, "B T"] | None:
    """Where the carry is put back before a step, in the direction of reading, [B, T] bool."""
    if reset is None or not reverse:
        return reset
    T = reset.shape[1]
    # Number the steps and let the lowest bit carry the flag: the smallest number to the right
    # among the real steps is then the next real step together with its flag.
    tagged = 2 * jnp.arange(T)[None, :] + reset
    if mask is not None:
        tagged = jnp.where(mask, tagged, 2 * T)
    nearest = jax.lax.cummin(tagged, axis=1, reverse=True)
    following = jnp.pad(nearest, ((0, 0), (0, 1)), constant_values=2 * T)[:, 1:]
    return following % 2 == 1


def select(flags: Bool[Array, " B"], chosen: PyTree, otherwise: PyTree) -> PyTree:
    """Rows of ``chosen`` where the flag [B] is set, rows of ``otherwise`` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(align(flags, a), a, b), chosen, otherwise)


def align(flags: Bool[Array, " B"], like: Shaped[Array, "B *S"]) -> Bool[Array, "B *S"]:
    """``[B]`` as ``[B, 1, ...]`` with as many axes as ``like``."""
    return flags.reshape(flags.shape + (1,) * (like.ndim - 1))
