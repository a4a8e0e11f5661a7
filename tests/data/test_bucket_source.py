"""Bucket sources: shapes and shares that hold no example."""

import chex
import jax
import numpy as np
import pytest

from seqnets.data import Buckets, BucketSource, Share


def source_of_two_buckets():
    """The first example is longer than the first bucket."""
    sequences = [np.full((length, 2), length, np.float32) for length in (7, 2, 3, 8, 1)]
    return BucketSource(sequences, Buckets((3, 8)), batch_size=3, seed=0, arrays=np.arange(5))


def test_shapes_do_not_depend_on_the_length_of_the_first_example():
    found = [shape.sequences.xs.shape for shape in source_of_two_buckets().shapes]
    assert found == [(3, 3, 2), (3, 8, 2)]


def test_a_share_without_examples_is_empty_rows_of_the_same_shape():
    source = source_of_two_buckets()
    empty = 0
    for k in range(source.steps_per_epoch):
        whole, last = source.batch(k), source.batch(k, Share(2, 3))
        chex.assert_shape(last.sequences.xs, (1, *whole.sequences.xs.shape[1:]))
        chex.assert_equal_shape_prefix(jax.tree.leaves(whole), 1)
        chex.assert_equal_shape_prefix(whole.sequences[:2], 2)
        chex.assert_trees_all_equal_dtypes(last, whole)
        if not last.weight.any():
            empty += 1
            assert not any(np.any(part) for part in last.sequences)
    assert empty == 1  # the bucket of 7 and 8 fills two rows of three


def test_errors_name_the_sequence_and_the_lists():
    def make(sequences, buckets, arrays=()):
        BucketSource(sequences, buckets, batch_size=2, seed=0, arrays=arrays)

    ragged = [np.ones(length) for length in (2, 9, 3)]
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected at most 8 time .* got 9"):
        make(ragged, Buckets((2, 8)))
    several = {"source": [np.ones(1)] * 3, "target": ragged}
    with pytest.raises(ValueError, match=r"sequences\['target'\]\[1\]: expected at most 8"):
        make(several, Buckets((2, 8)))
    with pytest.raises(ValueError, match=r"got 3 in sequences, 2 in arrays$"):
        make(ragged, Buckets((2, 9)), arrays=np.ones(2))
