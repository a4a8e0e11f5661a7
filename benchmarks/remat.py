"""Memory and time of the gradient of a long LSTM, with and without rematerialisation.

    python benchmarks/remat.py [--steps 16384] [--hidden 256] [--batch 8]

Peak memory is the compiler's count of temporary and output bytes; times are medians of
interleaved runs.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from seqnets.cells import LSTM
from seqnets.recurrence import Execution, unroll


def gradient(cell: LSTM, remat: int | None):
    def loss(params, xs):
        carry, _ = unroll(cell, params, None, xs, execution=Execution(remat=remat))
        return jnp.sum(jnp.square(carry.h))

    return jax.jit(jax.grad(loss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16384)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    cell = LSTM(arguments.hidden)
    params = cell.init(jax.random.key(0), arguments.features)
    shape = (arguments.batch, arguments.steps, arguments.features)
    xs = jax.random.normal(jax.random.key(1), shape)
    kinds = {"plain": None} | {f"remat {k}": k for k in (32, 64, 128, 256)}
    programs = {n: gradient(cell, k).lower(params, xs).compile() for n, k in kinds.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(arguments.repetitions):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(params, xs))
            times[name].append(time.perf_counter() - began)
    base = statistics.median(times["plain"])
    print(f"{'':12}{'MB':>8}{'of plain':>10}{'seconds':>9}{'x plain':>9}")
    most = memory(programs["plain"])
    for name, program in programs.items():
        seconds, size = statistics.median(times[name]), memory(program)
        share, ratio = size / most, seconds / base
        print(f"{name:12}{size / 1e6:8.1f}{share:10.3f}{seconds:9.3f}{ratio:9.2f}")


def memory(program) -> int:
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


if __name__ == "__main__":
    main()
