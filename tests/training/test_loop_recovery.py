"""Steps that went wrong: stopping, skipping, and rolling back, against runs without them."""

import time

import jax
import numpy as np
import pytest
from linear_run import (
    OPTIMIZER,
    Recorder,
    assert_same_state,
    batch_of,
    loss_fn,
    new_state,
    records_in,
    run,
    run_in,
    same_files,
    spoiled,
    without,
)

from seqnets.runs import CheckpointStore
from seqnets.training import Clock, Hook, NonFiniteError, Recovery, make_train_step


@pytest.mark.parametrize("k", [1, 7, 11])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, k):
    def poisoned(number):
        x, y, weight = batch_of(number)
        return (x * np.nan if number == k - 1 else x), y, np.ones_like(weight)

    recorder = Recorder()
    with pytest.raises(NonFiniteError, match=f"loss or gradient is not finite at step {k} "):
        run_in(tmp_path, recorder, batch=poisoned)
    assert recorder.ends == 1
    assert all(np.isfinite(record.get("loss", 0.0)) for record in recorder.records)
    store = CheckpointStore(tmp_path / "checkpoints")
    if k == 1:
        assert store.newest() is None
        return
    state, progress = store.restore(jax.eval_shape(new_state), store.newest())
    assert progress.step == {7: 6, 11: 8}[k]
    plain = run(batch=poisoned, limits={"max_steps": progress.step})
    assert_same_state(state, plain.snapshot.state)


def test_skipped_steps_change_nothing_and_are_counted(tmp_path):
    settings = {"batch": spoiled(3, 6, 7), "recovery": Recovery("skip", max_skips=2)}
    state, progress = run_in(tmp_path, **settings).snapshot
    assert progress.skipped == 3
    assert progress.skipped_in_a_row == 0
    # The oracle: the step itself, which keeps what it had, in a plain loop.
    step = jax.jit(make_train_step(loss_fn, OPTIMIZER))
    want, losses = new_state(), []
    for k in range(20):
        want, info = step(want, spoiled(3, 6, 7)(k), Clock(np.float32(k / 20)))
        losses.append(float(info.loss.mean()))
    # float32 sums over the rows of two devices and of one: some ulps.
    np.testing.assert_allclose(state.params["w"], want.params["w"], rtol=1e-5)
    train = {r["step"]: r for r in records_in(tmp_path) if r["split"] == "train"}
    assert [train[step].get("skipped") for step in (5, 10, 15, 20)] == [1, 3, 3, 3]
    assert train[5]["loss"] == pytest.approx(np.mean([losses[k] for k in (0, 1, 2, 4)]), rel=1e-5)
    assert train[10]["loss"] == pytest.approx(np.mean([losses[k] for k in (5, 8, 9)]), rel=1e-5)


def test_too_many_skips_in_a_row_stop_the_run():
    with pytest.raises(NonFiniteError, match="at step 9 "):
        run(batch=spoiled(6, 7, 8), recovery=Recovery("skip", max_skips=2))


def test_a_report_of_skipped_steps_only():
    recorder = Recorder()
    run(recorder, batch=spoiled(*range(5, 10)), recovery=Recovery("skip"))
    (record,) = [r for r in recorder.of("train") if r["step"] == 10]
    assert record == {"step": 10, "split": "train", "skipped": 5}


def test_a_rollback_skips_the_batches_and_cuts_the_records(tmp_path, caplog):
    """Batch 13 is met at step 14, past the record of 10 and the checkpoint of step 12."""
    settings = {"limits": {"report_every": 1}, "recovery": Recovery("rollback")}
    outcome = run_in(tmp_path, batch=spoiled(13), **settings).snapshot
    # The oracle: the batches after checkpoint 12 up to that one had never been.
    folder = tmp_path / "oracle"
    folder.mkdir()
    expected = run_in(folder, batch=without(spoiled(), 12, 13), **settings).snapshot
    assert_same_state(outcome.state, expected.state)
    assert (outcome.progress.rollbacks, outcome.progress.batches_passed_by) == (1, 2)
    told = {"from_step": 14, "rollbacks": 1, "batches_passed_by": 2}
    (rollback,) = [r for r in records_in(tmp_path) if r["split"] == "rollback"]
    assert rollback == {"step": 13, "split": "rollback", **told}
    assert [r for r in records_in(tmp_path) if r != rollback] == records_in(folder)
    (record,) = caplog.records
    assert "not finite at step 14 " in record.getMessage()
    assert record.getMessage().endswith("rolling back to step 12")


def test_a_rollback_to_the_start_and_another(tmp_path):
    settings = {"recovery": Recovery("rollback", max_rollbacks=2)}
    outcome = run_in(tmp_path, batch=spoiled(2, 7), **settings).snapshot
    folder = tmp_path / "oracle"
    folder.mkdir()
    expected = run_in(folder, batch=without(spoiled(), 0, 7), **settings).snapshot
    assert_same_state(outcome.state, expected.state)
    assert (outcome.progress.rollbacks, outcome.progress.batches_passed_by) == (2, 8)


def test_the_run_stops_where_rollbacks_do_not_help(tmp_path):
    always = spoiled(*range(10, 1000))
    with pytest.raises(NonFiniteError):
        run_in(tmp_path, batch=always, recovery=Recovery("rollback", max_rollbacks=3))
    assert CheckpointStore(tmp_path / "checkpoints").newest() == 8


@pytest.mark.parametrize("k", [13, 14, 17])
def test_killed_after_a_rollback_and_resumed_equals_never_stopped(tmp_path, k):
    settings = {"batch": spoiled(13), "recovery": Recovery("rollback")}
    folder = tmp_path / "straight"
    folder.mkdir()
    expected = run_in(folder, **settings).snapshot
    seen = []

    class Kill(Hook):
        def on_step(self, progress, fraction):
            seen.append(progress.step)
            if progress.step == k and progress.rollbacks:
                raise SystemExit

    with pytest.raises(SystemExit):
        run_in(tmp_path, Kill(), **settings)
    assert seen.count(13) == 2
    resumed = run_in(tmp_path, resume=True, **settings).snapshot
    assert_same_state(resumed.state, expected.state)
    counted = [(p.rollbacks, p.batches_passed_by) for _, p in (resumed, expected)]
    assert counted[0] == counted[1] == (1, 2)
    same_files(tmp_path, folder)


def test_a_spike_of_the_loss_is_rolled_back(tmp_path, caplog):
    settings = {"limits": {"steps": 40}, "recovery": Recovery(spike=30.0)}
    outcome = run_in(tmp_path, batch=spoiled(27, by=1000), **settings).snapshot
    folder = tmp_path / "oracle"
    folder.mkdir()
    expected = run_in(folder, batch=without(spoiled(), 24, 27), **settings).snapshot
    assert expected.progress.rollbacks == 0
    assert_same_state(outcome.state, expected.state)
    assert (outcome.progress.rollbacks, outcome.progress.batches_passed_by) == (1, 4)
    assert "loss spike at step 28" in caplog.text
    # Left alone it is a step like any other.
    alone = run(batch=spoiled(27, by=1000), limits={"steps": 40}).snapshot
    assert alone.progress.rollbacks == 0
    assert not np.array_equal(alone.state.params["w"], outcome.state.params["w"])


def test_a_rollback_restores_what_was_best():
    """The evaluation of step 16 is rolled back with it: batch 16 is bad, the checkpoint is 12."""
    settings = {"batch": spoiled(13), "recovery": Recovery("rollback")}
    progress = run(**settings).snapshot.progress
    plain = run(batch=without(spoiled(), 12, 13)).snapshot.progress
    assert (progress.best, progress.stale) == (plain.best, plain.stale)


def test_time_spent_on_what_was_rolled_back_is_spent():
    """Otherwise a run bounded by time that rolls back would never end."""
    limits = {"max_seconds": 0.3, "report_every": 3, "checkpoint_every": 1000}
    outcome = run(
        batch=lambda k: (time.sleep(0.01), spoiled(*range(5, 1000))(k))[1],
        limits=limits,
        recovery=Recovery("rollback", max_rollbacks=1000),
    )
    assert outcome.snapshot.progress.training_seconds >= 0.3
    assert outcome.snapshot.progress.rollbacks >= 2


def test_every_method_of_a_hook_may_be_left_out():
    """In a run that calls each of them, a hook without any changes nothing."""
    called = set()
    methods = {name for name in vars(Hook) if not name.startswith("_")}
    seen = {name: lambda self, *told, name=name: called.add(name) for name in methods}
    settings = {"batch": spoiled(9), "recovery": Recovery("rollback")}
    outcome = run(Hook(), type("Seen", (Hook,), seen)(), Hook(), **settings)
    assert called == methods
    assert_same_state(outcome.state, run(**settings).state)
