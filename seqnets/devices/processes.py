"""Several processes that train one model: how they connect and communicate.

Each process runs the same program on its own devices. Only process 0 prints and writes, and it
makes the decisions that a single process must make. Arrays are sent bit for bit.
"""

from __future__ import annotations

import functools
import json
import math
import os
import signal as signals
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.checks import check_range
from seqnets.devices.rendezvous import meet
from seqnets.training.layout import ALONE, Consensus, Peers
from seqnets.typing import PyTree, Shaped

__all__ = ["LeadError", "Message", "Processes", "connect", "peers"]

LATER_SECONDS = 30  # how much later than the alarm the runtime gives up
HEARTBEAT_SECONDS = 60  # after which the runtime considers a silent process dead
SIGNALS = {signals.SIGTERM: 2.0**16, signals.SIGINT: 1.0}  # summed over fewer than 2**16 processes
NOTHING = np.empty(0, np.uint8)
CHUNK_BYTES = 1024  # lengths are rounded up to this, so that similar ones share a program
MESSAGE_BYTES = 2**24  # sent at once; a message and the sum of messages are on a device

T = TypeVar("T")
K = TypeVar("K")


class LeadError(RuntimeError):
    """Process 0 failed in a task that it does for all processes; it reports the error itself."""


def connect(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    seconds: float = 60.0,
    alarm: Callable[[str], None] | None = None,
) -> None:
    """Connect to the other processes through JAX's distributed runtime, before any use of JAX.

    This fixes the number of devices; call `use_all_cores` first. Without arguments, the processes
    are determined by the cluster: SLURM, Open MPI, Kubernetes, or a TPU slice.

    From here on, output of native code to standard output is discarded, since the connections
    between CPU processes print a lot. A process that is silent for 60 seconds is considered dead,
    and the runtime then aborts the others.

    Args:
      coordinator: ``host:port`` at which process 0 listens.
      processes: number of processes, ≥ 1.
      process_id: number of this process, in [0, processes).
      seconds: how long to wait for the others, > 0.
      alarm: called with a message, in a separate thread, if the runtime does not connect all
        processes in time. It should end this process; otherwise the runtime aborts it later.

    Raises:
      ValueError: if only some of the arguments are given, one is out of range, or none is given
        and no cluster is found.
      MissingPeersError: if a process is missing, or another training run uses the address.
      RuntimeError: if JAX is already in use, or the others cannot be reached.
    """
    _check_connect(coordinator, processes, process_id)
    check_range("seconds", seconds, 0, closed="neither")
    if coordinator is not None and processes is not None and process_id is not None:
        meet(coordinator, processes, process_id, seconds)
    late = f"waited {seconds:g} s for the other processes; not all of them connected"
    timer = threading.Timer(seconds, alarm or (lambda message: None), [late])
    timer.daemon = True
    timer.start()
    try:
        _initialize(coordinator, processes, process_id, math.ceil(seconds) + LATER_SECONDS)
        _discard_native_output()
        peers().wait()
    finally:
        timer.cancel()


def _initialize(
    coordinator: str | None, processes: int | None, process_id: int | None, seconds: int
) -> None:
    jax.config.update("jax_enable_preemption_service", False)  # the loop handles SIGTERM
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise ValueError(
            "expected processes started by SLURM, Open MPI, Kubernetes, or on a TPU slice, and "
            f"found none ({error}); give the coordinator, the number of processes, and the "
            "process id instead"
        ) from error


def _discard_native_output() -> None:
    """Keep Python's standard output, but discard output of native code."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def _check_connect(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    given = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if coordinator is None or processes is None or process_id is None:
        raise ValueError(
            f"expected all of coordinator, processes, process_id, or none; missing: {missing[0]}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"coordinator: expected host:port, got {coordinator!r}")
    if processes < 1:
        raise ValueError(f"processes: expected at least 1, got {processes}")
    if not 0 <= process_id < processes:
        raise ValueError(f"process_id: expected 0 to {processes - 1}, got {process_id}")


class Processes:
    """The `Peers` of one of several processes."""

    @property
    def lead(self) -> bool:
        """Whether this is process 0, which prints and writes."""
        return jax.process_index() == 0

    @property
    def count(self) -> int:
        """Number of processes."""
        return jax.process_count()

    def wait(self) -> None:
        """Wait for all other processes, without a time limit.

        JAX connects devices when they first work together, and waits at most 30 seconds for that;
        connected devices wait without a limit. Therefore, the processes first wait for each other
        here, using the one device of each that `connect` has already connected.
        """
        self.broadcast(lambda: (None, None))

    def broadcast(self, make: Callable[[], tuple[K, T]]) -> tuple[K | None, T]:
        """Call a function on process 0 only, and broadcast part of its result.

        Args:
          make: function that returns ``(kept, sent)``; ``sent`` must be representable in JSON.

        Returns:
          ``(kept, sent)``; ``kept`` is None on the other processes.

        Raises:
          LeadError: on the other processes, if the function failed on process 0.
          Exception: on process 0, what the function raised.
        """
        kept, value, error = None, None, None
        if self.lead:
            try:
                kept, value = make()
            except Exception as raised:
                error = raised
        answer = {"value": value, "error": error and f"{type(error).__name__}: {error}"}
        sent = np.frombuffer(json.dumps(answer).encode(), np.uint8)
        received = json.loads(bytes(_broadcast_bytes(sent)))
        if error is not None:
            raise error
        if received["error"] is not None:
            raise LeadError(received["error"])
        return kept, cast(T, value if self.lead else received["value"])

    def gather(self, text: str) -> list[str]:
        """Gather one text from each process on all processes, in the order of their numbers."""
        own = np.frombuffer(text.encode(), np.uint8)
        sizes = _all_gather(np.array([own.size], np.int64))[:, 0]
        padded = np.zeros(-(-int(sizes.max()) // CHUNK_BYTES) * CHUNK_BYTES, np.uint8)
        padded[: own.size] = own
        received = _all_gather(padded)
        return [bytes(one[:size]).decode() for one, size in zip(received, sizes, strict=True)]

    def broadcast_arrays(self, tree: PyTree) -> PyTree:
        """Broadcast the host arrays of process 0, bit for bit.

        Args:
          tree: pytree of arrays and random keys; on other processes only shapes and dtypes matter.
        """
        leaves = [_Leaf(x) for x in jax.tree.leaves(tree)]
        sent = np.concatenate([leaf.bytes() for leaf in leaves]) if self.lead else NOTHING
        ends = np.cumsum([leaf.array.nbytes for leaf in leaves])[:-1]
        parts = np.split(_broadcast_bytes(sent), ends)
        copies = [leaf.like(part) for leaf, part in zip(leaves, parts, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(tree), copies)

    def scatter(self, array: Shaped[np.ndarray, "n *S"], part: slice) -> Shaped[np.ndarray, "m *S"]:
        """Send each process the rows that it asks for, of an array on process 0.

        Args:
          array: [n, ...]; on other processes only its dtype and its other axes matter.
          part: slice of the rows that this process asks for, with start and stop.
        """
        own = array[:0]
        asked = _all_gather(np.array([part.start, part.stop], np.int64))
        for number, (start, stop) in enumerate(asked):
            rows = array[start:stop] if self.lead else array[:0]
            mine = number == jax.process_index()
            sent = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
            received = _broadcast_bytes(sent, keep=mine)
            if mine:
                own = received.view(array.dtype).reshape(-1, *array.shape[1:])
        return own

    def all_reduce(self, sums: PyTree) -> PyTree:
        """Add the sums of all processes, in double precision.

        Args:
          sums: pytree of float64 host arrays of any shape, with the same structure and shapes on
            all processes.
        """
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(sums)]
        if not leaves:
            return sums
        totals = _all_gather(np.concatenate([leaf.reshape(-1) for leaf in leaves])).sum(0)
        parts = np.split(totals, np.cumsum([leaf.size for leaf in leaves])[:-1])
        added = [p.reshape(x.shape)[()] for p, x in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(sums), added)

    def consensus(self, seconds: float) -> Consensus:
        """Start a consensus, with the seconds of training counted so far."""
        return _Agreed(self, seconds)


def peers() -> Peers:
    """Return the processes connected to this one; `seqnets.training.ALONE` if there are none."""
    return ALONE if jax.process_count() == 1 else Processes()


class _Leaf:
    """Converts an array or random key to bytes and back."""

    def __init__(self, x: Any) -> None:
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        self.impl = jax.random.key_impl(x) if is_key else None
        self.array = np.asarray(jax.random.key_data(x) if is_key else x, order="C")

    def bytes(self) -> np.ndarray:
        return self.array.reshape(-1).view(np.uint8)

    def like(self, received: np.ndarray) -> Any:
        array = received.view(self.array.dtype).reshape(self.array.shape)
        if self.impl is None:
            return array
        return jax.random.wrap_key_data(jnp.asarray(array), impl=self.impl)


class Message(NamedTuple):
    """What a process sends along with a step, as rows that are summed over all processes."""

    seconds: Any
    """[rows] float32: the seconds counted by process 0 in its first row, else 0."""
    signals: Any
    """[rows] float32: the number in `SIGNALS` of each process's signal in its first row, else 0."""


class _Agreed:
    """The clock and signal agreed on by all processes, with a delay of a few steps.

    The seconds are those of process 0, and a signal to any process is a signal to all. Messages are
    sent along with the sums of a step. All processes receive them at the same later step, so that
    they do the same things at the same steps.
    """

    alone = False

    def __init__(self, processes: Processes, seconds: float) -> None:
        self._processes = processes
        self._seconds = seconds
        self._signal: int | None = None

    def seconds(self, own: float) -> float:
        return self._seconds

    def signal(self, own: int | None) -> int | None:
        return self._signal

    def message(self, rows: int, seconds: float, signal: int | None) -> Message:
        values = np.zeros((2, rows), np.float32)
        sent = 0 if signal is None else SIGNALS[signals.Signals(signal)]
        values[:, 0] = seconds * self._processes.lead, sent
        return Message(*values)

    def receive(self, reply: Message) -> None:
        seconds, sum_of_signals = jax.device_get(reply)
        self._seconds = float(seconds)
        if self._signal is None:
            self._signal = next((n for n, sent in SIGNALS.items() if sum_of_signals >= sent), None)

    def ask(self, signal: int | None) -> bool:
        received = int(_all_gather(np.array([signal or 0], np.int64)).max())
        if received and self._signal is None:
            self._signal = received
        return received > 0


def _broadcast_bytes(own: np.ndarray, *, keep: bool = True) -> np.ndarray:
    """The bytes of process 0, [n] uint8; none if they are not to be kept."""
    length = int(_all_gather(np.array([own.size], np.int64))[0, 0])
    received = np.empty(length * keep, np.uint8)
    for start in range(0, length, MESSAGE_BYTES):
        size = min(MESSAGE_BYTES, length - start)
        padded = np.zeros(-(-size // CHUNK_BYTES) * CHUNK_BYTES, np.uint8)
        if jax.process_index() == 0:
            padded[:size] = own[start : start + size]
        message = _fetch(_sum()(_one_row_each(padded.view(np.uint32))))
        if keep:
            received[start : start + size] = message.view(np.uint8)[:size]
    return received


def _all_gather(own: np.ndarray) -> np.ndarray:
    """The arrays of all processes, of equal shapes, as [processes, ...]."""
    received = _gather()(_one_row_each(own.reshape(-1).view(np.uint32)))
    return _fetch(received).view(own.dtype).reshape(-1, *own.shape)


def _fetch(replicated: jax.Array) -> np.ndarray:
    return np.asarray(replicated.addressable_data(0))


def _one_row_each(own: np.ndarray) -> jax.Array:
    """[processes, n], one row from each process."""
    rows = jax.sharding.NamedSharding(_mesh(), jax.sharding.PartitionSpec("processes"))
    return jax.make_array_from_process_local_data(rows, own[None])


@functools.cache
def _mesh() -> jax.sharding.Mesh:
    """One device of each process."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    return jax.sharding.Mesh([first[index] for index in sorted(first)], ("processes",))


@functools.cache
def _gather() -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=_everywhere())


@functools.cache
def _sum() -> Callable[[jax.Array], jax.Array]:
    """The row of process 0, since the rows of the others are zero."""
    return jax.jit(lambda x: jnp.sum(x, 0, dtype=x.dtype), out_shardings=_everywhere())


def _everywhere() -> jax.sharding.Sharding:
    return jax.sharding.NamedSharding(_mesh(), jax.sharding.PartitionSpec())
