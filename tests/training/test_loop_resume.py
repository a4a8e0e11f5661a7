"""Stopped and resumed, a run equals one that never stopped: state, records, checkpoints."""

import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_run import (
    At,
    Batches,
    Figures,
    Recorder,
    assert_same_state,
    batch_of,
    distance,
    loss_fn,
    new_state,
    records_in,
    run,
    run_in,
    same_files,
)

from seqnets.reduction import Weighted
from seqnets.training import ONE, LossOutput, Snapshot, ema, make_train_step


# In the middle of everything, where a record is due, and where an evaluation is.
@pytest.mark.parametrize("k", [7, 10, 8])
def test_stopped_at_max_steps_and_resumed_equals_never_stopped(tmp_path, straight, k):
    expected, folder = straight
    stopped = run_in(tmp_path, limits={"max_steps": k}).snapshot
    assert stopped.progress.step == k
    # The end of the first part is evaluated; that record alone may be one more.
    extra = [record for record in records_in(tmp_path) if record not in records_in(folder)]
    figures = {name: float(sums.total) for name, sums in distance(stopped.state.params).items()}
    assert extra == ([] if k == 8 else [{"step": k, "split": "validation", **figures}])
    resumed = run_in(tmp_path, resume=True, limits={"max_steps": 20})
    assert_same_state(resumed.snapshot.state, expected.snapshot.state)
    assert [r for r in records_in(tmp_path) if r not in extra] == records_in(folder)


def test_a_killed_run_continues_from_its_checkpoint_as_if_it_had_never_stopped(tmp_path, straight):
    def kill():
        raise SystemExit

    expected, folder = straight
    with pytest.raises(SystemExit):
        run_in(tmp_path, At(11, kill))
    assert records_in(tmp_path)[-1]["step"] == 10  # of which the checkpoint of step 8 knows nothing
    resumed = run_in(tmp_path, resume=True)
    assert_same_state(resumed.snapshot.state, expected.snapshot.state)
    same_files(tmp_path, folder)


def test_resumed_on_other_devices(tmp_path, straight):
    expected, _ = straight
    run_in(tmp_path, limits={"max_steps": 7})
    resumed = run_in(tmp_path, resume=True, devices=4)
    # Sums over four devices in place of two: rounding only.
    params = [outcome.snapshot.state.params for outcome in (resumed, expected)]
    chex.assert_trees_all_close(*params, rtol=1e-5)


def test_resumed_at_its_end_a_run_does_nothing(tmp_path, straight):
    run_in(tmp_path, limits={"steps": 8})
    recorder = Recorder()
    never = lambda k: pytest.fail("asked for a batch")  # noqa: E731
    run_in(tmp_path, recorder, resume=True, limits={"steps": 8}, batch=never)
    assert (recorder.records, recorder.saves, recorder.fractions) == ([], [], [])


# --- variables -------------------------------------------------------------------------------


def with_variables():
    """The linear run, with a moving average that its loss reads and its evaluation measures."""

    def pulled(params, batch, given):
        output = loss_fn(params, batch, given)
        pull = jnp.sum(jnp.square(params["w"] - given.variables["ema"]["w"]))
        loss = output.loss._replace(total=output.loss.total + pull * output.loss.weight)
        return output._replace(loss=loss)

    return make_train_step(pulled, optax.adam(0.05), after=ema(decay=0.9))


class OfVariables(Figures):
    def sums(self, weights):
        return self.of_params(weights.variables["ema"])


def test_checkpoints_and_evaluations_see_variables(tmp_path):
    step = with_variables()
    settings = {"step": step, "evaluation": OfVariables(distance)}
    state = new_state(step=step)
    expected = run_in(tmp_path, state=state, **settings).snapshot
    average = expected.state.variables["ema"]
    assert abs(average["w"] - expected.state.params["w"]).max() > 1e-3
    recorded = [r["loss"] for r in records_in(tmp_path) if r["split"] == "validation"]
    assert recorded[-1] == float(distance(average)["loss"].total)
    folder = tmp_path / "resumed"
    folder.mkdir()
    run_in(folder, state=state, limits={"max_steps": 7}, **settings)
    resumed = run_in(folder, state=state, resume=True, **settings).snapshot
    assert_same_state(resumed.state, expected.state)


# --- sources with several shapes -------------------------------------------------------------


def ragged_batch(k):
    """Every third batch is wider and longer."""
    rows, length = (8, 5) if k % 3 == 2 else (4, 3)
    rng = np.random.default_rng([12, k])
    return {
        "x": rng.normal(size=(rows, length)).astype(np.float32),
        "mask": rng.integers(0, 2, (rows, length)).astype(np.float32),
    }


def shape_of(rows, length):
    array = jax.ShapeDtypeStruct((rows, length), np.float32)
    return {"mask": array, "x": array}


BUCKETS = (shape_of(4, 3), shape_of(8, 5))


def bucket_loss(params, batch, given):
    keys = jax.vmap(jax.random.normal)(given.keys.rows)
    error = params["w"] * batch["x"] + 0.1 * keys[:, None] - 1
    count = jnp.sum(batch["mask"])
    return LossOutput(Weighted(jnp.sum(error**2 * batch["mask"]), count))


def run_buckets(loss, shapes=BUCKETS, start=None, make=ragged_batch, **changes):
    step = make_train_step(loss, optax.adam(0.1))
    start = start or Snapshot(step.init({"w": jnp.zeros(())}, jax.random.key(3)))
    settings = {"step": step, "start": start, "source": Batches(make, shapes), "evaluate": None}
    return run(**{**settings, **changes})


def traced_at_most(n, loss=bucket_loss):
    chex.clear_trace_counter()
    return chex.assert_max_traces(loss, n=n)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_program_for_each_declared_shape(devices):
    outcome = run_buckets(traced_at_most(2), devices=devices)
    # The oracle: the step, compiled by JAX as it likes.
    step = make_train_step(bucket_loss, optax.adam(0.1))
    jitted = jax.jit(step)
    state = step.init({"w": jnp.zeros(())}, jax.random.key(3))
    for k in range(20):
        state, _ = jitted(state, ragged_batch(k))
    # Sums over four devices in place of one: rounding only.
    chex.assert_trees_all_close(outcome.snapshot.state.params, state.params, rtol=1e-5)
    with pytest.raises(AssertionError, match="traced > 1 times"):
        run_buckets(traced_at_most(1), devices=devices)


def test_a_shape_that_was_not_declared_is_an_error():
    with pytest.raises(ValueError, match="source: expected batches of one of its shapes"):
        run_buckets(bucket_loss, shapes=BUCKETS[:1])
    never_seen = (*BUCKETS, shape_of(16, 9))
    run_buckets(traced_at_most(2), shapes=never_seen)  # what does not come is not compiled


@pytest.mark.parametrize("k", [2, 3, 5])
def test_several_shapes_resume_exactly(k):
    expected = run_buckets(bucket_loss).snapshot
    stopped = run_buckets(bucket_loss, limits={"max_steps": k}).snapshot
    resumed = run_buckets(bucket_loss, start=stopped).snapshot
    assert_same_state(resumed.state, expected.state)


def test_the_compilation_of_a_later_shape_is_not_time_of_training():
    """But making its batch is."""

    def slow(params, batch, given):
        time.sleep(1.0)
        return bucket_loss(params, batch, given)

    def make(k):
        time.sleep(0.3 if k == 2 else 0.0)
        return ragged_batch(k)

    outcome = run_buckets(slow, make=make, limits={"steps": 6}, layout=ONE)
    assert outcome.progress.compilation_seconds >= 2.0
    assert 0.3 <= outcome.progress.training_seconds < 1.0


@pytest.mark.parametrize("devices", [1, 2])
def test_a_single_shape_is_compiled_once_and_once_more_after_resuming(devices):
    traced = traced_at_most(2, loss_fn)
    settings = {"loss_fn": traced, "devices": devices, "limits": {"steps": 50}}
    half = run(**{**settings, "limits": {"steps": 50, "max_steps": 25}}).snapshot
    run(start=half, **settings)
    traced = traced_at_most(1, loss_fn)
    run(loss_fn=traced, devices=devices, limits={"steps": 50})


def test_a_carry_needs_a_single_batch_size():
    start = Snapshot(
        make_train_step(bucket_loss, optax.adam(0.1)).init(
            {"w": jnp.zeros(())}, jax.random.key(3), carry=jnp.zeros(4)
        )
    )
    with pytest.raises(ValueError, match="carry: expected 8 rows, as in the batch, got 4"):
        run_buckets(bucket_loss, start=start, layout=ONE)


def test_batch_of_is_pure():
    """What the exactness above rests on."""
    chex.assert_trees_all_equal(batch_of(3), batch_of(3))
    assert not np.array_equal(batch_of(3)[0], batch_of(4)[0])
