"""Data parallelism over the devices of one process or of many. The only file that knows `jax.pmap`.

Parameters, variables, and key are replicated; the optimizer's state is replicated or sharded; batch
and carry are split by rows. On the host everything has its plain shape, [B, ...]; on the devices
what is split by rows is [N, B/N, ...]. Where there are several processes, each holds the rows of
its own devices, which are contiguous.
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
    """The largest number of devices that divides every batch size, as many of each process.

    Args:
      batch_sizes: rows of the global batches.
      shard_optimizer: see `DataParallel`.
      devices: to choose from; None for all.

    Raises:
      ValueError: if the processes do not divide the rows.
    """
    owned: dict[int, list[jax.Device]] = {}
    for device in jax.devices() if devices is None else devices:
        owned.setdefault(device.process_index, []).append(device)
    rows = math.gcd(*batch_sizes)
    if rows % len(owned):
        raise ValueError(
            f"batch_size: expected a multiple of the {len(owned)} processes, got {rows}"
        )
    number = math.gcd(rows // len(owned), min(map(len, owned.values())))
    chosen = [device for index in sorted(owned) for device in owned[index][:number]]
    return DataParallel(chosen, shard_optimizer)


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """The `Layout` over a row of devices: it compiles steps, and moves rows there and back.

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
    def _spread(self) -> bool:
        """Whether some of the devices are of other processes."""
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
          step: the step.
          state: from `place`.
          batch: from `split`.

        Raises:
          NotEnoughMemoryError: if activations and gradients do not fit into memory.
        """
        compiled = compile_within("a training step", self.lower(step, state, batch), self._local)
        return _Compiled(self, compiled, memory_of(state, compiled))

    def lower(self, step: TrainStep, state: TrainState, batch: PyTree) -> Any:
        """What `compile` compiles, as `jax.stages.Lowered`."""
        # Shapes alone: an operation on the batch would be one of all processes.
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
        """Each device sums over its rows; what follows is one program over whole arrays.

        The compiler cuts that program along the shards of the optimizer's state. So it is right
        for every optimizer, also one that looks at all arrays at once, as clipping does.
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
                    check_vma=False,  # the sums are all-reduced, as by `pmap`
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
        """This process's devices, as many as divide its share of the rows.

        Args:
          rows: of all processes.
        """
        own = self.share.rows(rows)
        number = math.gcd(own.stop - own.start, len(self._local))
        return dataclasses.replace(self, devices=self._local[:number], shard_optimizer=False)

    def evaluation_step(self, loss_fn: LossFn) -> EvaluationStep:
        """`make_evaluation_step` over the devices of this process, with sums of each, [N, ...].

        The devices do not wait for each other, so any number of these steps may be in flight. It
        is compiled for each shape of the rows, and raises NotEnoughMemoryError before it is run
        where what it computes with does not fit into memory.
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
        """What an `evaluation_step` compiles for some arguments, as `jax.stages.Lowered`."""
        step, axes = make_evaluation_step(loss_fn), (None, None, 0, 0)
        return jax.pmap(step, AXIS, in_axes=axes, devices=self.devices).lower(*arguments)

    def split(self, tree: PyTree) -> PyTree:
        """Host arrays [B, ...] as [N, B/N, ...]; of several processes each gives its own rows.

        Args:
          tree: pytree of arrays with rows first, those of this process.

        Raises:
          ValueError: if N does not divide B, or the arrays do not all have B rows.
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
        """Split over `AXIS` where it is named; without it the same on all devices."""
        mesh = jax.sharding.Mesh(np.asarray(self.devices), (AXIS,))
        return jax.sharding.NamedSharding(mesh, P(*axes))

    def _shard(self, x: Any) -> jax.sharding.NamedSharding:
        """How an array of the optimizer's state is split, and the sums that it is updated from."""
        if self.shard_optimizer and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            for axis, size in enumerate(x.shape):
                if size and size % self.size == 0:
                    return self._sharding(*[None] * axis, AXIS)
        return self._sharding()

    def _state_shardings(self, state: TrainState) -> TrainState:
        """How each leaf of a state is split, the carry being [N, B/N, ...]."""
        whole = jax.tree.map(lambda _: self._sharding(), state)
        return whole._replace(
            opt_state=jax.tree.map(self._shard, state.opt_state),
            carry=jax.tree.map(lambda _: self._sharding(AXIS), state.carry),
        )

    def place(self, state: TrainState) -> TrainState:
        """Lay a host state out over the devices; the arrays given stay the caller's own.

        Args:
          state: with all rows of the global batch, in every process.

        Raises:
          ValueError: if the carry has no rows, or the devices do not divide them.
        """
        if jax.tree.leaves(state.carry):
            check_rows("carry", state.carry)
        state = state._replace(carry=jax.tree.map(lambda x: self._cut(x, self.size), state.carry))
        return jax.tree.map(_lay_out, state, self._state_shardings(state))

    def local(self, tree: PyTree) -> PyTree:
        """What is replicated, as arrays on the devices of this process alone."""
        if not self._spread:
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


class _AllReduce:
    """The `OverRows` of a mapped device; a message travels with the first sums."""

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
    """The sums of all devices; between processes as one message, in the widest of their dtypes.

    Each message costs the way between the hosts. For other devices than CPUs XLA combines them
    itself, and can do so in parts where the optimizer's state is sharded. In a message with float32
    integers are exact up to 2²⁴ only.
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
    """A host array, the same in all processes, laid out.

    JAX may share memory with what it is given, and the step donates its state: so it is given
    copies of the caller's array.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _lay_out(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: np.array(host[part]))
