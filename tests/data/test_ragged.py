"""Padded and packed rows through the real `unroll` against each sequence alone; brute force."""

import itertools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqnets.cells import GRU, LSTM
from seqnets.data.bucket_source import BucketSource
from seqnets.data.bucketing import Buckets, pad_sequences
from seqnets.data.packing import pack_sequences
from seqnets.recurrence import lengths_to_mask, unroll

QUICK = settings(max_examples=60, deadline=None)
LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=30)
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # float32: products of another number of rows


def ragged(rng, lengths, features=3):
    return [rng.normal(size=(T, features)).astype(np.float32) for T in lengths]


def alone(cell, params, one, *, reverse=False):
    """Carry and outputs of one sequence by itself."""
    carry, ys = unroll(cell, params, None, one[None], reverse=reverse)
    return jax.tree.map(lambda leaf: leaf[0], carry), ys[0]


class TestBuckets:
    @QUICK
    @given(st.integers(1, 40), st.integers(0, 300), st.floats(1.01, 4.0))
    def test_geometric_bounds_the_padding_of_every_length(self, shortest, more, ratio):
        buckets = Buckets.geometric(shortest, shortest + more, ratio)
        assert (buckets.lengths[0], buckets.lengths[-1]) == (shortest, shortest + more)
        lengths = np.arange(shortest, shortest + more + 1)
        padded = buckets.padded_lengths(lengths)
        assert (padded >= lengths).all()
        assert (padded[1:] < ratio * lengths[1:]).all()
        assert padded[0] == shortest

    def test_geometric_by_hand(self):
        assert Buckets.geometric(4, 100, 2).lengths == (4, 8, 16, 32, 64, 100)
        # Below 1 / (ratio - 1) the lengths go up one by one, then by the ratio.
        assert Buckets.geometric(1, 10, 1.5).lengths == (1, 2, 3, 4, 6, 9, 10)

    @QUICK
    @given(st.lists(st.integers(0, 9), min_size=1, max_size=15), st.integers(1, 4))
    def test_fitted_pads_least_by_brute_force(self, lengths, most):
        buckets = Buckets.fitted(lengths, most=most, waste=0.0)
        assert len(buckets.lengths) <= most
        sizes = sorted({max(length, 1) for length in lengths})
        number = min(most, len(sizes))
        every = [
            Buckets((*some, sizes[-1])) for some in itertools.combinations(sizes[:-1], number - 1)
        ]
        best = min(one.padded_lengths(lengths).sum() for one in every)
        assert buckets.padded_lengths(lengths).sum() == best

    @QUICK
    @given(LENGTHS, st.integers(1, 4), st.floats(0.0, 0.9))
    def test_fitted_takes_the_fewest_that_waste_little(self, lengths, most, waste):
        def wasted(buckets):
            padded = buckets.padded_lengths(lengths).sum()
            return (padded - sum(lengths)) / padded

        chosen = Buckets.fitted(lengths, most=most, waste=waste)
        number = len(chosen.lengths)
        possible = min(most, len({max(length, 1) for length in lengths}))
        assert wasted(chosen) <= waste + 1e-12 or number == possible
        if number > 1:
            fewer = Buckets.fitted(lengths, most=number - 1, waste=0.0)
            assert wasted(fewer) > waste

    def test_many_lengths(self, rng):
        lengths = np.round(np.exp(rng.normal(4, 1, 5000))).astype(int)
        buckets = Buckets.fitted(lengths, most=12, waste=0.0)
        assert len(buckets.lengths) == 12
        edges = np.unique(np.geomspace(1, lengths.max(), 12).round().astype(int))
        even = Buckets(tuple(int(edge) for edge in edges))
        assert buckets.padded_lengths(lengths).sum() < even.padded_lengths(lengths).sum()

    def test_the_bucket_is_the_smallest_that_holds(self):
        padded = Buckets((2, 5, 9)).padded_lengths([0, 1, 2, 3, 5, 6, 9])
        np.testing.assert_array_equal(padded, [2, 2, 2, 5, 5, 9, 9])

    def test_it_is_a_value(self):
        assert Buckets((2, 5)) == Buckets((2, 5))
        assert hash(Buckets((2, 5))) == hash(Buckets((2, 5)))

    @pytest.mark.parametrize("steps", [(), (0, 3), (3, 3), (4, 2)])
    def test_steps_increase_from_1(self, steps):
        with pytest.raises(ValueError, match=f"lengths: .*got {re.escape(str(steps))}"):
            Buckets(steps)

    @pytest.mark.parametrize("steps", [[2, 3], (2.0, 3.0), (True, 3), 4, np.arange(1, 3)])
    def test_steps_are_a_tuple_of_ints(self, steps):
        with pytest.raises(TypeError, match="lengths: expected a tuple of ints, got"):
            Buckets(steps)

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("shortest", (0, 9, 2.0)),
            ("longest", (5, 4, 2.0)),
            ("ratio", (1, 9, 1.0)),
            ("ratio", (1, 9, math.nan)),
            ("ratio", (1, 9, math.inf)),
        ],
    )
    def test_geometric_ranges(self, name, arguments):
        with pytest.raises(ValueError, match=f"^{name}: "):
            Buckets.geometric(*arguments)

    @pytest.mark.parametrize(
        ("name", "change"),
        [("most", {"most": 0}), ("waste", {"waste": 1.0}), ("waste", {"waste": -0.1})],
    )
    def test_fitted_ranges(self, name, change):
        with pytest.raises(ValueError, match=f"^{name}: "):
            Buckets.fitted([3, 4], **{"most": 2, "waste": 0.1} | change)

    @pytest.mark.parametrize(
        "function",
        [Buckets((2, 4)).padded_lengths, lambda x: Buckets.fitted(x, most=2, waste=0.1)],
        ids=["padded_lengths", "fitted"],
    )
    def test_lengths_are_checked(self, function):
        with pytest.raises(ValueError, match=r"lengths: expected shape \[n\]"):
            function([[1, 2]])
        with pytest.raises(ValueError, match="lengths: expected at least one"):
            function(np.zeros(0, int))
        with pytest.raises(ValueError, match=r"lengths: .*got -1"):
            function([3, -1])
        with pytest.raises(TypeError, match="lengths: expected an array of ints"):
            function([3.0, 1.0])

    def test_too_long_names_the_length(self):
        with pytest.raises(ValueError, match=r"lengths\[1\]: expected at most 4 .*got 5"):
            Buckets((2, 4)).padded_lengths([4, 5, 1])


class TestPadSequences:
    @pytest.mark.parametrize("reverse", [False, True])
    def test_padded_rows_equal_each_sequence_alone(self, rng, reverse):
        sequences = ragged(rng, [4, 0, 7, 1])
        cell = LSTM(5)
        params = cell.init(jax.random.key(0), 3)
        padded = pad_sequences(sequences, Buckets((4, 9)), rows=6)
        assert padded.xs.shape == (6, 9, 3)
        carry, ys = unroll(cell, params, None, padded.xs, mask=padded.mask, reverse=reverse)
        for b, one in enumerate(sequences):
            want_carry, want = alone(cell, params, one, reverse=reverse)
            np.testing.assert_allclose(ys[b, : len(one)], want, **ROUNDING)
            np.testing.assert_array_equal(ys[b, len(one) :], 0)
            jax.tree.map(
                lambda got, want, b=b: np.testing.assert_allclose(got[b], want, **ROUNDING),
                carry,
                want_carry,
            )
        np.testing.assert_array_equal(ys[4:], 0)

    def test_mask_and_lengths_agree(self, rng):
        padded = pad_sequences(ragged(rng, [3, 0, 5]), Buckets((5,)), rows=4)
        np.testing.assert_array_equal(padded.lengths, [3, 0, 5, 0])
        np.testing.assert_array_equal(padded.mask, lengths_to_mask(padded.lengths, 5))
        np.testing.assert_array_equal(padded.xs[~padded.mask], 0)
        assert padded.lengths.dtype == np.int32

    @pytest.mark.parametrize("dtype", [np.int32, np.float64, np.bool_, jnp.bfloat16])
    @pytest.mark.parametrize("tail", [(), (2,), (2, 3, 1)])
    def test_dtype_and_other_axes_are_kept(self, rng, dtype, tail):
        sequences = [rng.integers(0, 9, (T, *tail)).astype(dtype) for T in (2, 3)]
        padded = pad_sequences(sequences, Buckets((4,)))
        assert padded.xs.dtype == dtype
        assert padded.xs.shape == (2, 4, *tail)
        np.testing.assert_array_equal(padded.xs[padded.mask], np.concatenate(sequences))

    def test_too_few_rows(self, rng):
        with pytest.raises(ValueError, match=r"rows: expected a value in \[2, inf\], got 1"):
            pad_sequences(ragged(rng, [2, 3]), Buckets((4,)), rows=1)

    def test_too_long(self, rng):
        with pytest.raises(ValueError, match=r"lengths\[0\]: expected at most 4"):
            pad_sequences(ragged(rng, [5]), Buckets((4,)))


@pytest.mark.parametrize(
    "function",
    [
        lambda sequences: pad_sequences(sequences, Buckets((8,))),
        lambda sequences: BucketSource(sequences, Buckets((8,)), batch_size=2, seed=0),
        lambda sequences: pack_sequences(sequences, 8),
    ],
    ids=["pad_sequences", "BucketSource", "pack_sequences"],
)
class TestSequencesAreChecked:
    @pytest.mark.parametrize(
        ("sequences", "message"),
        [
            ([], "sequences: expected at least one"),
            ([np.zeros(2), np.float64(3)], r"sequences\[1\]: .* got a scalar"),
            ([np.zeros((2, 3)), np.zeros((4, 2))], r"sequences\[1\]: .*\(3,\).* got \(2,\)"),
            ([np.zeros((2, 3)), np.zeros(3)], r"sequences\[1\]: .*\(3,\).* got \(\)"),
        ],
    )
    def test_shapes(self, function, sequences, message):
        with pytest.raises(ValueError, match=message):
            function(sequences)

    @pytest.mark.parametrize(
        ("sequences", "message"),
        [
            ([np.array(["a", "b"])], r"sequences\[0\]: expected numbers or bools"),
            ([np.array([None])], r"sequences\[0\]: expected numbers or bools"),
            ([np.zeros(2, np.float32), np.zeros(2)], r"sequences\[1\]: .*float64 after float32"),
        ],
    )
    def test_dtypes(self, function, sequences, message):
        with pytest.raises(TypeError, match=message):
            function(sequences)


def counting(lengths):
    """Sequences whose every value is their number, so that a batch tells what is in it."""
    return [np.full((T, 1), i, np.int32) for i, T in enumerate(lengths)]


class TestBucketSource:
    @QUICK
    @given(LENGTHS, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**40))
    def test_every_sequence_once_an_epoch(self, lengths, batch_size, most, seed):
        buckets = Buckets.fitted(lengths, most=most, waste=0.0)
        batches = BucketSource(counting(lengths), buckets, batch_size=batch_size, seed=seed)
        for epoch in range(2):
            seen = []
            for k in range(batches.steps_per_epoch):
                batch = batches.batch(epoch * batches.steps_per_epoch + k)
                assert batch.sequences.xs.shape[0] == batch_size
                real = batch.which >= 0
                seen += batch.which[real].tolist()
                want = np.where(real, np.take(lengths, batch.which), 0)
                np.testing.assert_array_equal(batch.sequences.lengths, want)
                steps = set(buckets.padded_lengths(batch.sequences.lengths[real]).tolist())
                assert steps == {
                    batch.sequences.xs.shape[1]
                }  # nobody in a bucket longer than needed
                mask = batch.sequences.mask
                numbers = np.broadcast_to(batch.which[:, None], mask.shape)
                np.testing.assert_array_equal(batch.sequences.xs[mask][:, 0], numbers[mask])
                np.testing.assert_array_equal(batch.weight, real)
            assert sorted(seen) == list(range(len(lengths)))

    def test_batches_are_as_few_as_can_be(self):
        batches = BucketSource(
            counting([1] * 7 + [5] * 4 + [9]), Buckets((2, 5, 9)), batch_size=3, seed=0
        )
        assert batches.steps_per_epoch == 3 + 2 + 1

    def test_a_batch_depends_on_seed_and_number_alone(self, rng):
        sequences = counting(rng.integers(0, 20, 40))

        def make(seed):
            return BucketSource(sequences, Buckets((5, 20)), batch_size=4, seed=seed)

        one, other = make(3), make(3)
        last = 3 * one.steps_per_epoch
        forwards = [one.batch(k) for k in range(last)]
        backwards = [other.batch(k) for k in reversed(range(last))][::-1]
        for got, want in zip(backwards, forwards, strict=True):
            chex.assert_trees_all_equal(got, want, strict=True)
        order = [batch.which.tolist() for batch in forwards]
        assert order != [make(4).batch(k).which.tolist() for k in range(last)]
        size = one.steps_per_epoch
        assert order[:size] != order[size : 2 * size]

    def test_companions_change_with_epoch_and_seed(self):
        met = []
        for seed, epoch in itertools.product(range(2), range(2)):
            batches = BucketSource(counting([1] * 32), Buckets((1,)), batch_size=8, seed=seed)
            met += [frozenset(batches.batch(4 * epoch + k).which.tolist()) for k in range(4)]
        assert len(set(met)) == len(met)

    def test_buckets_are_mixed(self):
        batches = BucketSource(counting(range(1, 9)), Buckets((4, 8)), batch_size=1, seed=0)
        shapes = [batches.batch(k).sequences.xs.shape[1] for k in range(8)]
        assert shapes not in (sorted(shapes), sorted(shapes, reverse=True))

    def test_the_first_bucket_is_not_shuffled_like_the_order(self):
        """NumPy takes the seeds [s, e] and [s, e, 0] for the same."""
        batches = BucketSource(counting([1] * 9), Buckets((1,)), batch_size=1, seed=5)
        order = np.random.default_rng([5, 0]).permutation(9)
        taken = np.array([batches.batch(k).which[0] for k in range(9)])
        assert (taken != order[order]).any()

    def test_jit_compiles_at_most_one_program_a_bucket(self, rng):
        lengths = rng.integers(0, 16, 30)
        buckets = Buckets.fitted(lengths, most=3, waste=0.0)
        sequences = ragged(rng, lengths, 2)
        batches = BucketSource(sequences, buckets, batch_size=4, seed=1)
        cell = GRU(3)
        params = cell.init(jax.random.key(0), 2)
        chex.clear_trace_counter()

        @jax.jit
        @chex.assert_max_traces(n=3)
        def last(xs, mask):
            return unroll(cell, params, None, xs, mask=mask)[0].h

        got = np.full((30, 3), np.nan)
        for k in range(2 * batches.steps_per_epoch):
            batch = batches.batch(k)
            states = np.asarray(last(batch.sequences.xs, batch.sequences.mask))
            got[batch.which[batch.which >= 0]] = states[batch.which >= 0]
        assert len(buckets.lengths) == 3
        padded = pad_sequences(sequences, Buckets((16,)))
        carry, _ = unroll(cell, params, None, padded.xs, mask=padded.mask)
        np.testing.assert_allclose(got, carry.h, **ROUNDING)

    def test_labels_of_steps_are_padded_alike(self, rng):
        """The recipe of the docstring."""
        lengths = rng.integers(0, 9, 11)
        buckets = Buckets((3, 8))
        sequences, labels = ragged(rng, lengths), ragged(rng, lengths, 1)
        batches = BucketSource(sequences, buckets, batch_size=4, seed=1)
        for k in range(batches.steps_per_epoch):
            batch = batches.batch(k)
            with_labels = pad_sequences([labels[i] for i in batch.which if i >= 0], buckets, rows=4)
            np.testing.assert_array_equal(with_labels.mask, batch.sequences.mask)

    @pytest.mark.parametrize(
        ("name", "change"), [("batch_size", {"batch_size": 0}), ("seed", {"seed": -1})]
    )
    def test_ranges(self, name, change):
        with pytest.raises(ValueError, match=f"^{name}: "):
            BucketSource(counting([2]), Buckets((4,)), **{"batch_size": 1, "seed": 0} | change)

    def test_numbers_start_at_0(self):
        batches = BucketSource(counting([2]), Buckets((4,)), batch_size=1, seed=0)
        with pytest.raises(ValueError, match=r"^k: "):
            batches.batch(-1)

    def test_too_long(self):
        with pytest.raises(ValueError, match=r"sequences\[1\]: expected at most 4"):
            BucketSource(counting([2, 5]), Buckets((4,)), batch_size=1, seed=0)


def first_fit_decreasing(lengths, steps):
    """Written anew from its description: lists of what is in each row."""
    rows = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for row in rows:
            if sum(lengths[j] for j in row) + lengths[i] <= steps:
                row.append(i)
                break
        else:
            rows.append([i])
    return rows


class TestPackSequences:
    @QUICK
    @given(LENGTHS, st.integers(0, 20), st.integers(0, 3))
    def test_invariants(self, lengths, more, spare):
        steps = max(1, max(lengths)) + more
        want = first_fit_decreasing(lengths, steps)
        packed = pack_sequences(counting(lengths), steps, rows=len(want) + spare)
        assert packed.xs.shape == (len(want) + spare, steps, 1)
        # Every step of every sequence lies in one place, and nothing else is there.
        places = np.full(packed.mask.shape, -1)
        flags = np.zeros(packed.mask.shape, bool)
        for i, length in enumerate(lengths):
            stretch = slice(packed.start[i], packed.start[i] + length)
            assert (places[packed.row[i], stretch] == -1).all()
            assert packed.start[i] + length <= steps
            places[packed.row[i], stretch] = i
            if length:
                flags[packed.row[i], packed.start[i]] = True
        np.testing.assert_array_equal(packed.mask, places >= 0)
        np.testing.assert_array_equal(packed.reset, flags)
        np.testing.assert_array_equal(packed.xs[..., 0], np.where(places >= 0, places, 0))
        # Rows are filled from the left, without holes.
        np.testing.assert_array_equal(packed.mask, np.sort(packed.mask)[:, ::-1])
        # They hold what first-fit decreasing puts there.
        for number, members in enumerate(want):
            assert np.flatnonzero(packed.row == number).tolist() == sorted(members)
        for i, one in enumerate(packed.unpack(packed.xs)):
            np.testing.assert_array_equal(one, counting(lengths)[i])

    @QUICK
    @given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    def test_rows_stay_within_the_bound(self, cuts):
        """Full rows are cut in pieces, so the fewest rows possible are known."""
        steps, fewest = 31, len(cuts)
        lengths = [piece for cut in cuts for piece in (cut, steps - cut)]
        packed = pack_sequences(counting(lengths), steps)
        assert fewest <= len(packed.xs) <= 11 / 9 * fewest + 6 / 9

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("make", [LSTM, GRU])
    def test_packed_rows_equal_each_sequence_alone(self, rng, reverse, make):
        sequences = ragged(rng, [3, 6, 1, 2, 0, 4, 5])
        cell = make(4)
        params = cell.init(jax.random.key(1), 3)
        packed = pack_sequences(sequences, 8, rows=4)
        assert packed.reset[0].sum() > 1  # there is something to get wrong
        _, ys = unroll(
            cell, params, None, packed.xs, mask=packed.mask, reset=packed.reset, reverse=reverse
        )
        for one, got in zip(sequences, packed.unpack(ys), strict=True):
            want = alone(cell, params, one, reverse=reverse)[1]
            np.testing.assert_allclose(got, want, **ROUNDING)

    def test_a_given_carry_reaches_no_sequence(self, rng):
        """The flag of a row's first step is set too: what is packed always starts anew."""
        packed = pack_sequences(ragged(rng, [3, 2]), 5)
        cell = GRU(4)
        params = cell.init(jax.random.key(1), 3)
        carry = jax.tree.map(lambda leaf: leaf + 1, cell.initial_carry(params, 1, jnp.float32))
        kinds = {"mask": packed.mask, "reset": packed.reset}
        _, want = unroll(cell, params, None, packed.xs, **kinds)
        _, got = unroll(cell, params, carry, packed.xs, **kinds)
        np.testing.assert_array_equal(got, want)

    def test_gradients_equal_the_sum_of_each_alone(self, rng):
        sequences = ragged(rng, [3, 5, 2])
        cell = LSTM(3)
        params = cell.init(jax.random.key(2), 3)
        packed = pack_sequences(sequences, 5)

        def together(params):
            ys = unroll(cell, params, None, packed.xs, mask=packed.mask, reset=packed.reset)[1]
            return jnp.sum(jnp.square(ys))

        def apart(params):
            return sum(jnp.sum(jnp.square(alone(cell, params, one)[1])) for one in sequences)

        got, want = jax.grad(together)(params), jax.grad(apart)(params)
        chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)

    def test_targets_lie_where_their_inputs_do(self, rng):
        lengths = rng.integers(0, 9, 20)
        inputs = pack_sequences(ragged(rng, lengths), 10)
        targets = pack_sequences(counting(lengths), 10)
        for name in ("mask", "reset", "row", "start", "lengths"):
            np.testing.assert_array_equal(getattr(targets, name), getattr(inputs, name))

    @pytest.mark.parametrize("dtype", [np.int32, np.bool_, jnp.bfloat16])
    def test_dtype_is_kept(self, dtype):
        packed = pack_sequences([np.ones(3, dtype), np.ones(2, dtype)], 4)
        assert packed.xs.dtype == dtype
        assert packed.unpack(jnp.asarray(packed.xs))[0].dtype == dtype

    def test_many_sequences(self, rng):
        lengths = rng.integers(1, 65, 2000)
        packed = pack_sequences([np.zeros(T, np.int8) for T in lengths], 256)
        assert lengths.sum() / packed.mask.size > 0.98

    def test_ranges(self):
        with pytest.raises(ValueError, match=r"^length: "):
            pack_sequences(counting([0]), 0)
        with pytest.raises(
            ValueError, match=r"sequences\[1\]: expected at most 4 time steps, got 5"
        ):
            pack_sequences(counting([2, 5]), 4)
        with pytest.raises(ValueError, match=r"rows: expected a value in \[2, inf\], got 1"):
            pack_sequences(counting([3, 3]), 4, rows=1)

    @pytest.mark.parametrize("shape", [(), (1,), (2, 3, 1), (1, 5, 1)])
    def test_outputs_of_other_rows(self, shape):
        packed = pack_sequences(counting([2, 3]), 5)
        assert packed.mask.shape == (1, 5)
        if shape == (1, 5, 1):
            assert len(packed.unpack(np.zeros(shape))) == 2
            return
        with pytest.raises(ValueError, match=r"ys: expected first axes \(1, 5\), got shape"):
            packed.unpack(np.zeros(shape))
