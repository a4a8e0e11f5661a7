"""How long a run is, and what it counts."""

import pytest

from seqnets.training import Limits, Progress


@pytest.mark.parametrize(
    ("limits", "step", "seconds", "fraction"),
    [
        (Limits(100), 25, 9.0, 0.25),
        (Limits(100), 130, 9.0, 1.0),
        (Limits(100, max_steps=30), 25, 9.0, 0.25),
        (Limits(100, max_seconds=36.0), 50, 9.0, 0.25),
        (Limits(100, max_seconds=36.0), 5, 40.0, 1.0),
        (Limits(100, max_steps=30, max_seconds=36.0), 30, 9.0, 0.25),
    ],
)
def test_schedules_run_over_the_nominal_length(limits, step, seconds, fraction):
    assert limits.progress(step, seconds) == fraction


def test_schedules_run_over_all_steps_of_a_run_that_is_longer():
    """The last steps would else be taken at the rate with which the schedule ends, 0 say."""
    longer = Limits(600, max_steps=700, report_every=1000)
    assert (longer.length, Limits(600, max_steps=30).length, Limits(600).length) == (700, 600, 600)
    assert longer.progress(600, 0) == 600 / 700
    assert longer.progress(700, 0) == 1


@pytest.mark.parametrize(
    ("limits", "step", "seconds", "finished"),
    [
        (Limits(100), 99, 1e9, False),
        (Limits(100), 100, 0.0, True),
        (Limits(100, max_steps=30), 29, 1e9, False),
        (Limits(100, max_steps=30), 30, 0.0, True),
        (Limits(100, max_steps=300), 100, 0.0, False),
        (Limits(100, max_seconds=5.0), 1000, 4.9, False),
        (Limits(100, max_seconds=5.0), 1, 5.0, True),
        (Limits(100, max_steps=30, max_seconds=5.0), 30, 1.0, True),
        (Limits(100, max_steps=30, max_seconds=5.0), 2, 5.0, True),
        (Limits(100, max_steps=30, max_seconds=5.0), 29, 4.9, False),
    ],
)
def test_what_stops_a_run(limits, step, seconds, finished):
    assert limits.finished(step, seconds) is finished
    assert limits.finished(step, seconds, stale=1000) is finished  # without patience


@pytest.mark.parametrize(("stale", "finished"), [(0, False), (2, False), (3, True), (4, True)])
def test_patience_stops_a_run(stale, finished):
    assert Limits(100, max_steps=30, patience=3).finished(9, 0.0, stale) is finished


@pytest.mark.parametrize("max_steps", [None, 17, 40, 45])
def test_records_do_not_depend_on_where_a_run_stops_early(max_steps):
    limits = Limits(45, max_steps, report_every=20)
    assert [k for k in range(1, 61) if limits.reports(k, 1e9)] == [20, 40, 45, 60]


def test_records_of_a_run_beyond_its_steps():
    limits = Limits(45, max_steps=57, report_every=20)
    assert [k for k in range(1, 61) if limits.reports(k, 1e9)] == [20, 40, 57, 60]


def test_records_of_a_run_bounded_by_time():
    limits = Limits(45, max_seconds=5.0, report_every=20)
    assert [k for k in range(1, 61) if limits.reports(k, 4.9)] == [20, 40, 60]
    assert limits.reports(7, 5.0)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    "name",
    [
        "steps",
        "max_steps",
        "max_seconds",
        "patience",
        "report_every",
        "evaluate_every",
        "checkpoint_every",
    ],
)
def test_limits_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Limits(**{"steps": 10, name: value})


def test_progress_knows_whether_its_validation_is_of_this_step():
    assert not Progress().evaluated
    assert not Progress(step=3, validation_step=2).evaluated
    assert Progress(step=3, validation_step=3).evaluated
