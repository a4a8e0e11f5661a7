"""Character models that are only counted, never trained, in bits per character.

Characters are Unicode code points. All characters of the validation text that the training text
lacks share one symbol, so that no model is charged for telling them apart.
"""

from __future__ import annotations

import lzma

import numpy as np

from seqnets.checks import check_range
from seqnets.typing import Float

__all__ = ["lzma_bits", "ngram_bits", "ngram_probabilities", "unigram_bits"]

_CODE_POINTS = 0x110000


def unigram_bits(train: str, validation: str) -> float:
    """Bits per character of single characters, with add-one smoothing.

        p(c) = (n(c) + 1) / (N + V + 1)

    for the V characters of the training text, of N characters, and one symbol for all others.

    Raises:
      ValueError: if a text is empty.
    """
    symbols, targets, vocabulary = _encode(train, validation)
    counts = np.bincount(symbols, minlength=vocabulary) + 1
    return float(-np.mean(np.log2(counts / counts.sum())[targets]))


def ngram_bits(train: str, validation: str, order: int = 3) -> float:
    """Bits per character of `ngram_probabilities`.

    Raises:
      ValueError: as `ngram_probabilities`.
    """
    return float(-np.mean(np.log2(ngram_probabilities(train, validation, order))))


def ngram_probabilities(train: str, validation: str, order: int) -> Float[np.ndarray, " n"]:
    """Probability of each validation character after the ``order`` characters before it.

    Interpolated Witten-Bell smoothing: with h the last k characters, n(h c) how often c followed
    them in the training text, N(h) the sum of n(h c) and U(h) the number of different c,

        p_k(c | h) = (n(h c) + U(h) p_{k-1}(c | h')) / (N(h) + U(h))

    where h' is h without its oldest character, and p_{-1} is uniform over the training
    characters and one symbol for all others. An h that never occurred leaves p_{k-1} as it is.
    The first characters of the validation text have only the characters before them.

    Args:
      train: text to count.
      validation: text to predict, [T] characters.
      order: characters of context, 0 or more.

    Returns:
      [T] float64; over all symbols after one context they sum to 1.

    Raises:
      ValueError: if a text is empty, order is negative, or so high for the size of the
        vocabulary that an n-gram does not fit 63 bits.

    References:
      Witten, Bell, The Zero-Frequency Problem, IEEE Transactions on Information Theory 37,
      1991 (their method C); Chen, Goodman, An Empirical Study of Smoothing Techniques for
      Language Modeling, 1996, arXiv:cmp-lg/9606011 (interpolated).
    """
    check_range("order", order, 0)
    symbols, targets, vocabulary = _encode(train, validation)
    if vocabulary ** (order + 1) > 2**63:
        raise ValueError(f"order: {vocabulary} ** (order + 1) must fit in 63 bits, got {order}")
    probability = np.full(targets.size, 1 / vocabulary)
    longest = min(order, symbols.size - 1, targets.size - 1)
    for k in range(longest + 1):  # the first k positions keep their shorter context
        train_grams, grams = _grams(symbols, k, vocabulary), _grams(targets, k, vocabulary)
        probability[k:] = _interpolate(train_grams, grams, probability[k:], vocabulary)
    return probability


def lzma_bits(validation: str) -> float:
    """Bits per character of the text's UTF-8 bytes compressed by LZMA alone, at its strongest.

    Raises:
      ValueError: if the text is empty.
    """
    _check_text("validation", validation)
    data = validation.encode("utf-8", "surrogatepass")
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(validation)


def _interpolate(
    train: np.ndarray, grams: np.ndarray, lower: np.ndarray, vocabulary: int
) -> np.ndarray:
    """One step of the recursion: n-gram codes of both texts and p_{k-1} to p_k."""
    known, counts = np.unique(train, return_counts=True)
    contexts, first = np.unique(known // vocabulary, return_index=True)
    followers = np.diff(first, append=known.size)  # U(h): `known` is sorted by context
    totals = np.add.reduceat(counts, first)  # N(h)
    count = _lookup(known, counts, grams)
    total = _lookup(contexts, totals, grams // vocabulary)
    unique = _lookup(contexts, followers, grams // vocabulary)
    return np.where(total > 0, (count + unique * lower) / np.maximum(total + unique, 1), lower)


def _grams(symbols: np.ndarray, k: int, vocabulary: int) -> np.ndarray:
    """Codes of all n-grams of k + 1 symbols, the oldest most significant; [T - k] int64."""
    codes = np.zeros(symbols.size - k, np.int64)
    for offset in range(k + 1):
        codes = codes * vocabulary + symbols[offset : offset + codes.size]
    return codes


def _lookup(keys: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The value of each query among the sorted keys, 0 where it is not among them."""
    place = np.minimum(np.searchsorted(keys, queries), keys.size - 1)
    return np.where(keys[place] == queries, values[place], 0)


def _encode(train: str, validation: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Both texts as int64 symbols below the vocabulary, whose last symbol is the unseen one."""
    known, texts = np.zeros(_CODE_POINTS, bool), []
    for name, text in (("train", train), ("validation", validation)):
        _check_text(name, text)
        texts.append(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32))
    known[texts[0]] = True
    vocabulary = int(known.sum()) + 1
    table = np.where(known, np.cumsum(known) - 1, vocabulary - 1)
    return table[texts[0]], table[texts[1]], vocabulary


def _check_text(name: str, text: str) -> None:
    """Raise unless there is a character."""
    if not text:
        raise ValueError(f"{name}: expected at least one character, got an empty text")
