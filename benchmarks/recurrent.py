"""Recurrent layers beside their peers: seqnets, flax, PyTorch, Keras, interleaved in one process.

    python benchmarks/recurrent.py --quick
    python benchmarks/recurrent.py --json results.json

Every system runs one layer on the same inputs, as its users would: seqnets data-parallel over
one CPU device per core with gradients summed (``seqnets``) and as a single `jax.jit`
(``seqnets-jit``), flax.linen.RNN under `jax.jit`, PyTorch with all cores, Keras on JAX. The loss
is the mean of the squared outputs; gradients are those of weights and inputs. Figures are medians
of interleaved repetitions; trust ratios, not milliseconds. Peers that are not installed are left
out (``pip install "seqnets[bench]"``).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from seqnets.cells import GRU, LSTM, Elman
from seqnets.recurrence import lengths_to_mask, unroll
from seqnets.training.parallel import use_all_cores

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
    """A system, ready to run."""

    run: Callable[[], object]
    compile_seconds: float | None = None
    peak_bytes: int | None = None


def squares(ys: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.sum(jnp.square(ys if mask is None else jnp.where(mask[..., None], ys, 0)))


def with_gradient(case: Case, loss: Callable) -> Callable:
    return jax.value_and_grad(loss, argnums=(0, 1)) if case.mode != "forward" else loss


def compiled(function: Callable, *arguments: object) -> Subject:
    """Compile a jitted or pmapped function, and measure that."""
    began = time.perf_counter()
    program = function.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory = program.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else None
    return Subject(lambda: jax.block_until_ready(program(*arguments)), seconds, peak)


def seqnets_loss(case: Case) -> tuple[Callable, object, jax.Array | None]:
    cell = CELLS[case.cell](case.shape[3])
    params = cell.init(jax.random.key(0), case.shape[2])
    mask = lengths_to_mask(jnp.asarray(case.lengths), case.shape[1]) if case.ragged else None

    def loss(params: object, xs: jax.Array, mask: jax.Array | None) -> jax.Array:
        return squares(unroll(cell, params, None, xs, mask=mask)[1], None)

    return loss, params, mask


def seqnets_jit(case: Case) -> Subject:
    loss, params, mask = seqnets_loss(case)
    return compiled(jax.jit(with_gradient(case, loss)), params, jnp.asarray(case.inputs), mask)


def seqnets_parallel(case: Case) -> Subject | None:
    """Rows split over the devices, the loss and the gradients of the weights summed over them."""
    devices = jax.local_devices()
    if len(devices) == 1 or case.shape[0] % len(devices):
        return None
    loss, params, mask = seqnets_loss(case)
    function = with_gradient(case, loss)

    def step(params: object, xs: jax.Array, mask: jax.Array | None) -> object:
        out = function(params, xs, mask)
        if case.mode == "forward":
            return jax.lax.psum(out, "devices")
        total, (weights, inputs) = out
        return jax.lax.psum((total, weights), "devices"), inputs

    mesh = jax.sharding.Mesh(np.asarray(devices), ("devices",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def split(x: jax.Array | np.ndarray) -> jax.Array:
        x = np.asarray(x)
        return jax.device_put(x.reshape(len(devices), -1, *x.shape[1:]), rows)

    masks = None if mask is None else split(mask)
    out_axes = None if case.mode == "forward" else (None, 0)
    mapped = jax.pmap(step, axis_name="devices", in_axes=(None, 0, 0), out_axes=out_axes)
    return compiled(mapped, jax.device_put(params, everywhere), split(case.inputs), masks)


def flax_layer(case: Case) -> Subject:
    cells = {"LSTM": nn.OptimizedLSTMCell, "GRU": nn.GRUCell, "Elman": nn.SimpleCell}
    layer = nn.RNN(cells[case.cell](case.shape[3]))
    xs = jnp.asarray(case.inputs)
    lengths = jnp.asarray(case.lengths) if case.ragged else None
    mask = lengths_to_mask(lengths, case.shape[1]) if case.ragged else None
    variables = layer.init(jax.random.key(0), xs)

    def loss(variables: object, xs: jax.Array) -> jax.Array:
        return squares(layer.apply(variables, xs, seq_lengths=lengths), mask)

    return compiled(jax.jit(with_gradient(case, loss)), variables, xs)


def keras_layer(case: Case) -> Subject:
    import keras

    kinds = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "Elman": keras.layers.SimpleRNN}
    layer = kinds[case.cell](case.shape[3], return_sequences=True)
    xs = jnp.asarray(case.inputs)
    mask = lengths_to_mask(jnp.asarray(case.lengths), case.shape[1]) if case.ragged else None
    layer.build(xs.shape)
    weights = [variable.value for variable in layer.trainable_variables]

    def loss(weights: list, xs: jax.Array) -> jax.Array:
        ys, _ = layer.stateless_call(weights, layer.non_trainable_variables, xs, mask=mask)
        return squares(ys, mask)

    return compiled(jax.jit(with_gradient(case, loss)), weights, xs)


def torch_layer(case: Case) -> Subject:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    kinds = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "Elman": torch.nn.RNN}
    layer = kinds[case.cell](case.shape[2], case.shape[3], batch_first=True)
    backward = case.mode != "forward"
    xs = torch.tensor(case.inputs, requires_grad=backward)
    lengths = torch.tensor(case.lengths)

    def run() -> object:
        with torch.set_grad_enabled(backward):
            layer.zero_grad(set_to_none=True)
            xs.grad = None
            inputs = xs
            if case.ragged:
                inputs = torch.nn.utils.rnn.pack_padded_sequence(
                    xs, lengths, batch_first=True, enforce_sorted=False
                )
            ys, _ = layer(inputs)
            total = torch.square(ys.data if case.ragged else ys).sum()
            if backward:
                total.backward()
            return total

    return Subject(run)


SYSTEMS = {
    "seqnets": seqnets_parallel,
    "seqnets-jit": seqnets_jit,
    "flax": flax_layer,
    "torch": torch_layer,
    "keras": keras_layer,
}


def medians(subjects: dict[str, Subject], seconds: float) -> dict[str, float]:
    """Median seconds of each, run in turns until about ``seconds`` have passed for every one."""
    for subject in subjects.values():
        subject.run()
        subject.run()
    times: dict[str, list[float]] = {name: [] for name in subjects}
    end = time.perf_counter() + seconds * len(subjects)
    while time.perf_counter() < end or len(times[next(iter(times))]) < 5:
        for name, subject in subjects.items():
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
        subjects["torch"] = Subject(lambda: torch.mm(y, y))
    return 2 * n**3 / min(medians(subjects, 1.0).values())


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    names = ("LSTM", "GRU") if arguments.quick else tuple(CELLS)
    modes = MODES[1:] if arguments.quick else MODES
    ragged = (False,) if arguments.quick else (False, True)
    for values in itertools.product(names, modes, SHAPES, ragged):
        yield Case(*values)


def measure(case: Case, systems: list[str], limit: float, seconds: float) -> list[dict]:
    made = {name: SYSTEMS[name](case) for name in systems}
    subjects = {name: subject for name, subject in made.items() if subject is not None}
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
    ours = taken.get("seqnets", taken["seqnets-jit"])
    cells = [f"{taken[s] * 1e3:9.2f}" if s in taken else f"{'-':>9}" for s in systems]
    ratios = [f"{taken[s] / ours:8.2f}" for s in systems if s in PEERS]
    share = next(r["share_of_limit"] for r in rows if r["seconds"] == ours)
    kind = f"{case.cell} {case.mode}{' ragged' if case.ragged else ''}"
    return f"{kind:30}{case.shape!s:22}" + "".join(cells + ratios) + f"{share:8.0%}"


def summary(rows: list[dict], systems: list[str]) -> Iterator[str]:
    """Geometric means of the ratios over the shapes with more than one row."""
    kinds = dict.fromkeys((r["cell"], r["mode"], r["ragged"]) for r in rows)
    for kind in kinds:
        chosen = [r for r in rows if (r["cell"], r["mode"], r["ragged"]) == kind]
        taken = {(tuple(r["shape"]), r["system"]): r["seconds"] for r in chosen}
        for peer in (s for s in systems if s in PEERS):
            ratios = [
                taken[shape, peer] / seconds
                for (shape, system), seconds in taken.items()
                if system == "seqnets" and shape[0] > 1
            ]
            if ratios:
                cell, mode, ragged = kind
                mean = statistics.geometric_mean(ratios)
                yield f"{cell} {mode}{' ragged' if ragged else ''}: {mean:.2f} x {peer}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="LSTM and GRU, forward+backward")
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each figure (1.5)")
    arguments = parser.parse_args()
    use_all_cores()
    systems = [name for name in SYSTEMS if name not in PEERS or installed(name)]
    for name in set(SYSTEMS) - set(systems):
        print(f"{name} is not installed and left out", file=sys.stderr)
    limit = product_limit()
    print(f"limit: {limit / 1e9:.0f} GFLOP/s, a product of 2048 x 2048 in float32\n")
    ratios = [f"x {name}" for name in systems if name in PEERS]
    print(f"{'milliseconds':30}{'(B, T, D, H)':22}", end="")
    print("".join(f"{name.replace('seqnets-', ''):>9}" for name in systems), end="")
    print("".join(f"{name:>8}" for name in ratios) + f"{'limit':>8}")
    rows: list[dict] = []
    for case in cases(arguments):
        new = measure(case, systems, limit, arguments.seconds)
        print(row(case, new, systems), flush=True)
        rows += new
    print("\ngeometric means over the shapes with B > 1, seqnets data-parallel:")
    print("\n".join(f"  {line}" for line in summary(rows, systems)))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
