"""Interfaces of training to devices and other processes, implemented here for a single device.

`seqnets.devices` implements them for several devices and several processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from seqnets.data.source import WHOLE, Share
from seqnets.reduction import Weighted
from seqnets.training.objective import LossFn
from seqnets.training.rows import EvaluationStep, make_evaluation_step
from seqnets.training.state import Clock, StepInfo, TrainState, to_host
from seqnets.training.step import TrainStep
from seqnets.typing import PyTree, Shaped

__all__ = [
    "ALONE",
    "ONE",
    "Consensus",
    "Layout",
    "Memory",
    "Peers",
    "Program",
    "readable",
]

T = TypeVar("T")
K = TypeVar("K")


class Memory(NamedTuple):
    """Memory that a step needs on each device, in bytes."""

    parameters: int
    """Bytes of the parameters."""
    optimizer: int
    """Bytes of the optimizer states."""
    step: int | None
    """Peak bytes of everything else: activations, gradients, new values. None if the compiler
    does not report it."""

    def __str__(self) -> str:
        parts = [
            f"parameters {readable(self.parameters)}",
            f"optimizer {readable(self.optimizer)}",
        ]
        if self.step is not None:
            parts.append(f"activations and gradients {readable(self.step)}")
        return ", ".join(parts)


def readable(number: int) -> str:
    """Format a number of bytes with three digits and a decimal unit (powers of 1000)."""
    value, units = float(number), iter(("B", "kB", "MB", "GB", "TB", "PB", "EB"))
    unit = next(units)
    while value >= 999.5 and unit != "EB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"


class Program(Protocol):
    """A training step compiled for one shape of batches."""

    @property
    def memory(self) -> Memory | None:
        """Memory that it needs on each device; None if unknown."""
        ...

    def __call__(
        self, state: TrainState, batch: PyTree, clock: Clock, message: PyTree
    ) -> tuple[TrainState, StepInfo, PyTree]:
        """Take a step; the state's buffers are donated.

        Args:
          state: from `Layout.place` or the previous step.
          batch: from `Layout.split`.
          clock: progress of the run.
          message: from `Consensus.message`.

        Returns:
          ``(state, info, reply)``; pass the reply to `Consensus.receive`.
        """
        ...


class Layout(Protocol):
    """How state and rows are placed on devices. On the host, rows have the plain shape [B, ...]."""

    @property
    def share(self) -> Share:
        """The part of every batch's rows that this process provides."""
        ...

    @property
    def peers(self) -> Peers:
        """The other processes of the same run."""
        ...

    def place(self, state: TrainState) -> TrainState:
        """Copy a host state to the devices; the arrays passed are never donated."""
        ...

    def gather(self, state: TrainState) -> TrainState:
        """Copy a state to the host, in a form that does not depend on the layout."""
        ...

    def split(self, batch: PyTree) -> PyTree:
        """Distribute this process's host rows over its devices."""
        ...

    def compile(self, step: TrainStep, state: TrainState, batch: PyTree) -> Program:
        """Compile a step.

        Args:
          step: the training step.
          state: from `place`.
          batch: from `split`; the program is for its shape.
        """
        ...

    def local(self, tree: PyTree) -> PyTree:
        """Copy what is replicated over all devices to arrays of this process alone."""
        ...

    def apart(self, rows: int) -> Layout:
        """The layout on which this process evaluates its share of the rows independently.

        Args:
          rows: total number of rows; each process has ``share.rows(rows)``.
        """
        ...

    def evaluation_step(self, loss_fn: LossFn) -> EvaluationStep:
        """A compiled `make_evaluation_step`; its sums have a leading device axis."""
        ...


class Consensus(Protocol):
    """Agreement of all processes on the seconds of training and on signals."""

    @property
    def alone(self) -> bool:
        """Whether there is only one process."""
        ...

    def seconds(self, own: float) -> float:
        """The seconds of training agreed on, given those counted by this process."""
        ...

    def signal(self, own: int | None) -> int | None:
        """The signal that stops the run, given the one that this process received."""
        ...

    def message(self, rows: int, seconds: float, signal: int | None) -> PyTree:
        """What this process sends along with its next step: arrays [rows, ...]."""
        ...

    def receive(self, reply: PyTree) -> None:
        """Process the sum of the messages of all processes."""
        ...

    def ask(self, signal: int | None) -> bool:
        """Whether any process received a signal; for use outside steps."""
        ...


class Peers(Protocol):
    """The processes of one run. Every method is collective: all processes must call it."""

    @property
    def lead(self) -> bool:
        """Whether this is process 0, which prints and writes."""
        ...

    @property
    def count(self) -> int:
        """Number of processes."""
        ...

    def wait(self) -> None:
        """Wait for all other processes (a barrier)."""
        ...

    def broadcast(self, make: Callable[[], tuple[K, T]]) -> tuple[K | None, T]:
        """Call ``make() -> (kept, sent)`` on process 0 and broadcast ``sent``.

        Returns:
          ``(kept, sent)``; ``kept`` is None on the other processes.
        """
        ...

    def gather(self, text: str) -> list[str]:
        """Gather one text from each process on all processes."""
        ...

    def broadcast_arrays(self, tree: PyTree) -> PyTree:
        """Broadcast host arrays of process 0, bit for bit; others pass equal shapes and dtypes."""
        ...

    def scatter(self, array: Shaped[np.ndarray, "n *S"], part: slice) -> Shaped[np.ndarray, "m *S"]:
        """Send each process the rows ``part`` that it asks for, of an array on process 0."""
        ...

    def all_reduce(self, sums: PyTree) -> PyTree:
        """Add float64 host arrays of any shape over all processes."""
        ...

    def consensus(self, seconds: float) -> Consensus:
        """Start a consensus, with the seconds of training counted so far."""
        ...


# --- one process, one device -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Alone:
    """No other processes: the `Peers` and the `Consensus` of one."""

    lead: bool = True
    count: int = 1
    alone: bool = True

    def wait(self) -> None: ...

    def broadcast(self, make: Callable[[], tuple[K, T]]) -> tuple[K | None, T]:
        return make()

    def gather(self, text: str) -> list[str]:
        return [text]

    def broadcast_arrays(self, tree: PyTree) -> PyTree:
        return tree

    def scatter(self, array: np.ndarray, part: slice) -> np.ndarray:
        return array[part]

    def all_reduce(self, sums: PyTree) -> PyTree:
        return sums

    def consensus(self, seconds: float) -> Consensus:
        return self

    def seconds(self, own: float) -> float:
        return own

    def signal(self, own: int | None) -> int | None:
        return own

    def message(self, rows: int, seconds: float, signal: int | None) -> PyTree:
        return ()

    def receive(self, reply: PyTree) -> None: ...

    def ask(self, signal: int | None) -> bool:
        return False


ALONE = _Alone()
"""The peers of a single process."""


class _Compiled(NamedTuple):
    """A program on one device."""

    run: Any
    memory: Memory | None = None

    def __call__(
        self, state: TrainState, batch: PyTree, clock: Clock, message: PyTree
    ) -> tuple[TrainState, StepInfo, PyTree]:
        return *self.run(state, batch, clock), ()


@dataclasses.dataclass(frozen=True)
class _One:
    """Everything on the default device of this process."""

    share: Share = WHOLE
    peers: Peers = ALONE

    def place(self, state: TrainState) -> TrainState:
        return jax.tree.map(jnp.array, to_host(state))

    def gather(self, state: TrainState) -> TrainState:
        return to_host(state)

    def split(self, batch: PyTree) -> PyTree:
        return jax.tree.map(jnp.asarray, batch)

    def compile(self, step: TrainStep, state: TrainState, batch: PyTree) -> Program:
        clock = Clock(np.float32(0), np.int32(0))  # type: ignore[arg-type]
        jitted = jax.jit(lambda *args: step(*args), donate_argnums=0)
        return _Compiled(jitted.lower(state, batch, clock).compile())

    def local(self, tree: PyTree) -> PyTree:
        return tree

    def apart(self, rows: int) -> Layout:
        return self

    def evaluation_step(self, loss_fn: LossFn) -> EvaluationStep:
        step = make_evaluation_step(loss_fn)

        @jax.jit
        def with_axis(*args: PyTree) -> tuple[PyTree, dict[str, Weighted]]:
            carry, sums = step(*args)
            return carry, jax.tree.map(lambda x: x[None], sums)

        return with_axis


ONE = _One()
"""The layout of one process on its default device."""
