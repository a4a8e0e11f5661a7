"""Memory that a run needs on each device: a lower bound from shapes, and the compiler's figure."""

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
    """Memory that a run needs on each device.

    Args:
      state: state on the devices.
      compiled: the compiled step, a `jax.stages.Compiled`.

    Returns:
      Bytes of parameters, optimizer state, and temporary arrays.
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
    """Raise an error if a training run cannot fit into memory, judging by shapes alone.

    Activations are not included; the compiler reports them later.

    Args:
      state: shapes of the state, with all rows.
      batches: shapes of whole batches.
      devices: the N devices of all processes.
      shard_optimizer: whether the optimizer state is sharded over the devices.

    Raises:
      NotEnoughMemoryError: if too little is available; the message lists the bytes needed.
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
    """Bytes of all arrays, from their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _bytes(tree: PyTree) -> int:
    """Bytes on each device, counting one shard of a sharded array."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
