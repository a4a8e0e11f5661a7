"""Available memory, and the error raised if more would be needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from seqnets.training.layout import readable

__all__ = ["NotEnoughMemoryError", "check_memory", "compile_within", "host_memory"]

LIMITS = (  # control groups v2 and v1: hierarchy; files of the limit, the usage, and cached files
    ("0::", "", "memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        ":memory:",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)


class NotEnoughMemoryError(ValueError):
    """More memory would be needed than is available; raised before it is allocated."""


def check_memory(
    what: str, needed: int, devices: Sequence[jax.Device] = (), details: str = ""
) -> None:
    """Raise an error if devices or the host have too little memory available.

    CPU devices share the memory of the host. If the available memory is unknown, nothing is raised.

    Args:
      what: what needs the memory; the message begins with it.
      needed: bytes on each device.
      devices: devices of this process; empty for the host.
      details: end of the message.

    Raises:
      NotEnoughMemoryError: if too little is available; the message names both numbers of bytes.
    """
    if not devices or devices[0].platform == "cpu":
        needed, available = needed * max(len(devices), 1), host_memory()
    else:
        known = [free for device in devices if (free := _device_memory(device)) is not None]
        available = min(known, default=None)
    if available is not None and needed > available:
        sizes = f"needs {readable(needed)} of memory, {readable(available)} is available"
        raise NotEnoughMemoryError(f"{what} {sizes}{details}")


def compile_within(what: str, lowered: Any, devices: Sequence[jax.Device]) -> Any:
    """Compile a program, and check that its temporary arrays fit into memory.

    Args:
      what: name of the program; the message begins with it.
      lowered: the program, a `jax.stages.Lowered`.
      devices: devices of this process that run it.

    Returns:
      The program, a `jax.stages.Compiled`.

    Raises:
      NotEnoughMemoryError: if too little is available; the message names both numbers of bytes.
    """
    compiled = lowered.compile()
    analysis = compiled.memory_analysis()
    if analysis is not None:
        hint = "; a smaller batch or model needs less"
        needed = int(analysis.temp_size_in_bytes)
        check_memory(f"{what} (activations and gradients)", needed, devices, hint)
    return compiled


def host_memory(root: Path = Path("/")) -> int | None:
    """Bytes of host memory that are available to this process; None if unknown.

    Args:
      root: root of the file system.
    """
    found = [*_of_machine(root), *_of_control_groups(root)]
    return max(min(found), 0) if found else None


def _of_machine(root: Path) -> Iterator[int]:
    """The available memory on Linux; elsewhere the total memory."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        yield next(1024 * int(line.split()[1]) for line in lines if line[:13] == "MemAvailable:")
    except (OSError, StopIteration):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_control_groups(root: Path) -> Iterator[int]:
    """What the control groups of this process (of a container or job, say) still allow."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for mark, kind, limit, used, files in LIMITS:
        top = root / "sys/fs/cgroup" / kind
        for path in (line.partition(mark)[2].lstrip("/") for line in lines if mark in line):
            folder = top / path
            for group in (folder, *folder.parents):
                if group.is_relative_to(top):
                    with contextlib.suppress(OSError, ValueError):  # no limit
                        bound = int((group / limit).read_text())
                        yield bound - int((group / used).read_text()) + _of_files(group, files)


def _of_files(group: Path, names: Sequence[str]) -> int:
    """Bytes of cached files, which the system frees when memory is needed."""
    numbers = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return sum(int(numbers.get(name, 0)) for name in names)


def _device_memory(device: jax.Device) -> int | None:
    numbers = device.memory_stats() or {}
    if "bytes_limit" not in numbers:
        return None
    return int(numbers["bytes_limit"]) - int(numbers.get("bytes_in_use", 0))
