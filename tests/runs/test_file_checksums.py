"""One flipped bit in what a run rests on is noticed, or changes nothing."""

import tomllib

import pytest

from seqnets.runs.file_checksums import check_checksums, with_checksums

CONFIG = "[data]\nseason = 12\n"
FILES = {"tokenizer.json": '["a", "b"]', "series.csv": "1,2\n"}


@pytest.fixture
def config(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "config.toml"
    path.write_text(with_checksums(path.name, CONFIG, FILES))
    return path


def values(path):
    try:
        return tomllib.loads(path.read_text())
    except ValueError:
        return None


@pytest.mark.parametrize("name", ["config.toml", *FILES])
def test_a_flipped_bit(config, name):
    check_checksums(config)
    path = config.with_name(name)
    whole, want = path.read_bytes(), values(config)
    noticed = 0
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                check_checksums(config)
            except ValueError as error:
                noticed += 1
                assert "is damaged or was changed" in str(error)  # noqa: PT017
            else:
                # Of the lines of checksums: they are comments, or no TOML any more.
                assert name == "config.toml"
                assert values(config) in (want, None)
                assert place >= len(CONFIG)
    assert noticed >= 8 * len(CONFIG if name == "config.toml" else FILES[name])


def test_a_change_by_hand_is_named_and_can_be_allowed(config):
    config.write_text(config.read_text().replace("season = 12", "season = 24"))
    with pytest.raises(ValueError, match=r"config.toml: .* remove the checksums at the end"):
        check_checksums(config)
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("#")))
    check_checksums(config)
    assert values(config) == {"data": {"season": 24}}


def test_lines_after_the_checksums_are_a_change(config):
    config.write_text(config.read_text() + "[train]\nseed = 3\n")
    with pytest.raises(ValueError, match="was changed"):
        check_checksums(config)


def test_names_lead_nowhere_else(config):
    """A run from elsewhere cannot have other files read."""
    config.write_text(CONFIG + f"# sha256 ../x {'0' * 64}\n# sha256 /etc/passwd {'0' * 64}\n")
    check_checksums(config)
