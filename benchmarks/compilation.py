"""Compile time of a training step of a two-layer LSTM, beside flax.linen.

    python benchmarks/compilation.py [--repetitions 5] [--json FILE]

The step is loss, gradient and Adam's update: ``seqnets-jit`` and ``flax`` as one `jax.jit`, and
``seqnets`` as the library's own data-parallel step over one CPU device per core, which further
reduces over devices and guards against what is not finite. Lowering (tracing included) and XLA
are told apart. Every compilation is fresh: a new function, JAX's caches emptied, and nothing kept
on disk. Figures are medians of interleaved repetitions; trust ratios, not seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqnets.cells import LSTM
from seqnets.devices import DataParallel, use_all_cores
from seqnets.files import write_atomically
from seqnets.modules import Stack
from seqnets.reduction import weighted
from seqnets.training import Clock, make_train_step

SHAPE = (32, 128, 128, 256)  # B, T, D, H
PARTS = ("lowering", "xla")

Times = dict[str, list[tuple[float, float]]]
"""Seconds of `PARTS` by system, one pair a repetition."""


class FlaxStack(nn.Module):
    """Two layers of flax.linen's faster LSTM."""

    hidden: int

    @nn.compact
    def __call__(self, xs: Any) -> Any:
        for _ in range(2):
            xs = nn.RNN(nn.OptimizedLSTMCell(self.hidden))(xs)
        return xs


def seqnets_outputs(hidden: int) -> tuple[nn.Module, Callable]:
    """The module, and what makes outputs [B, T, H] of variables and inputs."""
    stack = Stack((LSTM(hidden), LSTM(hidden)))
    return stack, lambda variables, xs: stack.apply(variables, xs)[1]


def flax_outputs(hidden: int) -> tuple[nn.Module, Callable]:
    stack = FlaxStack(hidden)
    return stack, stack.apply


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def jitted(outputs: Callable, shape: tuple[int, int, int, int]) -> tuple[Any, tuple]:
    """The step as one program, and its arguments."""
    B, T, D, H = shape
    module, apply = outputs(H)
    xs = jnp.asarray(inputs(B, T, D))
    variables = module.init(jax.random.key(0), xs)
    optimizer = optax.adam(1e-3)

    def step(variables: Any, opt_state: Any, xs: jax.Array) -> tuple[Any, Any, jax.Array]:
        def loss(variables: Any) -> jax.Array:
            return jnp.mean(jnp.square(apply(variables, xs)))

        value, grads = jax.value_and_grad(loss)(variables)
        updates, opt_state = optimizer.update(grads, opt_state, variables)
        return optax.apply_updates(variables, updates), opt_state, value

    return jax.jit(step), (variables, optimizer.init(variables), xs)


def parallel(outputs: Callable, shape: tuple[int, int, int, int]) -> tuple[Any, tuple]:
    """The step of `DataParallel`, and its arguments."""
    B, T, D, H = shape
    module, apply = outputs(H)
    xs = inputs(B, T, D)
    layout = DataParallel(jax.local_devices())

    def loss_fn(params: Any, batch: jax.Array) -> Any:
        return weighted(jnp.square(apply(params, batch)))

    step = make_train_step(loss_fn, optax.adam(1e-3))
    state = layout.place(step.init(module.init(jax.random.key(0), xs), jax.random.key(1)))
    return Lowering(layout, step), (state, layout.split(xs))


class Lowering:
    """A step over several devices, lowered and called as a `jax.jit` is."""

    def __init__(self, layout: DataParallel, step: Any) -> None:
        self.lower = lambda state, batch: layout.lower(step, state, batch)

    def __call__(self, state: Any, batch: Any) -> Any:
        clock = Clock(np.float32(0), np.int32(0))
        return self.lower(state, batch).compile()(state, batch, clock, ())


SYSTEMS = {
    "seqnets": lambda shape: parallel(seqnets_outputs, shape),
    "seqnets-jit": lambda shape: jitted(seqnets_outputs, shape),
    "flax": lambda shape: jitted(flax_outputs, shape),
}


def compile_freshly(name: str, shape: tuple[int, int, int, int]) -> tuple[float, float]:
    """Seconds of `PARTS`."""
    step, arguments = SYSTEMS[name](shape)
    jax.block_until_ready(arguments)
    jax.clear_caches()
    began = time.perf_counter()
    lowered = step.lower(*arguments)
    between = time.perf_counter()
    lowered.compile()
    return between - began, time.perf_counter() - between


def medians(times: Times) -> list[dict]:
    """A row for each system, with its total and the ratio of that to flax."""
    totals = {name: statistics.median(sum(pair) for pair in pairs) for name, pairs in times.items()}
    return [
        {
            "system": name,
            "seconds": totals[name],
            **{
                f"{part}_seconds": statistics.median(values)
                for part, values in zip(PARTS, zip(*pairs, strict=True), strict=True)
            },
            "ratio_to_flax": totals[name] / totals["flax"],
        }
        for name, pairs in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5, help="compilations of each (5)")
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args()
    use_all_cores()
    jax.config.update("jax_enable_compilation_cache", False)
    times: Times = {name: [] for name in SYSTEMS}
    for _ in range(arguments.repetitions):
        for name, pairs in times.items():
            pairs.append(compile_freshly(name, SHAPE))
    rows = medians(times)
    print(f"{'seconds':12}{'lowering':>10}{'XLA':>8}{'total':>8}{'x flax':>8}")
    for row in rows:
        parts = f"{row['lowering_seconds']:10.2f}{row['xla_seconds']:8.2f}"
        print(f"{row['system']:12}{parts}{row['seconds']:8.2f}{row['ratio_to_flax']:8.2f}")
    if arguments.json:
        write_atomically(arguments.json, json.dumps(rows, indent=1, allow_nan=False).encode())


if __name__ == "__main__":
    main()
