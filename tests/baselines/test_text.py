import lzma
import math
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from seqnets.baselines import lzma_bits, ngram_bits, ngram_probabilities, unigram_bits


def random_text(rng, length, letters="abcdeé語"):
    return "".join(rng.choice(list(letters), size=length))


def witten_bell(train, context, character):
    """The recursion in exact fractions; a character the training text lacks is any such one."""
    known = sorted(set(train))
    if context is None:
        return Fraction(1, len(known) + 1)
    lower = witten_bell(train, context[1:] if context else None, character)
    positions = range(len(train) - len(context))
    followers = Counter(
        train[i + len(context)] for i in positions if train[i : i + len(context)] == context
    )
    if not followers:
        return lower
    count = followers[character]
    return (count + len(followers) * lower) / (followers.total() + len(followers))


def test_unigram_by_hand():
    # a 3, b 1 and the unseen symbol: (4, 2, 1) / 7.
    bits = unigram_bits("aaba", "abz")
    assert bits == pytest.approx(-(math.log2(4 / 7) + math.log2(2 / 7) + math.log2(1 / 7)) / 3)


def test_ngram_by_hand():
    # train "abab": p_{-1} = 1/3; p_0(a) = (2 + 2/3) / 6 = 4/9 = p_0(b); after a, always b:
    # p_1(b | a) = (2 + 4/9) / 3 = 22/27.
    got = ngram_probabilities("abab", "ab", order=1)
    np.testing.assert_allclose(got, [4 / 9, 22 / 27], rtol=1e-14)


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_ngram_equals_the_recursion_in_fractions(rng, order):
    train, validation = random_text(rng, 60, "abc"), random_text(rng, 25, "abcdé")
    got = ngram_probabilities(train, validation, order)
    expected = [
        float(witten_bell(train, validation[max(t - order, 0) : t], validation[t]))
        for t in range(len(validation))
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-12)  # float64, a few operations an order
    bits = ngram_bits(train, validation, order)
    assert bits == pytest.approx(-np.mean(np.log2(expected)), rel=1e-12)


@pytest.mark.parametrize("order", [0, 2, 3])
def test_ngram_probabilities_sum_to_one(rng, order):
    train = random_text(rng, 400)
    for _ in range(20):
        context = random_text(rng, order + 1, "abcdeé語?")  # "?" was never seen
        symbols = [*sorted(set(train)), "!"]  # "!" stands for everything unseen
        total = sum(ngram_probabilities(train, context + c, order)[-1] for c in symbols)
        assert total == pytest.approx(1, rel=1e-12)


def test_texts_shorter_than_the_context():
    assert ngram_probabilities("a", "a", 4)[0] == pytest.approx(float(witten_bell("a", "", "a")))
    got = ngram_probabilities("ab", "abab", 4)
    expected = [float(witten_bell("ab", "abab"[:t], "abab"[t])) for t in range(4)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_unseen_characters_share_one_symbol():
    assert (
        unigram_bits("abc", "x") == unigram_bits("abc", "語") == unigram_bits("abc", "\U0010ffff")
    )
    assert ngram_bits("abc", "axb") == ngram_bits("abc", "a語b")


def test_lone_surrogates_are_characters_too():
    assert math.isfinite(unigram_bits("a\ud800", "\ud800"))
    assert math.isfinite(lzma_bits("a\ud800"))


def test_more_context_helps_on_text_with_structure(rng):
    words = ["the", "cat", "sat", "on", "mat", "and", "dog"]
    train, validation = (" ".join(rng.choice(words, size=n)) for n in (2000, 300))
    bits = [unigram_bits(train, validation), *(ngram_bits(train, validation, k) for k in (1, 2, 3))]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < 0.6 * bits[0]


def test_lzma_counts_bytes_and_divides_by_characters():
    text = "語" * 500 + "abc"
    size = len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    assert lzma_bits(text) == 8 * size / 503
    assert lzma_bits(text) < lzma_bits(text[-20:])


def test_each_mistake_is_named():
    for function in (unigram_bits, ngram_bits):
        with pytest.raises(ValueError, match="train"):
            function("", "a")
        with pytest.raises(ValueError, match="validation"):
            function("a", "")
    with pytest.raises(ValueError, match="validation"):
        lzma_bits("")
    with pytest.raises(ValueError, match="order"):
        ngram_bits("a", "a", -1)
    with pytest.raises(ValueError, match="order"):
        ngram_bits("abcdefg", "a", 21)  # 8 ** 22 > 2 ** 63
    assert math.isfinite(ngram_bits("abcdefg" * 9, "a" * 30, 20))  # 8 ** 21 is the largest


def test_four_million_characters_take_seconds(rng):
    train, validation = random_text(rng, 4_000_000), random_text(rng, 300_000)
    start = time.perf_counter()
    bits = ngram_bits(train, validation)
    assert time.perf_counter() - start < 20  # about 0.7 s on an idle machine
    # Independent uniform characters cannot be predicted: log2 7 bits, and little is lost.
    assert bits == pytest.approx(math.log2(7), abs=0.01)
