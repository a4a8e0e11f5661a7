"""One checkpoint: a folder, there in whole or not at all, read back bit for bit.

It holds two items, which Orbax writes under a temporary name and renames when both are complete:

    arrays    the leaves of the state by name, ``.params['cell']['w']``; the key as its uint32 data
    header    JSON: format, step, metric, progress, and of every leaf dtype, shape and SHA-256
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from seqnets.runs import bytes_of
from seqnets.training.hooks import Progress
from seqnets.training.state import TrainState
from seqnets.typing import PyTree

__all__ = ["CheckpointError", "read_header", "read_params", "read_state", "write_snapshot"]

# Orbax is imported where it is used: reading figures or reports should not wait for it.

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint is not there, cannot be read, or is of another model."""


def write_snapshot(path: Path, state: TrainState, progress: Progress, metric: float | None) -> None:
    """Write a host state into the new folder ``path``."""
    import orbax.checkpoint as ocp

    arrays = {name: np.asarray(x) for name, x in _named(_with_key_data(state)).items()}
    about = {
        "step": progress.step,
        "metric": metric if metric is not None and math.isfinite(metric) else None,
        "progress": dataclasses.asdict(progress),
        "key": str(jax.random.key_impl(state.key)),
        "leaves": {name: {**_kind(x), "sha256": _sha256(x)} for name, x in arrays.items()},
    }
    stored = {name: x for name, x in arrays.items() if x.size}  # Orbax takes no empty arrays
    header = {"format": FORMAT, "about": about, "sha256": _sha256_of_json(about)}
    items = ocp.args.Composite(arrays=ocp.args.PyTreeSave(stored), header=ocp.args.JsonSave(header))
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as orbax:
        orbax.save(path, args=items)


def read_header(path: Path) -> dict[str, Any]:
    """Read all but the arrays.

    Raises:
      CheckpointError: if it is damaged, or of another format.
    """
    import orbax.checkpoint as ocp

    header = _read(path, header=ocp.args.JsonRestore())
    if not isinstance(header, dict) or not {"format", "about", "sha256"} <= header.keys():
        _damaged(path, "its header is not one")
    if header["format"] != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, got {header['format']}")
    if header["sha256"] != _sha256_of_json(header["about"]):
        _damaged(path, "its header is not what was written")
    return header["about"]


def read_state(path: Path, like: TrainState) -> tuple[TrainState, Progress]:
    """Read a whole state of the shapes and dtypes of ``like``.

    Raises:
      CheckpointError: if it is damaged, or of another model.
    """
    header = read_header(path)
    state = _read_leaves(path, header, _with_key_data(like))
    key = jax.random.wrap_key_data(state.key, impl=header["key"])
    if key.dtype != like.key.dtype:
        raise CheckpointError(f"{path}: leaf .key: expected {like.key.dtype}, got {key.dtype}")
    return state._replace(key=key), Progress(**header["progress"])


def read_params(path: Path, like: PyTree) -> PyTree:
    """Read the parameters only, of the shapes and dtypes of ``like``.

    Raises:
      CheckpointError: if they are damaged, or of another model.
    """
    return _read_leaves(path, read_header(path), like, ".params")


def _read_leaves(path: Path, header: dict[str, Any], like: PyTree, prefix: str = "") -> PyTree:
    """Read the leaves whose names begin with ``prefix`` as the tree of ``like``."""
    wanted = _named(like, prefix)
    stored = {n: about for n, about in header["leaves"].items() if n.startswith(prefix)}
    for name in [*wanted, *stored]:
        expected = _in_words(_kind(wanted[name]) if name in wanted else None)
        got = _in_words(stored.get(name))
        if expected != got:
            raise CheckpointError(
                f"{path}: is of another model: leaf {name}: expected {expected}, got {got}"
            )
    return jax.tree.unflatten(
        jax.tree.structure(like), [_read_leaf(path, name, stored[name]) for name in wanted]
    )


def _read_leaf(path: Path, name: str, about: dict[str, Any]) -> np.ndarray:
    """Read one array. One by one: where one of many fails, Orbax leaves the others running."""
    import orbax.checkpoint as ocp

    array = np.empty(about["shape"], about["dtype"])
    if array.size:
        restore = ocp.args.PyTreeRestore(
            item={name: array},
            restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray)},
            partial_restore=True,
        )
        array = _read(path, arrays=restore)[name]
    if _sha256(array) != about["sha256"]:
        _damaged(path, f"leaf {name} is not what was written")
    return array


def _read(path: Path, **item: Any) -> Any:
    """Read one item; whatever Orbax raises means that the checkpoint cannot be read."""
    import orbax.checkpoint as ocp

    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as orbax:
            return orbax.restore(path, args=ocp.args.Composite(**item))[next(iter(item))]
    except Exception as error:
        _damaged(path, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}", error)


def _damaged(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    raise CheckpointError(f"{path}: is damaged or not a checkpoint: {why}") from cause


def _with_key_data(state: TrainState) -> TrainState:
    """The state with its key as uint32; of a state of shapes, the shape of that."""
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
    return f"{kind['dtype']} {kind['shape']}" if kind else "no such leaf"


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(bytes_of(array)).hexdigest()


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
