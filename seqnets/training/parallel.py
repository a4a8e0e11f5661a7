"""Data parallelism over the devices of one process or of many. The only file that knows `jax.pmap`.

Parameters, optimizer state and key are replicated; batch and carry are split by rows. On the
host everything has its plain shape, [B, ...]; on the devices what is split is [N, B/N, ...].
Where there are several processes, each holds the rows of its own devices, which are contiguous.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.training.state import TrainState
from seqnets.training.step import LossFn, make_evaluation_step, make_train_step
from seqnets.typing import PyTree

__all__ = ["DataParallel", "use_all_cores"]

AXIS = "devices"
STATE_AXES: Any = TrainState(None, None, None, carry=0, key=None)  # type: ignore[arg-type]


def use_all_cores() -> None:
    """Give JAX one CPU device for each core this process may use.

    Threads inside the small products of a recurrent loop do not scale, devices do. Changes
    nothing where the number was chosen already, by ``JAX_NUM_CPU_DEVICES`` or in ``XLA_FLAGS``.

    Raises:
      RuntimeError: if JAX is already in use, and the number of its devices fixed.
    """
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ
    chosen |= "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        jax.config.update("jax_num_cpu_devices", _usable_cores())


def _usable_cores() -> int:
    """Cores this process may use, where the system tells; otherwise all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """Compiles steps for a row of devices, and moves rows to them and back.

    Attributes:
      devices: the devices, in the order in which they get the rows. Where they are of several
        processes, they are the same in all, those of each process in one piece and as many.
    """

    devices: Sequence[jax.Device]

    def __post_init__(self) -> None:
        """Reject what is no row of devices."""
        if not self.devices:
            raise ValueError("devices: expected at least one device, got none")
        if not self._local:
            raise ValueError(f"devices: expected some of process {jax.process_index()}, got none")
        owners = [device.process_index for device in self.devices]
        if owners != [owner for owner in dict.fromkeys(owners) for _ in self._local]:
            raise ValueError(
                "devices: expected as many of each process, and those of each in one piece, got "
                f"devices of the processes {owners}"
            )

    @property
    def size(self) -> int:
        """Number of devices N, of all processes."""
        return len(self.devices)

    @functools.cached_property
    def spread(self) -> bool:
        """Whether some of the devices are of other processes."""
        return len(self._local) < self.size

    @functools.cached_property
    def _local(self) -> list[jax.Device]:
        """The devices of this process."""
        return [d for d in self.devices if d.process_index == jax.process_index()]

    def rows(self, number: int) -> slice:
        """Which rows of a global batch are this process's.

        Args:
          number: rows of the batch, B.

        Raises:
          ValueError: if the devices do not divide them, and there are several processes.
        """
        if not self.spread:
            return slice(0, number)
        self._check_divides(number, self.size)
        first, each = self.devices.index(self._local[0]), number // self.size
        return slice(first * each, (first + len(self._local)) * each)

    def train_step(self, loss_fn: LossFn, optimizer: Any, accumulate: int = 1) -> Callable:
        """`make_train_step` over all devices; the state given to it is used up (donated).

        Args:
          loss_fn: see `LossFn`.
          optimizer: Optax transformation.
          accumulate: parts into which the rows of each device are cut.

        Returns:
          ``(state, batch, progress) -> (state, info)``: state from `place`, batch from `split`.
          Where there are several processes, compile it first, ``step.lower(...).compile()``.
        """
        return jax.pmap(
            make_train_step(loss_fn, optimizer, axis_name=AXIS, accumulate=accumulate),
            axis_name=AXIS,
            in_axes=(STATE_AXES, 0, None),
            out_axes=(STATE_AXES, None),
            devices=self.devices,
            donate_argnums=0,
        )

    def evaluation_step(self, loss_fn: LossFn) -> Callable:
        """`make_evaluation_step` over all devices: ``(params, carry, batch) -> (carry, sums)``.

        The sums are those of each device, [N], for `sums_to_host` to add up. The devices do not
        wait for each other, so any number of these steps may be in flight.
        """
        step = jax.pmap(
            make_evaluation_step(loss_fn),
            axis_name=AXIS,
            in_axes=(None, 0, 0),
            devices=self.devices,
        )
        if jax.process_count() == 1:
            return step
        # Among several processes `pmap` takes arrays as they are only where they already lie so.
        return lambda params, *rows: step(jax.device_put(params, self._sharding()), *rows)

    def split(self, tree: PyTree, *, pad: bool = False) -> PyTree:
        """Host arrays [B, ...] as [N, B/N, ...]; of several processes each gives its own rows.

        Args:
          tree: pytree of arrays with rows first, those of this process.
          pad: fill up with rows of zeros (of weight zero, then) where N does not divide B.

        Raises:
          ValueError: if N does not divide B and ``pad`` is False, or a leaf has no rows.
        """
        local = len(self._local)

        def split_leaf(x: Any) -> Any:
            x = np.asarray(x)
            if x.ndim == 0:
                raise ValueError("batch: expected arrays with rows first, [B, ...], got a scalar")
            missing = -x.shape[0] % local
            if missing and not pad:
                self._check_divides(x.shape[0], local)
            if missing:
                x = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
            x = x.reshape(local, x.shape[0] // local, *x.shape[1:])
            if not self.spread:
                return x
            return jax.make_array_from_process_local_data(self._sharding(AXIS), x)

        return jax.tree.map(split_leaf, tree)

    @staticmethod
    def _check_divides(number: int, devices: int) -> None:
        if number % devices:
            raise ValueError(
                f"batch_size: expected a multiple of the {devices} devices, got {number}"
            )

    def _sharding(self, *axes: str) -> jax.sharding.NamedSharding:
        """Split by rows over `AXIS`, or without it the same on all devices."""
        mesh = jax.sharding.Mesh(np.asarray(self.devices), (AXIS,))
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    def place(self, state: TrainState) -> TrainState:
        """Lay a host state out over the devices; the arrays given stay the caller's own.

        Args:
          state: with all rows of the global batch, in every process.

        Raises:
          ValueError: if the devices do not divide the rows of the carry.
        """
        if self.spread:
            own = jax.tree.map(lambda x: np.asarray(x)[self.rows(len(x))], state.carry)
            copies = jax.tree.map(self._replicate, state._replace(carry=()))
            return copies._replace(carry=self.split(own))
        carry = jax.device_put(self.split(state.carry), self._sharding(AXIS))
        # The step donates its state, and `device_put` may share memory with what it is given.
        copies = jax.tree.map(jnp.copy, state._replace(carry=()))
        return jax.device_put(copies, self._sharding())._replace(carry=carry)

    def _replicate(self, x: Any) -> jax.Array:
        """A host array, the same in all processes, on all devices."""
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = self._replicate(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(self._sharding(), np.array(x))

    def here(self, tree: PyTree) -> PyTree:
        """What is replicated, as arrays on the devices of this process alone."""
        if not self.spread:
            return tree
        sharding = DataParallel(self._local)._sharding()

        def local_leaf(x: jax.Array) -> jax.Array:
            parts = [shard.data for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)

        return jax.tree.map(local_leaf, tree)

    def gather(self, state: TrainState) -> TrainState:
        """The layout-free host copy of a state: what checkpoints hold, and 1 or N devices share.

        Where there are several processes all must call it, and all get all of it.
        """

        everywhere = jax.jit(_same, out_shardings=self._sharding()) if self.spread else _same

        def merge(x: Any) -> np.ndarray:
            # All devices must be done before the next: messages must not meet on their way.
            return np.array(jax.block_until_ready(everywhere(x))).reshape(-1, *x.shape[2:])

        copy = jax.tree.map(_to_host, state._replace(carry=()))
        return copy._replace(carry=jax.tree.map(merge, state.carry))


def _same(x: Any) -> Any:
    return x


def _to_host(x: Any) -> Any:
    """A copy in NumPy, or of a random key, which NumPy has no type for, on the first device."""
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.array(x)
    data = jnp.asarray(np.array(jax.random.key_data(x)))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
