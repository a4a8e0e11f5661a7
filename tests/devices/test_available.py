"""How much memory there is: told by the system, bounded by control groups, and never exceeded."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.devices import DataParallel, NotEnoughMemoryError, available, check_memory
from seqnets.devices.available import compile_within, host_memory
from seqnets.reduction import weighted
from seqnets.training import LossOutput, Snapshot, make_train_step, train
from seqnets.training.progress import Limits

MEMINFO = "MemTotal:       24000 kB\nMemFree:  100 kB\nMemAvailable:   20000 kB\n"


@pytest.fixture
def system(tmp_path):
    """``system({path: text, ...})`` writes the files of a system, and returns its root."""

    def write(files):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return write


def group(path, limit, used, stat="", names=("memory.max", "memory.current")):
    folder = f"sys/fs/cgroup/{path}"
    return {f"{folder}/{names[0]}": f"{limit}\n", f"{folder}/{names[1]}": f"{used}\n",
            f"{folder}/memory.stat": stat}  # fmt: skip


SECOND = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/user/job\n"}
FIRST = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "4:memory:/job\n2:cpu:/other\n0::/\n"}
NAMES = ("memory.limit_in_bytes", "memory.usage_in_bytes")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/meminfo": MEMINFO}, 20000 * 1024),
        (SECOND | group("user/job", "max", 5000), 20000 * 1024),
        (SECOND | group("user/job", 7000, 5000, "anon 900\n"), 2000),
        (SECOND | group("user/job", 7000, 5000, "inactive_file 300\nactive_file 20\n"), 2320),
        (SECOND | group("user/job", "max", 5000) | group("user", 6000, 5500), 500),
        (SECOND | group("user/job", 4000, 5000), 0),
        (FIRST | group("memory/job", 7000, 5000, "total_inactive_file 9\n", NAMES), 2009),
        (FIRST | group("memory/job", 2**63 - 4096, 5000, "", NAMES), 20000 * 1024),
    ],
)
def test_the_tightest_bound_counts(system, files, expected):
    assert host_memory(system(files)) == expected


def test_a_system_that_does_not_tell(system, monkeypatch):
    """Other systems tell how much there is; and where even that is unknown, nothing is checked."""
    pages = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    with monkeypatch.context() as patch:
        patch.setattr(available.os, "sysconf", pages.__getitem__)
        assert host_memory(system({})) == 4096 * 1000
        patch.delattr(available.os, "sysconf")
        assert host_memory(system({})) is None
    monkeypatch.setattr(available, "host_memory", lambda: None)
    check_memory("all", 2**90)


def test_of_this_system():
    """What is available can be used, and is less than there is."""
    told = host_memory()
    assert told > 2**20
    with pytest.raises(NotEnoughMemoryError, match=r"^tables needs [0-9.]+ EB of memory, .*B is "):
        check_memory("tables", 2**62)


def device(**numbers):
    stats = {f"bytes_{name}": number for name, number in numbers.items()} or None
    return types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)


@pytest.mark.parametrize(
    ("devices", "most"),
    [
        ([device(limit=1000, in_use=300)], 700),
        ([device(limit=990)], 990),
        ([device(limit=1000, in_use=300), device(limit=900, in_use=300), device()], 600),
        ([device()], 2**70),
    ],
)
def test_each_accelerator_has_its_own(devices, most):
    check_memory("a step", most, devices)
    if most < 2**70:
        with pytest.raises(NotEnoughMemoryError, match=f"a step needs {most + 1} B of memory, "):
            check_memory("a step", most + 1, devices)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_cores_share_the_memory_of_the_host(monkeypatch, number):
    monkeypatch.setattr(available, "host_memory", lambda: 800)
    devices = jax.devices("cpu")[:number]
    check_memory("a step", 800 // number, devices)
    with pytest.raises(NotEnoughMemoryError, match=r"of memory, 800 B is available; shrink it$"):
        check_memory("a step", 800 // number + 1, devices, "; shrink it")


def test_a_program_is_not_run_where_it_does_not_fit(monkeypatch):
    size, (device, *_) = 100_000, jax.devices()
    lowered = jax.jit(lambda x: (jnp.sort(x)[::-1] * jnp.cumsum(x)).sum()).lower(jnp.ones(size))
    assert compile_within("a program", lowered, [device])(jnp.ones(size)) > 0
    monkeypatch.setattr(available, "host_memory", lambda: 4 * size - 1)  # one of the arrays between
    with pytest.raises(
        NotEnoughMemoryError, match=r"a program \(activations and gradients\) needs"
    ):
        compile_within("a program", lowered, [device])


class Rows:
    """Batches of rows of ones."""

    shapes = ({"x": jax.ShapeDtypeStruct((8, 3), np.float32)},)

    def batch(self, k, share=None):
        return {"x": np.ones((8, 3), np.float32)}


def test_neither_a_step_nor_an_evaluation_is_run_where_it_does_not_fit(monkeypatch):
    def loss_fn(params, batch, given):
        return LossOutput(weighted(jnp.sort(jnp.tanh(batch["x"] @ params["w"]))[:, 0]))

    layout = DataParallel(jax.devices()[:2])
    step = make_train_step(loss_fn, optax.sgd(0.1))
    start = Snapshot(step.init({"w": jnp.ones((3, 50))}, jax.random.key(0)))
    limits = Limits(steps=2, report_every=1, evaluate_every=2, checkpoint_every=2)
    evaluate = layout.evaluation_step(loss_fn)
    rows = layout.split(Rows().batch(0))
    evaluate({"w": jnp.ones((3, 50))}, (), (), rows)
    monkeypatch.setattr(available, "host_memory", lambda: 100)
    with pytest.raises(NotEnoughMemoryError, match=r"a training step .* 100 B is available"):
        train(step, start, Rows(), limits=limits, layout=layout)
    evaluate({"w": jnp.ones((3, 50))}, (), (), rows)  # compiled before: known to fit
    with pytest.raises(NotEnoughMemoryError, match=r"an evaluation step .* 100 B is available"):
        layout.evaluation_step(loss_fn)({"w": jnp.ones((3, 50))}, (), (), rows)
