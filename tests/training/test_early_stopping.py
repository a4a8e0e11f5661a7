"""Patience: when a run stops for want of a better evaluation, and what it remembers."""

import jax
import numpy as np
import optax
import pytest
from linear_run import (
    OPTIMIZER,
    Figures,
    Recorder,
    assert_same_state,
    distance,
    loss_fn,
    new_state,
    records_in,
    run,
    run_in,
    same_files,
)

from seqnets.reduction import Weighted
from seqnets.training import Snapshot, make_train_step


def told(figures, **settings):
    """An evaluation that gives these figures one after the other."""
    left = iter(figures)
    return Figures(lambda params: {"loss": figure(next(left))}, **settings)


def figure(value):
    return Weighted(np.float64(value), np.float64(1))


NAN = float("nan")


@pytest.mark.parametrize(
    ("figures", "higher", "patience", "stopped", "best", "stale"),
    [
        ([5, 4, 3, 2, 1], False, 1, 20, 1, 0),
        ([5, 4, 4, 2, 1], False, 1, 12, 4, 1),  # an equal one is no better
        ([5, 6, 4, 5, 5], False, 2, 20, 4, 2),
        ([5, 6, 7, 1, 1], False, 2, 12, 5, 2),
        ([5, 6, 7, 1, 1], False, None, 20, 1, 1),
        ([5, 6, 7, 7, 8], True, 1, 16, -7, 1),
        ([5, 4, 3, 2, 1], True, 3, 16, -5, 3),
        ([NAN, NAN, 3, 2, 1], False, 2, 8, None, 2),  # what is not finite is never better
        ([5, NAN, 4, float("-inf"), 4.5], False, 2, 20, 4, 2),
    ],
)
def test_when_a_run_stops_early(figures, higher, patience, stopped, best, stale):
    recorder = Recorder()
    outcome = run(
        recorder,
        evaluation=told(figures, higher_is_better=higher),
        limits={"evaluate_every": 4, "patience": patience},
    )
    progress = outcome.snapshot.progress
    assert (progress.step, progress.best, progress.stale) == (stopped, best, stale)
    assert recorder.steps("validation") == list(range(4, stopped + 1, 4))
    assert recorder.saves[-1][0] == stopped
    assert outcome.signal is None


def test_the_rank_of_a_checkpoint_is_lower_where_it_is_better():
    class Ranks(Recorder):
        def on_checkpoint(self, snapshot, rank):
            self.saves.append((snapshot.progress.step, rank))

    for higher, sign in ((False, 1), (True, -1)):
        ranks = Ranks()
        evaluation = told([5, NAN, 3], higher_is_better=higher)
        run(ranks, evaluation=evaluation, limits={"steps": 12, "evaluate_every": 4})
        assert ranks.saves == [(4, 5 * sign), (6, None), (8, None), (12, 3 * sign)]


def test_without_a_metric_nothing_is_stale():
    progress = run(evaluation=told([1, 2, 3], metric=None)).snapshot.progress
    assert (progress.best, progress.stale) == (None, 0)


@pytest.mark.parametrize("evaluation", [None, Figures(distance, metric=None)])
def test_patience_needs_a_metric(evaluation):
    with pytest.raises(ValueError, match="patience: expected an evaluation with a metric"):
        run(evaluation=evaluation, limits={"patience": 2})


def erratic(params):
    """A figure that goes up and down, and depends on the parameters only."""
    return {"loss": figure(np.cos(1000 * float(params["w"][0])))}


def scale_by_staleness():
    """Smaller steps as long as no evaluation is better, as a schedule by validation takes them."""

    def update(updates, state, params=None, *, stale, **extra):
        return jax.tree.map(lambda u: u / (1 + stale), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@pytest.fixture(scope="module")
def stale_run():
    """``stale_run(**limits)`` with an optimizer that minds staleness, and one never stopped."""
    step = make_train_step(loss_fn, optax.chain(OPTIMIZER, scale_by_staleness()))
    limits = {"steps": 24, "evaluate_every": 4, "patience": 20}

    def stale_run(start=None, **changes):
        start = start or Snapshot(new_state(step=step))
        return run(step=step, start=start, evaluate=erratic, limits={**limits, **changes}).snapshot

    expected = stale_run()
    plain = run(limits=limits).snapshot.state.params
    assert not np.array_equal(plain["w"], expected.state.params["w"])  # it has been stale
    return stale_run, expected


# Between two evaluations the end of the first part is evaluated, but must not count.
@pytest.mark.parametrize("k", [8, 11, 15])
def test_stopped_and_resumed_a_run_is_as_stale_as_one_that_never_stopped(k, stale_run):
    stale_run, expected = stale_run
    resumed = stale_run(stale_run(max_steps=k))
    assert_same_state(resumed.state, expected.state)
    remembered = [(p.best, p.stale) for _, p in (resumed, expected)]
    assert remembered[0] == remembered[1]


def test_resumed_after_it_stopped_early_a_run_stays_stopped(tmp_path):
    limits = {"evaluate_every": 4, "patience": 2}
    run_in(tmp_path, evaluation=told([1, 2, 3]), limits=limits)
    before = records_in(tmp_path)
    recorder = Recorder()
    outcome = run_in(tmp_path, recorder, resume=True, evaluation=told([]), limits=limits)
    assert outcome.snapshot.progress.step == 12
    assert (recorder.fractions, recorder.records) == ([], [])
    assert records_in(tmp_path) == before


def test_early_stopping_leaves_the_same_files_after_a_stop(tmp_path):
    folders = [tmp_path / name for name in ("straight", "resumed")]
    limits = {"steps": 60, "evaluate_every": 4, "patience": 3}
    for folder in folders:
        folder.mkdir()
    expected = run_in(folders[0], evaluate=erratic, limits=limits)
    assert 8 < expected.snapshot.progress.step < 60
    run_in(folders[1], evaluate=erratic, limits={**limits, "max_steps": 8})
    run_in(folders[1], resume=True, evaluate=erratic, limits=limits)
    same_files(*folders)
