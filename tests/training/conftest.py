"""Makes the run that the tests of the loop share importable, and trains it once without a stop."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from linear_run import run_in


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """The run of 20 steps that is never stopped: its outcome and its folder."""
    folder = tmp_path_factory.mktemp("straight")
    return run_in(folder), folder
