"""Stopped and resumed, a run equals one that never stopped: state, records, checkpoints."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_run import (
    At,
    Figures,
    Recorder,
    assert_same_state,
    batch_of,
    distance,
    loss_fn,
    new_state,
    records_in,
    run_in,
    same_files,
)

from seqnets.training import ema, make_train_step


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


def test_batch_of_is_pure():
    """What the exactness above rests on."""
    chex.assert_trees_all_equal(batch_of(3), batch_of(3))
    assert not np.array_equal(batch_of(3)[0], batch_of(4)[0])
