"""What training asks of devices and of other processes, and the answer of a single device.

`seqnets.devices` has the layouts over several devices and the peers of several processes.
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
    """Bytes on each device."""

    parameters: int
    """Of the parameters."""
    optimizer: int
    """Of the optimizers' state."""
    step: int | None
    """Of all else that a step needs at once: activations, gradients, new values. None if the
    compiler does not tell."""

    def __str__(self) -> str:
        parts = [
            f"parameters {readable(self.parameters)}",
            f"optimizer {readable(self.optimizer)}",
        ]
        if self.step is not None:
            parts.append(f"activations and gradients {readable(self.step)}")
        return ", ".join(parts)


def readable(number: int) -> str:
    """A number of bytes with three digits and a unit, powers of 1000."""
    value, units = float(number), iter(("B", "kB", "MB", "GB", "TB", "PB", "EB"))
    unit = next(units)
    while value >= 999.5 and unit != "EB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"


class Program(Protocol):
    """A training step compiled for one shape of batches."""

    @property
    def memory(self) -> Memory | None:
        """What it takes of each device; None if unknown."""
        ...

    def __call__(
        self, state: TrainState, batch: PyTree, clock: Clock, message: PyTree
    ) -> tuple[TrainState, StepInfo, PyTree]:
        """Take a step; the state is used up (donated).

        Args:
          state: from `Layout.place`, or of the step before.
          batch: from `Layout.split`.
          clock: how far the run is.
          message: from `Consensus.message`.

        Returns:
          ``(state, info, reply)``; the reply is for `Consensus.receive`.
        """
        ...


class Layout(Protocol):
    """Where rows are computed. On the host everything has its plain shape, [B, ...]."""

    @property
    def share(self) -> Share:
        """The part of every batch's rows that this process provides."""
        ...

    @property
    def peers(self) -> Peers:
        """The other processes of the same run."""
        ...

    def place(self, state: TrainState) -> TrainState:
        """Lay a host state out over the devices; the arrays given stay the caller's."""
        ...

    def gather(self, state: TrainState) -> TrainState:
        """A host copy of a state that does not depend on the layout."""
        ...

    def split(self, batch: PyTree) -> PyTree:
        """Lay the host rows of this process out over its devices."""
        ...

    def compile(self, step: TrainStep, state: TrainState, batch: PyTree) -> Program:
        """Compile a step for a state from `place` and batches of the shape of one from `split`."""
        ...

    def local(self, tree: PyTree) -> PyTree:
        """What all devices hold alike, as arrays of this process alone."""
        ...

    def apart(self, rows: int) -> Layout:
        """The layout on which this process evaluates its share of rows by itself.

        Args:
          rows: in all; the share of each process is ``share.rows(rows)``.
        """
        ...

    def evaluation_step(self, loss_fn: LossFn) -> EvaluationStep:
        """A compiled `make_evaluation_step`; sums have a leading axis, that of the devices."""
        ...


class Consensus(Protocol):
    """The one clock and the one signal that all processes go by."""

    @property
    def alone(self) -> bool:
        """Whether there is nobody to agree with."""
        ...

    def seconds(self, own: float) -> float:
        """Seconds of training, from those that this process counted."""
        ...

    def signal(self, own: int | None) -> int | None:
        """The signal that stops the run, from the one that this process received."""
        ...

    def message(self, rows: int, seconds: float, signal: int | None) -> PyTree:
        """What this process sends with its next step: arrays [rows, ...]."""
        ...

    def receive(self, reply: PyTree) -> None:
        """Take in the sum of the messages of all processes."""
        ...

    def ask(self, signal: int | None) -> bool:
        """Whether any process received a signal, where there is no step to send it with."""
        ...


class Peers(Protocol):
    """The processes that train as one. All of them call each method at the same place."""

    @property
    def lead(self) -> bool:
        """Whether this is process 0, which prints and writes."""
        ...

    @property
    def count(self) -> int:
        """Number of processes."""
        ...

    def wait(self) -> None:
        """Wait for all the others."""
        ...

    def broadcast(self, make: Callable[[], tuple[K, T]]) -> tuple[K | None, T]:
        """Call ``make() -> (kept, sent)`` on process 0; broadcast ``sent``; else kept is None."""
        ...

    def gather(self, text: str) -> list[str]:
        """The texts of all processes, for all of them."""
        ...

    def broadcast_arrays(self, tree: PyTree) -> PyTree:
        """The host arrays of process 0, bit for bit; elsewhere only shapes and dtypes matter."""
        ...

    def scatter(self, array: Shaped[np.ndarray, "n *S"], part: slice) -> Shaped[np.ndarray, "m *S"]:
        """Rows of an array of process 0: each process gets the part that it asks for."""
        ...

    def all_reduce(self, sums: PyTree) -> PyTree:
        """Add float64 host arrays of any shape over all processes."""
        ...

    def consensus(self, seconds: float) -> Consensus:
        """Agree from now on; ``seconds`` are those counted so far."""
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
"""The peers of a process that has none."""


class _Compiled(NamedTuple):
    """The program of one device."""

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
