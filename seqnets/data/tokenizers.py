"""Tokenizers: convert text to integer ids and back, by bytes or by characters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seqnets.checks import did_you_mean
from seqnets.data.errors import DataError
from seqnets.files import read_json
from seqnets.typing import Int

__all__ = [
    "TOKENIZERS",
    "ByteTokenizer",
    "CharacterTokenizer",
    "Tokenizer",
    "Unseen",
    "read_tokenizer",
    "tokenizer_from_dict",
]

MAXIMUM_BYTES = 2**24
"""Larger than a file of all Unicode characters, each written as an escape."""

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


LINE_BREAK = "\n"


class Unseen(NamedTuple):
    """Characters of a text that did not occur in the text that a tokenizer was made from."""

    characters: str
    """The distinct unseen characters, in ascending order."""
    share: float
    """Their fraction of all characters of the text, in [0, 1]."""


class Tokenizer(Protocol):
    """Converts text to ids in ``[0, size)`` and back."""

    @property
    def size(self) -> int:
        """Vocabulary size V."""
        ...

    @property
    def beginning(self) -> int:
        """The id that precedes the beginning of a text: a line break."""
        ...

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """Return the ids of ``text``, [T] int32."""
        ...

    def decode(self, ids: ArrayLike) -> str:
        """Return the text of ``ids``, [T] int."""
        ...

    def unseen(self, text: str) -> Unseen:
        """Return which characters of ``text`` did not occur in training."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Describe the tokenizer in JSON types, for `tokenizer_from_dict`."""
        ...


@dataclass(frozen=True)
class ByteTokenizer:
    """Tokenize text into UTF-8 bytes: 256 ids for any text, without a learned vocabulary.

    Invalid UTF-8, such as part of a character, is decoded to U+FFFD. Bytes that did not occur in
    training keep their ids. A model is never trained on these ids, but evaluations count them as
    tokens.

    Args:
      seen: bytes that occurred in training, in ascending order, for `unseen`; None if unknown. The
        ids do not depend on them.

    Raises:
      ValueError: if ``seen`` is not ascending within [0, 256).

    Example:
      >>> ByteTokenizer().encode("né").tolist()
      [110, 195, 169]
    """

    seen: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        seen = self.seen or ()
        if list(seen) != sorted(set(seen) & set(range(256))):
            raise ValueError(f"seen: expected bytes in ascending order, got {list(seen)[:9]}")

    @classmethod
    def from_text(cls, text: str) -> ByteTokenizer:
        """Make a tokenizer that records the bytes of ``text``, for `unseen`.

        Raises:
          ValueError: if ``text`` holds a lone surrogate, which has no UTF-8 form.
        """
        return cls(tuple(sorted(set(_encoded(text, "utf-8")))))

    @property
    def size(self) -> int:
        """256."""
        return 256

    @property
    def beginning(self) -> int:
        """The byte of a line break."""
        return ord(LINE_BREAK)

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """Return the bytes of ``text``.

        Raises:
          ValueError: if ``text`` holds a lone surrogate, which has no UTF-8 form.
        """
        return np.frombuffer(_encoded(text, "utf-8"), np.uint8).astype(np.int32)

    def decode(self, ids: ArrayLike) -> str:
        """Return the text of ``ids``.

        Raises:
          TypeError: if ``ids`` are not integers.
          ValueError: if ``ids`` is not [T] or has values outside [0, 256).
        """
        return _checked_ids(ids, self.size).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def unseen(self, text: str) -> Unseen:
        """Return which characters of ``text`` have a byte that is not in ``seen``."""
        known = set(range(256) if self.seen is None else self.seen)
        return _unseen(text, lambda character: known.issuperset(_encoded(character, "utf-8")))

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"kind": "bytes"}``, with ``"seen"`` if known."""
        return {"kind": "bytes"} | ({} if self.seen is None else {"seen": list(self.seen)})


@dataclass(frozen=True)
class CharacterTokenizer:
    """Tokenize text into characters of a vocabulary; all others get id 0, decoded to U+FFFD.

    The text from which the vocabulary was made contains no other characters. A model of that text
    is therefore never trained on id 0, but evaluations count it as a token.

    Args:
      characters: distinct characters in ascending order; the id of ``characters[i]`` is i + 1.

    Raises:
      ValueError: if ``characters`` is empty, unsorted, or contains a character twice.

    Example:
      >>> tokenizer = CharacterTokenizer.from_text("banana")
      >>> tokenizer.decode(tokenizer.encode("bandana"))
      'ban�ana'
    """

    characters: str

    def __post_init__(self) -> None:
        points = _code_points(self.characters)
        if points.size == 0 or np.any(points[1:] <= points[:-1]):
            raise ValueError(
                f"characters: expected distinct characters in ascending order, "
                f"got {self.characters[:40]!r}"
            )

    @classmethod
    def from_text(cls, text: str) -> CharacterTokenizer:
        """Make a tokenizer whose vocabulary is all characters of ``text``.

        Raises:
          ValueError: if ``text`` is empty.
        """
        if not text:
            raise ValueError("text: expected at least one character, got none")
        return cls("".join(map(chr, np.unique(_code_points(text)))))

    @property
    def size(self) -> int:
        """The number of characters, plus 1 for unknown ones."""
        return len(self.characters) + 1

    @property
    def beginning(self) -> int:
        """The id of a line break or, if there is none, of the first character, often a space."""
        return max(self.characters.find(LINE_BREAK), 0) + 1

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        """Id of each code point up to the largest known one, then a 0 for all larger ones."""
        points = _code_points(self.characters)
        table = np.zeros(int(points[-1]) + 2, np.int32)
        table[points] = np.arange(1, self.size, dtype=np.int32)
        return table

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """Return the id of every character, 0 for those outside the vocabulary."""
        last = np.uint32(self._table.size - 1)
        return self._table[np.minimum(_code_points(text), last)]

    def decode(self, ids: ArrayLike) -> str:
        """Return the text of ``ids``, U+FFFD for id 0.

        Raises:
          TypeError: if ``ids`` are not integers.
          ValueError: if ``ids`` is not [T] or has values outside [0, size).
        """
        points = _code_points(UNKNOWN + self.characters)[_checked_ids(ids, self.size)]
        return points.tobytes().decode("utf-32-le", "surrogatepass")

    def unseen(self, text: str) -> Unseen:
        """Return which characters of ``text`` are not in the vocabulary."""
        return _unseen(text, set(self.characters).__contains__)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"kind": "characters", "characters": ...}``."""
        return {"kind": "characters", "characters": self.characters}


def tokenizer_from_dict(description: Mapping[str, Any]) -> ByteTokenizer | CharacterTokenizer:
    """Rebuild a tokenizer from the result of its ``to_dict``.

    Args:
      description: ``{"kind": "bytes"}``, with the list ``"seen"`` or without it; or
        ``{"kind": "characters", "characters": ...}``.

    Returns:
      An equal tokenizer.

    Raises:
      ValueError: if the kind is unknown, a key is missing or superfluous, or a value is wrong.
    """
    if not isinstance(description, Mapping):
        raise ValueError(f"tokenizer: expected an object, got {type(description).__name__}")
    kind = str(description.get("kind"))[:40]
    keys = {"bytes": {"kind"}, "characters": {"kind", "characters"}}
    if kind not in keys:
        raise ValueError(f"kind of tokenizer: got {kind!r}; {did_you_mean(kind, keys)}")
    if kind == "bytes" and "seen" in description:
        keys[kind].add("seen")
    if set(description) != keys[kind]:
        raise ValueError(
            f"tokenizer of kind {kind!r}: expected the keys {sorted(keys[kind])}, "
            f"got {sorted(map(str, description))[:9]}"
        )
    if kind == "bytes":
        return ByteTokenizer(_bytes_of(description["seen"]) if "seen" in description else None)
    characters = description["characters"]
    if not isinstance(characters, str):
        raise ValueError(f"characters: expected a string, got {type(characters).__name__}")
    return CharacterTokenizer(characters)


def _bytes_of(seen: Any) -> tuple[int, ...]:
    if not isinstance(seen, list) or any(type(byte) is not int for byte in seen):
        raise ValueError(f"seen: expected a list of bytes, got {str(seen)[:40]}")
    return tuple(seen)


def read_tokenizer(path: str | os.PathLike[str]) -> ByteTokenizer | CharacterTokenizer:
    """Read a tokenizer from a JSON file with the result of its ``to_dict``.

    Raises:
      DataError: if the file cannot be read, is larger than 16 MiB, or describes no tokenizer.
    """
    try:
        return tokenizer_from_dict(read_json(path, MAXIMUM_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not a tokenizer: {error}") from error


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text: expected Unicode characters, got the lone surrogate "
            f"{text[error.start]!r} at position {error.start}"
        ) from error


def _unseen(text: str, known: Callable[[str], bool]) -> Unseen:
    """The characters of ``text`` that are not known, and their fraction."""
    points, counts = np.unique(_code_points(text), return_counts=True)
    wrong = np.array([not known(chr(point)) for point in points], np.bool_)
    share = float(counts[wrong].sum() / max(counts.sum(), 1))
    return Unseen("".join(map(chr, points[wrong])), share)


def _code_points(text: str) -> NDArray[np.uint32]:
    """Code points of ``text``, [T]; lone surrogates are accepted, but are in no vocabulary."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _checked_ids(ids: ArrayLike, size: int) -> NDArray[Any]:
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids: expected one axis [T], got shape {array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"ids: expected integers, got dtype {array.dtype}")
    wrong = (array < 0) | (array >= size)
    if wrong.any():
        raise ValueError(f"ids: expected values in [0, {size}), got {array[wrong][0]}")
    return array.astype(np.int64)


TOKENIZERS: Mapping[str, Callable[[str], Tokenizer]] = {
    "byte": ByteTokenizer.from_text,
    "character": CharacterTokenizer.from_text,
}
"""Functions by name that make a tokenizer from the training text."""
