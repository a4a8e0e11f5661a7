"""What a run takes of a device's memory, known before its first step."""

from __future__ import annotations

import math
from typing import Any

import jax

from seqnets.training.layout import Memory
from seqnets.training.state import TrainState
from seqnets.typing import PyTree

__all__ = ["memory_of"]


def memory_of(state: TrainState, compiled: Any) -> Memory:
    """The memory of a run, from its state on the devices and its compiled step.

    Args:
      state: state on the devices.
      compiled: the step, as `jax.stages.Lowered.compile` gives it.
    """
    analysis = compiled.memory_analysis()
    temporary = None if analysis is None else int(analysis.temp_size_in_bytes)
    return Memory(_bytes(state.params), _bytes(state.opt_state), temporary)


def _bytes(tree: PyTree) -> int:
    """Bytes on each device: of a sharded array, its shard."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
