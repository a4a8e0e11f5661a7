"""Data parallelism over local devices. The only file that knows `jax.pmap`.

Parameters, optimizer state and key are replicated; batch and carry are split by rows. On the
host everything has its plain shape, [B, ...]; on the devices what is split is [N, B/N, ...].
"""

from __future__ import annotations

import dataclasses
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
      devices: the devices, in the order in which they get the rows.
    """

    devices: Sequence[jax.Device]

    def __post_init__(self) -> None:
        """Reject an empty row."""
        if not self.devices:
            raise ValueError("devices: expected at least one device, got none")

    @property
    def size(self) -> int:
        """Number of devices N."""
        return len(self.devices)

    def train_step(self, loss_fn: LossFn, optimizer: Any, accumulate: int = 1) -> Callable:
        """`make_train_step` over all devices; the state given to it is used up (donated).

        Args:
          loss_fn: see `LossFn`.
          optimizer: Optax transformation.
          accumulate: parts into which the rows of each device are cut.

        Returns:
          ``(state, batch, progress) -> (state, info)``: state from `place`, batch from `split`.
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
        return jax.pmap(make_evaluation_step(loss_fn), in_axes=(None, 0, 0), devices=self.devices)

    def split(self, tree: PyTree, *, pad: bool = False) -> PyTree:
        """Host arrays [B, ...] as [N, B/N, ...].

        Args:
          tree: pytree of arrays with rows first.
          pad: fill up with rows of zeros (of weight zero, then) where N does not divide B.

        Raises:
          ValueError: if N does not divide B and ``pad`` is False, or a leaf has no rows.
        """

        def split_leaf(x: Any) -> np.ndarray:
            x = np.asarray(x)
            if x.ndim == 0:
                raise ValueError("batch: expected arrays with rows first, [B, ...], got a scalar")
            missing = -x.shape[0] % self.size
            if missing and not pad:
                raise ValueError(
                    f"batch_size: expected a multiple of the {self.size} devices, got {x.shape[0]}"
                )
            if missing:
                x = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
            return x.reshape(self.size, x.shape[0] // self.size, *x.shape[1:])

        return jax.tree.map(split_leaf, tree)

    def place(self, state: TrainState) -> TrainState:
        """Lay a host state out over the devices; the arrays given stay the caller's own.

        Raises:
          ValueError: if the devices do not divide the rows of the carry.
        """
        mesh = jax.sharding.Mesh(np.asarray(self.devices), (AXIS,))
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        carry = jax.device_put(self.split(state.carry), rows)
        # The step donates its state, and `device_put` may share memory with what it is given.
        copies = jax.tree.map(jnp.copy, state._replace(carry=()))
        return jax.device_put(copies, replicated)._replace(carry=carry)

    def gather(self, state: TrainState) -> TrainState:
        """The layout-free host copy of a state: what checkpoints hold, and 1 or N devices share."""

        def merge(x: Any) -> np.ndarray:
            return np.array(x).reshape(-1, *x.shape[2:])

        copy = jax.tree.map(_to_host, state._replace(carry=()))
        return copy._replace(carry=jax.tree.map(merge, state.carry))


def _to_host(x: Any) -> Any:
    """A copy in NumPy, or of a random key, which NumPy has no type for, on the first device."""
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.array(x)
    data = jnp.asarray(np.array(jax.random.key_data(x)))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
