"""Several processes that train as one: how they connect, and what they tell each other.

Each runs the same program on devices of its own. Process 0 leads: it alone prints and writes, and
it decides for all what only one can decide. Arrays travel bit for bit.
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

LATER_SECONDS = 30  # by which the runtime gives up later than the alarm
HEARTBEAT_SECONDS = 60  # after which the runtime considers a silent process dead
SIGNALS = {signals.SIGTERM: 2.0**16, signals.SIGINT: 1.0}  # as sums over fewer processes than 2**16
NOTHING = np.empty(0, np.uint8)
CHUNK_BYTES = 1024  # messages of nearly the same length share a program
MESSAGE_BYTES = 2**24  # at once: each lies on a device of each process, and once more as their sum

T = TypeVar("T")
K = TypeVar("K")


class LeadError(RuntimeError):
    """What process 0 was to do for all failed there, and is reported there."""


def connect(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    seconds: float = 60.0,
    alarm: Callable[[str], None] | None = None,
) -> None:
    """Connect to the other processes through JAX's distributed runtime, before any use of JAX.

    This is a use of JAX itself: the number of devices is fixed from here on, see `use_all_cores`.
    Without arguments the cluster is asked: SLURM, Open MPI, Kubernetes, or a TPU slice.

    What native code writes to standard output is discarded from here on, since the connections
    between CPU processes print a lot. A process that is silent for 60 seconds is considered dead,
    and the runtime then aborts the others.

    Args:
      coordinator: ``host:port`` at which process 0 is to listen.
      processes: how many there are.
      process_id: which this is, from 0.
      seconds: how long to wait for the others.
      alarm: called in a thread of its own, with a message, where all have met, or were started by
        a cluster, and the runtime does not connect them in time. It should end this process, which
        the runtime aborts otherwise, some time later.

    Raises:
      ValueError: if only some of the arguments are given, one is out of range, or there are
        none and no cluster is found.
      MissingPeersError: if not all have come in time, or another training uses the address.
      RuntimeError: if JAX is already in use, or the others cannot be reached.
    """
    _check_connect(coordinator, processes, process_id)
    check_range("seconds", seconds, 0, closed="neither")
    if coordinator is not None and processes is not None and process_id is not None:
        meet(coordinator, processes, process_id, seconds)
    late = f"waited {seconds:g} s for the others to connect; not all of them did"
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
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is the loop's
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
            f"found none ({error}); give the coordinator, the number of processes and the "
            "process's own instead"
        ) from error


def _discard_native_output() -> None:
    """Keep Python's standard output, and discard that of native code."""
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
        raise ValueError(f"expected all of coordinator, processes, process_id; no {missing[0]}")
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"coordinator: expected host:port, got {coordinator!r}")
    if processes < 1:
        raise ValueError(f"processes: expected at least 1, got {processes}")
    if not 0 <= process_id < processes:
        raise ValueError(f"process_id: expected 0 to {processes - 1}, got {process_id}")


class Processes:
    """The `Peers` of a process among several; see there."""

    @property
    def lead(self) -> bool:
        """Whether this is process 0, which prints and writes."""
        return jax.process_index() == 0

    @property
    def count(self) -> int:
        """Number of processes."""
        return jax.process_count()

    def wait(self) -> None:
        """Wait for all the others, however long they take.

        JAX connects devices when they first work together, and waits for that no longer than 30
        seconds. Devices that are connected wait without end. So all processes meet here, by the one
        device of each that `connect` connected, before their other devices do.
        """
        self.broadcast(lambda: (None, None))

    def broadcast(self, make: Callable[[], tuple[K, T]]) -> tuple[K | None, T]:
        """Call a function on process 0 alone, and broadcast a part of what it returns.

        Args:
          make: gives ``(kept, sent)``; what is sent must be representable in JSON.

        Returns:
          ``(kept, sent)``; on the other processes, kept is None.

        Raises:
          LeadError: elsewhere than on process 0, if the function failed there.
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
        """The texts of all processes, for all of them, in the order of their numbers."""
        own = np.frombuffer(text.encode(), np.uint8)
        sizes = _all_gather(np.array([own.size], np.int64))[:, 0]
        padded = np.zeros(-(-int(sizes.max()) // CHUNK_BYTES) * CHUNK_BYTES, np.uint8)
        padded[: own.size] = own
        received = _all_gather(padded)
        return [bytes(one[:size]).decode() for one, size in zip(received, sizes, strict=True)]

    def broadcast_arrays(self, tree: PyTree) -> PyTree:
        """The host arrays of process 0, bit for bit, for all.

        Args:
          tree: pytree of arrays and random keys; elsewhere than on process 0 only its shapes and
            dtypes matter.
        """
        leaves = [_Leaf(x) for x in jax.tree.leaves(tree)]
        sent = np.concatenate([leaf.bytes() for leaf in leaves]) if self.lead else NOTHING
        ends = np.cumsum([leaf.array.nbytes for leaf in leaves])[:-1]
        parts = np.split(_broadcast_bytes(sent), ends)
        copies = [leaf.like(part) for leaf, part in zip(leaves, parts, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(tree), copies)

    def scatter(self, array: Shaped[np.ndarray, "n *S"], part: slice) -> Shaped[np.ndarray, "m *S"]:
        """Rows of an array of process 0: each process gets what it asks for, and keeps no more.

        Args:
          array: rows first; elsewhere than on process 0 only its dtype, and its shape but for the
            rows, matter.
          part: which rows this process asks for, with both ends.
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
          sums: pytree of float64 host arrays of any shape, of the same structure in all processes.
        """
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(sums)]
        if not leaves:
            return sums
        totals = _all_gather(np.concatenate([leaf.reshape(-1) for leaf in leaves])).sum(0)
        parts = np.split(totals, np.cumsum([leaf.size for leaf in leaves])[:-1])
        added = [p.reshape(x.shape)[()] for p, x in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(sums), added)

    def consensus(self, seconds: float) -> Consensus:
        """Agree from now on; ``seconds`` are those counted so far."""
        return _Agreed(self, seconds)


def peers() -> Peers:
    """The processes that JAX knows of; `seqnets.training.layout.ALONE` for one on its own."""
    return ALONE if jax.process_count() == 1 else Processes()


class _Leaf:
    """An array or random key as bytes, and back."""

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
    """What a process tells the others with a step, as rows that are summed over all of them."""

    seconds: Any
    """[rows] float32: in the first row of process 0 the seconds it counted, else 0."""
    signals: Any
    """[rows] float32: in the first row of each process the number that `SIGNALS` gives its signal,
    else 0."""


class _Agreed:
    """The one clock and the one signal that all processes go by, a few steps late.

    The seconds are those of process 0, and a signal that any process received is a signal to all.
    Messages travel with the sums of a step, and what was sent with one step is received at the same
    later step by all, so that they do the same things at the same steps.
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
    """The bytes of process 0, [n] uint8; where they are not to be kept, none."""
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
    """The arrays of all processes, [processes, ...], which are of one shape."""
    received = _gather()(_one_row_each(own.reshape(-1).view(np.uint32)))
    return _fetch(received).view(own.dtype).reshape(-1, *own.shape)


def _fetch(replicated: jax.Array) -> np.ndarray:
    return np.asarray(replicated.addressable_data(0))


def _one_row_each(own: np.ndarray) -> jax.Array:
    """[processes, n], a row from each process."""
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
    """The row of process 0: those of the others are zero."""
    return jax.jit(lambda x: jnp.sum(x, 0, dtype=x.dtype), out_shardings=_everywhere())


def _everywhere() -> jax.sharding.Sharding:
    return jax.sharding.NamedSharding(_mesh(), jax.sharding.PartitionSpec())
