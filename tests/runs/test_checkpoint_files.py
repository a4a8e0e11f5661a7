"""One checkpoint: exact, and never silently wrong."""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from seqnets.runs import checkpoint_files
from seqnets.runs.checkpoint_files import (
    CheckpointError,
    read_header,
    read_snapshot,
    read_weights,
    write_snapshot,
)
from seqnets.training import Progress, Snapshot, TrainState, Weights


class Carry(NamedTuple):
    c: np.ndarray
    h: np.ndarray


def new_state(rng, width=3, dtype=np.float32, key=None):
    """A state of every kind of leaf, with values where bits are easily lost."""
    params = {
        "cell": {"w/x.y": rng.normal(size=(2, width)).astype(dtype)},
        "list": [np.array([np.nan, -0.0, np.inf, 5e-324]), np.array([True, False])],
        "half": rng.normal(size=5).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(rng.normal(), np.float32),
    }
    adam = optax.ScaleByAdamState(
        np.array(7, np.int32), {"w": rng.normal(size=3)}, {"w": rng.normal(size=3)}
    )
    opt_state = {"critic": (adam, optax.EmptyState(), None), "generator": ()}
    variables = {"ema": [rng.normal(size=3)]}
    carry = Carry(rng.normal(size=(4, 2)), rng.integers(-9, 9, (4, 2)).astype(np.int8))
    key = jax.random.key(int(rng.integers(1000))) if key is None else key
    return TrainState(np.array(7, np.int32), params, opt_state, variables, carry, key)


def shapes_of(state):
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, state))


def assert_same_bits(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        assert isinstance(a, np.ndarray)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


PROGRESS = Progress(
    step=7,
    training_seconds=0.1 + 0.2,
    compilation_seconds=1e-300,
    evaluation_seconds=2.0**-40,
    sums={"loss": [1 / 3, 7.0], "odd": [float("inf"), -0.0]},
    gradient_norms={"loss": [np.nextafter(1.0, 2.0).item(), 1e308]},
    validation={"loss": float("nan")},
    validation_step=5,
)


def test_all_comes_back_bit_for_bit(tmp_path, rng):
    state = new_state(rng)
    write_snapshot(tmp_path / "7", Snapshot(state, PROGRESS), 0.1)
    got, progress = read_snapshot(tmp_path / "7", state)
    assert_same_bits(got._replace(key=()), state._replace(key=()))
    assert got.key.dtype == state.key.dtype
    np.testing.assert_array_equal(jax.random.bits(got.key, (9,)), jax.random.bits(state.key, (9,)))
    assert repr(progress) == repr(PROGRESS)  # by repr: NaN equals itself, -0.0 is not 0.0
    weights = Weights(state.params, state.variables)
    assert_same_bits(read_weights(tmp_path / "7", weights), weights)
    assert read_header(tmp_path / "7")["metric"] == 0.1


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_shapes_alone_are_enough_to_read(tmp_path, rng, impl):
    key = jax.random.key(3, impl=impl)
    # In float32: shapes that went through JAX have no float64.
    state = jax.tree.map(lambda x: np.asarray(x, np.float32), new_state(rng)._replace(key=()))
    state = state._replace(key=key)
    write_snapshot(tmp_path / "7", Snapshot(state, PROGRESS), None)
    got, _ = read_snapshot(tmp_path / "7", shapes_of(state))
    assert_same_bits(got._replace(key=()), state._replace(key=()))
    assert got.key.dtype == state.key.dtype
    np.testing.assert_array_equal(jax.random.key_data(got.key), jax.random.key_data(state.key))


@pytest.mark.parametrize("metric", [None, float("nan"), float("inf")])
def test_what_is_not_finite_is_no_metric(tmp_path, rng, metric):
    write_snapshot(tmp_path / "7", Snapshot(new_state(rng), PROGRESS), metric)
    assert read_header(tmp_path / "7")["metric"] is None


def test_another_model_is_refused_by_its_first_leaf(tmp_path, rng):
    path = tmp_path / "7"
    state = new_state(rng)
    write_snapshot(path, Snapshot(state, PROGRESS), None)

    def refuse(changed, match):
        with pytest.raises(CheckpointError, match=match):
            read_snapshot(path, changed)

    cell = r"leaf \.params\['cell'\]\['w/x\.y'\]: expected "
    refuse(new_state(rng, width=5), cell + r"float32 \[2, 5\], got float32 \[2, 3\]")
    refuse(new_state(rng, dtype=np.float16), cell + r"float16 \[2, 3\], got float32 \[2, 3\]")
    more = {**state.params, "new": np.zeros(2, np.float32)}
    refuse(state._replace(params=more), r"leaf \.params\['new'\]: .* got no such leaf")
    fewer = {name: leaf for name, leaf in state.params.items() if name != "half"}
    refuse(state._replace(params=fewer), r"\['half'\]: expected no such leaf, got bfloat16 \[5\]")
    refuse(state._replace(carry=()), r"leaf \.carry\.c: expected no such leaf")
    refuse(state._replace(key=jax.random.key(0, impl="rbg")), r"leaf \.key: ")
    with pytest.raises(CheckpointError, match=r"leaf \.params\['new'\]"):
        read_weights(path, Weights(more, state.variables))
    with pytest.raises(
        CheckpointError, match=r"leaf \.variables\['ema'\]\[0\]: expected no such leaf"
    ):
        read_weights(path, Weights(state.params))
    # The weights alone do not mind what else is different.
    weights = Weights(state.params, state.variables)
    assert_same_bits(read_weights(path, weights), weights)


def test_keys_of_equal_shape_and_another_kind_are_refused(tmp_path, rng):
    write_snapshot(
        tmp_path / "7", Snapshot(new_state(rng, key=jax.random.key(0, impl="rbg")), PROGRESS), 0.0
    )
    like = new_state(rng, key=jax.random.key(0, impl="unsafe_rbg"))
    with pytest.raises(CheckpointError, match=r"leaf \.key: expected key<urbg>, got key<rbg>"):
        read_snapshot(tmp_path / "7", like)


def damage(path, how, rng):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped" and content:
        at = int(rng.integers(len(content)))
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "missing"])
def test_damage_is_found_or_harmless(tmp_path, rng, how, caplog):
    """Every file in turn: the checkpoint comes back exact, or is refused."""
    whole = tmp_path / "7"
    state = TrainState(
        np.array(7, np.int32),
        {"large": rng.normal(size=(60, 50)), "zeros": np.zeros(20, np.float32)},
        {},
        (),
        (),
        jax.random.key(0),
    )
    write_snapshot(whole, Snapshot(state, PROGRESS), 0.5)
    refused = set()
    for number, file in enumerate(sorted(p for p in whole.rglob("*") if p.is_file())):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(whole, copy)
        damage(copy / file.relative_to(whole), how, rng)
        try:
            got, progress = read_snapshot(copy, state)
        except CheckpointError:
            refused.add(file.relative_to(whole).parts[0])
        else:
            assert_same_bits(got._replace(key=()), state._replace(key=()))
            assert repr(progress) == repr(PROGRESS)
    assert {"arrays", "header"} <= refused
    assert caplog.records == []  # nothing is left running that would complain later


def test_values_are_checked_against_their_sums(tmp_path, rng, monkeypatch):
    """Damage that the storage does not notice: other bytes of the right length."""
    state = new_state(rng)
    write_snapshot(tmp_path / "7", Snapshot(state, PROGRESS), None)
    read = checkpoint_files.read_array

    def bent(path, name, like):
        got = read(path, name, like).copy()
        got.reshape(-1).view(np.uint8)[-1] ^= 1
        return got

    monkeypatch.setattr(checkpoint_files, "read_array", bent)
    with pytest.raises(CheckpointError, match=r"damaged .*leaf \.step has a different checksum"):
        read_snapshot(tmp_path / "7", state)


def test_header_is_checked(tmp_path, rng):
    path = tmp_path / "7"
    write_snapshot(path, Snapshot(new_state(rng), PROGRESS), None)
    (file,) = [p for p in (path / "header").iterdir() if "0.30000000000000004" in p.read_text()]
    text = file.read_text()
    file.write_text(text.replace("0.30000000000000004", "0.30000000000000005"))
    read_header(path)  # the same double
    file.write_text(text.replace("0.30000000000000004", "0.31"))
    with pytest.raises(CheckpointError, match="header has a different checksum"):
        read_header(path)
    file.write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(CheckpointError, match=r"of format 2, got 3; .* another version of seqnets"):
        read_header(path)
    file.write_text("[1]")
    with pytest.raises(CheckpointError, match="header is invalid"):
        read_header(path)


def test_what_is_not_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="nothing: is damaged or not a checkpoint"):
        read_header(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        read_header(tmp_path / "empty")


CHECKPOINTS = Path(__file__).parent / "checkpoints"


def golden():
    spec = importlib.util.spec_from_file_location("golden", CHECKPOINTS / "golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_checkpoints_of_this_format_are_read():
    path, made = CHECKPOINTS / f"format-{checkpoint_files.FORMAT}", golden()
    state = made.golden_state()
    got, progress = read_snapshot(path, state)
    assert_same_bits(got._replace(key=()), state._replace(key=()))
    np.testing.assert_array_equal(jax.random.bits(got.key, (9,)), jax.random.bits(state.key, (9,)))
    assert repr(progress) == repr(made.golden_progress())
    assert read_header(path)["metric"] == 0.25


@pytest.mark.parametrize("number", range(1, checkpoint_files.FORMAT + 1))
def test_the_weights_of_every_format_are_read(number):
    path, state = CHECKPOINTS / f"format-{number}", golden().golden_state()
    weights = Weights(state.params, () if number == 1 else state.variables)
    assert_same_bits(read_weights(path, weights), weights)
    assert read_header(path)["metric"] == 0.25


def test_a_run_of_an_older_format_is_not_resumed():
    with pytest.raises(CheckpointError, match="of format 1 cannot be resumed; its weights can be"):
        read_snapshot(CHECKPOINTS / "format-1", golden().golden_state())


def put(about, *keys, value):
    *outer, last = keys
    for key in outer:
        about = about[key]
    about[last] = value


CELL = ".params['cell']['w/x.y']"
HOSTILE = {
    "shape beyond memory": lambda a: put(a, "leaves", CELL, "shape", value=[10**12, 10**12]),
    "shape beyond 64 bits": lambda a: put(a, "leaves", CELL, "shape", value=[10**30]),
    "negative shape": lambda a: put(a, "leaves", CELL, "shape", value=[-2, -3]),
    "shape in words": lambda a: put(a, "leaves", CELL, "shape", value="[2, 3]"),
    "shape of floats": lambda a: put(a, "leaves", CELL, "shape", value=[2.0, 3.0]),
    "split otherwise": lambda a: a["leaves"][CELL].update(dtype="float32 [2,", shape="3]"),
    "objects": lambda a: put(a, "leaves", CELL, "dtype", value="object"),
    "no dtype": lambda a: put(a, "leaves", CELL, "dtype", value=None),
    "no sum": lambda a: put(a, "leaves", CELL, "sha256", value=7),
    "upwards": lambda a: put(a, "leaves", ".params/../../../x", value=a["leaves"][CELL]),
    "absolute": lambda a: put(a, "leaves", "/etc/passwd", value=a["leaves"][CELL]),
    "unprintable": lambda a: put(a, "leaves", "\ud800\n", value=a["leaves"][CELL]),
    "leaves in a row": lambda a: put(a, "leaves", value=[1, 2]),
    "a leaf of text": lambda a: put(a, "leaves", CELL, value="w"),
    "unknown key": lambda a: put(a, "key", value="os.system"),
    "another key": lambda a: put(a, "key", value="rbg"),
    "key of no text": lambda a: put(a, "key", value=["threefry2x32"]),
    "step in words": lambda a: put(a, "step", value="7"),
    "metric in words": lambda a: put(a, "metric", value="best"),
    "infinite metric": lambda a: put(a, "metric", value=float("-inf")),
    "progress of text": lambda a: put(a, "progress", value="all of it"),
    "sums of text": lambda a: put(a, "progress", "sums", value={"loss": "much"}),
    "progress in words": lambda a: put(a, "progress", "step", value="7"),
    "nothing": lambda a: a.clear(),
}


def rewrite(path, change):
    """Change a header and its sum, as one would who wants it to pass."""
    file = path / "header" / "metadata"
    header = json.loads(file.read_text())
    change(header["about"])
    written = json.dumps(header["about"], sort_keys=True).encode()
    file.write_text(json.dumps({**header, "sha256": hashlib.sha256(written).hexdigest()}))


@pytest.mark.parametrize("how", HOSTILE)
def test_headers_made_to_deceive_are_refused(tmp_path, how):
    path, rng = tmp_path / "7", np.random.default_rng(0)
    state = new_state(rng)
    write_snapshot(path, Snapshot(state, PROGRESS), None)
    rewrite(path, lambda about: None)
    read_snapshot(path, state)
    rewrite(path, HOSTILE[how])
    with pytest.raises(CheckpointError) as caught:
        read_snapshot(path, state)
    message = str(caught.value).encode()  # it can be printed
    assert len(message) < 1000
    assert b"\n" not in message


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", '{"format": 1', "\ufeff{}", "\0"]
)
def test_headers_that_json_cannot_read_are_refused(tmp_path, text):
    (tmp_path / "header").mkdir()
    (tmp_path / "header" / "metadata").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        read_header(tmp_path)


def test_a_header_may_not_fill_the_memory(tmp_path):
    (tmp_path / "header").mkdir()
    with (tmp_path / "header" / "metadata").open("wb") as file:
        file.truncate(checkpoint_files.HEADER_BYTES + 1)
    with pytest.raises(CheckpointError, match="expected at most 33554432 bytes"):
        read_header(tmp_path)


@pytest.mark.parametrize("link", ["header", "header/metadata", "arrays", "arrays/manifest.ocdbt"])
def test_links_are_not_followed(tmp_path, rng, link):
    path, state = tmp_path / "7", new_state(rng)
    write_snapshot(path, Snapshot(state, PROGRESS), None)
    moved = (path / link).rename(tmp_path / "elsewhere")
    (path / link).symlink_to(moved)
    with pytest.raises(CheckpointError, match="is a link"):
        read_snapshot(path, state)


def test_a_link_is_no_checkpoint(tmp_path, rng):
    state = new_state(rng)
    write_snapshot(tmp_path / "elsewhere", Snapshot(state, PROGRESS), None)
    (tmp_path / "7").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="7 is a link"):
        read_snapshot(tmp_path / "7", state)
