"""Throughput over devices and processes at a fixed batch, and what the sums between them cost.

    python benchmarks/scaling.py [--hidden 256] [--layers 2] [--batch 32] [--steps 64]
                                 [--shard-optimizer] [--json FILE]

Layouts are processes x CPU devices of each. A step is the whole training step of a recurrent
language model; the collective is timed alone, on as many bytes as the step sums. The model at the
end is that of a ring: 2 (N - 1) / N of the bytes through the slowest link, and 2 (N - 1) latencies
within a host, or as many as there are hosts between them; links and latencies are assumptions.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

LAYOUTS = ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1))
LINKS = {  # devices, bytes a second of the slowest link, seconds of latency, links in the ring
    "8 GPUs, NVLink 450 GB/s, 3 us": (8, 450e9, 3e-6, 8),
    "64 hosts x 8 GPUs, 50 GB/s a GPU, 15 us": (512, 50e9, 15e-6, 64),
    "64 hosts x 8 GPUs, 3 GB/s a GPU, 50 us": (512, 3e9, 50e-6, 64),
}


def main() -> None:
    arguments = parse()
    if arguments.worker:
        work(arguments)
        return
    rows = [launch(arguments, *layout) for layout in LAYOUTS]
    print(f"{'processes x devices':>20}{'tokens/s':>12}{'x one':>8}{'step ms':>9}{'sum ms':>8}"
          f"{'share':>8}")  # fmt: skip
    for row in rows:
        ratio, share = row["tokens_per_second"] / rows[0]["tokens_per_second"], row["share"]
        print(f"{row['layout']:>20}{row['tokens_per_second']:12.0f}{ratio:8.2f}"
              f"{row['step_ms']:9.2f}{row['sum_ms']:8.2f}{share:8.1%}")  # fmt: skip
    size = rows[0]["bytes"]
    print(f"\nsummed at each step: {size / 1e6:.2f} MB; modelled seconds of one sum")
    modelled = {name: ring(size, *link) for name, link in LINKS.items()}
    for name, seconds in modelled.items():
        print(f"{name:>44}{seconds * 1e3:9.3f} ms, {seconds / (seconds + 0.01):.1%} "
              "of a step that computes for 10 ms")  # fmt: skip
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"measured": rows, "bytes": size, "modelled_seconds": modelled}, file)


def ring(size: int, devices: int, bandwidth: float, latency: float, links: int) -> float:
    """Seconds of one sum of ``size`` bytes over a ring."""
    return 2 * (devices - 1) / devices * size / bandwidth + 2 * (links - 1) * latency


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("hidden", 256), ("layers", 2), ("batch", 32), ("steps", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--shard-optimizer", action="store_true", help="as train.shard_optimizer")
    parser.add_argument("--json")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def launch(arguments: argparse.Namespace, processes: int, devices: int) -> dict:
    """What process 0 of a layout measures."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        here = f"127.0.0.1:{one.getsockname()[1]}"
    shape = [f"--{name}={getattr(arguments, name)}"
             for name in ("hidden", "layers", "batch", "steps", "repetitions")]  # fmt: skip
    shape += ["--shard-optimizer"] * arguments.shard_optimizer
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, *shape, "--worker", here, str(processes), str(number),
             str(devices)],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        for number in range(processes)
    ]  # fmt: skip
    answers = [process.communicate()[0] for process in running]
    return json.loads(answers[0])


def work(arguments: argparse.Namespace) -> None:
    """One process of a layout."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from seqnets.applications.application import count_parameters
    from seqnets.applications.language.network import LanguageNetwork, initial_carry
    from seqnets.applications.language.objective import language_loss
    from seqnets.cells import LSTM
    from seqnets.data.text import TextBatch
    from seqnets.devices import connect, data_parallel, peers
    from seqnets.modules import Layer
    from seqnets.optimizers import adam
    from seqnets.training import Clock, make_train_step

    here, processes, number, devices = arguments.worker
    if processes != "1":
        connect(here, int(processes), int(number))
    layers = (Layer(LSTM(arguments.hidden)),) * arguments.layers
    model = LanguageNetwork(vocabulary=96, embedding=64, layers=layers)
    key, step = jax.random.key(0), make_train_step(language_loss(model), adam(1e-3))
    params = jax.jit(lambda k: model.init(k, jnp.zeros((1, 1), jnp.int32))["params"])(key)
    layout = data_parallel([arguments.batch], shard_optimizer=arguments.shard_optimizer)
    carry = initial_carry(model, params, arguments.batch)
    state = layout.place(step.init(params, key, carry=carry))
    own = layout.share.rows(arguments.batch)
    tokens = np.random.default_rng(0).integers(0, 96, (arguments.batch, arguments.steps + 1))
    tokens = tokens.astype(np.int32)[own]
    batch = layout.split(
        TextBatch(tokens[:, :-1], tokens[:, 1:], np.zeros(tokens[:, 1:].shape, np.bool_))
    )
    program, clock = layout.compile(step, state, batch), Clock(np.float32(0), np.int32(0))
    message = peers().consensus(0.0).message(own.stop - own.start, 0.0, None)
    seconds = []
    for _ in range(arguments.repetitions):
        began = time.perf_counter()
        state, info, _ = program(state, batch, clock, message)
        jax.block_until_ready((state, info))
        seconds.append(time.perf_counter() - began)
    size = 4 * (count_parameters(params) + 2)
    sums = time_sum(layout, size, arguments.repetitions)
    took = statistics.median(seconds[2:])
    if peers().lead:
        print(json.dumps({
            "layout": f"{processes} x {devices}", "bytes": size, "step_ms": took * 1e3,
            "tokens_per_second": arguments.batch * arguments.steps / took, "sum_ms": sums * 1e3,
            "share": sums / took,
        }))  # fmt: skip
        sys.stdout.flush()


def time_sum(layout, size: int, repetitions: int) -> float:
    """Seconds of the sum of so many bytes over all devices, with nothing else to do."""
    import jax
    import numpy as np

    if layout.size == 1:
        return 0.0
    mesh = jax.sharding.Mesh(np.asarray(layout.devices), ("devices",))
    rows = jax.sharding.PartitionSpec("devices")
    own = np.ones((layout.size // jax.process_count(), size // 4), np.float32)
    x = jax.make_array_from_process_local_data(jax.sharding.NamedSharding(mesh, rows), own)
    add = jax.jit(jax.shard_map(lambda y: jax.lax.psum(y, "devices"), mesh=mesh, in_specs=rows,
                                out_specs=jax.sharding.PartitionSpec()))  # fmt: skip
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        jax.block_until_ready(add(x))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


if __name__ == "__main__":
    main()
