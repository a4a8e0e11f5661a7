import gzip
import math

import chex
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqnets.data import text as text_module
from seqnets.data.errors import DataError
from seqnets.data.source import Share
from seqnets.data.text import (
    Excerpt,
    TextStream,
    evaluation_batches,
    evaluation_span,
    read_texts,
    split_tail,
    training_span,
)


def stream(n, batch_size=3, chunk_length=4, seed=7, fresh_starts=0.0):
    return TextStream(
        np.arange(n),
        batch_size=batch_size,
        chunk_length=chunk_length,
        seed=seed,
        fresh_starts=fresh_starts,
    )


class TestReadTexts:
    def test_files_are_joined_as_they_are(self, tmp_path):
        first, second = tmp_path / "a", tmp_path / "b.txt"
        first.write_bytes("eins\r\nzwö".encode())
        second.write_bytes(gzip.compress(b"lf\r"))
        assert read_texts([first, str(second)]) == "eins\r\nzwölf\r"
        assert read_texts((second, first)) == "lf\reins\r\nzwö"

    def test_mistakes_name_the_file(self, tmp_path):
        good, bad = tmp_path / "good", tmp_path / "bad"
        good.write_bytes(b"ok\n")
        for content, told in [(b"", "empty"), (b"ok\xff", "line 1: expected UTF-8")]:
            bad.write_bytes(content)
            with pytest.raises(DataError, match=rf"/bad: .*{told}"):
                read_texts([good, bad])
        with pytest.raises(DataError, match=r"/none: cannot be read: No such file"):
            read_texts([tmp_path / "none"])

    def test_the_limit_holds_for_all_files_together(self, tmp_path, monkeypatch):
        monkeypatch.setattr(text_module, "MAXIMUM_BYTES", 5)
        path = tmp_path / "three"
        path.write_bytes(b"abc")
        assert read_texts([path]) == "abc"
        with pytest.raises(DataError, match="at most 2 bytes"):
            read_texts([path, path])

    @pytest.mark.parametrize("one", ["name", b"name"])
    def test_one_name_is_not_a_sequence_of_names(self, one):
        with pytest.raises(TypeError, match="paths: expected a sequence of file names, got one"):
            read_texts(one)

    def test_no_file(self):
        with pytest.raises(ValueError, match="paths: expected at least one file"):
            read_texts([])


class TestSplitTail:
    @given(st.text(min_size=2), st.floats(0.001, 0.999))
    def test_parts_join_to_the_text(self, text, fraction):
        train, validation = split_tail(text, fraction)
        assert train + validation == text
        assert train
        assert validation
        assert abs(len(validation) - fraction * len(text)) <= 1

    def test_the_tail_is_for_validation(self):
        assert split_tail("0123456789", 0.2) == ("01234567", "89")

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
    def test_fraction_out_of_range(self, fraction):
        with pytest.raises(ValueError, match="fraction: expected a value in"):
            split_tail("text", fraction)

    def test_too_short(self):
        with pytest.raises(DataError, match="at least 2 characters to split, got 1"):
            split_tail("x", 0.5)


class TestTextStream:
    """Over tokens 0, 1, 2, ... every token says where it was read."""

    def test_targets_are_the_next_tokens(self):
        batch = stream(100).batch(5)
        np.testing.assert_array_equal(batch.targets, batch.inputs + 1)
        assert batch.inputs.shape == batch.targets.shape == batch.reset.shape == (3, 4)
        assert batch.inputs.dtype == batch.targets.dtype == np.int32
        assert batch.reset.dtype == np.bool_

    def test_tokens_are_read_not_their_places(self, rng):
        tokens = rng.permutation(200).astype(np.int64)
        read = TextStream(tokens, batch_size=3, chunk_length=4, seed=7).batch(2)
        place = stream(200).batch(2)
        np.testing.assert_array_equal(read.inputs, tokens[place.inputs])
        np.testing.assert_array_equal(read.targets, tokens[place.targets])

    @pytest.mark.parametrize("n", [13, 16, 17, 25, 27, 28, 40, 100, 101])
    def test_rows_go_on_within_an_epoch(self, n):
        one = stream(n)
        last = one.steps_per_epoch
        assert last == max(1, (n - 4) // 12)
        for epoch in range(4):
            batches = [one.batch(epoch * last + j) for j in range(last)]
            rows = np.concatenate([batch.inputs for batch in batches], axis=1)
            np.testing.assert_array_equal(np.diff(rows, axis=1), 1)
            reset = np.concatenate([batch.reset for batch in batches], axis=1)
            assert reset[:, 0].all()
            assert not reset[:, 1:].any()
            read = rows.ravel()  # the rows lie end to end: no prediction twice
            np.testing.assert_array_equal(np.diff(read), 1)
            assert n - 1 - read.size < 4 * (3 + 1)

    def test_epochs_cut_elsewhere(self):
        one = stream(101, batch_size=2, chunk_length=8)
        starts = {int(one.batch(e * one.steps_per_epoch).inputs[0, 0]) for e in range(200)}
        spare = 100 - 2 * one.steps_per_epoch * 8
        assert starts == set(range(spare + 1))  # 200 draws of at most 24 values miss none
        assert {start % 8 for start in starts} == set(range(8))

    def test_a_batch_depends_on_seed_and_number_alone(self):
        order = [9, 0, 30, 9, 2]
        one, other = stream(60), stream(60)
        for k in order:
            first, second = one.batch(k), other.batch(k)
            for x, y in zip(first, second, strict=True):
                np.testing.assert_array_equal(x, y)
        last = one.steps_per_epoch
        firsts = [stream(60, seed=s).batch(last * 3).inputs[0, 0] for s in range(20)]
        assert len(set(firsts)) > 3

    def test_rows_begin_afresh_at_random(self):
        """As often as asked for, at the first step of a batch, by seed, number, and row alone."""
        B, T, n = 16, 4, 2000
        given = {"batch_size": B, "chunk_length": T, "seed": 3}
        carried = TextStream(np.arange(n), **given)
        one, other = (TextStream(np.arange(n), **given, fresh_starts=0.1) for _ in range(2))
        numbers = [k for k in range(1000) if k % one.steps_per_epoch]
        draws = []
        for k in reversed(numbers):
            batch = one.batch(k)
            chex.assert_trees_all_equal(batch, other.batch(k))
            chex.assert_trees_all_equal(batch[:2], carried.batch(k)[:2])
            assert not batch.reset[:, 1:].any()
            assert not carried.batch(k).reset.any()
            draws.append(batch.reset[:, 0])
            third = one.batch(k, Share(1, 3))
            chex.assert_trees_all_equal(third.reset, batch.reset[Share(1, 3).rows(B)])
        # 15,500 draws: 0.1 within 5 deviations of sqrt(0.09 / 15,500); each row has its turn.
        np.testing.assert_allclose(np.mean(draws), 0.1, atol=0.012)
        assert np.any(draws, axis=0).all()
        assert len({tuple(draw) for draw in draws}) > 100
        varied = TextStream(np.arange(n), **(given | {"seed": 4}), fresh_starts=0.1)
        assert any(np.any(varied.batch(k).reset != one.batch(k).reset) for k in range(1, 20))

    def test_the_least_text(self):
        batch = stream(13).batch(10**9)
        np.testing.assert_array_equal(batch.inputs.ravel(), np.arange(12))
        with pytest.raises(
            DataError, match=r"at least batch_size · chunk_length \+ 1 = 13, got 12"
        ):
            stream(12)

    def test_batches_do_not_share_memory_with_the_tokens(self):
        tokens = np.arange(13, dtype=np.int32)
        one = TextStream(tokens, batch_size=3, chunk_length=4, seed=0)
        one.batch(0).inputs[:] = -1
        assert tokens.min() == 0

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"batch_size": 0}, "batch_size"),
            ({"chunk_length": 0}, "chunk_length"),
            ({"seed": -1}, "seed"),
            ({"fresh_starts": 1.1}, "fresh_starts"),
        ],
    )
    def test_numbers_out_of_range(self, changed, told):
        with pytest.raises(ValueError, match=f"{told}: expected a value in"):
            stream(100, **changed)

    def test_negative_batch_number(self):
        with pytest.raises(ValueError, match="k: expected a value in"):
            stream(100).batch(-1)

    @pytest.mark.parametrize(
        "make",
        [
            lambda t: TextStream(t, batch_size=1, chunk_length=1, seed=0),
            lambda t: evaluation_batches(t, 1, 1),
        ],
    )
    def test_tokens_are_one_axis_of_integers(self, make):
        with pytest.raises(TypeError, match="tokens: expected an array of ints"):
            make(np.zeros(9))
        with pytest.raises(ValueError, match=r"tokens: expected shape \[n\]"):
            make(np.zeros((9, 1), int))


class TestEvaluationBatches:
    @given(st.integers(2, 60), st.integers(1, 9), st.integers(1, 9))
    def test_every_prediction_comes_once(self, n, rows, steps):
        tokens = 100 + np.arange(n)
        batches = evaluation_batches(tokens, rows, steps)
        inputs = np.concatenate([batch.inputs for batch in batches], axis=1)
        targets = np.concatenate([batch.targets for batch in batches], axis=1)
        mask = np.concatenate([batch.mask for batch in batches], axis=1)
        assert {batch.inputs.shape for batch in batches} == {(rows, steps)}
        assert len(batches) == math.ceil(math.ceil((n - 1) / rows) / steps)
        np.testing.assert_array_equal(inputs[mask], tokens[:-1])  # in row-major order: contiguous
        np.testing.assert_array_equal(targets[mask], tokens[1:])
        assert not inputs[~mask].any()
        assert not targets[~mask].any()
        # Each row's real steps come first, so that the state is carried over no gap.
        assert not np.any(mask[:, 1:] & ~mask[:, :-1])

    def test_types(self):
        batch = evaluation_batches(np.arange(9, dtype=np.uint8), 2, 3)[0]
        assert [x.dtype for x in batch] == [np.int32, np.int32, np.bool_]

    @pytest.mark.parametrize(("rows", "steps", "told"), [(0, 1, "rows"), (1, 0, "chunk_length")])
    def test_numbers_out_of_range(self, rows, steps, told):
        with pytest.raises(ValueError, match=f"{told}: expected a value in"):
            evaluation_batches(np.arange(9), rows, steps)

    def test_too_short(self):
        with pytest.raises(DataError, match="tokens: expected at least 2, got 1"):
            evaluation_batches(np.arange(1), 1, 1)


def excerpt(tokens, span):
    return Excerpt(tokens[span], span.start, len(tokens))


@pytest.mark.parametrize("n", [41, 47, 48, 80, 203])
def test_some_rows_of_a_stream_need_their_span_only(n, rng):
    tokens, B, T = rng.integers(0, 99, n), 4, 10
    given = {"batch_size": B, "chunk_length": T, "seed": int(rng.integers(99))}
    whole = TextStream(tokens, **given)
    for share in (Share(0, 4), Share(1, 2), Share(3, 4), Share(0, 1)):
        rows = share.rows(B)
        part = TextStream(excerpt(tokens, training_span(n, B, T, rows)), **given)
        for k in range(9 * whole.steps_per_epoch):
            got, want = part.batch(k, share), whole.batch(k)
            for one, other in zip(got, want, strict=True):
                np.testing.assert_array_equal(one, other[rows])
    spans = [training_span(n, B, T, slice(b, b + 1)) for b in range(B)]
    assert spans[0].start == 0
    assert spans[-1].stop == n
    assert max(span.stop - span.start for span in spans) <= n // B + (B + 1) * T


@pytest.mark.parametrize("n", [2, 5, 40, 41])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_share_of_an_evaluation_needs_its_span_only(n, each, rng):
    tokens, rows, T = rng.integers(1, 99, n), 4, 6
    whole = evaluation_batches(tokens, rows, T)
    for first in range(0, rows, each):
        share = slice(first, first + each)  # may reach beyond the rows: then it is padded
        part = excerpt(tokens, evaluation_span(n, rows, share))
        for got, want in zip(evaluation_batches(part, rows, T, share), whole, strict=True):
            for one, other in zip(got, want, strict=True):
                assert one.shape == (each, T)
                there = other[share]
                np.testing.assert_array_equal(one[: len(there)], there)
                assert not one[len(there) :].any()


def test_what_is_not_at_hand():
    part = Excerpt(np.arange(5, 9), 5, 20)
    np.testing.assert_array_equal(part.at(np.array([8, 5])), [8, 5])
    for position in (4, 9):
        with pytest.raises(IndexError, match=f"expected 5 to 8, got {position}"):
            part.at(np.array([6, position]))
