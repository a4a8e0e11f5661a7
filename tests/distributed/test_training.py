"""Processes that train together: the same run as one, one end for all, only process 0 heard."""

import json
import re
import signal
import time

import numpy as np
import pytest

LATE = """
lower = DataParallel.lower
DataParallel.lower = lambda *given: (time.sleep(35), lower(*given))[1]
"""
SLOW_EVALUATION = """
from seqnets.training import LossEvaluation
LossEvaluation.sums = lambda *given: time.sleep(60)
"""
SMALL = {number: "processes.MESSAGE_BYTES = 100" for number in range(2)}  # bytes told at once


def records(run, split="train", name="loss"):
    """The figures of a run by step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = [record for record in map(json.loads, lines) if record["split"] == split]
    return {record["step"]: record[name] for record in found}


def check_same(got, want):
    """Losses of size 2, summed over the devices in another order, in float32, step after step."""
    assert got.keys() == want.keys()
    np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-5)


def result(run):
    return json.loads((run / "result.json").read_text())


@pytest.mark.slow
def test_two_processes_are_one_run_that_goes_on_elsewhere(together, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert together.alone("--out", one, "--max-steps", 16, devices=4)[0] == 0
    together.start(2, "--out", two, "--max-steps", 8, patches=SMALL)
    lead, other = together.end()
    assert (lead[0], other[0]) == (0, 0), (lead, other)
    assert lead[1:] == ("", f"trained 8 steps; the run is in {two}\n")
    assert other[1:] == ("", "")
    assert (result(two)["devices"], result(two)["processes"]) == (4, 2)
    assert together.alone("--out", two, "--resume", "--max-steps", 16, devices=1)[0] == 0
    check_same(records(two), records(one))
    validation = records(two, "validation", "nats")
    assert validation.keys() == {8, 16}
    np.testing.assert_allclose(
        validation[16], records(one, "validation", "nats")[16], rtol=1e-5
    )  # as above


def test_one_that_dies_ends_the_others_and_the_run_goes_on(together, tmp_path):
    run = tmp_path / "run"
    save = ("--set", "train.checkpoint_every=5", "--set", "train.steps=100000")
    _, other = together.start(2, "--out", run, *save)
    together.wait_for(run / "metrics.jsonl", 12)
    other.send_signal(signal.SIGKILL)
    (status, out, err), (killed, *_) = together.end(60)
    assert killed == -signal.SIGKILL
    assert (status, out) == (3, "")
    assert err.splitlines()[-1].startswith("train_text.py: error: process 1 died")
    assert "--resume" in err
    assert "Traceback" not in err
    seen = max(records(run))
    again = ("--out", run, "--resume", "--max-steps", seen + 5, *save)
    assert together.alone(*again, devices=2)[0] == 0
    assert sorted(records(run)) == list(range(1, seen + 6))


@pytest.mark.slow
def test_a_signal_to_one_is_a_signal_to_all(together, tmp_path):
    run = tmp_path / "run"
    _, other = together.start(2, "--out", run, "--set", "train.steps=100000")
    together.wait_for(run / "metrics.jsonl", 3)
    other.send_signal(signal.SIGTERM)
    (status, _, err), (other_status, *other_said) = together.end()
    assert (status, other_status) == (143, 143)
    assert (
        err == f"stopped by SIGTERM after step {max(records(run))}, saved; continue with --resume\n"
    )
    assert other_said == ["", ""]
    assert result(run)["steps"] == max(records(run))


@pytest.mark.slow
@pytest.mark.parametrize("which", [(0, 1), (1,)], ids=["all", "one"])
def test_a_signal_in_an_evaluation_gives_it_up(together, tmp_path, which):
    """As schedulers send it, to all; one that got none ends its own evaluation first."""
    run = tmp_path / "run"
    often = ("--set", "train.evaluate_every=5", "--set", "train.steps=100000")
    patches = {number: SLOW_EVALUATION for number in which}
    processes = together.start(2, "--out", run, *often, patches=patches)
    together.wait_for(run / "metrics.jsonl", 5)
    time.sleep(2)  # in the evaluation
    began = time.monotonic()
    for number in which:
        processes[number].send_signal(signal.SIGTERM)
    (status, _, err), (other_status, *other_said) = together.end()
    assert (status, other_status) == (143, 143), err
    assert time.monotonic() - began < 10
    assert err == "stopped by SIGTERM after step 5, saved; continue with --resume\n"
    assert other_said == ["", ""]
    assert not records(run, "validation", "nats")
    together.start(2, "--out", run, "--resume", "--max-steps", 5, *often)
    assert [end[0] for end in together.end()] == [0, 0]
    assert records(run, "validation", "nats").keys() == {5}


@pytest.mark.slow
def test_a_mistake_that_only_process_0_can_see(together, tmp_path):
    together.start(2, "--out", tmp_path, "--max-steps", 3)
    (status, out, err), (other_status, *other_said) = together.end()
    assert (status, other_status, out) == (2, 2, "")
    assert err == f"train_text.py: error: {tmp_path}: expected a new or empty folder, but it " \
        "contains files\n"  # fmt: skip
    assert other_said == ["", ""]


@pytest.mark.slow
def test_processes_of_different_configurations_do_not_start(together, tmp_path):
    own = {1: ("--set", "train.seed=1")}
    together.start(2, "--out", tmp_path / "run", own=own)
    ends = together.end(60)
    message = (
        "train_text.py: error: train.seed: expected the same value in all processes, "
        "got 0 in process 0 and 1 in process 1\n"
    )
    assert ends == [(2, "", message), (2, "", f"[process 1] {message}")]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_all_layouts_give_the_same_losses_over_200_steps(together, tmp_path):
    for devices in (1, 2, 4):
        status, _, err = together.alone("--out", tmp_path / f"{devices}", devices=devices)
        assert status == 0, err
    parts = ("--set", "train.shard_optimizer=true")
    for processes, name, more in ((2, "2x2", ()), (4, "4x2", ()), (2, "2x2 in parts", parts)):
        together.start(processes, "--out", tmp_path / name, *more)
        assert [end[0] for end in together.end()] == [0] * processes
    want = records(tmp_path / "1")
    assert len(want) == 200
    assert want[200] < 0.9 * want[1]  # it learns
    for layout in ("2", "4", "2x2", "4x2", "2x2 in parts"):
        check_same(records(tmp_path / layout), want)
        check_same(*(records(tmp_path / k, "validation", "nats") for k in (layout, "1")))


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "shard"), [(1, "false"), (2, "false"), (2, "true")])
def test_four_devices_go_on_as_processes(together, tmp_path, processes, shard):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert together.alone("--out", whole, "--max-steps", 20, devices=4)[0] == 0
    in_parts = ("--set", "train.shard_optimizer=true")
    assert together.alone("--out", parts, "--max-steps", 10, *in_parts, devices=4)[0] == 0
    again = ("--resume", "--max-steps", 20, "--set", f"train.shard_optimizer={shard}")
    again += ("--set", "train.accumulate=2")
    together.start(processes, "--out", parts, *again, devices=1)
    assert [end[0] for end in together.end()] == [0] * processes
    check_same(records(parts), records(whole))


@pytest.mark.slow
def test_all_go_by_the_seconds_of_process_0(together, tmp_path):
    together.start(2, "--out", tmp_path / "run", "--max-seconds", 2)
    assert [end[0] for end in together.end()] == [0, 0]
    assert result(tmp_path / "run")["training_seconds"] >= 2


@pytest.mark.slow
def test_two_processes_forecast_as_one(together, tmp_path):
    together.task = "forecast"
    status, _, err = together.alone("--out", tmp_path / "one", devices=1)
    assert status == 0, err
    together.start(2, "--out", tmp_path / "two", patches=SMALL)
    ends = together.end()
    assert [end[0] for end in ends] == [0, 0], ends
    want = records(tmp_path / "one")
    assert want[60] < 0.95 * want[1]  # it learns
    check_same(records(tmp_path / "two"), want)
    check_same(*(records(tmp_path / run, "validation") for run in ("two", "one")))


@pytest.mark.slow
def test_data_that_process_0_cannot_read(together, tmp_path):
    (tmp_path / "text.data").write_bytes(b"too short")
    together.start(2, "--out", tmp_path / "run")
    (status, out, err), (other_status, *other_said) = together.end()
    assert (status, other_status, out) == (2, 2, "")
    assert "tokens: expected at least" in err
    assert other_said == ["", ""]


def slurm(number):
    return {
        "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
        "SLURM_PROCID": f"{number}", "SLURM_LOCALID": f"{number}",
    }  # fmt: skip


def open_mpi(number):
    return {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": f"{number}",
        "OMPI_COMM_WORLD_LOCAL_RANK": f"{number}",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [slurm, open_mpi])
def test_the_cluster_is_asked(together, tmp_path, cluster):
    port = {"JAX_COORDINATOR_PORT": str(together.free_port())}
    variables = {number: {**cluster(number), **port} for number in range(2)}
    together.start(2, "--out", tmp_path / "run", "--max-steps", 3, environments=variables)
    assert [end[0] for end in together.end()] == [0, 0]
    assert result(tmp_path / "run")["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (0, "waited 3 s for process 0; it is missing or still waiting for others"),
        (1, "waited 3 s for 2 processes; missing: process 1"),
    ],
)
def test_a_process_that_never_comes(together, tmp_path, absent, said):
    given = ("--out", tmp_path / "run", "--connect-seconds", 3)
    together.start(2, *given, own={absent: None})
    began = time.monotonic()
    ((status, out, err),) = together.end(60)
    assert time.monotonic() - began < 30  # most of it are imports
    assert (status, out) == (3, "")
    assert re.fullmatch(rf"train_text\.py: error: 127\.0\.0\.1:\d+: {said}\n", err)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_process_that_is_lost_while_the_runtime_connects(together, tmp_path, by_hand):
    """Started by hand the two have met, and one ends; in a cluster, one never comes."""
    given = ("--out", tmp_path / "run", "--connect-seconds", 4)
    if by_hand:
        gone = "import jax, os; jax.distributed.initialize = lambda *a, **k: os._exit(9)"
        together.start(2, *given, patches={1: gone})
    else:
        variables = {0: {**slurm(0), "JAX_COORDINATOR_PORT": str(together.free_port())}}
        together.start(2, *given, environments=variables, own={1: None})
    (status, out, err), *_ = together.end(60)
    assert (status, out) == (3, "")
    said = "waited 4 s for the other processes; not all of them connected"
    assert err == f"train_text.py: error: {said}\n"


@pytest.mark.slow
def test_two_trainings_at_one_port(together, tmp_path):
    """The second is turned away, and the first goes on as if alone."""
    port = together.free_port()
    together.start(2, "--out", tmp_path / "first", "--set", "train.steps=100000", port=port)
    together.wait_for(tmp_path / "first" / "metrics.jsonl", 3)
    first, together.running = together.running, []
    together.start(2, "--out", tmp_path / "second", "--connect-seconds", 4, port=port)
    seconds = together.end(60)
    together.running = first
    assert [(status, out, err.count("\n")) for status, out, err in seconds] == [(3, "", 1)] * 2
    assert "cannot listen on this address; is another run using it?" in seconds[0][2]
    assert "waited 4 s for process 0" in seconds[1][2]
    assert not (tmp_path / "second").exists()
    metrics = tmp_path / "first" / "metrics.jsonl"
    together.wait_for(metrics, len(metrics.read_text().splitlines()) + 20)
    for process in first:
        process.send_signal(signal.SIGTERM)
    assert [end[0] for end in together.end()] == [143, 143]


@pytest.mark.slow
def test_without_process_0_the_others_end(together, tmp_path):
    lead, _ = together.start(2, "--out", tmp_path / "run", "--set", "train.steps=100000")
    together.wait_for(tmp_path / "run" / "metrics.jsonl", 3)
    lead.send_signal(signal.SIGKILL)
    _, (status, out, err) = together.end(60)
    assert status in (3, -signal.SIGABRT)  # whichever notices first: the monitor or JAX's runtime
    assert out == ""
    assert "process 0 died" in err or "another task died" in err


@pytest.mark.slow
def test_one_may_be_late_to_the_first_step(together, tmp_path):
    """By more than the 30 seconds for which JAX waits where processes have not met before."""
    together.start(2, "--out", tmp_path / "run", "--max-steps", 3, patches={1: LATE})
    assert [end[0] for end in together.end()] == [0, 0]
    assert max(records(tmp_path / "run")) == 3
