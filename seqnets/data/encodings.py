"""Guess the encoding of a text that is not UTF-8 from its bytes."""

from __future__ import annotations

import codecs

__all__ = ["likely_encoding"]

MARKS = (  # the mark of UTF-32 begins with the mark of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
ZEROS = {  # which of four bytes are 0, in text mostly of code points below 256
    (False, True, True, True): "UTF-32LE",
    (True, True, True, False): "UTF-32BE",
    (False, True, False, True): "UTF-16LE",
    (True, False, True, False): "UTF-16BE",
}
SAMPLE = 2**12
# Every fourth byte belongs to one column. A column with at least the share MOST of zeros counts as
# zeros, and one with at most the share FEW as text; with any other share, nothing is likely.
MOST, FEW = 0.6, 0.1
FOREIGN = 0.4  # fraction of non-ASCII bytes from which a text is not in a Latin script


def likely_encoding(data: bytes, at: int = 0) -> str | None:
    """Guess the encoding of a text by its byte order mark, zero bytes, or non-ASCII bytes.

    Args:
      data: the text.
      at: byte offset of the sample in which zero and non-ASCII bytes are counted.

    Returns:
      The name that ``iconv`` uses; None if the text may be (damaged) UTF-8 or nothing is likely.

    Example:
      >>> likely_encoding("naïve".encode("utf-16"))
      'UTF-16'
    """
    for mark, name in MARKS:
        if data.startswith(mark):
            return name
    start = at - at % 4
    sample = data[start : start + SAMPLE]
    return _by_zeros(sample) or _by_high_bytes(sample)


def _by_zeros(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark."""
    columns = [sample[start::4] for start in range(4)]
    shares = [column.count(0) / max(len(column), 1) for column in columns]
    if any(FEW < share < MOST for share in shares):
        return None
    return ZEROS.get(tuple(share >= MOST for share in shares))  # type: ignore[arg-type]


def _by_high_bytes(sample: bytes) -> str | None:
    """A Western single-byte encoding, in which few bytes are not ASCII."""
    high = sum(byte >= 0x80 for byte in sample)
    if not 0 < high < FOREIGN * len(sample) or 0 in sample:
        return None
    if not sample.decode("utf-8", "ignore").isascii():
        return None  # some characters are valid UTF-8, so probably all are meant to be
    return "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in sample) else "ISO-8859-1"
