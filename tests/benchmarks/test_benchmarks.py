"""The pieces of the benchmarks at tiny sizes: what they run, leave out and write. No timing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
FIELDS = [
    "cell",
    "mode",
    "shape",
    "ragged",
    "system",
    "seconds",
    "compile_seconds",
    "peak_bytes",
    "share_of_limit",
]


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


recurrent = load("recurrent")
compilation = load("compilation")

FORWARD, BACKWARD = recurrent.MODES
SYSTEMS = [
    name for name in recurrent.SYSTEMS if name not in recurrent.PEERS or recurrent.installed(name)
]


@pytest.fixture(autouse=True)
def _as_users_have_it(monkeypatch, tmp_path):
    """Peers broadcast over ranks and Keras writes a file; `main` switches a cache off."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    before = jax.config.jax_enable_compilation_cache
    with jax.numpy_rank_promotion("allow"):
        yield
    jax.config.update("jax_enable_compilation_cache", before)


@pytest.fixture
def strict():
    """Reads JSON and nothing else: no NaN, no Infinity."""

    def refuse(constant):
        raise AssertionError(f"not JSON: {constant}")

    return lambda path: json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def small(cell="LSTM", mode=FORWARD, shape=(4, 5, 3, 6), ragged=True):
    return recurrent.Case(cell, mode, shape, ragged)


def seeded(system):
    """Two layers of a peer have the same weights; ours always have."""
    if system == "torch":
        importlib.import_module("torch").manual_seed(0)
    if system == "keras":
        importlib.import_module("keras").utils.set_random_seed(0)


def forward_loss(system, case):
    seeded(system)
    out = recurrent.SYSTEMS[system](case).run()
    return float(np.sum(out[1]["loss"].total) if system == "seqnets" else out)


class TestSystems:
    @pytest.mark.parametrize("cell", recurrent.CELLS)
    @pytest.mark.parametrize("system", SYSTEMS)
    def test_values_at_padded_steps_do_not_matter(self, system, cell):
        case, other = small(cell), small(cell)
        assert case.lengths.min() < 5
        other.inputs[np.arange(5) >= other.lengths[:, None]] = 3.0
        loss = forward_loss(system, case)
        assert loss > 0
        assert forward_loss(system, other) == pytest.approx(loss, rel=1e-6)
        full = small(cell, ragged=False)
        assert forward_loss(system, full) > loss * (1 + 1e-6)  # more steps, more squares

    @pytest.mark.parametrize("ragged", [False, True])
    @pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "seqnets"])
    def test_gradients_are_of_weights_and_gains(self, system, ragged):
        loss, gradient = recurrent.SYSTEMS[system](small(mode=BACKWARD, ragged=ragged)).run()
        assert float(loss) > 0
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]
        assert leaves[0].shape == (3,)
        assert all(np.isfinite(leaf).all() and leaf.any() for leaf in leaves)
        sizes = sum(leaf.size for leaf in leaves)
        # Gains, and the four gates' weights by 3 + 6 and one bias or two.
        assert sizes - 3 in (24 * (9 + 1), 24 * (9 + 2))

    @pytest.mark.parametrize("ragged", [False, True])
    def test_the_data_parallel_step_takes_the_same_gradient(self, ragged):
        case = small(mode=BACKWARD, ragged=ragged)
        want, gradient = recurrent.seqnets_jit(case).run()
        parallel = recurrent.seqnets_parallel(case)
        state, info = parallel.run()
        assert state.step == 1
        np.testing.assert_allclose(info.loss.total, want, rtol=1e-6)
        # Four rows: the step's gradient is that of the mean over rows.
        norm = optax.tree.norm(gradient) / 4
        np.testing.assert_allclose(info.gradient_norm, norm, rtol=1e-5)
        state, info = parallel.run()
        assert state.step == 2
        assert parallel.peak_bytes > 0
        assert parallel.peak_bytes % jax.local_device_count() == 0

    @pytest.mark.parametrize("mode", recurrent.MODES)
    def test_rows_that_the_devices_do_not_divide(self, mode):
        assert recurrent.seqnets_parallel(small(mode=mode, shape=(1, 5, 3, 6))) is None


class TestPrepared:
    @pytest.fixture
    def systems(self, monkeypatch):
        """Replace systems by fakes: a value that they give, or an error that they raise."""

        def replace(*, built=(), **fakes):
            def make(name, result):
                def run():
                    if isinstance(result, Exception):
                        raise result

                def build(case):
                    if name in built:
                        run()
                    return None if result is None else recurrent.Subject(run, 2.0, 10)

                return build

            fakes = {name: make(name, result) for name, result in fakes.items()}
            fakes = {name.replace("_", "-"): build for name, build in fakes.items()}
            monkeypatch.setattr(recurrent, "SYSTEMS", fakes)
            return list(fakes)

        return replace

    @pytest.mark.parametrize("built", [(), ("torch",)])
    def test_a_peer_that_fails_is_left_out_for_the_case(self, systems, capsys, built):
        names = systems(built=built, seqnets=None, seqnets_jit=1, torch=OSError("no\nmore"), flax=1)
        assert list(recurrent.prepared(small(), names)) == ["seqnets-jit", "flax"]
        told = capsys.readouterr().err
        assert told.startswith("torch fails on Case(cell='LSTM'")
        assert told.endswith("OSError: no\n")

    def test_a_failure_of_our_own_ends_the_run(self, systems):
        with pytest.raises(OSError, match="ours"):
            recurrent.prepared(small(), systems(seqnets_jit=OSError("ours"), flax=1))

    def test_rows_have_these_fields(self, systems, monkeypatch):
        names = systems(seqnets_jit=1, flax=1)
        monkeypatch.setattr(recurrent, "medians", lambda subjects, seconds: dict.fromkeys(names, 2))
        ours, flax = recurrent.measure(small("GRU", BACKWARD), names, 1e4, 0.0)
        assert list(ours) == FIELDS
        assert (ours["system"], flax["system"]) == ("seqnets-jit", "flax")
        assert (ours["shape"], ours["ragged"], ours["cell"]) == ([4, 5, 3, 6], True, "GRU")
        assert (ours["mode"], ours["seconds"]) == ("forward+backward", 2)
        assert (ours["compile_seconds"], ours["peak_bytes"]) == (2.0, 10)
        operations = 3 * 2 * 4 * 5 * (3 + 6) * 3 * 6
        assert ours["share_of_limit"] == pytest.approx(operations / 2 / 1e4)

    def test_the_whole_run(self, systems, monkeypatch, tmp_path, capsys, strict):
        systems(seqnets=1, seqnets_jit=1, flax=1, torch=OSError("none"), keras=1)
        monkeypatch.setattr(recurrent, "installed", lambda name: name != "keras")
        monkeypatch.setattr(recurrent, "product_limit", lambda: 2e9)
        monkeypatch.setattr(recurrent, "Apart", lambda name: recurrent.SYSTEMS[name])
        times = {"seqnets": 1.0, "seqnets-jit": 2.0, "flax": 3.0}
        monkeypatch.setattr(recurrent, "medians", lambda subjects, seconds: times)
        file = tmp_path / "rows.json"
        monkeypatch.setattr(sys, "argv", ["recurrent.py", "--quick", "--json", str(file)])
        recurrent.main()
        rows = strict(file)
        assert len(rows) == 2 * len(recurrent.SHAPES) * 2 * 3
        assert all(list(row) == FIELDS for row in rows)
        captured = capsys.readouterr()
        assert "keras is not installed and left out" in captured.err
        assert captured.err.count("torch fails on") == 2 * len(recurrent.SHAPES) * 2
        assert "limit: 2 GFLOP/s" in captured.out
        assert "time ragged / full, B > 1 " in captured.out
        lines = [line for line in captured.out.splitlines() if line.startswith("LSTM")]
        shape = "(16, 200, 32, 64)"
        (line,) = [one for one in lines if shape in one and "ragged" not in one]
        figures = line.split(shape)[1].split()
        assert figures[:6] == ["1000.00", "2000.00", "3000.00", "-", "3.00", "-"]


@pytest.mark.parametrize("quick", [False, True])
def test_the_grid(quick):
    cases = list(recurrent.cases(quick=quick))
    cells = {"LSTM", "GRU"} if quick else {"LSTM", "GRU", "Elman"}
    modes = {BACKWARD} if quick else {FORWARD, BACKWARD}
    assert len(set(cases)) == len(cases) == len(cells) * len(modes) * len(recurrent.SHAPES) * 2
    assert {case.cell for case in cases} == cells
    assert {case.mode for case in cases} == modes
    assert {case.shape for case in cases} == set(recurrent.SHAPES)
    assert {case.ragged for case in cases} == {False, True}


def rows_of(shape, ragged, **seconds):
    names = {name.replace("_", "-"): value for name, value in seconds.items()}
    head = {"cell": "GRU", "mode": FORWARD, "shape": list(shape), "ragged": ragged}
    return [head | {"system": name, "seconds": value} for name, value in names.items()]


def test_the_summary_by_hand():
    one, first, second = (1, 5, 3, 6), (4, 5, 3, 6), (8, 5, 3, 6)
    rows = [
        *rows_of(one, False, seqnets_jit=2.0, torch=1.0, flax=3.0),
        *rows_of(one, True, seqnets_jit=4.0, torch=1.0, flax=3.0),
        *rows_of(first, False, seqnets=1.0, seqnets_jit=2.0, torch=4.0, flax=3.0),
        *rows_of(second, False, seqnets=1.0, seqnets_jit=4.0, torch=1.0),
        *rows_of(first, True, seqnets=2.0, seqnets_jit=2.0, torch=8.0, flax=3.0),
        *rows_of(second, True, seqnets=1.0, seqnets_jit=4.0, torch=8.0),
    ]
    text = "\n".join(recurrent.summary(rows, list(recurrent.SYSTEMS)))
    want = """
time / seqnets, B > 1              flax    torch    keras
GRU forward                        3.00     2.00        -
GRU forward ragged                 1.50     5.66        -

time / jit, B > 1                  flax    torch    keras
GRU forward                        1.50     0.71        -
GRU forward ragged                 1.50     2.83        -

time / jit, B = 1                  flax    torch    keras
GRU forward                        1.50     0.50        -
GRU forward ragged                 0.75     0.25        -

time ragged / full, B > 1       seqnets      jit     flax    torch    keras
GRU forward ragged                 1.41     1.00     1.00     4.00        -"""
    assert text == want


def test_operations_by_hand():
    assert small("LSTM", shape=(2, 3, 5, 7)).operations == 2 * 2 * 3 * (5 + 7) * 4 * 7
    assert small("Elman", BACKWARD, (2, 3, 5, 7)).operations == 3 * 2 * 2 * 3 * (5 + 7) * 7


class TestCompilation:
    def test_all_steps_are_of_the_same_kind(self):
        """Ours start from the same parameters; flax draws others."""
        shape = (4, 3, 2, 5)
        losses, sizes = {}, {}
        for name, make in compilation.SYSTEMS.items():
            step, arguments = make(shape)
            params = arguments[0].params if name == "seqnets" else arguments[0]
            sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(params))
            out = step(*arguments)
            losses[name] = float(out[1].loss.mean() if name == "seqnets" else out[2])
        assert losses["seqnets"] == pytest.approx(losses["seqnets-jit"], rel=1e-6)
        assert 0 < losses["flax"] < 1
        assert set(sizes.values()) == {20 * (2 + 5 + 1) + 20 * (5 + 5 + 1)}

    def test_medians_by_hand(self):
        times = {"seqnets": [(1.0, 5.0), (3.0, 1.0), (2.0, 3.0)], "flax": [(1.0, 3.0)] * 3}
        ours, flax = compilation.medians(times)
        assert ours == {
            "system": "seqnets",
            "seconds": 5.0,
            "lowering_seconds": 2.0,
            "xla_seconds": 3.0,
            "ratio_to_flax": 1.25,
        }
        assert flax["ratio_to_flax"] == 1.0

    def test_the_whole_run(self, monkeypatch, tmp_path, capsys, strict):
        asked = []

        def fake(name, shape):
            asked.append(name)
            return 1.0, float(len(name))

        monkeypatch.setattr(compilation, "compile_freshly", fake)
        file = tmp_path / "rows.json"
        options = ["--repetitions", "2", "--json", str(file)]
        monkeypatch.setattr(sys, "argv", ["compilation.py", *options])
        compilation.main()
        assert asked == ["seqnets", "seqnets-jit", "flax"] * 2
        assert not jax.config.jax_enable_compilation_cache
        assert [row["system"] for row in strict(file)] == asked[:3]
        assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == [
            "flax",
            "1.60",
            "2.40",
            "1.00",
        ]


def test_a_system_in_a_process_of_its_own():
    code = f"""
import subprocess
import sys
sys.path.insert(0, {str(FOLDER)!r})
import recurrent

apart = recurrent.Apart("flax")
subject = apart(recurrent.Case("GRU", recurrent.MODES[0], (2, 3, 4, 5), False))
subject.run()
assert subject.compile_seconds > 0
try:
    apart(recurrent.Case("none", recurrent.MODES[0], (2, 3, 4, 5), False))
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "KeyError: 'none'\n"
