"""A single checkpoint: a folder, written atomically and restored bit for bit.

It holds two items, which Orbax writes under a temporary name and renames when both are complete:

    arrays    the leaves of the state by name, ``.params['cell']['w']``; the key as its uint32 data
    header    JSON: format, step, metric, progress, and the dtype, shape, and SHA-256 of every leaf

A checkpoint that holds only weights has no key, no optimizer state, and no progress.

Checkpoints are not trusted: reading one runs no code from it, opens no paths that it names or that
lie outside its folder, and allocates only what the expected model needs, whatever the checkpoint
claims. `seqnets.runs.storage` enforces the bounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import msgspec
import numpy as np

from seqnets.files import read_json
from seqnets.runs.digests import bytes_of
from seqnets.runs.plain_path import plain_path
from seqnets.runs.storage import check_folder, read_array
from seqnets.training.progress import Progress, Snapshot
from seqnets.training.state import TrainState, Weights
from seqnets.typing import PyTree

__all__ = [
    "CheckpointError",
    "DamagedError",
    "read_header",
    "read_snapshot",
    "read_weights",
    "write_snapshot",
    "write_weights",
]

# Orbax is imported where it is used, since reading should not wait for it.

FORMAT = 2
OLDER = (1,)
"""Older formats, of which only the weights can be read."""
HEADER_BYTES = 2**25


class _Leaf(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class _About(msgspec.Struct):
    """Required contents of a header."""

    step: int
    metric: float | None
    progress: dict[str, Any]
    key: str | None
    leaves: dict[str, _Leaf]


class CheckpointError(ValueError):
    """A checkpoint does not exist, cannot be read, or is of a different model."""


class DamagedError(CheckpointError):
    """A checkpoint differs from what was written, or is not a checkpoint."""


def write_snapshot(path: Path, snapshot: Snapshot, rank: float | None) -> None:
    """Write a snapshot into the new folder ``path``.

    Args:
      path: the folder.
      snapshot: host state and progress.
      rank: metric of an evaluation of this state, lower is better; None without an evaluation.
    """
    state, progress = snapshot
    about = {
        "step": progress.step,
        "metric": rank if rank is not None and math.isfinite(rank) else None,
        "progress": dataclasses.asdict(progress),
        "key": str(jax.random.key_impl(state.key)),
    }
    _write(path, _with_key_data(state), about)


def write_weights(path: Path, weights: Weights, step: int) -> None:
    """Write weights only, which can be used but not resumed, into the new folder ``path``.

    Args:
      path: the folder.
      weights: host arrays.
      step: step of the weights.
    """
    _write(path, weights, {"step": step, "metric": None, "progress": {}, "key": None})


def _write(path: Path, tree: PyTree, about: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp

    arrays = {name: np.asarray(x) for name, x in _named(tree).items()}
    leaves = {name: {**_kind(x), "sha256": _sha256(x)} for name, x in arrays.items()}
    about = {**about, "leaves": leaves}
    stored = {name: x for name, x in arrays.items() if x.size}  # Orbax rejects empty arrays
    header = {"format": FORMAT, "about": about, "sha256": _sha256_of_json(about)}
    items = ocp.args.Composite(arrays=ocp.args.PyTreeSave(stored), header=ocp.args.JsonSave(header))
    path.parent.mkdir(parents=True, exist_ok=True)
    with plain_path(path.parent) as folder, _checkpointer() as orbax:
        orbax.save(folder / path.name, args=items)


def _checkpointer() -> Any:
    """An Orbax checkpointer that writes both items from this process alone."""
    import orbax.checkpoint as ocp

    alone = ocp.options.MultiprocessingOptions(  # only this process writes
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix="alone",
    )
    types = ocp.type_handlers
    handlers = types.create_type_handler_registry(
        (np.ndarray, types.NumpyHandler(deepcopy_host_arrays=False)),  # they are not modified
        (jax.Array, types.get_type_handler(jax.Array)),
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
        arrays=ocp.PyTreeCheckpointHandler(
            use_ocdbt=True,
            use_zarr3=False,
            use_compression=False,  # parameters hardly compress
            multiprocessing_options=alone,
            type_handler_registry=handlers,
        ),
        header=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def read_header(path: Path) -> dict[str, Any]:
    """Read everything but the arrays.

    Raises:
      CheckpointError: if the checkpoint is damaged or has an unknown format.
    """
    with _reporting(path):
        check_folder(path / "header", 0)
        header = read_json(path / "header" / "metadata", HEADER_BYTES)
    if not isinstance(header, dict) or not {"format", "about", "sha256"} <= header.keys():
        _damaged(path, "its header is invalid")
    if header["format"] not in (FORMAT, *OLDER):
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FORMAT}, got {_short(header['format'])}; "
            f"it was written by another version of seqnets"
        )
    about = header["about"]
    with _reporting(path):
        if header["sha256"] != _sha256_of_json(about):
            _damaged(path, "its header has a different checksum")
        known = msgspec.convert(about, _About)
    if known.metric is not None and not math.isfinite(known.metric):
        _damaged(path, f"its metric is {known.metric}")
    return {**about, "format": header["format"]}


def read_snapshot(path: Path, like: TrainState) -> Snapshot:
    """Read a state with the shapes and dtypes of ``like``, and its progress.

    Raises:
      CheckpointError: if the checkpoint is damaged, of a different model or an older format, or
        has weights only.
    """
    header = read_header(path)
    if header["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: a checkpoint of format {header['format']} cannot be resumed; its weights can "
            "be used to generate, predict, evaluate, or start a new run"
        )
    if header["key"] is None:
        raise CheckpointError(
            f"{path}: holds weights only and cannot be resumed; they can be used to generate, "
            "predict, evaluate, or start a new run"
        )
    state = _read_leaves(path, header, _with_key_data(like))
    with _reporting(path):
        key = jax.random.wrap_key_data(state.key, impl=header["key"])
        progress = msgspec.convert(header["progress"], Progress)
    if key.dtype != like.key.dtype:
        raise CheckpointError(f"{path}: leaf .key: expected {like.key.dtype}, got {key.dtype}")
    return Snapshot(state._replace(key=key), progress)


def read_weights(path: Path, like: Weights) -> Weights:
    """Read only parameters and variables, with the shapes and dtypes of ``like``.

    Raises:
      CheckpointError: if they are damaged or of a different model.
    """
    header = read_header(path)
    parts = [_read_leaves(path, header, like.params, ".params")]
    parts.append(_read_leaves(path, header, like.variables, ".variables"))
    return Weights(*parts)


def _read_leaves(path: Path, header: dict[str, Any], like: PyTree, prefix: str = "") -> PyTree:
    """Read the leaves whose names begin with ``prefix`` into the structure of ``like``."""
    wanted = _named(like, prefix)
    stored = {n: about for n, about in header["leaves"].items() if n.startswith(prefix)}
    for name in [*wanted, *stored]:
        expected = _kind(wanted[name]) if name in wanted else None
        got = {part: stored[name][part] for part in ("dtype", "shape")} if name in stored else None
        if expected != got:
            raise CheckpointError(
                f"{path}: is of a different model: leaf {_short(name)}: "
                f"expected {_in_words(expected)}, got {_in_words(got)}"
            )
    with _reporting(path):
        check_folder(path, sum(x.size * x.dtype.itemsize for x in wanted.values()))
    with plain_path(path) as folder:  # outside `_reporting`: failing to make a link is no damage
        arrays = [
            _read_leaf(path, folder, name, x, stored[name]["sha256"]) for name, x in wanted.items()
        ]
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


def _read_leaf(path: Path, folder: Path, name: str, like: Any, sha256: str) -> np.ndarray:
    """Read a leaf of the checkpoint ``path`` through its plain name ``folder``."""
    with _reporting(path):
        array = read_array(folder, name, like) if like.size else np.empty(like.shape, like.dtype)
    if _sha256(array) != sha256:
        _damaged(path, f"leaf {name} has a different checksum")
    return array


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Convert errors in reading to `DamagedError`."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, LookupError, RuntimeError) as error:
        _damaged(path, f"{type(error).__name__}: {_short(error)}", error)


def _damaged(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    raise DamagedError(f"{path}: is damaged or not a checkpoint: {why}") from cause


def _with_key_data(state: TrainState) -> TrainState:
    """The state with its key as uint32 data, or with the shape of that data."""
    key: Any = state.key
    if isinstance(key, jax.ShapeDtypeStruct):
        return state._replace(key=jax.eval_shape(jax.random.key_data, key))
    return state._replace(key=jax.random.key_data(key))


def _named(tree: PyTree, prefix: str = "") -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {prefix + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _kind(x: Any) -> dict[str, Any]:
    return {"dtype": str(x.dtype), "shape": list(x.shape)}


def _in_words(kind: dict[str, Any] | None) -> str:
    return _short(f"{kind['dtype']} {kind['shape']}") if kind else "no such leaf"


def _short(value: Any) -> str:
    """The first line of a text, shortened, with lone surrogates escaped, as they do not print."""
    return str(value).partition("\n")[0][:200].encode("utf-8", "backslashreplace").decode()


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(bytes_of(array)).hexdigest()


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
