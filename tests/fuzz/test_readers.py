"""Near-valid files for every reader: it reads them or raises its own error, in bounds."""

import json
import os
import resource

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS, leaves_nothing_outside, run

# The same examples every time; a slow one is a failure.
FIXED = settings(
    max_examples=200,
    deadline=5000,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
MOST_MEMORY = 2**19
"""KiB by which reading small files may raise the peak."""

ODD = [
    *("", " ", "nan", "NA", "inf", "-1e400", "1e308", "1_0", "0x1", "\0", "\ufeff", '"', "'", "\r"),
    *("9" * 18, "9" * 30, "2024-01-01", "9999-12-31", "0001-01-01", "1677-09-22", "2262-04-11"),
    *("2024-01-01T00:00:00+99:99", "2024Q4", "31/12/99", "2024-02-30", "١٢", "null", "true", "{}"),
    *("a" * 200, "a/../../b", "/etc/passwd", "\ud7ff", "𝄞"),
]
odd = st.sampled_from(ODD) | st.text(max_size=8)
numbers = st.integers() | st.floats()
plain_json = st.recursive(
    st.none() | st.booleans() | numbers | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd, inner, max_size=3),
    max_leaves=6,
)


def mutated(seeds):
    """Bytes of a seed with pieces cut out, doubled, turned over, or put in from elsewhere."""

    def change(data, edits):
        for at, length, new in edits:
            start = at % (len(data) + 1)
            data = data[:start] + new + data[start + length :]
        return data

    pieces = st.binary(max_size=4) | odd.map(lambda text: text.encode("utf-8", "replace"))
    edit = st.tuples(st.integers(0, 2**16), st.integers(0, 9), pieces)
    return st.builds(change, st.sampled_from(list(seeds)), st.lists(edit, min_size=1, max_size=4))


def tables():
    """Text of rows and cells, mostly of one width, with times and numbers that go wrong."""
    days = st.dates().map(str)
    cell = odd | numbers.map(str) | days | st.integers(1990, 2030).map(str)
    head = st.sampled_from(["unique_id,ds,y", "V1,V2,V3", "date,x,y", "ds,a,a", ""])

    def written(head, rows, ends):
        return ends.join([head, *(",".join(row) for row in rows)]).encode("utf-8", "replace")

    rows = st.lists(st.lists(cell, min_size=3, max_size=3) | st.lists(cell, max_size=5), max_size=9)
    return st.builds(written, head, rows, st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))


def settings_files():
    """Sections and keys there are, and others, with values of every type."""
    section = st.sampled_from(["data", "model", "optimizer", "train", "optimizer.options", "x"])
    key = st.sampled_from(["files", "cell", "hidden", "learning_rate", "seed", "keep", "name", "y"])
    value = st.sampled_from(
        [
            *("1", "-1", "1e999", "nan", "[]", "['a', 1]", "{a.b=1}", "true", "1979-05-27"),
            *("'adam'", '"\\ud800"', "'''x", "[" * 3000, "9" * 5000, "0x" + "f" * 4000),
        ]
    )
    line = st.builds("{} = {}".format, key, value) | st.builds("[{}]".format, section)
    return st.lists(line, max_size=8).map(lambda lines: "\n".join(lines).encode())


def documents(seeds):
    """JSON of which one part is another."""

    def put(seed, path, new):
        root = [json.loads(seed)]
        inner, key = root, 0
        for step in path:
            if not isinstance(inner[key], dict | list) or not inner[key]:
                break
            inner = inner[key]
            keys = list(inner) if isinstance(inner, dict) else range(len(inner))
            key = keys[step % len(keys)]
        inner[key] = new
        return json.dumps(root[0]).encode()

    path = st.lists(st.integers(0, 99), max_size=4)
    return st.builds(put, st.sampled_from(list(seeds)), path, plain_json)


def records(seeds):
    """Lines of JSON of which one part is another, or a number too large."""
    line = documents([seed.split(b"\n")[0] for seed in seeds])
    huge = st.integers(300, 6000).map(lambda digits: b'{"step": %s}' % (b"9" * digits))
    deep = st.just(b"[" * 3000)
    return st.lists(line | huge | deep, max_size=4).map(b"\n".join)


NEAR = {
    "config": lambda seeds: settings_files(),
    "csv": lambda seeds: tables(),
    "header": documents,
    "metrics": records,
    "tokenizer": documents,
}


@pytest.mark.parametrize("name", READERS)
def test_seeds_are_read(tmp_path, name):
    first, *others = READERS[name].seeds(tmp_path)
    READERS[name].read(tmp_path, first)  # or the mutations would explore the refusals only
    for seed in others:
        run(READERS[name], tmp_path, seed)


@pytest.mark.parametrize("name", READERS)
def test_files_that_went_wrong(tmp_path, name):
    """Whatever a file holds, there is a value or the documented error, and nothing else."""
    folder = tmp_path / "folder"
    folder.mkdir()
    reader = READERS[name]
    seeds = list(reader.seeds(folder))
    near = NEAR.get(name, mutated)(seeds) | mutated(seeds)
    before, peak = set(os.listdir(tmp_path)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @FIXED
    @given(near)
    def check(content):
        run(reader, folder, content)

    check()
    assert leaves_nothing_outside(folder, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MOST_MEMORY


def test_an_error_of_another_kind_goes_through(tmp_path, rng):
    """The harness itself: a reader that divides by zero does not pass."""
    reader = READERS["text"]._replace(read=lambda folder, content: np.array(1) / content[5])
    with pytest.raises(IndexError):
        run(reader, tmp_path, b"")
