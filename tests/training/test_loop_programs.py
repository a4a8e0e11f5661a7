"""The programs of a run: one for each shape of its batches, and none compiled twice."""

import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_run import (
    OPTIMIZER,
    Batches,
    assert_same_state,
    batch_of,
    loss_fn,
    new_state,
    run,
    run_in,
)

from seqnets.data import Buckets, BucketSource
from seqnets.reduction import Weighted, weighted
from seqnets.runs import CheckpointStore
from seqnets.training import ONE, LossOutput, Snapshot, make_train_step


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


def examples(lengths):
    rng = np.random.default_rng(13)
    sequences = [rng.normal(size=length).astype(np.float32) for length in lengths]
    return BucketSource(sequences, Buckets((2, 5, 9)), batch_size=4, seed=0)


def example_loss(params, batch, given):
    xs, mask, _ = batch.sequences
    return weighted((params["w"] * xs - 1) ** 2, mask)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_program_for_each_bucket_of_examples(devices):
    source = examples([1, 2, 2, 9, 4, 5, 3, 8, 2, 1, 7, 6, 3, 9])
    settings = {
        "source": source,
        "devices": devices,
        "limits": {"steps": 3 * source.steps_per_epoch},
    }
    outcome = run_buckets(traced_at_most(3, example_loss), **settings)
    assert len({source.batch(k).sequences.xs.shape for k in range(source.steps_per_epoch)}) == 3
    step = make_train_step(example_loss, optax.adam(0.1))
    jitted, state = jax.jit(step), step.init({"w": jnp.zeros(())}, jax.random.key(3))
    for k in range(3 * source.steps_per_epoch):
        state, _ = jitted(state, source.batch(k))
    # Sums over four devices in place of one: rounding only.
    chex.assert_trees_all_close(outcome.state.params, state.params, rtol=1e-5)
    assert float(state.params["w"]) != 0
    with pytest.raises(AssertionError, match="traced > 2 times"):
        run_buckets(traced_at_most(2, example_loss), **settings)


def test_a_restored_state_needs_no_other_program(tmp_path):
    """Neither dtypes nor weak types change on the way to a file and back."""
    run_in(tmp_path, limits={"max_steps": 7})
    store = CheckpointStore(tmp_path / "checkpoints")
    state = new_state()
    restored = store.restore(jax.eval_shape(lambda: state), store.newest()).state
    jitted = jax.jit(make_train_step(traced_at_most(1, loss_fn), OPTIMIZER))
    for start in (state, restored):
        for k in range(2):
            start, info = jitted(start, batch_of(k))
            assert bool(info.finite)


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
