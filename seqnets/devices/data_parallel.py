"""Data parallelism over the devices of one or more processes; the only file that uses `jax.pmap`.

Parameters, variables, and key are replicated; the optimizer state is replicated or sharded; batch
and carry are split by rows. They are [B, ...] on the host and [N, B/N, ...] on the devices. With
several processes, each holds the rows of its own devices, which are contiguous.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from seqnets.checks import check_rows
from seqnets.data.source import Share
from seqnets.devices.available import compile_within
from seqnets.devices.memory import memory_of
from seqnets.devices.processes import peers
from seqnets.training.layout import Layout, Memory, Peers, Program
from seqnets.training.objective import LossFn
from seqnets.training.rows import EvaluationStep, make_evaluation_step
from seqnets.training.state import Clock, StepInfo, TrainState, to_host
from seqnets.training.step import TrainStep
from seqnets.typing import PyTree

__all__ = ["DataParallel", "data_parallel"]

AXIS = "devices"
STATE_AXES: Any = TrainState(None, None, None, None, carry=0, key=None)  # type: ignore[arg-type]
CLOCK = Clock(np.float32(0), np.int32(0))  # type: ignore[arg-type]


def data_parallel(
    batch_sizes: Sequence[int],
    *,
    shard_optimizer: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> DataParallel:
    """Make a layout over the most devices that divide every batch size, equally many per process.

    Args:
      batch_sizes: numbers of rows of the global batches.
      shard_optimizer: see `DataParallel`.
      devices: devices to choose from; None for all.

    Returns:
      The layout, for `seqnets.training.train`.

    Raises:
      ValueError: if a batch size is not divisible by the number of processes.
    """
    owned: dict[int, list[jax.Device]] = {}
    for device in jax.devices() if devices is None else devices:
        owned.setdefault(device.process_index, []).append(device)
    rows = math.gcd(*batch_sizes)
    if rows % len(owned):
        raise ValueError(
            f"batch_size: expected a multiple of the {len(owned)} processes, got {rows}"
        )
    number = _most_devices(rows // len(owned), min(map(len, owned.values())))
    chosen = [device for index in sorted(owned) for device in owned[index][:number]]
    return DataParallel(chosen, shard_optimizer)


def _most_devices(rows: int, devices: int) -> int:
    """The largest number of devices that divides the rows."""
    return max(number for number in range(1, devices + 1) if rows % number == 0)


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """A `Layout` over several devices: it compiles steps, and splits and gathers rows.

    Attributes:
      devices: the N devices, in the order of their rows. With several processes, all pass the same
        devices, equally many per process and contiguous for each.
      shard_optimizer: whether to shard the optimizer state (ZeRO stage 1). Each device then holds
        1/N of each array, along its first axis divisible by N, updates this part of the parameters,
        and gathers the others. Random keys and arrays without such an axis are replicated. The
        results equal those without sharding, for any optimizer.

    Raises:
      ValueError: if there is no device, or none of this process, or the devices of the processes
        differ in number or are not contiguous.

    References:
      Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models,
      2020, arXiv:1910.02054 (stage 1, by `shard_optimizer`).
    """

    devices: Sequence[jax.Device]
    shard_optimizer: bool = False

    def __post_init__(self) -> None:
        """Reject devices over which rows cannot be split."""
        if not self.devices:
            raise ValueError("devices: expected at least one device, got none")
        if not self._local:
            raise ValueError(f"devices: expected one of process {jax.process_index()}, got none")
        owners = [device.process_index for device in self.devices]
        if owners != [owner for owner in dict.fromkeys(owners) for _ in self._local]:
            raise ValueError(
                "devices: expected equally many per process and contiguous for each, got "
                f"devices of the processes {owners}"
            )

    @property
    def size(self) -> int:
        """Number of devices N of all processes."""
        return len(self.devices)

    @functools.cached_property
    def _spread(self) -> bool:
        """Whether some of the devices belong to other processes."""
        return len(self._local) < self.size

    @functools.cached_property
    def _local(self) -> list[jax.Device]:
        """The devices of this process."""
        return [d for d in self.devices if d.process_index == jax.process_index()]

    @property
    def share(self) -> Share:
        """The part of every batch's rows that this process provides."""
        owners = list(dict.fromkeys(device.process_index for device in self.devices))
        return Share(owners.index(jax.process_index()), len(owners))

    @property
    def peers(self) -> Peers:
        """The other processes of the same run."""
        return peers()

    def compile(self, step: TrainStep, state: TrainState, batch: PyTree) -> Program:
        """Compile a step over all devices.

        Args:
          step: the training step.
          state: from `place`.
          batch: from `split`.

        Returns:
          The program, for this shape of batches.

        Raises:
          NotEnoughMemoryError: if activations and gradients do not fit into memory.
        """
        compiled = compile_within("a training step", self.lower(step, state, batch), self._local)
        return _Compiled(self, compiled, memory_of(state, compiled))

    def lower(self, step: TrainStep, state: TrainState, batch: PyTree) -> Any:
        """Lower what `compile` compiles, to a `jax.stages.Lowered`."""
        # Shapes only: an operation on the batch would involve all processes.
        own = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], batch))
        rows = check_rows("batch", own) * len(self._local)
        message = self.split(self.peers.consensus(0.0).message(rows, 0.0, None))
        make = self._sharded_program if self.shard_optimizer else self._replicated_program
        return make(step).lower(state, batch, CLOCK, message)

    def _replicated_program(self, step: TrainStep) -> Any:
        def of_device(state: TrainState, batch: PyTree, clock: Clock, message: PyTree) -> Any:
            all_reduce = _AllReduce(message)
            state, info = step(state, batch, clock, over_rows=all_reduce)
            return state, info, all_reduce.reply

        return jax.pmap(
            of_device,
            axis_name=AXIS,
            in_axes=(STATE_AXES, 0, None, 0),
            out_axes=(STATE_AXES, None, None),
            devices=self.devices,
            donate_argnums=0,
        )

    def _sharded_program(self, step: TrainStep) -> Any:
        """Each device sums over its rows; the rest is one program over whole arrays.

        The compiler partitions that program along the shards of the optimizer state, so it is
        correct for every optimizer, including those that use all arrays at once, as clipping does.
        """
        constrain = jax.lax.with_sharding_constraint

        def of_all(state: TrainState, batch: PyTree, clock: Clock, message: PyTree) -> Any:
            replies = []

            def over_rows(function: Callable, shared: PyTree, rows: PyTree) -> Any:
                def of_device(shared: PyTree, rows: PyTree, message: PyTree) -> Any:
                    rows, message = jax.tree.map(lambda x: x[0], (rows, message))
                    all_reduce = _AllReduce(message)
                    sums, carry = all_reduce(function, shared, rows)
                    return (sums, all_reduce.reply), jax.tree.map(lambda x: x[None], carry)

                (sums, reply), carry = jax.shard_map(
                    of_device,
                    mesh=self._sharding().mesh,
                    in_specs=(P(), P(AXIS), P(AXIS)),
                    out_specs=(P(), P(AXIS)),
                    check_vma=False,  # the sums are all-reduced, as in `pmap`
                )(shared, rows, message)
                replies.append(reply)
                return jax.tree.map(lambda x: constrain(x, self._shard(x)), sums), carry

            state, info = step(state, batch, clock, over_rows=over_rows)
            state = constrain(state, self._state_shardings(state))
            return state, *constrain((info, replies[0]), self._sharding())

        return jax.jit(
            of_all,
            in_shardings=(None, self._sharding(AXIS), self._sharding(), self._sharding(AXIS)),
            donate_argnums=0,
        )

    def apart(self, rows: int) -> Layout:
        """The layout over this process's devices, as many as divide its share of the rows.

        Args:
          rows: number of rows of all processes.

        Returns:
          A layout without sharding.
        """
        own = self.share.rows(rows)
        number = _most_devices(own.stop - own.start, len(self._local))
        return dataclasses.replace(self, devices=self._local[:number], shard_optimizer=False)

    def evaluation_step(self, loss_fn: LossFn) -> EvaluationStep:
        """Make an evaluation step over this process's devices; see `make_evaluation_step`.

        The devices do not wait for each other, so any number of these steps may be in flight. The
        step is compiled for each shape of rows.

        Args:
          loss_fn: see `LossFn`.

        Returns:
          ``(params, variables, carry, batch) -> (carry, sums)``, with sums [N, ...] per device.

        Raises:
          NotEnoughMemoryError: when called, if the temporary arrays do not fit into memory.
        """
        programs: dict[Any, Any] = {}

        def run(params: PyTree, variables: PyTree, *rows: PyTree) -> Any:
            shared = jax.device_put((params, variables), self._sharding())
            shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves(rows))
            if shapes not in programs:
                lowered = self.lower_evaluation(loss_fn, *shared, *rows)
                programs[shapes] = compile_within("an evaluation step", lowered, self._local)
            return programs[shapes](*shared, *rows)

        return run

    def lower_evaluation(self, loss_fn: LossFn, *arguments: PyTree) -> Any:
        """Lower what `evaluation_step` compiles for these arguments, to a `jax.stages.Lowered`."""
        step, axes = make_evaluation_step(loss_fn), (None, None, 0, 0)
        return jax.pmap(step, AXIS, in_axes=axes, devices=self.devices).lower(*arguments)

    def split(self, tree: PyTree) -> PyTree:
        """Split host arrays [B, ...] over the devices, to [N, B/N, ...].

        Args:
          tree: pytree of arrays with the rows of this process.

        Raises:
          ValueError: if the rows are not divisible by the devices, or arrays differ in their rows.
        """
        if jax.tree.leaves(tree):
            check_rows("batch", tree)
        rows = self._sharding(AXIS)

        def split_leaf(x: Any) -> Any:
            x = self._cut(x, len(self._local))
            return jax.make_array_from_process_local_data(rows, x) if self._spread else x

        return jax.tree.map(split_leaf, tree)

    def _cut(self, x: Any, parts: int) -> np.ndarray:
        """Rows [B, ...] as [parts, B/parts, ...]."""
        x = np.asarray(x)
        self._check_divides(x.shape[0], parts)
        return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])

    @staticmethod
    def _check_divides(number: int, devices: int) -> None:
        if number % devices:
            raise ValueError(
                f"batch_size: expected a multiple of the {devices} devices, got {number}"
            )

    def _sharding(self, *axes: str | None) -> jax.sharding.NamedSharding:
        """Sharded along the axis named `AXIS`; without one, replicated."""
        mesh = jax.sharding.Mesh(np.asarray(self.devices), (AXIS,))
        return jax.sharding.NamedSharding(mesh, P(*axes))

    def _shard(self, x: Any) -> jax.sharding.NamedSharding:
        """Sharding of an array of the optimizer state, or of a gradient."""
        if self.shard_optimizer and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            for axis, size in enumerate(x.shape):
                if size and size % self.size == 0:
                    return self._sharding(*[None] * axis, AXIS)
        return self._sharding()

    def _state_shardings(self, state: TrainState) -> TrainState:
        """Sharding of each leaf of a state whose carry is [N, B/N, ...]."""
        whole = jax.tree.map(lambda _: self._sharding(), state)
        return whole._replace(
            opt_state=jax.tree.map(self._shard, state.opt_state),
            carry=jax.tree.map(lambda _: self._sharding(AXIS), state.carry),
        )

    def place(self, state: TrainState) -> TrainState:
        """Copy a host state to the devices; the arrays passed are never donated.

        Args:
          state: state with all rows of the global batch, in every process.

        Raises:
          ValueError: if the carry has no rows, or they are not divisible by the devices.
        """
        if jax.tree.leaves(state.carry):
            check_rows("carry", state.carry)
        state = state._replace(carry=jax.tree.map(lambda x: self._cut(x, self.size), state.carry))
        return jax.tree.map(_lay_out, state, self._state_shardings(state))

    def local(self, tree: PyTree) -> PyTree:
        """Copy what is replicated to arrays on this process's devices alone."""
        if not self._spread:
            return tree
        sharding = DataParallel(self._local)._sharding()

        def local_leaf(x: jax.Array) -> jax.Array:
            parts = [shard.data for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)

        return jax.tree.map(local_leaf, tree)

    def gather(self, state: TrainState) -> TrainState:
        """Copy a state to the host, in the form of checkpoints, independent of the devices.

        With several processes, all must call it, and all get the whole state.
        """
        everywhere = jax.jit(_same, out_shardings=self._sharding())

        def whole(x: Any) -> Any:
            if x.is_fully_addressable or x.is_fully_replicated:
                return x
            # Wait for all devices before the next array, so that messages do not get mixed up.
            return jax.block_until_ready(everywhere(x))

        host = jax.tree.map(lambda x: to_host(whole(x)), state)  # replicates one array at a time
        return host._replace(carry=jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), host.carry))


class _AllReduce:
    """The `OverRows` of a mapped device; a message is sent along with the first sums."""

    def __init__(self, message: PyTree) -> None:
        self._message = message
        self.reply: PyTree = None

    def __call__(self, function: Callable, shared: PyTree, rows: PyTree) -> Any:
        first = jax.lax.axis_index(AXIS) * check_rows("rows", rows)
        sums, carry = function(shared, rows, first)
        if self.reply is not None:
            return _add_up(sums), carry
        message = jax.tree.map(jnp.sum, self._message)
        sums, self.reply = _add_up((sums, message))
        return sums, carry


def _add_up(sums: PyTree) -> PyTree:
    """All-reduce sums; between CPU processes as a single message in their widest dtype.

    Each message costs a round trip between hosts. On devices other than CPUs, XLA combines messages
    itself, and may sum directly into the shards of a sharded optimizer state. In a float32 message,
    integers are exact only up to 2²⁴.
    """
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        return jax.lax.psum(sums, AXIS)
    leaves, structure = jax.tree.flatten(sums)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    dtype = jnp.result_type(*leaves)
    message = jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in leaves])
    parts = jnp.split(jax.lax.psum(message, AXIS), ends)
    added = [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, added)


class _Compiled(NamedTuple):
    """A step compiled for one shape."""

    layout: DataParallel
    run: Any
    memory: Memory | None

    def __call__(
        self, state: TrainState, batch: PyTree, clock: Clock, message: PyTree
    ) -> tuple[TrainState, StepInfo, PyTree]:
        return self.run(state, batch, clock, self.layout.split(message))


def _same(x: Any) -> Any:
    return x


def _lay_out(x: Any, sharding: jax.sharding.NamedSharding) -> jax.Array:
    """Copy a host array, which all processes have, to the devices.

    JAX may share memory with an array that it receives, and the step donates its state. Therefore,
    JAX gets copies of the caller's array.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _lay_out(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: np.array(host[part]))
