"""The coverage-guided fuzzer: a short run from a fixed seed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

GUIDED = Path(__file__).parent / "guided.py"


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="no Atheris here: it has wheels for Linux on x86-64",
)
def test_a_short_run_finds_nothing(tmp_path):
    ended = subprocess.run(
        [sys.executable, GUIDED, "--reader", "csv", "--runs", "100", "--seconds", "60"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "stat::number_of_executed_units: 100" in ended.stderr
    assert list(tmp_path.iterdir()) == []
