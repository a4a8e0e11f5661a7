"""The loop with two objectives: what is recorded of each, and exact resume of all their state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_run import (
    Batches,
    Recorder,
    assert_same_state,
    batch_of,
    run,
    spoiled,
)

from seqnets.devices import DataParallel
from seqnets.reduction import weighted
from seqnets.training import (
    ONE,
    LossOutput,
    NonFiniteError,
    Objective,
    Recovery,
    Snapshot,
    ema,
    every,
    make_train_step,
)


def teacher(params, batch, given):
    """Fits the data, with noise."""
    x, y, weight = batch
    noise = 0.1 * jax.vmap(jax.random.normal)(given.keys.rows)
    error = x @ params["teacher"]["w"] + noise - y
    return LossOutput(weighted(error**2, weight), metrics={"absolute": weighted(abs(error))})


def student(params, batch, given):
    """Follows the moving average of the teacher."""
    x, _, weight = batch
    error = x @ (params["student"]["w"] - given.variables["ema_teacher"]["w"])
    return weighted(error**2 + 0.01 * jax.vmap(jax.random.normal)(given.keys.rows), weight)


# In an order that is not that of the alphabet.
STEP = make_train_step(
    {
        "teacher": Objective(teacher, optax.adam(0.05), ("teacher",)),
        "student": Objective(student, optax.sgd(0.1, 0.9), ("student",), every(3)),
    },
    after=ema("teacher", 0.9),
    steps=20,
)


def new_state():
    params = {name: {"w": jnp.zeros(3)} for name in ("teacher", "student")}
    return STEP.init(params, jax.random.key(8))


def run_both(*hooks, **changes):
    settings = {"step": STEP, "start": Snapshot(new_state()), "evaluate": None, "layout": ONE}
    return run(*hooks, **{**settings, **changes})


LAYOUTS = {
    "one device": ONE,
    "two devices": DataParallel(jax.devices()[:2]),
    "sharded": DataParallel(jax.devices()[:2], shard_optimizer=True),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_records_name_the_objectives(layout):
    recorder = Recorder()
    outcome = run_both(recorder, layout=layout, limits={"report_every": 2})
    jitted, state, infos = jax.jit(STEP), new_state(), []
    for k in range(20):
        state, info = jitted(state, batch_of(k))
        infos.append(info)
    chex.assert_trees_all_close(outcome.state.params, state.params, rtol=1e-4)
    chex.assert_trees_all_close(outcome.state.variables, state.variables, rtol=1e-4)
    names = {"step", "split", "teacher", "absolute", "teacher_gradient_norm"}
    for record in recorder.of("train"):
        window = range(record["step"] - 2, record["step"])
        active = [k for k in window if k % 3 == 2]
        more = {"student", "student_gradient_norm"} if active else set()
        assert set(record) == names | more
        # float32 sums over the rows of two devices and of one.
        for name, steps in (("teacher", window), ("student", active)):
            losses = [infos[k].losses[name] for k in steps]
            total, weight = (sum(float(one[i]) for one in losses) for i in (0, 1))
            norms = [float(infos[k].gradient_norms[name]) for k in steps]
            if steps:
                assert record[name] == pytest.approx(total / weight, rel=1e-4)
                assert record[f"{name}_gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-4)


@pytest.mark.parametrize("k", [4, 6, 8])
def test_stopped_and_resumed_equals_never_stopped(k):
    expected = run_both().snapshot
    stopped = run_both(limits={"max_steps": k}).snapshot
    resumed = run_both(start=stopped).snapshot
    assert_same_state(resumed.state, expected.state)
    assert set(expected.state.opt_state) == {"teacher", "student"}


def test_a_step_that_is_not_finite_is_told_of_both():
    with pytest.raises(NonFiniteError, match=r"at step 4 \(teacher nan, student 0.0, gradient"):
        run_both(source=Batches(spoiled(3)))
    outcome = run_both(source=Batches(spoiled(3)), recovery=Recovery("skip"))
    assert outcome.progress.skipped == 1


def test_a_spike_is_one_of_the_first_objective():
    """The losses of the student are those of every third step, and 0 between."""
    settings = {"recovery": Recovery(spike=30.0), "limits": {"steps": 40}}
    outcome = run_both(source=Batches(spoiled(27, by=1000)), **settings)
    assert (outcome.progress.rollbacks, outcome.progress.batches_passed_by) == (1, 4)
    assert len(outcome.progress.recent_losses) == 40
