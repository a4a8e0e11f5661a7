"""What becomes of a step, case by case, and what a spike is."""

import numpy as np
import pytest

from seqnets.training.progress import Progress
from seqnets.training.recovery import Recovery, Verdict, is_spike


def test_without_being_asked_a_run_stops():
    verdict = Recovery().judge(Progress(), float("nan"), finite=False)
    assert verdict is Verdict.STOP
    assert not Recovery().goes_back


@pytest.mark.parametrize("loss", [1.0, 1e30, None])
def test_without_a_factor_every_finite_step_is_kept(loss, rng):
    progress = Progress(recent_losses=list(rng.normal(size=64)))
    assert Recovery().judge(progress, loss, finite=True) is Verdict.KEEP
    assert len(progress.recent_losses) == 64


@pytest.mark.parametrize(("in_a_row", "verdict"), [(0, "SKIP"), (2, "SKIP"), (3, "STOP")])
def test_skips_in_a_row_are_limited(in_a_row, verdict):
    progress = Progress(skipped=50, skipped_in_a_row=in_a_row)
    recovery = Recovery("skip", max_skips=3)
    assert recovery.judge(progress, float("nan"), finite=False) is Verdict[verdict]
    assert not recovery.goes_back


@pytest.mark.parametrize(
    ("rollbacks", "verdict"), [(0, "ROLL_BACK"), (1, "ROLL_BACK"), (2, "STOP")]
)
def test_rollbacks_are_limited(rollbacks, verdict):
    recovery = Recovery("rollback", max_rollbacks=2)
    progress = Progress(rollbacks=rollbacks)
    assert recovery.judge(progress, float("inf"), finite=False) is Verdict[verdict]
    assert recovery.goes_back


def test_a_spike_is_gone_back_from_until_the_limit_and_then_left_alone(rng):
    recovery = Recovery(spike=8.0, max_rollbacks=1)
    assert recovery.goes_back
    progress = Progress()
    for loss in rng.normal(2.0, 0.1, 100):
        assert recovery.judge(progress, float(loss), finite=True) is Verdict.KEEP
    assert len(progress.recent_losses) == 64
    assert progress.recent_losses[-1] == loss
    before = list(progress.recent_losses)
    assert recovery.judge(progress, 9.0, finite=True) is Verdict.ROLL_BACK
    assert recovery.judge(progress, None, finite=True) is Verdict.KEEP
    assert progress.recent_losses == before
    progress.rollbacks = 1
    assert recovery.judge(progress, 9.0, finite=True) is Verdict.KEEP
    assert progress.recent_losses == [*before[1:], 9.0]
    assert recovery.judge(progress, 9.0, finite=False) is Verdict.STOP


@pytest.mark.parametrize("level", [2.0, 0.0, -500.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_spike_is_so_many_standard_deviations_up(level, scale, rng):
    losses = rng.normal(size=2000)  # the estimate of the deviation is then good to a few per cent
    before = list(level + scale * losses)
    assert is_spike(level + scale * 5.5, before, 5.0)
    assert not is_spike(level + scale * 4.5, before, 5.0)
    assert not is_spike(level - scale * 50, before, 5.0)
    spoiled = [*before, *[level + scale * 1e6] * 100]  # earlier spikes hardly move it
    assert is_spike(level + scale * 5.8, spoiled, 5.0)
    assert not is_spike(level + scale * 4.5, spoiled, 5.0)


def test_of_few_losses_or_equal_ones_nothing_is_known(rng):
    losses = list(rng.normal(size=16))
    assert is_spike(1e9, losses, 10.0)
    assert not is_spike(1e9, losses[:15], 10.0)
    assert not is_spike(1e9, [1.0] * 64, 10.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_skips", 0), ("max_rollbacks", 0), ("spike", 0.0), ("spike", -1.0),
        ("on_nonfinite", "ignore"),
    ],
)  # fmt: skip
def test_what_is_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Recovery(**{name: value})


def test_losses_are_plain_numbers(rng):
    """They go into the header of a checkpoint."""
    progress = Progress()
    Recovery(spike=1.0).judge(progress, float(np.float32(1.5)), finite=True)
    assert progress.recent_losses == [1.5]
