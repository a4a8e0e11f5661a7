"""Six kills; ``python tests/faults/kills.py --kills 50`` is the long form."""

import pytest
from kills import run_kills


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_as_if_it_had_not_been(tmp_path):
    report = run_kills(tmp_path, kills=6, seed=5)
    assert report["kills"] == 6
    assert len(report["moments"]) == 3  # in a start, in a checkpoint, anywhere
    assert report["steps_lost"]["most"] > 0  # or nothing was interrupted
