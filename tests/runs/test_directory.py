"""Run directories, strict JSON, and the sum over parameters."""

import json
import math
import os
from collections import OrderedDict

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.core import freeze

from seqnets.runs import RunDirectory, parameters_sha256, strict_json


def test_create_makes_parents_and_opens_again(tmp_path):
    run = RunDirectory.create(tmp_path / "a" / "b")
    assert run.path.is_dir()
    assert RunDirectory.create(str(run.path)) == run  # still empty
    run.write_config("x = 1\n", {})
    assert RunDirectory.open(str(run.path)) == run
    assert run.config_file.read_text().startswith("x = 1\n")
    names = [run.config_file, run.metrics_file, run.result_file, run.checkpoints]
    assert [str(path.relative_to(run.path)) for path in names] == [
        "config.toml",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
    ]


def test_create_refuses_what_is_in_use(tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"used: expected a new or empty folder"):
        RunDirectory.create(used)
    (used / "config.toml").write_text("")
    with pytest.raises(ValueError, match="it contains a run, which can be resumed"):
        RunDirectory.create(used)
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "run"):
        with pytest.raises(ValueError, match=rf"{path}: expected a folder, got a file"):
            RunDirectory.create(path)


def test_open_refuses_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: .* there is no such folder"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"it has no config\.toml"):
        RunDirectory.open(tmp_path)


def test_result_is_strict_json(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_result({"steps": 3, "loss": np.float32(0.5), "bad": math.nan, "name": "größer"})
    written = run.result_file.read_text(encoding="utf-8")
    assert json.loads(written) == {"steps": 3, "loss": 0.5, "bad": None, "name": "größer"}
    assert "NaN" not in written


def test_strict_json():
    value = {"a": (1, [math.inf, True, None, "NaN"]), "b": np.int64(3), "c": np.float64("nan")}
    text = strict_json(value)
    assert "\n" not in text
    assert json.loads(text) == {"a": [1, [None, True, None, "NaN"]], "b": 3, "c": None}
    assert json.loads(strict_json(0.1 + 0.2)) == 0.1 + 0.2


def tree(rng):
    return {
        "cell": [rng.normal(size=(2, 3)).astype(np.float32), np.arange(4, dtype=np.int32)],
        "half": rng.normal(size=3).astype(ml_dtypes.bfloat16),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 2), np.float32),
    }


def test_sum_does_not_depend_on_how_the_arrays_are_held(rng):
    params = tree(rng)
    expected = parameters_sha256(params)
    assert len(expected) == 64
    assert set(expected) <= set("0123456789abcdef")
    on_devices = jax.tree.map(jnp.asarray, params)
    fortran = {**params, "cell": [np.asfortranarray(params["cell"][0]), params["cell"][1]]}
    strided = {**params, "cell": [np.repeat(params["cell"][0], 2, 1)[:, ::2], params["cell"][1]]}
    for same in (
        on_devices,
        jax.device_put(on_devices, jax.local_devices()[1]),
        fortran,
        strided,
        OrderedDict(reversed(params.items())),
        freeze(params),
    ):
        assert parameters_sha256(same) == expected


def test_sum_is_fixed():
    """A sum that was written down in a result must be that of later versions."""
    import hashlib

    params = {"b": np.array([1.0], np.float32), "a": np.array([[2, 3]], np.int32)}
    text = b"['a'] int32 (1, 2)\n\x02\0\0\0\x03\0\0\0['b'] float32 (1,)\n\0\0\x80\x3f"
    assert parameters_sha256(params) == hashlib.sha256(text).hexdigest()


def test_sum_sees_every_difference(rng):
    params = tree(rng)
    bent = params["cell"][0].copy()
    bent.view(np.uint8)[0, 0] ^= 1
    others = [
        {**params, "cell": [bent, params["cell"][1]]},
        {**params, "cell": [params["cell"][0].reshape(3, 2), params["cell"][1]]},
        {**params, "cell": [params["cell"][0].view(np.int32), params["cell"][1]]},
        {**params, "cell": params["cell"][::-1]},
        {**params, "scalar": np.array([1.5], np.float32)},
        {**params, "empty": np.zeros((2, 0), np.float32)},
        {("halb" if name == "half" else name): leaf for name, leaf in params.items()},
        {name: leaf for name, leaf in params.items() if name != "empty"},
    ]
    sums = [parameters_sha256(other) for other in [params, *others]]
    assert len(set(sums)) == len(sums)


def test_minus_zero_is_not_zero():
    zeros = [{"w": np.array([value], np.float32)} for value in (0.0, -0.0)]
    assert parameters_sha256(zeros[0]) != parameters_sha256(zeros[1])


@pytest.mark.parametrize("link", ["checkpoints", "tensorboard/events", "metrics.jsonl"])
def test_a_run_with_links_is_refused(tmp_path, link):
    """A run from elsewhere could make this one write, or remove checkpoints, somewhere else."""
    run = RunDirectory.create(tmp_path / "run")
    run.write_config("x = 1\n", {})
    (tmp_path / "run" / "tensorboard").mkdir()
    RunDirectory.open(run.path)
    (run.path / link).symlink_to(tmp_path)
    for read in (RunDirectory.open, RunDirectory.resume):
        with pytest.raises(ValueError, match=rf"expected a folder without links, got .*{link}"):
            read(run.path)
    (tmp_path / "short").symlink_to(run.path)  # the way to the run may have some
    (run.path / link).unlink()
    RunDirectory.open(tmp_path / "short")


@pytest.mark.parametrize("name", ["tokenizer.json", "metrics.jsonl", "checkpoints/7/header"])
def test_a_run_that_would_be_waited_for_is_refused(tmp_path, name):
    run = RunDirectory.create(tmp_path / "run")
    run.write_config("", {})
    fifo = run.path / name
    fifo.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(fifo)
    with pytest.raises(ValueError, match=rf"expected a folder of regular files, got .*{name}"):
        RunDirectory.open(run.path)
