"""The loop: what it records and when, what bounds it, and what it refuses."""

import re
import signal
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_run import (
    FEATURES,
    OPTIMIZER,
    At,
    Batches,
    Recorder,
    batch_of,
    distance,
    loss_fn,
    new_state,
    run,
    run_in,
)

from seqnets.data.source import WHOLE, shapes_of
from seqnets.devices import DataParallel
from seqnets.reduction import Weighted
from seqnets.training import (
    ONE,
    Clock,
    Hook,
    NonFiniteError,
    Progress,
    Snapshot,
    StepInfo,
    make_train_step,
    sums_to_host,
)
from seqnets.training.layout import ALONE


@pytest.mark.parametrize("layout", ["one device", "two devices"])
def test_records_are_the_weighted_means_of_single_steps(layout):
    recorder = Recorder()
    layouts = {"one device": ONE, "two devices": DataParallel(jax.devices()[:2])}
    outcome = run(recorder, layout=layouts[layout], limits={"steps": 12})
    # The oracle: the step itself, in a plain loop on one device.
    step = jax.jit(make_train_step(loss_fn, OPTIMIZER))
    state, losses, weights, norms = new_state(), [], [], []
    for k in range(12):
        state, info = step(state, batch_of(k), Clock(np.float32(k / 12)))
        losses.append(float(info.loss.total))
        weights.append(float(info.loss.weight))
        norms.append(float(info.gradient_norm))
    assert all(weights)
    windows = [slice(0, 5), slice(5, 10), slice(10, 12)]
    assert recorder.steps("train") == [5, 10, 12]
    for record, window in zip(recorder.of("train"), windows, strict=True):
        # float32 sums over the rows of two devices and of one: some ulps.
        assert record["loss"] == pytest.approx(sum(losses[window]) / sum(weights[window]), rel=1e-5)
        assert record["gradient_norm"] == pytest.approx(np.mean(norms[window]), rel=1e-5)
        assert record["absolute"] > 0
    chex.assert_trees_all_close(outcome.snapshot.state.params, state.params, rtol=1e-5)
    assert outcome.snapshot.progress.step == 12
    assert outcome.signal is None


def test_when_hooks_are_called():
    recorder = Recorder()
    run(recorder, limits={"steps": 18})
    assert recorder.steps("train") == [5, 10, 15, 18]
    assert recorder.steps("validation") == [8, 16, 18]
    assert recorder.saves == [(6, False), (8, True), (12, False), (16, True), (18, True)]
    assert recorder.fractions == [k / 18 for k in range(18)]
    assert recorder.ends == 1
    # The record of a step comes before its evaluation; all figures are floats of Python.
    assert [record["split"] for record in recorder.records[-2:]] == ["train", "validation"]
    figures = [v for r in recorder.records for k, v in r.items() if k not in ("step", "split")]
    assert all(type(value) is float for value in figures)


def test_without_evaluation():
    recorder = Recorder()
    outcome = run(recorder, evaluate=None, limits={"steps": 8})
    assert recorder.steps("validation") == []
    assert recorder.saves == [(6, False), (8, False)]
    assert outcome.snapshot.progress.validation == {}


def test_same_seed_same_records(tmp_path, straight):
    outcome, folder = straight
    again = run_in(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    params = [o.snapshot.state.params for o in (again, outcome)]
    chex.assert_trees_all_equal(*params, strict=True)
    other = run(start=Snapshot(new_state(seed=6))).snapshot.state.params
    assert not np.array_equal(other["w"], params[0]["w"])


def test_max_steps_leaves_the_schedule_alone():
    recorder = Recorder()
    run(recorder, limits={"steps": 50, "max_steps": 4})
    assert recorder.fractions == [0.0, 1 / 50, 2 / 50, 3 / 50]


def test_more_steps_than_planned_are_covered_by_the_schedule():
    recorder = Recorder()
    run(recorder, limits={"steps": 2, "max_steps": 4})
    assert recorder.fractions == [0.0, 1 / 4, 2 / 4, 3 / 4]


def test_an_error_in_a_hook_ends_all_hooks_and_restores_the_signal_handlers():
    def fail():
        raise OSError("disk full")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    recorder = Recorder()
    with pytest.raises(OSError, match="disk full"):
        run(At(2, fail), recorder)
    assert recorder.ends == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# --- time ------------------------------------------------------------------------------------


def test_bounded_by_time(tmp_path):
    """Slow batches: 0.01 s a step, so that steps, not the machine, fill the time."""

    def slow(k):
        time.sleep(0.01)
        return batch_of(k)

    recorder = Recorder()
    limits = {"max_seconds": 0.3, "report_every": 1000, "checkpoint_every": 7}
    began = time.perf_counter()
    outcome = run(recorder, Sleepy(), batch=slow, evaluate=sleepy, limits=limits)
    wall = time.perf_counter() - began
    progress = outcome.snapshot.progress
    longest = progress.training_seconds / progress.step
    assert 0.3 <= progress.training_seconds < 0.3 + 20 * longest  # generous, of a few steps
    assert progress.step <= 31
    # Every second is counted once: in training, compilation, evaluation, or a checkpoint's.
    assert progress.evaluation_seconds >= 0.05 * len(recorder.steps("validation"))
    assert progress.compilation_seconds > 0
    counted = progress.training_seconds + progress.evaluation_seconds + progress.compilation_seconds
    assert counted + 0.05 * len(recorder.saves) <= wall
    assert recorder.fractions[0] == 0.0
    assert 0 < recorder.fractions[-1] < 1
    assert np.all(np.diff(recorder.fractions) > 0)
    assert recorder.steps("train") == [progress.step]
    assert recorder.saves[-1] == (progress.step, True)


def sleepy(params):
    time.sleep(0.05)
    return distance(params)


class Sleepy(Hook):
    def on_checkpoint(self, snapshot, rank):
        time.sleep(0.05)


class Later:
    """A figure of a step, there only when waited for."""

    def __init__(self, number, waited):
        self.number, self.waited = number, waited

    def block_until_ready(self):
        self.waited.append(self.number)
        return self

    def __array__(self, dtype=None, copy=None):
        return np.array(True)


class SlowDevices:
    """A layout whose steps would take for ever: it notes which of them are waited for."""

    share, peers, memory = WHOLE, ALONE, None

    def __init__(self):
        self.waited = []
        self.place = self.gather = self.split = self.local = lambda tree: tree

    def compile(self, step, state, batch):
        return self

    def __call__(self, state, batch, clock, message):
        one = np.float32(1)
        finite = Later(int(state.step) + 1, self.waited)
        info = StepInfo({"loss": Weighted(one, one)}, {}, {"loss": one}, finite)
        return state._replace(step=state.step + 1), info, ()


def test_the_host_runs_few_steps_ahead():
    """However slow the devices: a limit on time is met within the steps in flight."""
    layout, ahead = SlowDevices(), []

    class Count(Hook):
        def on_step(self, progress, fraction):
            ahead.append(progress.step - len(layout.waited))

    limits = {"steps": 9, "report_every": 100, "evaluate_every": 100, "checkpoint_every": 100}
    run(Count(), layout=layout, limits=limits)
    assert ahead == [1, 2, 2, 2, 2, 2, 2, 2, 2]
    assert layout.waited[:7] == [1, 2, 3, 4, 5, 6, 7]


# --- the step --------------------------------------------------------------------------------


def test_accumulation_reaches_the_step():
    plain, parts = (run(limits={"steps": 3}, accumulate=n).snapshot.state.params for n in (1, 2))
    # The same sums in another order.
    chex.assert_trees_all_close(parts, plain, rtol=1e-5)
    with pytest.raises(ValueError, match="accumulate"):
        run(accumulate=3)


def test_memory_is_told_once_before_the_first_step():
    class Watch(Recorder):
        memories = ()

        def on_start(self, memory):
            assert not self.fractions
            self.memories += (memory,)

    watch = Watch()
    outcome = run(watch, limits={"max_steps": 2})
    assert watch.memories == (outcome.memory,)
    assert outcome.memory.parameters == 4 * (FEATURES + 1)
    assert run(start=outcome.snapshot, limits={"max_steps": 2}).memory is None


def test_the_optimizer_is_told_how_far_the_run_is_and_how_stale():
    """The evaluations of steps 2, 4, and 6 get worse and worse."""
    seen = []

    def update(updates, state, params=None, *, progress, value, stale, **extra):
        jax.debug.callback(lambda *told: seen.append(told), progress, value, stale, ordered=True)
        return updates, state

    optimizer = optax.chain(
        OPTIMIZER,
        optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update),
    )
    step = make_train_step(loss_fn, optimizer)
    worse = iter(range(100))
    evaluate = lambda params: {"loss": Weighted(np.float64(next(worse)), np.float64(1))}  # noqa: E731
    run(
        step=step,
        start=Snapshot(new_state(step=step)),
        layout=ONE,
        evaluate=evaluate,
        limits={"steps": 8, "evaluate_every": 2},
    )
    jax.effects_barrier()
    progress, value, stale = map(np.array, zip(*seen, strict=True))
    np.testing.assert_array_equal(progress, np.float32(np.arange(8) / 8))
    np.testing.assert_array_equal(stale, [0, 0, 0, 0, 1, 1, 2, 2])
    assert np.isfinite(value).all()
    assert len(set(value.tolist())) == 8


# --- mistakes --------------------------------------------------------------------------------


def test_progress_must_be_that_of_the_state():
    message = "start: expected progress at the state's step 0, got step 3"
    with pytest.raises(ValueError, match=message):
        run(start=Snapshot(new_state(), Progress(step=3)))


def test_rows_that_the_devices_do_not_divide():
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 devices"):
        run(devices=3)


@pytest.mark.parametrize("layout", [ONE, DataParallel(jax.devices()[:2])], ids=["one", "two"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y, w: (x, y, 1.0), r"batch\[2\]: expected an array with rows first.*a scalar"),
        (lambda x, y, w: (np.float32(1), y, w), r"batch\[0\]: expected an array with rows first"),
        (lambda x, y, w: (x, y[:2], w), r"batch\[1\]: expected 4 rows, as in batch\[0\], got 2"),
        (lambda x, y, w: (), r"batch: expected arrays with rows first, \[B, ...\], got none"),
        (lambda x, y, w: (x[:2], y[:2], w[:2]), "source: expected batches of one of its shapes"),
        (lambda x, y, w: (x.astype("float16"), y, w), "source: expected batches of one of its"),
        (lambda x, y, w: {"x": x, "y": y, "w": w}, "source: expected batches of one of its"),
    ],
)
def test_what_is_no_batch(layout, spoil, message):
    with pytest.raises(ValueError, match=message):
        run(layout=layout, batch=lambda k: spoil(*batch_of(k)))


def test_parameters_in_a_batch_are_refused_and_not_cut_by_rows():
    """Their first axis may be divisible by the devices, but it is not that of the rows."""
    batch = lambda k: (batch_of(k), {"w": np.zeros((2, 3))})  # noqa: E731
    source = Batches(batch, (shapes_of(batch(0)),))
    with pytest.raises(ValueError, match=r"batch\[1\]\['w'\]: expected 4 rows, .* the parameters"):
        run(source=source)


def test_a_metric_that_the_evaluation_lacks_is_said_after_saving():
    recorder = Recorder()
    evaluate = lambda params: {"los": distance(params)["loss"]}  # noqa: E731
    with pytest.raises(ValueError, match=re.escape("metric: the evaluation has no 'loss'")):
        run(recorder, evaluate=evaluate)
    assert recorder.saves == [(6, False), (8, False)]


@pytest.mark.parametrize("name", ["step", "split"])
def test_figures_that_would_hide_the_step_of_a_record(name):
    evaluate = lambda params: {**distance(params), name: distance(params)["loss"]}  # noqa: E731
    with pytest.raises(ValueError, match=f"metrics: the name '{name}' is reserved"):
        run(evaluate=evaluate)


def test_new_parameters_that_overflow_stop_the_run_and_are_named():
    """Loss and gradient are finite; a step of 1e39 times the gradient is too long."""
    step = make_train_step(loss_fn, optax.chain(optax.sgd(1e30), optax.scale(1e9)))
    with pytest.raises(NonFiniteError, match="a new parameter is not finite at step 1 "):
        run(step=step, start=Snapshot(new_state(step=step)))


@pytest.mark.parametrize("count", [1, 1000])
def test_sums_to_host_adds_in_double_precision(rng, count):
    values = rng.normal(size=(count, 2, 3)).astype(np.float32)  # two figures on three devices
    sums = [{"loss": Weighted(jnp.asarray(a), jnp.asarray(abs(b)))} for a, b in values]
    total = sums_to_host(sums)["loss"]
    wide = values.astype(np.float64)
    # Exact sums, to the rounding of 3000 additions in double precision.
    assert float(total.total) == pytest.approx(wide[:, 0].sum(), rel=1e-12, abs=1e-12)
    assert float(total.weight) == pytest.approx(abs(wide[:, 1]).sum(), rel=1e-12)
    assert sums_to_host([]) == {}
