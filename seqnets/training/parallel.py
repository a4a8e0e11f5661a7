"""Data parallelism over the devices of one process or of many. The only file that knows `jax.pmap`.

Parameters and key are replicated, and so is the optimizer's state, or it is in parts; batch and
carry are split by rows. On the host everything has its plain shape, [B, ...]; on the devices what
is split by rows is [N, B/N, ...]. Where there are several processes, each holds the rows of its own
devices, which are contiguous.
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
from jax.sharding import PartitionSpec as P

from seqnets.training.state import StepInfo, TrainState, to_host
from seqnets.training.step import (
    LossFn,
    Sums,
    make_evaluation_step,
    make_gradient_step,
    make_train_step,
    make_update,
)
from seqnets.typing import Array, PyTree

__all__ = ["DataParallel", "host_device", "use_all_cores"]

AXIS = "devices"
STATE_AXES: Any = TrainState(None, None, None, carry=0, key=None)  # type: ignore[arg-type]
STATE_SPECS: Any = TrainState(P(), P(), P(), carry=P(AXIS), key=P())  # type: ignore[arg-type]


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


def host_device() -> jax.Device | None:
    """The CPU; None, which stands for the default device, where JAX was told not to use it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


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
      shard_optimizer: whether each device holds only its part of the optimizer's state, 1/N of
        each array along its first axis that N divides; an array without such an axis stays whole,
        and so do random keys.
        Each device then updates its part of the parameters, and all gather them: ZeRO's first
        stage (Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter
        Models, 2020, arXiv:1910.02054). The results are those of the whole state, whatever the
        optimizer.
    """

    devices: Sequence[jax.Device]
    shard_optimizer: bool = False

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
        if self.shard_optimizer:
            return self._sharded_train_step(loss_fn, optimizer, accumulate)
        return jax.pmap(
            make_train_step(loss_fn, optimizer, axis_name=AXIS, accumulate=accumulate),
            axis_name=AXIS,
            in_axes=(STATE_AXES, 0, None),
            out_axes=(STATE_AXES, None),
            devices=self.devices,
            donate_argnums=0,
        )

    def _sharded_train_step(self, loss_fn: LossFn, optimizer: Any, accumulate: int) -> Callable:
        """Each device sums over its rows; what follows is one program over whole arrays.

        The compiler cuts that program along the parts of the optimizer's state. So it is right
        for every optimizer, also one that looks at all arrays at once, as clipping does.
        """
        rows, whole = STATE_SPECS.carry, STATE_SPECS.params
        of_device = make_gradient_step(loss_fn, axis_name=AXIS, accumulate=accumulate)
        update, constrain = make_update(optimizer), jax.lax.with_sharding_constraint

        def of_own_rows(state: TrainState, batch: Any) -> tuple[Sums, PyTree]:
            own = jax.tree.map(lambda x: x[0], (state.carry, batch))
            sums, carry = of_device(state._replace(carry=own[0]), own[1])
            return sums, jax.tree.map(lambda x: x[None], carry)

        gradient = jax.shard_map(
            of_own_rows,
            mesh=self._sharding().mesh,
            in_specs=(STATE_SPECS, rows),
            out_specs=(whole, rows),
            check_vma=False,  # the sums are added up in the loss's own way, as by `pmap`
        )

        @functools.partial(
            jax.jit,
            in_shardings=(None, self._sharding(AXIS), self._sharding()),
            donate_argnums=0,
        )
        def step(state: TrainState, batch: Any, progress: Array) -> tuple[TrainState, StepInfo]:
            sums, carry = gradient(state._replace(opt_state=()), batch)
            grads = jax.tree.map(lambda g: constrain(g, self._optimizer_sharding(g)), sums.grads)
            state, info = update(state, sums._replace(grads=grads), carry, progress)
            return constrain((state, info), (self._state_shardings(state), self._sharding()))

        return step

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
        rows = self._sharding(AXIS)

        def split_leaf(x: Any) -> Any:
            x = self._cut(x, len(self._local), pad)
            return jax.make_array_from_process_local_data(rows, x) if self.spread else x

        return jax.tree.map(split_leaf, tree)

    def _cut(self, x: Any, parts: int, pad: bool = False) -> np.ndarray:
        """Rows [B, ...] as [parts, B/parts, ...]."""
        x = np.asarray(x)
        if x.ndim == 0:
            raise ValueError("batch: expected arrays with rows first, [B, ...], got a scalar")
        missing = -x.shape[0] % parts
        if missing and not pad:
            self._check_divides(x.shape[0], parts)
        if missing:
            x = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
        return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])

    @staticmethod
    def _check_divides(number: int, devices: int) -> None:
        if number % devices:
            raise ValueError(
                f"batch_size: expected a multiple of the {devices} devices, got {number}"
            )

    def _sharding(self, *axes: str | None) -> jax.sharding.NamedSharding:
        """Split over `AXIS` where it is named; without it the same on all devices."""
        mesh = jax.sharding.Mesh(np.asarray(self.devices), (AXIS,))
        return jax.sharding.NamedSharding(mesh, P(*axes))

    def _optimizer_sharding(self, x: Any) -> jax.sharding.NamedSharding:
        """How an array of the optimizer's state is split."""
        if self.shard_optimizer and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            for axis, size in enumerate(x.shape):
                if size and size % self.size == 0:
                    return self._sharding(*[None] * axis, AXIS)
        return self._sharding()

    def _state_shardings(self, state: TrainState) -> TrainState:
        """How each leaf of a state is split, the carry being [N, B/N, ...]."""
        whole = jax.tree.map(lambda _: self._sharding(), state)
        return whole._replace(
            opt_state=jax.tree.map(self._optimizer_sharding, state.opt_state),
            carry=jax.tree.map(lambda _: self._sharding(AXIS), state.carry),
        )

    def place(self, state: TrainState) -> TrainState:
        """Lay a host state out over the devices; the arrays given stay the caller's own.

        Args:
          state: with all rows of the global batch, in every process.

        Raises:
          ValueError: if the devices do not divide the rows of the carry.
        """
        state = state._replace(carry=jax.tree.map(lambda x: self._cut(x, self.size), state.carry))
        return jax.tree.map(_lay_out, state, self._state_shardings(state))

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
        everywhere = jax.jit(_same, out_shardings=self._sharding())

        def whole(x: Any) -> Any:
            if x.is_fully_addressable or x.is_fully_replicated:
                return x
            # All devices must be done before the next: messages must not meet on their way.
            return jax.block_until_ready(everywhere(x))

        host = jax.tree.map(lambda x: to_host(whole(x)), state)  # one at a time on the devices
        return host._replace(carry=jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), host.carry))


def _same(x: Any) -> Any:
    return x


def _lay_out(x: Any, sharding: jax.sharding.NamedSharding) -> jax.Array:
    """A host array, the same in all processes, laid out.

    JAX may share memory with what it is given, and the step donates its state: so it is given
    copies of the caller's array.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _lay_out(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: np.array(host[part]))
