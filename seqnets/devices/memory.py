"""What a run takes of a device's memory: all before its first step, a part before it begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax

from seqnets.devices.available import check_memory
from seqnets.training.layout import Memory, readable
from seqnets.training.state import TrainState
from seqnets.typing import PyTree

__all__ = ["check_training_memory", "memory_of"]


def memory_of(state: TrainState, compiled: Any) -> Memory:
    """The memory of a run, from its state on the devices and its compiled step.

    Args:
      state: state on the devices.
      compiled: the step, as `jax.stages.Lowered.compile` gives it.
    """
    analysis = compiled.memory_analysis()
    temporary = None if analysis is None else int(analysis.temp_size_in_bytes)
    return Memory(_bytes(state.params), _bytes(state.opt_state), temporary)


def check_training_memory(
    state: TrainState,
    batches: Sequence[PyTree],
    devices: Sequence[jax.Device],
    *,
    shard_optimizer: bool,
) -> None:
    """Raise where a training cannot fit into memory, told by shapes alone.

    Activations, which only the compiler knows, come on top; see `compile_within`.

    Args:
      state: shapes of the state, with all rows.
      batches: shapes of whole batches.
      devices: of all processes, N of them.
      shard_optimizer: whether each holds only its part of the optimizer's state.

    Raises:
      NotEnoughMemoryError: naming the bytes needed and available, and of what they are.
    """
    number = len(devices)
    parts = {
        "parameters and their gradient": 2 * _size(state.params) + _size(state.variables),
        "optimizer": _size(state.opt_state) // (number if shard_optimizer else 1),
        "a batch": (_size(state.carry) + max(map(_size, batches))) // number,
    }
    listed = ", ".join(f"{name} {readable(size)}" for name, size in parts.items())
    hint = f" ({listed}, on each of {number} devices); a smaller model or batch_size needs less"
    own = [device for device in devices if device.process_index == jax.process_index()]
    check_memory("training", sum(parts.values()), own, hint)


def _size(tree: PyTree) -> int:
    """Bytes of all arrays, given by their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _bytes(tree: PyTree) -> int:
    """Bytes on each device: of a sharded array, its shard."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
