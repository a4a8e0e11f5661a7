"""The loop, on a linear model with noise, a carry and a schedule: all that a state can hold."""

import json
import os
import signal
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets import training
from seqnets.devices import DataParallel
from seqnets.reduction import Weighted, weighted
from seqnets.runs import Checkpointing, CheckpointStore, MetricsFile, checkpoints, parameters_sha256
from seqnets.training import (
    ALONE,
    WHOLE,
    Clock,
    Hook,
    Limits,
    LossOutput,
    NonFiniteError,
    Progress,
    Recovery,
    Snapshot,
    StepInfo,
    loop,
    make_train_step,
    means,
    sums_to_host,
)

ROWS, FEATURES = 4, 3
EVERY = {"report_every": 5, "evaluate_every": 8, "checkpoint_every": 6}


class Carry(NamedTuple):
    mean: jax.Array


def loss_fn(params, batch, given):
    """Squared error of a linear model that sees a running mean, and noise on its inputs."""
    x, y, weight = batch
    noise = jax.vmap(lambda key: jax.random.normal(key, (FEATURES,)))(given.keys.rows)
    mean = 0.5 * given.carry.mean + 0.5 * x.mean(axis=1)
    error = (x + 0.1 * noise) @ params["w"] + params["b"] * mean - y
    metrics = {"absolute": weighted(abs(error), weight)}
    return LossOutput(weighted(error**2, weight), Carry(mean), metrics)


def scale_by_remaining():
    """Steps that shrink as the run goes on: a schedule over its nominal length."""

    def update(updates, state, params=None, *, progress, **extra):
        return jax.tree.map(lambda u: u * (1 - progress), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


OPTIMIZER = optax.chain(optax.adam(0.05), scale_by_remaining())


def batch_of(k):
    rng = np.random.default_rng([11, k])
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = x.sum(axis=1) + rng.normal(size=ROWS).astype(np.float32)
    return x, y, rng.integers(0, 3, ROWS).astype(np.float32)


class Batches:
    """A source made of a function of the batch's number."""

    shapes = (jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch_of(0)),)

    def __init__(self, batch):
        self._batch = batch

    def batch(self, k, share=WHOLE):
        assert share == WHOLE
        return self._batch(k)


def evaluate(params):
    return {"loss": Weighted(np.float64(np.square(params["w"] - 1).sum()), np.float64(1))}


class Evaluated:
    """An evaluation made of a function of the parameters."""

    metric = "loss"
    higher_is_better = False
    figures = staticmethod(means)

    def __init__(self, evaluate):
        self._evaluate = evaluate

    def sums(self, weights):
        return self._evaluate(weights.params)


STEP = make_train_step(loss_fn, OPTIMIZER)


def new_state(seed=5):
    params = {"w": jnp.zeros(FEATURES), "b": jnp.zeros(1)}
    return STEP.init(params, jax.random.key(seed), carry=Carry(jnp.zeros(ROWS)))


def new_job(
    devices=2, *, loss_fn=loss_fn, batch=batch_of, evaluate=evaluate, accumulate=1, **given
):
    """The arguments of a run, but for its start and its hooks."""
    return {
        "layout": DataParallel(jax.local_devices()[:devices]),
        **given,
        "step": make_train_step(loss_fn, OPTIMIZER, accumulate=accumulate),
        "source": Batches(batch),
        "evaluation": None if evaluate is None else Evaluated(evaluate),
        "limits": Limits(**{"steps": 20, **EVERY, **given.get("limits", {})}),
    }


def train(job, state, hooks, progress=None):
    return training.train(start=Snapshot(state, progress or Progress()), hooks=hooks, **job)


class Recorder(Hook):
    """Keeps all that it is told."""

    def __init__(self):
        self.records, self.saves, self.fractions, self.ends = [], [], [], 0

    def on_step(self, progress, fraction):
        self.fractions.append(fraction)

    def on_record(self, record):
        self.records.append(record)

    def on_checkpoint(self, snapshot, rank):
        state, progress = snapshot
        assert int(state.step) == progress.step
        assert (rank is not None) == progress.evaluated
        self.saves.append((progress.step, progress.evaluated))

    def on_end(self):
        self.ends += 1

    def steps(self, split):
        return [record["step"] for record in self.records if record["split"] == split]


class At(Hook):
    """Does something after a step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step(self, progress, fraction):
        if progress.step == self.step:
            self.act()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def run_in(folder, *hooks, resume=False, **changes):
    """Train with files in a folder, from the start or from the newest checkpoint."""
    store = CheckpointStore(folder / "checkpoints")
    state, progress = new_state(), Progress()
    if resume:
        state, progress = store.restore(jax.eval_shape(new_state), store.newest())
    metrics = MetricsFile(folder / "metrics.jsonl", progress.step if resume else None)
    return train(new_job(**changes), state, [metrics, Checkpointing(store), *hooks], progress)


def records_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_state(got, expected):
    """Same trees, bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    raw = [s._replace(key=jax.random.key_data(s.key)) for s in (got, expected)]
    for a, b in zip(*map(jax.tree.leaves, raw), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run of 20 steps that is not stopped: its outcome and its folder."""
    folder = tmp_path_factory.mktemp("straight")
    return run_in(folder), folder


def test_records_are_the_weighted_means_of_single_steps():
    recorder = Recorder()
    outcome = train(new_job(limits={"steps": 12}), new_state(), [recorder])
    # The oracle: the step itself, in a plain loop on one device.
    step = jax.jit(STEP)
    state, losses, weights, norms = new_state(), [], [], []
    for k in range(12):
        state, info = step(state, batch_of(k), Clock(np.float32(k / 12)))
        losses.append(float(info.loss.total))
        weights.append(float(info.loss.weight))
        norms.append(float(info.gradient_norm))
    windows = [slice(0, 5), slice(5, 10), slice(10, 12)]
    trained = [record for record in recorder.records if record["split"] == "train"]
    assert [record["step"] for record in trained] == [5, 10, 12]
    for record, window in zip(trained, windows, strict=True):
        # float32 sums over the rows of two devices and of one: some ulps.
        assert record["loss"] == pytest.approx(sum(losses[window]) / sum(weights[window]), rel=1e-5)
        assert record["gradient_norm"] == pytest.approx(np.mean(norms[window]), rel=1e-5)
        assert record["absolute"] > 0
    np.testing.assert_allclose(outcome.state.params["w"], state.params["w"], rtol=1e-5)
    assert outcome.progress.step == 12
    assert outcome.signal is None


def test_when_hooks_are_called():
    recorder = Recorder()
    train(new_job(limits={"steps": 18}), new_state(), [recorder])
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
    outcome = train(new_job(evaluate=None, limits={"steps": 8}), new_state(), [recorder])
    assert recorder.steps("validation") == []
    assert recorder.saves == [(6, False), (8, False)]
    assert outcome.progress.validation == {}


def test_same_seed_same_records(tmp_path, straight):
    outcome, folder = straight
    again = run_in(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert parameters_sha256(again.state.params) == parameters_sha256(outcome.state.params)
    other = train(new_job(), new_state(seed=6), [])
    assert parameters_sha256(other.state.params) != parameters_sha256(outcome.state.params)


# In the middle of everything, where a record is due, and where an evaluation is.
@pytest.mark.parametrize("k", [7, 10, 8])
def test_stopped_at_max_steps_and_resumed_equals_straight_on(tmp_path, straight, k):
    expected, folder = straight
    stopped = run_in(tmp_path, limits={"max_steps": k})
    assert stopped.progress.step == k
    # The end of the first part is evaluated; that record alone may be one more.
    extra = [record for record in records_in(tmp_path) if record not in records_in(folder)]
    assert extra == ([] if k == 8 else [{"step": k, "split": "validation", **evaluation(stopped)}])
    resumed = run_in(tmp_path, resume=True, limits={"max_steps": 20})
    assert_same_state(resumed.state, expected.state)
    assert [r for r in records_in(tmp_path) if r not in extra] == records_in(folder)


def evaluation(outcome):
    return {name: float(part.total) for name, part in evaluate(outcome.state.params).items()}


@pytest.mark.parametrize("k", [3, 8, 20])
def test_stopped_by_a_signal_and_resumed_leaves_the_same_files(tmp_path, straight, k):
    expected, folder = straight
    before = signal.getsignal(signal.SIGINT)
    stopped = run_in(tmp_path, At(k, interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert stopped.signal == signal.SIGINT
    assert stopped.progress.step == k
    assert CheckpointStore(tmp_path / "checkpoints").newest() == k
    assert not stopped.progress.evaluated
    resumed = run_in(tmp_path, resume=True)
    assert resumed.signal is None
    assert_same_state(resumed.state, expected.state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    stores = [CheckpointStore(path / "checkpoints") for path in (tmp_path, folder)]
    assert stores[0].newest() == stores[1].newest() == 20
    assert stores[0].best() == stores[1].best()


def test_a_killed_run_goes_on_from_its_checkpoint_as_if_nothing_had_been(tmp_path, straight):
    def kill():
        raise SystemExit

    expected, folder = straight
    with pytest.raises(SystemExit):
        run_in(tmp_path, At(11, kill))
    assert records_in(tmp_path)[-1]["step"] == 10  # of which the checkpoint of step 8 knows nothing
    resumed = run_in(tmp_path, resume=True)
    assert_same_state(resumed.state, expected.state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_resumed_on_other_devices(tmp_path, straight):
    expected, _ = straight
    run_in(tmp_path, limits={"max_steps": 7})
    resumed = run_in(tmp_path, resume=True, devices=4)
    # Sums over four devices in place of two: rounding only.
    np.testing.assert_allclose(resumed.state.params["w"], expected.state.params["w"], rtol=1e-5)


def test_resumed_at_its_end_a_run_does_nothing(tmp_path, straight):
    run_in(tmp_path, limits={"steps": 8})
    recorder = Recorder()
    never = lambda k: pytest.fail("asked for a batch")  # noqa: E731
    run_in(tmp_path, recorder, resume=True, limits={"steps": 8}, batch=never)
    assert (recorder.records, recorder.saves, recorder.fractions) == ([], [], [])


def test_max_steps_leaves_the_schedule_alone():
    recorder = Recorder()
    train(new_job(limits={"steps": 50, "max_steps": 4}), new_state(), [recorder])
    assert recorder.fractions == [0.0, 1 / 50, 2 / 50, 3 / 50]


@pytest.mark.parametrize("k", [1, 7, 11])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, k):
    def poisoned(number):
        x, y, weight = batch_of(number)
        return (x * np.nan if number == k - 1 else x), y, np.ones_like(weight)

    recorder = Recorder()
    with pytest.raises(NonFiniteError, match=f"not finite at step {k} "):
        run_in(tmp_path, recorder, batch=poisoned)
    assert recorder.ends == 1
    assert all(np.isfinite(record.get("loss", 0.0)) for record in recorder.records)
    store = CheckpointStore(tmp_path / "checkpoints")
    if k == 1:
        assert store.newest() is None
        return
    state, progress = store.restore(jax.eval_shape(new_state), store.newest())
    assert progress.step == {7: 6, 11: 8}[k]
    plain = train(new_job(batch=poisoned, limits={"max_steps": progress.step}), new_state(), [])
    assert_same_state(state, plain.state)


def test_a_fault_in_a_hook_ends_all_hooks_and_gives_the_signals_back():
    def fault():
        raise OSError("disk full")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    recorder = Recorder()
    with pytest.raises(OSError, match="disk full"):
        train(new_job(), new_state(), [At(2, fault), recorder])
    assert recorder.ends == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_bounded_by_time(tmp_path):
    """Slow batches: 0.01 s a step, so that steps, not the machine, fill the time."""

    def slow(k):
        time.sleep(0.01)
        return batch_of(k)

    recorder = Recorder()
    limits = {"max_seconds": 0.3, "report_every": 1000, "checkpoint_every": 7}
    began = time.perf_counter()
    outcome = train(
        new_job(batch=slow, evaluate=sleepy, limits=limits), new_state(), [recorder, Sleepy()]
    )
    wall = time.perf_counter() - began
    progress = outcome.progress
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
    return evaluate(params)


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
    train(new_job(layout=layout, limits=limits), new_state(), [Count()])
    assert ahead == [1, 2, 2, 2, 2, 2, 2, 2, 2]
    assert layout.waited[:7] == [1, 2, 3, 4, 5, 6, 7]


def test_progress_must_be_that_of_the_state():
    with pytest.raises(
        ValueError, match="start: expected progress of the state's step 0, got one of step 3"
    ):
        train(new_job(), new_state(), [], Progress(step=3))


def test_rows_that_the_devices_do_not_divide():
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 devices"):
        train(new_job(devices=3), new_state(), [])


def test_accumulation_reaches_the_step():
    plain = train(new_job(limits={"steps": 3}), new_state(), [])
    parts = train(new_job(limits={"steps": 3}, accumulate=2), new_state(), [])
    # The same sums in another order.
    np.testing.assert_allclose(parts.state.params["w"], plain.state.params["w"], rtol=1e-5)
    with pytest.raises(ValueError, match="accumulate"):
        train(new_job(accumulate=3), new_state(), [])


def test_sums_to_host_adds_in_double_precision(rng):
    values = rng.normal(size=(1000, 2)).astype(np.float32)
    sums = [{"loss": Weighted(jnp.float32([a]), jnp.float32([abs(b)]))} for a, b in values]
    total = sums_to_host(sums)["loss"]
    wide = values.astype(np.float64)
    # math.fsum's exact sums, to the rounding of 1000 additions in double precision.
    assert float(total.total) == pytest.approx(wide[:, 0].sum(), rel=1e-12, abs=1e-12)
    assert float(total.weight) == pytest.approx(abs(wide[:, 1]).sum(), rel=1e-12)
    assert sums_to_host([]) == {}


def spoiled(*numbers, by=np.nan):
    """The batches, some of them with inputs multiplied."""

    def batch(k):
        x, y, weight = batch_of(k)
        return (x * by if k in numbers else x), y, np.ones_like(weight)

    return batch


def without(batch, first, last):
    """Batches as if those numbers had never been."""
    return lambda k: batch(k if k < first else k + last - first + 1)


def test_skipped_steps_change_nothing_and_are_counted(tmp_path):
    settings = {"batch": spoiled(3, 6, 7), "recovery": Recovery("skip", max_skips=2)}
    outcome = run_in(tmp_path, **settings)
    assert outcome.progress.skipped == 3
    assert outcome.progress.skipped_in_a_row == 0
    # The oracle: the step itself, which keeps what it had, in a plain loop.
    step = jax.jit(STEP)
    state, losses = new_state(), []
    for k in range(20):
        state, info = step(state, spoiled(3, 6, 7)(k), Clock(np.float32(k / 20)))
        losses.append(float(info.loss.mean()))
    # float32 sums over the rows of two devices and of one: some ulps.
    np.testing.assert_allclose(outcome.state.params["w"], state.params["w"], rtol=1e-5)
    train = {r["step"]: r for r in records_in(tmp_path) if r["split"] == "train"}
    assert [train[step].get("skipped") for step in (5, 10, 15, 20)] == [1, 3, 3, 3]
    assert train[5]["loss"] == pytest.approx(np.mean([losses[k] for k in (0, 1, 2, 4)]), rel=1e-5)
    assert train[10]["loss"] == pytest.approx(np.mean([losses[k] for k in (5, 8, 9)]), rel=1e-5)


def test_too_many_skips_in_a_row_stop_the_run():
    job = new_job(batch=spoiled(6, 7, 8), recovery=Recovery("skip", max_skips=2))
    with pytest.raises(NonFiniteError, match="at step 9 "):
        train(job, new_state(), [])


def test_a_report_of_skipped_steps_only():
    recorder = Recorder()
    job = new_job(batch=spoiled(*range(5, 10)), recovery=Recovery("skip"))
    train(job, new_state(), [recorder])
    (record,) = [r for r in recorder.records if r["split"] == "train" and r["step"] == 10]
    assert record == {"step": 10, "split": "train", "skipped": 5}


def test_going_back_passes_by_the_batches_and_cuts_the_records(tmp_path, caplog):
    """Batch 13 is met at step 14, past the record of 10 and the checkpoint of step 12."""
    settings = {"limits": {"report_every": 1}, "recovery": Recovery("rollback")}
    outcome = run_in(tmp_path, batch=spoiled(13), **settings)
    # The oracle: the batches after checkpoint 12 up to that one had never been.
    folder = tmp_path / "oracle"
    folder.mkdir()
    expected = run_in(folder, batch=without(spoiled(), 12, 13), **settings)
    assert_same_state(outcome.state, expected.state)
    assert (outcome.progress.rollbacks, outcome.progress.batches_passed_by) == (1, 2)
    told = {"from_step": 14, "rollbacks": 1, "batches_passed_by": 2}
    (rollback,) = [r for r in records_in(tmp_path) if r["split"] == "rollback"]
    assert rollback == {"step": 13, "split": "rollback", **told}
    assert [r for r in records_in(tmp_path) if r != rollback] == records_in(folder)
    (record,) = caplog.records
    assert "not finite at step 14 " in record.getMessage()
    assert record.getMessage().endswith("going back to step 12")


def test_going_back_to_the_start_and_again(tmp_path):
    settings = {"recovery": Recovery("rollback", max_rollbacks=2)}
    outcome = run_in(tmp_path, batch=spoiled(2, 7), **settings)
    folder = tmp_path / "oracle"
    folder.mkdir()
    expected = run_in(folder, batch=without(spoiled(), 0, 7), **settings)
    assert_same_state(outcome.state, expected.state)
    assert (outcome.progress.rollbacks, outcome.progress.batches_passed_by) == (2, 8)


def test_the_run_stops_where_going_back_does_not_help(tmp_path):
    always = spoiled(*range(10, 1000))
    with pytest.raises(NonFiniteError):
        run_in(tmp_path, batch=always, recovery=Recovery("rollback", max_rollbacks=3))
    assert CheckpointStore(tmp_path / "checkpoints").newest() == 8


@pytest.mark.parametrize("k", [13, 14, 17])
def test_killed_after_going_back_and_resumed_equals_straight_on(tmp_path, k):
    settings = {"batch": spoiled(13), "recovery": Recovery("rollback")}
    folder = tmp_path / "straight"
    folder.mkdir()
    expected = run_in(folder, **settings)
    seen = []

    class Kill(Hook):
        def on_step(self, progress, fraction):
            seen.append(progress.step)
            if progress.step == k and progress.rollbacks:
                raise SystemExit

    with pytest.raises(SystemExit):
        run_in(tmp_path, Kill(), **settings)
    assert seen.count(13) == 2
    resumed = run_in(tmp_path, resume=True, **settings)
    assert_same_state(resumed.state, expected.state)
    counted = [(o.progress.rollbacks, o.progress.batches_passed_by) for o in (resumed, expected)]
    assert counted[0] == counted[1] == (1, 2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_a_spike_of_the_loss_is_gone_back_from(tmp_path, caplog):
    settings = {"limits": {"steps": 40}, "recovery": Recovery(spike=30.0)}
    outcome = run_in(tmp_path, batch=spoiled(27, by=1000), **settings)
    folder = tmp_path / "oracle"
    folder.mkdir()
    expected = run_in(folder, batch=without(spoiled(), 24, 27), **settings)
    assert expected.progress.rollbacks == 0
    assert_same_state(outcome.state, expected.state)
    assert (outcome.progress.rollbacks, outcome.progress.batches_passed_by) == (1, 4)
    assert "a spike of the loss at step 28" in caplog.text
    # Left alone it is a step like any other.
    alone = train(new_job(batch=spoiled(27, by=1000), limits={"steps": 40}), new_state(), [])
    assert alone.progress.rollbacks == 0
    assert parameters_sha256(alone.state.params) != parameters_sha256(outcome.state.params)


def test_time_spent_on_what_was_gone_back_from_is_spent():
    """Or a run bounded by time that goes back would never end."""
    recorder = Recorder()
    limits = {"max_seconds": 0.3, "report_every": 3, "checkpoint_every": 1000}
    job = new_job(
        batch=lambda k: (time.sleep(0.01), spoiled(*range(5, 1000))(k))[1],
        limits=limits,
        recovery=Recovery("rollback", max_rollbacks=1000),
    )
    outcome = train(job, new_state(), [recorder])
    assert outcome.progress.training_seconds >= 0.3
    assert outcome.progress.rollbacks >= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_an_evaluation_gives_it_up_and_the_resumed_run_begins_with_it(
    tmp_path, straight, number
):
    expected, folder = straight

    def interrupted(params):
        if not stopped_once:
            stopped_once.append(True)
            os.kill(os.getpid(), number)
            time.sleep(30)
        return evaluate(params)

    stopped_once = []
    began = time.monotonic()
    stopped = run_in(tmp_path, evaluate=interrupted)
    assert time.monotonic() - began < 20
    assert (stopped.signal, stopped.progress.step) == (number, 8)
    assert not stopped.progress.evaluated
    assert CheckpointStore(tmp_path / "checkpoints").newest() == 8
    resumed = run_in(tmp_path, resume=True, evaluate=interrupted)
    assert_same_state(resumed.state, expected.state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert CheckpointStore(tmp_path / "checkpoints").best() == 20


def test_a_signal_while_compiling_takes_no_step(tmp_path, straight):
    expected, folder = straight

    def slow(params, batch, given):
        if not stopped_once:
            stopped_once.append(True)
            interrupt()
            time.sleep(30)
        return loss_fn(params, batch, given)

    stopped_once = []
    stopped = run_in(tmp_path, loss_fn=slow)
    assert (stopped.signal, stopped.progress.step) == (signal.SIGINT, 0)
    resumed = run_in(tmp_path, resume=True)
    assert_same_state(resumed.state, expected.state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_a_signal_after_the_last_look_loses_no_step(tmp_path, straight):
    """It comes between looking up and the question whether to go on: at step 7 nothing is due."""
    expected, folder = straight

    with pytest.MonkeyPatch.context() as patch:
        real = loop._Run._look_up

        def look_up(self):
            real(self)
            if self.progress.step == 7:
                self.interruption.signal = signal.SIGTERM

        patch.setattr(loop._Run, "_look_up", look_up)
        assert run_in(tmp_path).progress.step == 7
    resumed = run_in(tmp_path, resume=True)
    assert_same_state(resumed.state, expected.state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_a_jump_of_the_clock_changes_nothing(tmp_path, straight, monkeypatch):
    """Not even in the middle of a checkpoint, where Orbax may take it for a timeout."""
    expected, folder = straight
    real, write, times, tries = time.time, checkpoints.write_snapshot, [], []

    def jumping():
        times.append(1)
        return real() + (-1) ** len(times) * 20

    def counting(path, snapshot, rank):
        tries.append(snapshot.progress.step)
        if tries.count(8) == 1:
            raise TimeoutError("after 2e9 seconds")  # what Orbax makes of a larger jump
        write(path, snapshot, rank)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(checkpoints, "write_snapshot", counting)
    outcome = run_in(tmp_path)
    assert tries.count(8) == 2
    assert_same_state(outcome.state, expected.state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    stores = [CheckpointStore(path / "checkpoints") for path in (tmp_path, folder)]
    assert stores[0].best() == stores[1].best()
    progress = outcome.progress
    assert 0 <= progress.training_seconds < 60
    assert 0 <= progress.evaluation_seconds < 60
    assert 0 <= progress.compilation_seconds < 60


def test_an_error_of_saving_ends_the_run(tmp_path, monkeypatch):
    def full(self, snapshot, rank):
        raise OSError("disk full")

    monkeypatch.setattr(CheckpointStore, "save", full)
    with pytest.raises(OSError, match="disk full"):
        run_in(tmp_path)
    with pytest.raises(OSError, match="disk full"):  # of the last, too
        run_in(tmp_path, limits={"steps": 4})


def test_memory_is_told_once_before_the_first_step():
    class Watch(Recorder):
        memories = ()

        def on_start(self, memory):
            assert not self.fractions
            self.memories += (memory,)

    watch = Watch()
    outcome = train(new_job(limits={"max_steps": 2}), new_state(), [watch])
    assert watch.memories == (outcome.memory,)
    assert outcome.memory.parameters == 4 * (FEATURES + 1)
    assert (
        train(new_job(limits={"max_steps": 2}), outcome.state, [], outcome.progress).memory is None
    )
