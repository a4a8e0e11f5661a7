import sysconfig
from pathlib import Path

import pytest

from seqnets.data.builtin.standard_library import source_split, standard_library
from seqnets.data.errors import DataError


@pytest.fixture
def library(tmp_path):
    """Forty modules, and much that does not belong."""
    for i in range(40):
        path = tmp_path / ("pack" if i % 2 else "") / f"module_{i}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"x = {i}\n" * (i + 1), newline="")
    for name in [
        "test/test_a.py",
        "pack/tests/test_b.py",
        "idle_test/test_c.py",
        "site-packages/other.py",
        "dist-packages/other.py",
        "__pycache__/module_1.py",
        "encodings/cp437.py",
        "pydoc_data/topics.py",
        "config-3.12-machine/python-config.py",
        "_sysconfigdata_linux.py",
        "sitecustomize.py",
        "notes.txt",
        "module.pyc",
    ]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("unwanted\n")
    (tmp_path / "latin.py").write_bytes("x = 'é'\n".encode("latin-1"))
    (tmp_path / "empty.py").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.py").mkdir()
    return tmp_path


def test_every_module_is_in_one_part(library):
    split = source_split(library)
    names = [file.path for part in split for file in part]
    assert sorted(names) == sorted(f"{'pack/' if i % 2 else ''}module_{i}.py" for i in range(40))
    assert 1 <= len(split.validation) <= 10
    for part in split:
        assert part == sorted(part)
        for file in part:
            assert file.text == (library / file.path).read_text()


def test_the_split_depends_on_the_path_alone(library):
    before = [[file.path for file in part] for part in source_split(library)]
    for path in library.rglob("module_*.py"):
        path.write_text("y = 0\r\n", newline="")
    after = source_split(library)
    assert [[file.path for file in part] for part in after] == before
    assert {file.text for part in after for file in part} == {"y = 0\n"}
    (library / "module_3.txt").touch()
    (library / "zz.py").write_text("z\n")
    more = source_split(library)
    for old, new in zip(before, more, strict=True):
        assert set(old) <= {file.path for file in new} <= {*old, "zz.py"}


def test_caps(library):
    full = source_split(library)
    caps = [sum(len(file.text) for file in part) // 2 for part in full]
    split = source_split(library, max_characters=caps[0], max_validation_characters=caps[1])
    for part, whole, cap in zip(split, full, caps, strict=True):
        assert sum(len(file.text) for file in part) <= cap
        assert set(part) < set(whole)
    assert sum(len(file.text) for file in split.train) > 0.9 * caps[0]
    # Filled by hash: not the beginning of the alphabet.
    taken = [file.path for file in split.train]
    assert taken != [file.path for file in full.train][: len(taken)]


def test_no_source(tmp_path):
    with pytest.raises(DataError, match="expected Python source files, got too few to split"):
        source_split(tmp_path / "absent")


def test_the_running_python():
    train, validation = standard_library()
    files = source_split()
    assert train == "".join(file.text for file in files.train)
    assert validation == "".join(file.text for file in files.validation)
    assert 3_800_000 < len(train) <= 4_000_000
    assert 200_000 < len(validation) <= 300_000
    folder = Path(sysconfig.get_paths()["stdlib"])
    assert all((folder / file.path).is_file() for part in files for file in part)
    assert not {file.path for file in files.train} & {file.path for file in files.validation}
    firsts = {file.path[0].lower() for file in files.train}
    assert len(firsts) > 15
