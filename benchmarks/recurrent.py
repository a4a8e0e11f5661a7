"""Recurrent layers beside their peers, interleaved, each in a process of its own.

    python benchmarks/recurrent.py --quick
    python benchmarks/recurrent.py --json results.json

Every system runs one layer on the same inputs, as its users would: seqnets by its own
data-parallel step over one CPU device per core, the update by SGD included (``seqnets``), and as a
single `jax.jit` (``seqnets-jit``), flax.linen.RNN under `jax.jit`, PyTorch with all cores, Keras
on JAX. The inputs are multiplied by trainable gains, one a feature, and the loss is the sum of the
squared outputs at real steps; so the gradient is that of a layer within a network, which goes on
to what is below it. Ragged rows are between half and all of T long.

Figures are medians of interleaved repetitions; trust ratios, not milliseconds. Compile time is
that of one fresh compilation, and peak memory the compiler's count of temporary and output bytes
on all devices; PyTorch has neither. Peers that are not installed are left out
(``pip install "seqnets[bench]"``), and a peer that fails on a case is, for that case.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.cells import GRU, LSTM, Elman
from seqnets.devices import DataParallel, use_all_cores
from seqnets.files import write_atomically
from seqnets.recurrence import lengths_to_mask, unroll
from seqnets.reduction import Weighted
from seqnets.training import Clock, make_train_step

SHAPES = (
    (1, 128, 128, 256),
    (16, 200, 32, 64),
    (32, 128, 128, 256),
    (64, 64, 512, 512),
    (128, 64, 64, 128),
    (8, 1000, 16, 128),
)
CELLS = {"LSTM": LSTM, "GRU": GRU, "Elman": Elman}
GATES = {"LSTM": 4, "GRU": 3, "Elman": 1}
MODES = ("forward", "forward+backward")
PEERS = ("flax", "torch", "keras")


@dataclasses.dataclass(frozen=True)
class Case:
    """One layer on one input."""

    cell: str
    mode: str
    shape: tuple[int, int, int, int]
    ragged: bool

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        B, T, D, _ = self.shape
        return np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        B, T, _, _ = self.shape
        full = np.full(B, T)
        return np.random.default_rng(1).integers(T // 2, T + 1, B) if self.ragged else full

    @property
    def operations(self) -> float:
        """Of the products alone, on all steps, padded ones too."""
        B, T, D, H = self.shape
        forward = 2.0 * B * T * (D + H) * GATES[self.cell] * H
        return forward if self.mode == "forward" else 3 * forward


@dataclasses.dataclass(frozen=True)
class Subject:
    """A system, ready to run; what it gives holds the loss and, where asked for, the gradient."""

    run: Callable[[], Any]
    compile_seconds: float | None = None
    peak_bytes: int | None = None


class Trained(NamedTuple):
    """What the gradient is taken of."""

    gains: Any
    """[D], times the inputs."""
    layer: Any


def arrays(case: Case) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Gains [D], inputs [B, T, D] and mask [B, T]."""
    _, T, D, _ = case.shape
    mask = lengths_to_mask(jnp.asarray(case.lengths), T) if case.ragged else None
    return jnp.ones(D), jnp.asarray(case.inputs), mask


def squares(ys: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.sum(jnp.square(ys if mask is None else jnp.where(mask[..., None], ys, 0)))


def compiled(function: Any, *arguments: Any) -> tuple[Callable, float, int | None]:
    """Compile a jitted or pmapped function: program, seconds, and bytes on one device."""
    began = time.perf_counter()
    program = function.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory = program.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else None
    return program, seconds, peak


def jitted(case: Case, loss: Callable, *arguments: Any) -> Subject:
    """The loss, and its gradient by the first argument, as one program."""
    function = loss if case.mode == "forward" else jax.value_and_grad(loss)
    program, seconds, peak = compiled(jax.jit(function), *arguments)
    return Subject(lambda: jax.block_until_ready(program(*arguments)), seconds, peak)


def seqnets_loss(case: Case) -> tuple[Callable, Trained]:
    cell = CELLS[case.cell](case.shape[3])
    gains, _, _ = arrays(case)

    def loss(trained: Trained, xs: jax.Array, mask: jax.Array | None) -> jax.Array:
        _, ys = unroll(cell, trained.layer, None, trained.gains[None, None] * xs, mask=mask)
        return squares(ys, None)

    return loss, Trained(gains, cell.init(jax.random.key(0), case.shape[2]))


def seqnets_jit(case: Case) -> Subject:
    loss, trained = seqnets_loss(case)
    return jitted(case, loss, trained, *arrays(case)[1:])


def seqnets_parallel(case: Case) -> Subject | None:
    """The library's own steps over all devices; None where they do not divide the rows."""
    layout = DataParallel(jax.local_devices())
    if layout.size == 1 or case.shape[0] % layout.size:
        return None
    loss, trained = seqnets_loss(case)

    def loss_fn(params: Trained, batch: Any) -> Any:
        total = loss(params, *batch)
        return Weighted(total, jnp.asarray(batch[0].shape[0], total.dtype))

    train_step = make_train_step(loss_fn, optax.sgd(1e-6))
    state = layout.place(train_step.init(trained, jax.random.key(0)))
    mesh = jax.sharding.Mesh(np.asarray(layout.devices), ("rows",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    batch = jax.device_put(layout.split(arrays(case)[1:]), rows)
    if case.mode == "forward":
        lowering = types.SimpleNamespace(lower=functools.partial(layout.lower_evaluation, loss_fn))
        program, seconds, peak = compiled(lowering, state.params, (), (), batch)
        run = functools.partial(program, state.params, (), (), batch)
        return Subject(lambda: jax.block_until_ready(run()), seconds, peak and peak * layout.size)
    lowering = types.SimpleNamespace(lower=functools.partial(layout.lower, train_step))
    program, seconds, peak = compiled(lowering, state, batch)
    states, clock = [state], Clock(np.float32(0), np.int32(0))

    def train() -> Any:
        states[0], info, _ = program(states[0], batch, clock, ())  # the state before is used up
        return jax.block_until_ready((states[0], info))

    return Subject(train, seconds, peak and peak * layout.size)


def flax_layer(case: Case) -> Subject:
    cells = {"LSTM": nn.OptimizedLSTMCell, "GRU": nn.GRUCell, "Elman": nn.SimpleCell}
    layer = nn.RNN(cells[case.cell](case.shape[3]))
    gains, xs, mask = arrays(case)
    lengths = jnp.asarray(case.lengths) if case.ragged else None
    trained = Trained(gains, layer.init(jax.random.key(0), xs))

    def loss(trained: Trained, xs: jax.Array) -> jax.Array:
        ys: Any = layer.apply(trained.layer, trained.gains[None, None] * xs, seq_lengths=lengths)
        return squares(ys, mask)

    return jitted(case, loss, trained, xs)


def keras_layer(case: Case) -> Subject:
    import keras

    kinds = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "Elman": keras.layers.SimpleRNN}
    layer = kinds[case.cell](case.shape[3], return_sequences=True)
    gains, xs, mask = arrays(case)
    layer.build(xs.shape)
    trained = Trained(gains, [variable.value for variable in layer.trainable_variables])
    others = [variable.value for variable in layer.non_trainable_variables]

    def loss(trained: Trained, xs: jax.Array) -> jax.Array:
        xs = trained.gains[None, None] * xs
        return squares(layer.stateless_call(trained.layer, others, xs, mask=mask)[0], mask)

    return jitted(case, loss, trained, xs)


def torch_layer(case: Case) -> Subject:
    import torch

    torch.set_num_threads(cores())
    kinds = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "Elman": torch.nn.RNN}
    layer = kinds[case.cell](case.shape[2], case.shape[3], batch_first=True)
    backward = case.mode != "forward"
    xs, lengths = torch.tensor(case.inputs), torch.tensor(case.lengths)
    trained = Trained(torch.ones(case.shape[2], requires_grad=True), list(layer.parameters()))

    def run() -> Any:
        with torch.set_grad_enabled(backward):
            inputs = trained.gains * xs
            if case.ragged:
                inputs = torch.nn.utils.rnn.pack_padded_sequence(
                    inputs, lengths, batch_first=True, enforce_sorted=False
                )
            ys, _ = layer(inputs)
            total = torch.square(ys.data if case.ragged else ys).sum()
            if not backward:
                return total
            gains, *weights = torch.autograd.grad(total, [trained.gains, *trained.layer])
            return total.detach(), Trained(gains, weights)

    return Subject(run)


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


SYSTEMS = {
    "seqnets": seqnets_parallel,
    "seqnets-jit": seqnets_jit,
    "flax": flax_layer,
    "torch": torch_layer,
    "keras": keras_layer,
}


class Apart:
    """A system in a process of its own: no other's threads, memory and caches are in its way."""

    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        context.Process(target=serve, args=(name, theirs), daemon=True).start()

    def __call__(self, case: Case) -> Subject | None:
        """Make the system ready there."""
        figures = self._ask(case)
        return figures and Subject(functools.partial(self._ask, None), *figures)

    def _ask(self, case: Case | None) -> Any:
        self.pipe.send(case)
        answer, error = self.pipe.recv()
        if error is not None:
            raise RuntimeError(error)
        return answer


def serve(name: str, pipe: Any) -> None:
    """Answer `Apart`: a case is made ready, None runs it once more."""
    begin()
    subject: Subject | None = None
    while True:
        try:
            case, answer, error = pipe.recv(), None, None
        except EOFError:  # the end
            return
        try:
            if case is None:
                subject.run()  # type: ignore[union-attr]
            else:
                subject = None  # its memory first
                subject = SYSTEMS[name](case)
                answer = subject and (subject.compile_seconds, subject.peak_bytes)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        pipe.send((answer, error))


def begin() -> None:
    """What comes before the first use of JAX."""
    use_all_cores()
    jax.config.update("jax_enable_compilation_cache", False)


def prepared(
    case: Case, systems: list[str], makers: dict[str, Any] | None = None
) -> dict[str, Subject]:
    """Each system compiled and run once; a peer that fails is told of and left out."""
    subjects = {}
    for name in systems:
        try:
            subject = (makers or SYSTEMS)[name](case)
            if subject is not None:
                subject.run()
                subjects[name] = subject
        except Exception as error:  # whatever a peer may raise
            if name not in PEERS:
                raise
            told = (str(error).splitlines() or [""])[0]
            print(f"{name} fails on {case}: {type(error).__name__}: {told}", file=sys.stderr)
    return subjects


def medians(subjects: dict[str, Subject], seconds: float) -> dict[str, float]:
    """Median seconds of each, run in turns until about ``seconds`` have passed for every one.

    The first run of each turn is not timed: threads of the system before may still be spinning,
    and the caches hold its data.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    end = time.perf_counter() + seconds * len(subjects)
    while time.perf_counter() < end or len(times[next(iter(times))]) < 3:
        for name, subject in subjects.items():
            subject.run()
            began = time.perf_counter()
            subject.run()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def product_limit() -> float:
    """Operations a second of a large float32 product, the best system's, on all cores."""
    n = 2048
    a = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    x = jnp.asarray(a)
    product = jax.jit(jnp.matmul)
    subjects = {"jax": Subject(lambda: jax.block_until_ready(product(x, x)))}
    if installed("torch"):
        import torch

        y = torch.tensor(a)
        torch.set_num_threads(cores())
        subjects["torch"] = Subject(lambda: torch.mm(y, y))
    return 2 * n**3 / min(medians(subjects, 1.0).values())


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def cases(*, quick: bool) -> Iterator[Case]:
    names = ("LSTM", "GRU") if quick else tuple(CELLS)
    modes = MODES[1:] if quick else MODES
    for values in itertools.product(names, modes, SHAPES, (False, True)):
        yield Case(*values)


def measure(
    case: Case,
    systems: list[str],
    limit: float,
    seconds: float,
    makers: dict[str, Any] | None = None,
) -> list[dict]:
    subjects = prepared(case, systems, makers)
    taken = medians(subjects, seconds)
    return [
        {
            "cell": case.cell,
            "mode": case.mode,
            "shape": list(case.shape),
            "ragged": case.ragged,
            "system": name,
            "seconds": taken[name],
            "compile_seconds": subject.compile_seconds,
            "peak_bytes": subject.peak_bytes,
            "share_of_limit": case.operations / taken[name] / limit,
        }
        for name, subject in subjects.items()
    ]


def row(case: Case, rows: list[dict], systems: list[str]) -> str:
    taken = {r["system"]: r["seconds"] for r in rows}
    ours = "seqnets" if "seqnets" in taken else "seqnets-jit"
    peers = [name for name in systems if name in PEERS]
    ratios = [taken[name] / taken[ours] if name in taken else None for name in peers]
    share = next(r["share_of_limit"] for r in rows if r["system"] == ours)
    line = f"{kind(rows[0]):30}{case.shape!s:22}"
    line += columns(taken[name] * 1e3 if name in taken else None for name in systems)
    return line + columns(ratios) + f"{share:9.0%}"


def kind(row: dict) -> str:
    return f"{row['cell']} {row['mode']}{' ragged' if row['ragged'] else ''}"


def columns(values: Iterable[float | str | None]) -> str:
    """Nine characters each; what is missing is a dash."""
    given = ["-" if value is None else value for value in values]
    return "".join(f"{v:>9}" if isinstance(v, str) else f"{v:9.2f}" for v in given)


def mean_ratio(rows: list[dict], over: dict, under: dict) -> float | None:
    """Geometric mean, over the shapes of both, of the seconds of ``over`` by those of ``under``."""

    def seconds(wanted: dict) -> dict[tuple[int, ...], float]:
        return {tuple(r["shape"]): r["seconds"] for r in rows if wanted.items() <= r.items()}

    first, second = seconds(over), seconds(under)
    ratios = [first[shape] / second[shape] for shape in first if shape in second]
    return statistics.geometric_mean(ratios) if ratios else None


def ratio_table(
    rows: list[dict], names: list[str], over: dict[str, Any], under: dict[str, Any]
) -> Iterator[str]:
    """A line for each kind and a column for each system: `mean_ratio`.

    What ``over`` and ``under`` say takes the place of the kind's and the column's own.
    """
    kinds = {kind(r): {key: r[key] for key in ("cell", "mode", "ragged")} for r in rows}
    for label, own in kinds.items():
        if own["ragged"] == over.get("ragged", own["ragged"]):
            each = [own | {"system": name} for name in names]
            means = [mean_ratio(rows, e | over, e | under) for e in each]
            yield f"{label:30}" + columns(means)


def summary(rows: list[dict], systems: list[str]) -> Iterator[str]:
    """Geometric means over shapes; above 1 is slower than what it is compared with."""
    peers = [name for name in systems if name in PEERS]
    many = [r for r in rows if r["shape"][0] > 1]
    one = [r for r in rows if r["shape"][0] == 1]
    for title, names, chosen, over, under in (
        ("time / seqnets, B > 1", peers, many, {}, {"system": "seqnets"}),
        ("time / jit, B > 1", peers, many, {}, {"system": "seqnets-jit"}),
        ("time / jit, B = 1", peers, one, {}, {"system": "seqnets-jit"}),
        ("time ragged / full, B > 1", systems, many, {"ragged": True}, {"ragged": False}),
    ):
        yield f"\n{title:30}" + columns(name.replace("seqnets-", "") for name in names)
        yield from ratio_table(chosen, names, over, under)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="LSTM and GRU, forward+backward")
    parser.add_argument("--json", metavar="FILE", help="also write the rows, after every case")
    parser.add_argument("--seconds", type=float, help="for each figure (1.5, 0.3 with --quick)")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (0.3 if arguments.quick else 1.5)
    begin()
    systems = [name for name in SYSTEMS if name not in PEERS or installed(name)]
    for name in set(SYSTEMS) - set(systems):
        print(f"{name} is not installed and left out", file=sys.stderr)
    limit = product_limit()
    makers = {name: Apart(name) for name in systems}
    print(f"limit: {limit / 1e9:.0f} GFLOP/s, a product of 2048 x 2048 in float32\n")
    print(f"{'milliseconds':30}{'(B, T, D, H)':22}", end="")
    heads = [*systems, *(f"x {name}" for name in systems if name in PEERS), "limit"]
    print(columns(head.replace("seqnets-", "") for head in heads))
    rows: list[dict] = []
    for case in cases(quick=arguments.quick):
        new = measure(case, systems, limit, seconds, makers)
        print(row(case, new, systems), flush=True)
        rows += new
        if arguments.json:
            write_atomically(arguments.json, json.dumps(rows, indent=1, allow_nan=False).encode())
    print("\n".join(summary(rows, systems)))


if __name__ == "__main__":
    main()
