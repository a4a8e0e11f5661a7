"""Several processes that train as one: how they meet, and what they tell each other.

Each runs the same program on devices of its own. Process 0 leads: it alone prints and writes, and
what only one can decide it decides for all. What one tells the others travels bit for bit.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.reduction import Weighted
from seqnets.training.state import StepInfo, StepKeys
from seqnets.training.step import LossFn
from seqnets.typing import PyTree

__all__ = [
    "Agreement",
    "LeadError",
    "Words",
    "add_up",
    "copy_of_lead",
    "from_lead",
    "join",
    "leads",
    "meet",
    "part_of_lead",
    "passing_words",
    "told_by_lead",
]

HEARTBEAT_SECONDS = 60  # after which the runtime holds a process that is silent for dead
WORDS = "words between processes"
SIGNALS = {signal.SIGTERM: 2.0**16, signal.SIGINT: 1.0}  # as sums over fewer processes than 2**16
NOTHING = np.empty(0, np.uint8)
PIECE = 1024  # bytes: messages of nearly the same length share a program
MESSAGE = 2**24  # bytes at once: each lies on a device of each process, and once more as their sum

T = TypeVar("T")
K = TypeVar("K")


class LeadError(RuntimeError):
    """What process 0 was to do for all failed there, and is told of there."""


def join(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Meet the other processes, through JAX's distributed runtime. Must come before any use of JAX.

    It is a use of JAX itself: the number of devices is settled then, see `use_all_cores`.

    Without arguments the cluster is asked: SLURM, Open MPI, Kubernetes or a TPU slice.

    What native code writes to standard output is thrown away from here on: the connections
    between CPU processes are loud. A process that is silent for 60 seconds is held for dead,
    and the runtime then aborts the others.

    Args:
      coordinator: ``host:port`` at which process 0 is to listen.
      processes: how many there are.
      process_id: which this is, from 0.

    Raises:
      ValueError: if only some of the arguments are given, one is out of range, or there are
        none and no cluster is found.
      RuntimeError: if JAX is already in use, or the others cannot be reached.
    """
    _check_join(coordinator, processes, process_id)
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is the loop's
    try:
        jax.distributed.initialize(
            coordinator, processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise ValueError(
            "expected processes started by SLURM, Open MPI, Kubernetes or on a TPU slice, and "
            f"found none ({error}); give the coordinator, the number of processes and the "
            "process's own instead"
        ) from error
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    meet()


def _check_join(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
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


def meet() -> None:
    """Wait for all the others, however long they take.

    JAX connects devices when they first work together, and waits for that no longer than 30
    seconds. Devices that were connected wait without end. So here, by one device of each process
    that `join` connected, all meet before their devices do.
    """
    from_lead(lambda: None)


def leads() -> bool:
    """Whether this is process 0, which prints and writes; a process on its own is."""
    return jax.process_index() == 0


def from_lead(make: Callable[[], T]) -> T:
    """What a function gives on process 0, where alone it is called; all wait for it.

    Args:
      make: gives what JSON can hold.

    Raises:
      LeadError: elsewhere than on process 0, if the function failed there.
      Exception: on process 0, what the function raised.
    """
    return told_by_lead(lambda: (None, make()))[1]


def told_by_lead(make: Callable[[], tuple[K, T]]) -> tuple[K | None, T]:
    """What process 0 keeps to itself of what a function gives, and what it tells all.

    Args:
      make: gives what is kept, and what is told, which JSON can hold; called on process 0 alone.

    Returns:
      ``(kept, told)``; elsewhere nothing is kept.

    Raises:
      LeadError: elsewhere than on process 0, if the function failed there.
      Exception: on process 0, what the function raised.
    """
    if jax.process_count() == 1:
        return make()
    kept, value, error = None, None, None
    if leads():
        try:
            kept, value = make()
        except Exception as raised:
            error = raised
    answer = {"value": value, "error": error and f"{type(error).__name__}: {error}"}
    told = json.loads(bytes(_told(np.frombuffer(json.dumps(answer).encode(), np.uint8))))
    if error is not None:
        raise error
    if told["error"] is not None:
        raise LeadError(told["error"])
    return kept, cast(T, value if leads() else told["value"])


def copy_of_lead(tree: PyTree) -> PyTree:
    """The host arrays of process 0, bit for bit, for all.

    Args:
      tree: pytree of arrays and random keys; elsewhere than on process 0 only its shapes and
        dtypes matter.
    """
    if jax.process_count() == 1:
        return tree
    leaves = [_Leaf(x) for x in jax.tree.leaves(tree)]
    told = _told(np.concatenate([leaf.bytes() for leaf in leaves]) if leads() else NOTHING)
    ends = np.cumsum([leaf.array.nbytes for leaf in leaves])[:-1]
    copies = [leaf.like(part) for leaf, part in zip(leaves, np.split(told, ends), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(tree), copies)


def part_of_lead(whole: np.ndarray, part: slice) -> np.ndarray:
    """A part of an array of process 0: each gets what it asks for, and keeps no more.

    Args:
      whole: the array, rows first; elsewhere than on process 0 only its dtype, and its shape but
        for the rows, matter.
      part: which rows this process asks for, with both ends.

    Returns:
      Those rows.
    """
    if jax.process_count() == 1:
        return whole[part]
    own = whole[:0]
    for number, (start, stop) in enumerate(_all(np.array([part.start, part.stop], np.int64))):
        rows = whole[start:stop] if leads() else whole[:0]
        mine = number == jax.process_index()
        told = _told(np.ascontiguousarray(rows).reshape(-1).view(np.uint8), keep=mine)
        if mine:
            own = told.view(whole.dtype).reshape(-1, *whole.shape[1:])
    return own


class _Leaf:
    """An array or random key as bytes, and back."""

    def __init__(self, x: Any) -> None:
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        self.impl = jax.random.key_impl(x) if is_key else None
        self.array = np.asarray(jax.random.key_data(x) if is_key else x, order="C")

    def bytes(self) -> np.ndarray:
        return self.array.reshape(-1).view(np.uint8)

    def like(self, told: np.ndarray) -> Any:
        array = told.view(self.array.dtype).reshape(self.array.shape)
        return (
            array
            if self.impl is None
            else jax.random.wrap_key_data(jnp.asarray(array), impl=self.impl)
        )


def add_up(sums: dict[str, Weighted]) -> dict[str, Weighted]:
    """Add the sums of all processes, which have the same names, in double precision.

    All must call it, and all get the sums of all.

    Args:
      sums: float64 scalars.
    """
    if jax.process_count() == 1:
        return sums
    own = np.array([[part.total, part.weight] for part in sums.values()], np.float64)
    totals = _all(own).sum(0)
    return {name: Weighted(*pair) for name, pair in zip(sums, totals, strict=True)}


class Words(NamedTuple):
    """A batch, and what a process tells the others with it."""

    batch: Any
    """Leaves [B, ...]."""
    seconds: Any
    """[B] float32: in its first row those counted by process 0, else 0."""
    signals: Any
    """[B] float32: in the first row of each process what `SIGNALS` makes of its signal, else 0."""


class Agreement:
    """The one clock and the one signal that all processes go by, a few steps late.

    Process 0's seconds are the seconds, and a signal that any process got is a signal to all.
    The words travel with the sums of a step, and what was told at one step is heard at the same
    later step by all, so that they do the same things at the same steps.
    """

    def __init__(self, seconds: float) -> None:
        """Begin.

        Args:
          seconds: counted so far.
        """
        self.seconds = seconds
        self.signal: int | None = None

    def tell(self, batch: PyTree, seconds: float, number: int | None) -> Words:
        """Put the words into a batch, for a loss from `passing_words`.

        Args:
          batch: rows of this process, host arrays [B, ...].
          seconds: counted so far in this process.
          number: of the signal it got, or None.
        """
        rows = len(jax.tree.leaves(batch)[0])
        words = np.zeros((2, rows), np.float32)
        words[:, 0] = seconds * leads(), 0 if number is None else SIGNALS[signal.Signals(number)]
        return Words(batch, *words)

    def ask(self, number: int | None) -> bool:
        """Ask all whether any got a signal, where there is no step to tell it with.

        All processes must call it.

        Args:
          number: of the signal it got, or None.
        """
        heard = int(_all(np.array([number or 0], np.int64)).max())
        if heard and self.signal is None:
            self.signal = heard
        return heard > 0

    def hear(self, info: StepInfo) -> StepInfo:
        """Take the words out of what a step tells about itself."""
        metrics = dict(info.metrics)
        seconds, signals = jax.device_get(metrics.pop(WORDS))
        self.seconds = float(seconds)
        if self.signal is None:
            self.signal = next((n for n, sent in SIGNALS.items() if signals >= sent), None)
        return info._replace(metrics=metrics)


def passing_words(loss_fn: LossFn) -> LossFn:
    """The loss of a batch of `Words`, which it adds over all rows of all devices as a metric."""

    def loss_of_words(
        params: PyTree, carry: PyTree, batch: Words, keys: StepKeys | None
    ) -> tuple[Weighted, tuple[PyTree, dict[str, Weighted]]]:
        loss, (carry, metrics) = loss_fn(params, carry, batch.batch, keys)
        heard = Weighted(jnp.sum(batch.seconds), jnp.sum(batch.signals))
        return loss, (carry, {**metrics, WORDS: heard})

    return loss_of_words


def _told(own: np.ndarray, *, keep: bool = True) -> np.ndarray:
    """The bytes of process 0, [n] uint8; where they are not to be kept, none."""
    length = int(_all(np.array([own.size], np.int64))[0, 0])
    told = np.empty(length * keep, np.uint8)
    for start in range(0, length, MESSAGE):
        size = min(MESSAGE, length - start)
        padded = np.zeros(-(-size // PIECE) * PIECE, np.uint8)
        if leads():
            padded[:size] = own[start : start + size]
        message = _fetch(_sum()(_spread(padded.view(np.uint32))))
        if keep:
            told[start : start + size] = message.view(np.uint8)[:size]
    return told


def _all(own: np.ndarray) -> np.ndarray:
    """The arrays of all processes, [processes, ...], which are of one shape."""
    told = _gather()(_spread(own.reshape(-1).view(np.uint32)))
    return _fetch(told).view(own.dtype).reshape(-1, *own.shape)


def _fetch(replicated: jax.Array) -> np.ndarray:
    return np.asarray(replicated.addressable_data(0))


def _spread(own: np.ndarray) -> jax.Array:
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
