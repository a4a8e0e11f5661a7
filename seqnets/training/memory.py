"""What a run takes of a device's memory, told before its first step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax

from seqnets.training.state import TrainState
from seqnets.typing import PyTree

__all__ = ["Memory", "memory_of"]


class Memory(NamedTuple):
    """Bytes on each device."""

    parameters: int
    """Of the parameters."""
    optimizer: int
    """Of the optimizer's state."""
    step: int | None
    """Of all else that a step needs at once: activations, gradients, new values. None where the
    compiler does not tell."""

    def __str__(self) -> str:
        parts = [
            f"parameters {_in_words(self.parameters)}",
            f"optimizer {_in_words(self.optimizer)}",
        ]
        if self.step is not None:
            parts.append(f"activations and gradients {_in_words(self.step)}")
        return ", ".join(parts)


def memory_of(state: TrainState, step: Any) -> Memory:
    """The memory of a run, from its state on the devices and its compiled step."""
    analysis = step.memory_analysis()
    temporary = None if analysis is None else int(analysis.temp_size_in_bytes)
    return Memory(_bytes(state.params), _bytes(state.opt_state), temporary)


def _bytes(tree: PyTree) -> int:
    """Of each device: of an array that is in parts, its part."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def _in_words(number: int) -> str:
    """Three digits and a unit, powers of 1000."""
    value, units = float(number), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 999.5 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"
