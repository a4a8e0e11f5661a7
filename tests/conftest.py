"""A session stricter than users' sessions: four CPU devices, no silent rank promotion."""

import ctypes
import gc
import os
import signal
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "4"

import jax
import numpy as np
import pytest

# A shell ignores Ctrl-C in what it starts in the background; tests send it to processes of theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_numpy_rank_promotion", "raise")

FEW_BYTES = 1.2e9
STATM = Path("/proc/self/statm")
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name: random inputs, repeatable failures."""
    return np.random.default_rng([ord(c) for c in request.node.name])


@pytest.fixture
def own_interrupts():
    """Ctrl-C stays the session's own where a command is run in its process."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def data_dir():
    """The folder of real data sets; the test skips, with the reason, only where it is absent."""
    folder = Path(os.environ.get("SEQNETS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set SEQNETS_DATA")
    return folder


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """A process may have 65,530 memory maps, and a compiled program holds several of them."""
    yield
    _forget_compiled_programs()


@pytest.fixture(autouse=True)
def bounded_memory():
    """Programs of many tests of one module take gigabytes, too."""
    yield
    if _resident_bytes() > FEW_BYTES:
        _forget_compiled_programs()


def _forget_compiled_programs():
    """Also give back to the system what the allocator would keep: most of it."""
    jax.clear_caches()
    gc.collect()
    if TRIM is not None:
        TRIM(0)


def _resident_bytes():
    if not STATM.exists():
        return 0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
