"""Character models based on counts, without training, evaluated in bits per character.

Characters are Unicode code points. All characters of the validation text that do not occur in the
training text share one symbol, so that no model has to distinguish them.
"""

from __future__ import annotations

import lzma

import numpy as np

from seqnets.checks import check_range
from seqnets.typing import Float

__all__ = ["lzma_bits", "ngram_bits", "ngram_probabilities", "unigram_bits"]

_CODE_POINTS = 0x110000


def unigram_bits(train: str, validation: str) -> float:
    """Bits per character of a unigram model with add-one smoothing.

        p(c) = (n(c) + 1) / (N + V + 1)

    where the training text has N characters, V of them distinct, and c is one of these or the
    symbol for all others.

    Args:
      train: text to count.
      validation: text to predict.

    Returns:
      Mean of ``-log2 p`` over the validation characters.

    Raises:
      ValueError: if a text is empty.
    """
    symbols, targets, vocabulary = _encode(train, validation)
    counts = np.bincount(symbols, minlength=vocabulary) + 1
    return float(-np.mean(np.log2(counts / counts.sum())[targets]))


def ngram_bits(train: str, validation: str, order: int = 3) -> float:
    """Bits per character of the n-gram model of `ngram_probabilities`.

    Args:
      train: text to count.
      validation: text to predict.
      order: number of context characters, at least 0.

    Returns:
      Mean of ``-log2 p`` over the validation characters.

    Raises:
      ValueError: as in `ngram_probabilities`.
    """
    return float(-np.mean(np.log2(ngram_probabilities(train, validation, order))))


def ngram_probabilities(train: str, validation: str, order: int) -> Float[np.ndarray, " n"]:
    """Probability of each validation character after the ``order`` characters before it.

    This is interpolated Witten-Bell smoothing. For a context h of the last k characters,

        p_k(c | h) = (n(h c) + U(h) p_{k-1}(c | h')) / (N(h) + U(h))

    where n(h c) is the number of times that c follows h in the training text, N(h) the sum of
    n(h c) over c, U(h) the number of distinct c, and h' is h without its oldest character. p_{-1}
    is uniform over the distinct training characters and the symbol for all others. If h does not
    occur, p_k = p_{k-1}. The first validation characters have shorter contexts.

    Args:
      train: text to count.
      validation: text to predict, T characters.
      order: number of context characters, at least 0.

    Returns:
      [T] float64. For a fixed context, the probabilities of all symbols sum to 1.

    Raises:
      ValueError: if a text is empty, order is negative, or order is so large for the size of the
        vocabulary that an n-gram does not fit in 63 bits.

    References:
      Witten, Bell, The Zero-Frequency Problem, IEEE Transactions on Information Theory 37,
      1991 (method C); Chen, Goodman, An Empirical Study of Smoothing Techniques for Language
      Modeling, 1996, arXiv:cmp-lg/9606011 (interpolated).
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
    """Bits per character of the UTF-8 bytes of the text, compressed by LZMA at its highest level.

    Args:
      validation: text to compress.

    Returns:
      Bits of the compressed text per character.

    Raises:
      ValueError: if the text is empty.
    """
    _check_text("validation", validation)
    data = validation.encode("utf-8", "surrogatepass")
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(validation)


def _interpolate(
    train: np.ndarray, grams: np.ndarray, lower: np.ndarray, vocabulary: int
) -> np.ndarray:
    """One step of the recursion, from the n-gram codes of both texts and p_{k-1} to p_k."""
    known, counts = np.unique(train, return_counts=True)
    contexts, first = np.unique(known // vocabulary, return_index=True)
    followers = np.diff(first, append=known.size)  # U(h): `known` is sorted by context
    totals = np.add.reduceat(counts, first)  # N(h)
    count = _lookup(known, counts, grams)
    total = _lookup(contexts, totals, grams // vocabulary)
    unique = _lookup(contexts, followers, grams // vocabulary)
    return np.where(total > 0, (count + unique * lower) / np.maximum(total + unique, 1), lower)


def _grams(symbols: np.ndarray, k: int, vocabulary: int) -> np.ndarray:
    """Codes of all n-grams of k + 1 symbols, oldest symbol most significant; [T - k] int64."""
    codes = np.zeros(symbols.size - k, np.int64)
    for offset in range(k + 1):
        codes = codes * vocabulary + symbols[offset : offset + codes.size]
    return codes


def _lookup(keys: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The value of each query in the sorted keys; 0 if it is not among them."""
    place = np.minimum(np.searchsorted(keys, queries), keys.size - 1)
    return np.where(keys[place] == queries, values[place], 0)


def _encode(train: str, validation: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Both texts as int64 symbols and the size of the vocabulary, whose last symbol is unseen."""
    known, texts = np.zeros(_CODE_POINTS, bool), []
    for name, text in (("train", train), ("validation", validation)):
        _check_text(name, text)
        texts.append(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32))
    known[texts[0]] = True
    vocabulary = int(known.sum()) + 1
    table = np.where(known, np.cumsum(known) - 1, vocabulary - 1)
    return table[texts[0]], table[texts[1]], vocabulary


def _check_text(name: str, text: str) -> None:
    """Raise if the text is empty."""
    if not text:
        raise ValueError(f"{name}: expected at least one character, got an empty text")
