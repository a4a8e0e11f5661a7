"""What every source of batches must satisfy: purity, shares, declared shapes."""

import chex
import jax
import numpy as np
import pytest

from seqnets.data import (
    ArraySource,
    Buckets,
    BucketSource,
    PackedSource,
    Series,
    SeriesWindows,
    Share,
    TextStream,
    WindowShape,
    WindowSource,
)

B = 4
LENGTHS = (3, 1, 7, 2, 5, 5, 0, 8, 2, 6, 1)


def ragged(width):
    rng = np.random.default_rng(width)
    return [rng.normal(size=(T, width)).astype("float32") for T in LENGTHS]


def windows():
    values = np.random.default_rng(0).normal(size=50)
    return SeriesWindows([Series("a", values), Series("b", values[:30])], WindowShape(6, 3, 2, 1))


SOURCES = {
    "arrays": lambda seed: ArraySource(
        {"x": np.arange(22).reshape(11, 2), "y": np.arange(11)}, batch_size=B, seed=seed
    ),
    "text": lambda seed: TextStream(np.arange(90), batch_size=B, chunk_length=5, seed=seed),
    "windows": lambda seed: WindowSource(windows(), batch_size=B, seed=seed, held_out=3),
    "buckets": lambda seed: BucketSource(
        ragged(2), Buckets((3, 8)), batch_size=B, seed=seed, arrays={"label": np.arange(11)}
    ),
    "pairs": lambda seed: BucketSource(
        {"source": ragged(2), "target": ragged(1)[::-1]},
        {"source": Buckets((3, 6, 8)), "target": Buckets((4, 5, 9))},
        batch_size=B,
        seed=seed,
    ),
    "packed": lambda seed: PackedSource(ragged(2), 9, batch_size=B, seed=seed),
}
EVERY = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)


@EVERY
def test_a_batch_depends_on_seed_and_number_alone(make):
    one, other = make(3), make(3)
    forwards = [one.batch(k) for k in range(9)]
    chex.assert_trees_all_equal(forwards, [other.batch(k) for k in reversed(range(9))][::-1])
    changed = [make(4).batch(k) for k in range(9)]
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(forwards, changed)


@EVERY
@pytest.mark.parametrize("count", [1, 2, 4])
def test_shares_together_are_the_batch(make, count):
    source = make(1)
    for k in range(7):
        parts = [source.batch(k, Share(index, count)) for index in range(count)]
        together = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        chex.assert_trees_all_equal(together, source.batch(k))


@EVERY
def test_every_batch_has_a_declared_shape(make):
    source = make(1)
    shapes = {str(jax.tree.map(lambda x: (x.shape, x.dtype), shape)) for shape in source.shapes}
    assert len(shapes) == len(source.shapes)
    found = {str(jax.tree.map(lambda x: (x.shape, x.dtype), source.batch(k))) for k in range(30)}
    assert found <= shapes
    assert found == shapes  # over so many batches each comes


@EVERY
def test_a_number_below_zero_is_refused(make):
    with pytest.raises(ValueError, match=r"k: expected a value in|expected non-negative"):
        make(1).batch(-1)


@pytest.mark.parametrize("name", ["buckets", "pairs"])
def test_every_example_comes_once_an_epoch(name):
    source = SOURCES[name](2)
    for epoch in range(2):
        batches = [
            source.batch(epoch * source.steps_per_epoch + k) for k in range(source.steps_per_epoch)
        ]
        seen = np.concatenate([batch.which for batch in batches])
        assert sorted(seen[seen >= 0]) == list(range(len(LENGTHS)))
        assert sum(batch.weight.sum() for batch in batches) == len(LENGTHS)


def test_pairs_and_labels_go_with_their_example():
    source, target = ragged(2), ragged(1)[::-1]
    pairs = SOURCES["pairs"](5)
    for k in range(2 * pairs.steps_per_epoch):
        batch = pairs.batch(k)
        for row, number in enumerate(batch.which):
            for name, sequences in (("source", source), ("target", target)):
                padded = batch.sequences[name]
                want = sequences[number] if number >= 0 else sequences[0][:0]
                assert padded.lengths[row] == len(want)
                np.testing.assert_array_equal(padded.xs[row][padded.mask[row]], want)
    labels = SOURCES["buckets"](5).batch(0)
    np.testing.assert_array_equal(labels.arrays["label"], np.maximum(labels.which, 0))


def test_arrays_come_once_an_epoch_but_for_the_rest():
    source = SOURCES["arrays"](0)
    assert source.steps_per_epoch == 2
    seen = np.concatenate([source.batch(k)["y"] for k in range(2)])
    assert len(set(seen.tolist())) == 8
    np.testing.assert_array_equal(source.batch(1)["x"][:, 0], 2 * source.batch(1)["y"])


def test_packed_rows_hold_every_sequence_once_an_epoch():
    source = SOURCES["packed"](0)
    batches = [source.batch(k) for k in range(source.steps_per_epoch)]
    assert sum(batch.mask.sum() for batch in batches) == sum(LENGTHS)
    assert sum(batch.reset.sum() for batch in batches) == sum(T > 0 for T in LENGTHS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArraySource({"x": np.ones(3), "y": np.ones(4)}, batch_size=1, seed=0), "arrays: "),
        (lambda: ArraySource(np.float32(1), batch_size=1, seed=0), "arrays: "),
        (lambda: ArraySource(np.ones(3), batch_size=4, seed=0), "at least batch_size = 4 rows"),
        (lambda: ArraySource(np.ones(3), batch_size=0, seed=0), "batch_size"),
        (
            lambda: BucketSource(ragged(1), Buckets((8,)), batch_size=1, seed=0, arrays=np.ones(3)),
            "expected equal numbers of examples",
        ),
        (
            lambda: BucketSource({"a": ragged(1)}, {"b": Buckets((8,))}, batch_size=1, seed=0),
            "buckets: expected keys",
        ),
        (
            lambda: BucketSource(
                {"a": ragged(1), "b": ragged(1)},
                {"a": Buckets((8,)), "b": Buckets((4, 8))},
                batch_size=1,
                seed=0,
            ),
            "buckets: expected the same number",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
