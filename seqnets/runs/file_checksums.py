"""Checksums of the files of a run, as comments at the end of its configuration."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from seqnets.files import read_at_most

__all__ = ["check_checksums", "with_checksums"]

MAXIMUM_BYTES = 2**16  # of a configuration with its checksums
HEAD = "\n# Checksums (SHA-256). Remove these lines to allow changes to the files.\n"
LINE = re.compile(rb"^# sha256 ([\w.-]+) ([0-9a-f]{64})\n?$")


def with_checksums(name: str, text: str, files: Mapping[str, str]) -> str:
    """Append checksums of other files, and of all preceding lines, to a configuration.

    Args:
      name: name of the configuration file.
      text: its contents, TOML.
      files: contents of the other files, by name.
    """
    text += HEAD + "".join(f"# sha256 {other} {_sum(files[other].encode())}\n" for other in files)
    return f"{text}# sha256 {name} {_sum(text.encode())}\n"


def check_checksums(config_file: Path) -> None:
    """Raise ValueError if the configuration or a file with a checksum in it has changed.

    Files without checksums are not checked.
    """
    data, before = read_at_most(config_file, MAXIMUM_BYTES), b""
    for line in data.splitlines(keepends=True):
        if found := LINE.match(line):
            file, expected = config_file.with_name(found[1].decode()), found[2].decode()
            if file == config_file:
                fits = before + line == data and _sum(before) == expected
            else:
                fits = not file.is_file() or _sum_of_file(file) == expected
            if not fits:
                raise ValueError(
                    f"{file}: is damaged or was changed after it was written (its checksum "
                    f"differs); if the change is intended, remove the checksums at the end of "
                    f"{config_file.name}"
                )
        before += line


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sum_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
