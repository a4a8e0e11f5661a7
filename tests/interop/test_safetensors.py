"""Files of safetensors: bytes worked out by hand, layouts in memory, dtypes and mistakes."""

import json
import struct
import sys
from pathlib import Path

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.interop import from_pytorch, read_safetensors, to_pytorch, write_safetensors

GOLDEN = dict(np.load(Path(__file__).with_name("golden.npz")))


def framed(header, data=b"", size=None):
    """A file: length of the header, the header, the arrays."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def by_hand(arrays):
    """A file of float32 arrays as the format's description says: length, JSON, little-endian."""
    header, data = {}, b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.astype("<f4").tobytes("C")
    return framed(header, data)


def parsed(content):
    """The float32 arrays of a file, read without the package."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32"
        first, last = entry["data_offsets"]
        arrays[name] = np.frombuffer(data[first:last], "<f4").reshape(entry["shape"])
    return arrays


def test_reads_what_the_format_says(tmp_path, rng):
    shapes = {"a.w": (3, 2), "b": (1,)}
    want = {name: rng.normal(size=s).astype("float32") for name, s in shapes.items()}
    (tmp_path / "w.safetensors").write_bytes(by_hand(want))
    got = read_safetensors(tmp_path / "w.safetensors")
    assert got.keys() == want.keys()
    chex.assert_trees_all_equal(got, want, strict=True)


def test_writes_what_the_format_says_from_any_layout_in_memory(tmp_path, rng):
    a = rng.normal(size=(4, 6)).astype("float32")
    views = {
        "transposed": a.T,
        "strided": a[::2, 1::3],
        "reversed": a[::-1],
        "column-major": np.asfortranarray(a),
        "big-endian": a.astype(">f4"),
        "jax": jnp.asarray(a).T,
        "scalar": np.float32(3),
        "empty": a[:0],
    }
    write_safetensors(str(tmp_path / "w"), views)
    got = parsed((tmp_path / "w").read_bytes())
    assert got.keys() == views.keys()
    for name, want in views.items():
        np.testing.assert_array_equal(got[name], want, err_msg=name)
        assert got[name].shape == np.shape(want)


def test_dtypes(tmp_path):
    names = ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]
    arrays = {name: np.arange(3).astype(name) for name in names}
    arrays["bfloat16"] = np.arange(3).astype(jnp.bfloat16)
    write_safetensors(tmp_path / "w", arrays)
    for name, got in read_safetensors(tmp_path / "w").items():
        assert got.dtype == arrays[name].dtype
        np.testing.assert_array_equal(got, arrays[name])


def test_a_module_goes_through_a_file(tmp_path):
    prefix = "torch/gru_layers_both_ragged/weights/"
    weights = {k.removeprefix(prefix): v for k, v in GOLDEN.items() if k.startswith(prefix)}
    stack, params = from_pytorch(weights)
    write_safetensors(tmp_path / "gru", to_pytorch(stack, params, prefix="gru."))
    again, params_again = from_pytorch(read_safetensors(tmp_path / "gru"), prefix="gru.")
    assert again == stack
    chex.assert_trees_all_equal(params_again, params, strict=True)


# --- mistakes --------------------------------------------------------------------------------


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"PK\3\4" + 100 * b"\xff",
        framed(b'{"w": ', size=1000),
        framed({"w": ONE}, size=2**63),
        framed(b"not JSON"),
        framed({"w": ONE}, b"1234567"),
        framed({"w": ONE}, b"123456789"),
        framed({"w": ONE, "v": ONE}, b"12345678"),
        framed({"w": ONE | {"shape": [3]}}, b"12345678"),
        framed({"w": ONE | {"shape": [-2]}}, b"12345678"),
        framed({"w": ONE | {"shape": [2**62, 4]}}, b"12345678"),
        framed({"w": ONE | {"data_offsets": [8, 0]}}, b"12345678"),
        framed({"w": ONE | {"dtype": "O8"}}, b"12345678"),
    ],
    ids=[
        "empty",
        "no length",
        "another format",
        "header cut short",
        "header too long",
        "no JSON",
        "array cut short",
        "bytes too many",
        "arrays overlap",
        "shape too large",
        "shape below zero",
        "shape that overflows",
        "offsets in reverse",
        "no such dtype",
    ],
)
def test_files_of_another_format(tmp_path, content):
    (tmp_path / "w.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"w.npz: expected a safetensors file, got .*header"):
        read_safetensors(tmp_path / "w.npz")


def test_a_file_cut_short_anywhere(tmp_path, rng):
    whole = by_hand({"a": rng.normal(size=(2, 3)).astype("float32"), "b": np.ones(1, "float32")})
    for size in range(len(whole)):
        (tmp_path / "w").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="w: expected a safetensors file, got"):
            read_safetensors(tmp_path / "w")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "C64"])
def test_dtypes_that_have_no_counterpart(tmp_path, dtype):
    size = 16 if dtype == "C64" else 2
    entry = {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}
    (tmp_path / "w").write_bytes(framed({"fc.w": entry}, size * b"1"))
    with pytest.raises(TypeError, match=rf"^fc.w: expected one of BOOL, I8, .*, got {dtype}$"):
        read_safetensors(tmp_path / "w")


def test_a_folder(tmp_path):
    with pytest.raises(ValueError, match="expected a safetensors file, got a folder"):
        read_safetensors(tmp_path)


def test_no_file_and_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / "w")
    with pytest.raises(FileNotFoundError):
        write_safetensors(tmp_path / "folder" / "w", {"w": np.ones(2)})


@pytest.mark.parametrize("array", [[None], ["a"], [1j], np.ones(1, "longdouble")])
def test_arrays_of_other_things(tmp_path, array):
    write_safetensors(tmp_path / "w", {"w": np.ones(2)})
    with pytest.raises(TypeError, match=r"fc: expected one of bool, int8, .*, got \S+$"):
        write_safetensors(tmp_path / "w", {"w": np.ones(3), "fc": array})
    assert read_safetensors(tmp_path / "w")["w"].shape == (2,)


def test_what_is_written_is_a_mapping_of_arrays(tmp_path):
    for arrays in ([np.ones(2)], {1: np.ones(2)}):
        with pytest.raises(TypeError, match=r"^arrays: expected (a mapping|keys that are str)"):
            write_safetensors(tmp_path / "w", arrays)
    with pytest.raises(ValueError, match=r"^arrays: the name '__metadata__' is reserved"):
        write_safetensors(tmp_path / "w", {"__metadata__": np.ones(2)})
    with pytest.raises(TypeError, match=r"^fc: expected an array, got list"):
        write_safetensors(tmp_path / "w", {"fc": [[1], [1, 2]]})
    assert not (tmp_path / "w").exists()


def test_without_the_package_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.numpy", raising=False)
    for call in (lambda: read_safetensors(tmp_path), lambda: write_safetensors(tmp_path, {})):
        with pytest.raises(ImportError, match=r'pip install "seqnets\[interop\]"'):
            call()
