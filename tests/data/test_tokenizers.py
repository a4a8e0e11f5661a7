import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqnets.data.errors import DataError
from seqnets.data.text import read_texts
from seqnets.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    read_tokenizer,
    tokenizer_from_dict,
)

TEXTS = ["", "a", "naïve café", "漢字と𝄞 clef", "line\r\nline\n\0", "�"]
SAMPLE = "".join(TEXTS) + "bcd"
TOKENIZERS = [
    ByteTokenizer(),
    ByteTokenizer.from_text(SAMPLE),
    CharacterTokenizer.from_text(SAMPLE),
]

# UTF-8 has no form for surrogates, so a text that was read from a file holds none.
texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert np.all((ids >= 0) & (ids < tokenizer.size))
    assert tokenizer.decode(ids) == text


@given(texts)
def test_bytes_are_those_of_utf8(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(text).tolist() == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(texts.filter(bool), texts)
def test_characters_are_sorted_and_others_unknown(known, text):
    tokenizer = CharacterTokenizer.from_text(known)
    table = {c: i for i, c in enumerate(sorted(set(known)), 1)}
    assert tokenizer.size == len(table) + 1
    assert tokenizer.encode(text).tolist() == [table.get(c, 0) for c in text]
    assert tokenizer.decode(tokenizer.encode(text)) == "".join(
        c if c in table else "\ufffd" for c in text
    )


def test_unknown_characters_on_both_sides_of_the_table():
    tokenizer = CharacterTokenizer.from_text("mn")
    assert tokenizer.encode("amnz\U0010ffff").tolist() == [0, 1, 2, 0, 0]
    assert tokenizer.decode([0, 1, 2]) == "\ufffdmn"


@given(texts.filter(bool), texts)
def test_unseen_characters_and_their_share(known, text):
    """Against a count by hand: of characters, or of those with a byte that did not occur."""
    seen = set(known.encode())
    for tokenizer, new in (
        (CharacterTokenizer.from_text(known), lambda c: c not in known),
        (ByteTokenizer.from_text(known), lambda c: not set(c.encode()) <= seen),
        (ByteTokenizer(), lambda c: False),
    ):
        unseen = tokenizer.unseen(text)
        assert unseen.characters == "".join(sorted(filter(new, set(text))))
        assert unseen.share == pytest.approx(sum(map(new, text)) / max(len(text), 1), rel=1e-12)
        assert tokenizer.unseen(known) == ("", 0.0)


def test_the_bytes_that_were_seen_change_no_id():
    plain, made = ByteTokenizer(), ByteTokenizer.from_text("cab\n")
    assert made.seen == (10, 97, 98, 99)
    assert made.size == plain.size
    np.testing.assert_array_equal(made.encode("né"), plain.encode("né"))


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (ByteTokenizer(), "\n"),
        (CharacterTokenizer.from_text("to be\nor not"), "\n"),
        (CharacterTokenizer.from_text("to be\tor\nnot"), "\n"),
        (CharacterTokenizer.from_text("to be"), " "),
        (CharacterTokenizer.from_text("cab"), "a"),
    ],
)
def test_what_stands_before_a_text(tokenizer, text):
    assert tokenizer.decode([tokenizer.beginning]) == text


def test_broken_bytes_are_decoded_to_the_replacement_character():
    assert ByteTokenizer().decode([0xC3, 65]) == "\ufffdA"


def test_lone_surrogates():
    with pytest.raises(ValueError, match=r"text: .*lone surrogate '\\udcff' at position 1"):
        ByteTokenizer().encode("a\udcff")
    assert CharacterTokenizer.from_text("a").encode("a\udcff").tolist() == [1, 0]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_decode_refuses_what_is_no_id(tokenizer):
    for wrong in (-1, tokenizer.size):
        with pytest.raises(ValueError, match=rf"ids: expected values in \[0, {tokenizer.size}\), "):
            tokenizer.decode([0, wrong])
    with pytest.raises(TypeError, match="ids: expected integers, got dtype float64"):
        tokenizer.decode([0.0])
    with pytest.raises(ValueError, match=r"ids: expected one axis \[T\], got shape \(1, 1\)"):
        tokenizer.decode([[0]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_decode_takes_any_integers(tokenizer, dtype):
    ids = tokenizer.encode("abc")
    assert tokenizer.decode(ids.astype(dtype)) == "abc"


@pytest.mark.parametrize("characters", ["", "ba", "aa", "abcb"])
def test_characters_must_be_distinct_and_ascending(characters):
    with pytest.raises(ValueError, match="characters: expected distinct characters in ascending"):
        CharacterTokenizer(characters)


def test_a_vocabulary_needs_a_text():
    with pytest.raises(ValueError, match="text: expected at least one character"):
        CharacterTokenizer.from_text("")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_json_round_trip(tokenizer):
    assert tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))) == tokenizer


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ({}, "kind of tokenizer: got 'None'"),
        ({"kind": "byte"}, "got 'byte'; did you mean 'bytes'"),
        ({"kind": "bytes", "size": 256}, r"expected the keys \['kind'\], got \['kind', 'size'\]"),
        ({"kind": "bytes", "seen": "ab"}, "seen: expected a list of bytes, got ab"),
        ({"kind": "bytes", "seen": [True]}, "seen: expected a list of bytes"),
        ({"kind": "bytes", "seen": [2, 1]}, r"seen: expected bytes in ascending order, got \[2, 1"),
        ({"kind": "bytes", "seen": [256]}, "seen: expected bytes in ascending order"),
        ({"kind": "characters"}, r"expected the keys \['characters', 'kind'\], got \['kind'\]"),
        ({"kind": "characters", "characters": ["a"]}, "characters: expected a string, got list"),
        ({"kind": "characters", "characters": "ba"}, "expected distinct characters in ascending"),
        ({"kind": ["bytes"]}, "kind of tokenizer"),
    ],
)
def test_wrong_descriptions(description, told):
    with pytest.raises(ValueError, match=told):
        tokenizer_from_dict(description)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_million_characters_take_little_time(tokenizer):
    text = "abcd" * 250_000
    tokenizer.encode("a")
    begun = time.process_time()
    tokenizer.encode(text)
    # 4 ms were measured; a loop over characters takes more than 100.
    assert time.process_time() - begun < 0.1


@pytest.mark.data
def test_tiny_shakespeare_has_65_characters(data_dir):
    text = read_texts([data_dir / "text" / "tinyshakespeare.txt"])
    tokenizer = CharacterTokenizer.from_text(text)
    assert (len(text), tokenizer.size - 1) == (1_115_394, 65)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_tokenizer_is_read_from_its_file(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer.to_dict()))
    assert read_tokenizer(path) == tokenizer


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not a tokenizer: Expecting"),
        ("[1]", "not a tokenizer: tokenizer: expected an object, got list"),
        ("null", "expected an object, got NoneType"),
        ("[" * 100_000, "nested too deep"),
        ('{"kind": "bytes", "size": 99}', "expected the keys"),
        ('{"kind": {"a": "b"}}', "kind of tokenizer: got "),
        ('{"kind": "characters", "characters": ["a"]}', "expected a string, got list"),
        ('{"kind": "characters", "characters": "ba"}', "distinct characters in ascending order"),
    ],
)
def test_a_file_that_is_no_tokenizer(tmp_path, content, told):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError, match=told) as caught:
        read_tokenizer(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_file_of_a_tokenizer_may_not_fill_the_memory(tmp_path):
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(DataError, match="expected at most 16777216 bytes"):
        read_tokenizer(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_tokenizer(tmp_path / "none")


def test_all_characters_there_are_fit_into_the_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    every = CharacterTokenizer("".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000)))))
    path.write_text(json.dumps(every.to_dict()))
    assert read_tokenizer(path) == every
