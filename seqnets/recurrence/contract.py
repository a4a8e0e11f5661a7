"""The definition of running a cell over time, which all strategies compute.

For one row with inputs ``xs [T, D]``, read forwards, it is this loop:

    for t in range(T):                          # T-1 … 0 if reverse
        if not mask[t]:
            ys[t] = 0                           # the carry does not change
        else:
            if starts[t]:
                carry = cell.initial_carry(params)
            carry, ys[t] = cell.step(params, carry, xs[t])
    return carry, ys

With a `Noise`, the step reads ``hidden ∘ h`` instead of h (in gated cells, only the recurrent
product does), and the carry keeps its old values where ``updates`` is not set. With ``updates``,
the output of a cell whose carry has a part h is that h.

``starts`` is ``reset`` when reading forwards. When reading backwards, a segment is entered at its
end, so ``starts`` marks the steps whose next real step in time has its reset flag set. Values of
``xs`` and ``reset`` at padded steps have no effect. The carry keeps its dtypes.
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
    "check_result",
    "check_steps",
    "check_structure",
    "segment_starts",
    "select",
    "zone_out",
]


class Noise(NamedTuple):
    """Noise in the recurrence for training, drawn before the run and not differentiated."""

    hidden: Float[Array, "B H"] | None = None
    """[B, H] factor on h where the step reads it, the same at all steps; None means 1."""
    updates: PyTree = None
    """Pytree with the structure of the carry, or None for no noise. Each leaf is [B, T, ...] bool,
    True where a part takes its new value, or [1, T] float, the weight of the new value; a weight
    has no effect on parts that are not of floats."""


class Steps(NamedTuple):
    """The time steps of a batch of rows, in the form in which strategies receive them."""

    xs: Float[Array, "B T *D"]
    """[B, T, D] inputs ([B, T, ...] if the cell takes more axes), finite at padded steps."""
    mask: Bool[Array, "B T"] | None
    """[B, T] bool, True at real steps; None means that all are real."""
    starts: Bool[Array, "B T"] | None
    """[B, T] bool, True where the carry is reset before the step; None means nowhere."""
    fresh: PyTree
    """The initial carry for resets, in the dtypes of the carry; None without resets."""
    noise: Noise = Noise()
    """Noise in the recurrence."""
    context: PyTree = None
    """Further input of every step, leaves [B, ...], the same at all time steps."""


def check_steps(
    cell: Cell,
    xs: Float[Array, "B T *D"],
    mask: Bool[Array, "B T"] | None,
    reset: Bool[Array, "B T"] | None,
) -> None:
    """Raise ValueError or TypeError unless the arguments of `unroll` fit together."""
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
    """Raise unless ``carry`` has the structure and shapes of the cell's initial carry."""
    check_structure("carry", carry, initial)
    paths = jax.tree_util.tree_leaves_with_path(initial)
    for (path, leaf), value in zip(paths, jax.tree.leaves(carry), strict=True):
        name = "carry" + jax.tree_util.keystr(path)
        check_shape(name, value, leaf.shape, "the cell's initial carry for the rows of xs")
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            check_dtype(name, value, "float")


def check_noise(noise: Noise, carry: PyTree, steps: int) -> None:
    """Raise unless the noise fits this carry and number of steps."""
    if noise.hidden is not None:
        if not hasattr(carry, "h"):
            raise TypeError(f"noise.hidden: expected a carry with a part h, got {type(carry)}")
        check_shape("noise.hidden", noise.hidden, carry.h.shape, "the part h of the carry")
    if noise.updates is None:
        return
    check_structure("noise.updates", noise.updates, carry)
    for leaf, part in zip(jax.tree.leaves(noise.updates), jax.tree.leaves(carry), strict=True):
        flags = leaf.dtype == jnp.bool_
        shape = (part.shape[0], steps, *part.shape[1:]) if flags else (1, steps)
        check_shape("noise.updates", leaf, shape, "bool: rows and steps of a part; float: steps")


def check_result(method: str, result: Any, carry: PyTree) -> tuple[PyTree, PyTree]:
    """The result of a step of a cell, ``(carry, y)``; raise unless the carry is like the last."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{method}: expected to return (carry, y), got {type(result).__name__}")
    name = f"{method}: returned carry"
    check_structure(name, result[0], carry)
    paths = jax.tree_util.tree_leaves_with_path(carry)
    for (path, before), after in zip(paths, jax.tree.leaves(result[0]), strict=True):
        check_shape(name + jax.tree_util.keystr(path), after, before.shape, "as before the step")
    return result


def check_structure(name: str, tree: PyTree, like: PyTree) -> None:
    """Raise ValueError unless two trees have the same structure."""
    want: Any = jax.tree.structure(like)
    got: Any = jax.tree.structure(tree)
    if want != got:
        raise ValueError(f"{name}: expected the structure {want}, got {got}")


def zone_out(updates: PyTree, after: PyTree, before: PyTree) -> PyTree:
    """The carry after a step in which some parts keep their old values (see `Noise`).

    Each leaf of ``updates`` is for one step: flags with the shape of the part, or one weight.
    Integers and flags have no weighted mean, so such parts take their new value for any weight.
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
    """Where the carry is reset before a step, in the direction of reading, [B, T] bool."""
    if reset is None or not reverse:
        return reset
    T = reset.shape[1]
    # Number the steps and store the flag in the lowest bit: the smallest number to the right among
    # the real steps is then that of the next real step, together with its flag.
    tagged = 2 * jnp.arange(T)[None, :] + reset
    if mask is not None:
        tagged = jnp.where(mask, tagged, 2 * T)
    nearest = jax.lax.cummin(tagged, axis=1, reverse=True)
    following = jnp.pad(nearest, ((0, 0), (0, 1)), constant_values=2 * T)[:, 1:]
    return following % 2 == 1


def select(flags: Bool[Array, " B"], chosen: PyTree, otherwise: PyTree) -> PyTree:
    """Rows of ``chosen`` where the flag [B] is set, and rows of ``otherwise`` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(align(flags, a), a, b), chosen, otherwise)


def align(flags: Bool[Array, " B"], like: Shaped[Array, "B *S"]) -> Bool[Array, "B *S"]:
    """Reshape ``[B]`` to ``[B, 1, ...]`` with as many axes as ``like``."""
    return flags.reshape(flags.shape + (1,) * (like.ndim - 1))
