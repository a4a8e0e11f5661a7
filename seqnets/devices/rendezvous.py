"""Rendezvous of processes before JAX connects them.

JAX's runtime waits minutes for a missing process and then aborts with a native stack trace. A
process of another training run that connects to the same address makes the first run fail.
Therefore, all processes first connect to that address over plain sockets: each sends its number,
and process 0 lets them continue when all are present.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["MissingPeersError", "meet"]

MAXIMUM_BYTES = 2**12
RETRY_SECONDS = 0.2
GREETING_SECONDS = 5.0  # for a connecting process to send its number


class MissingPeersError(RuntimeError):
    """Not all processes of a training run connected in time."""


def meet(coordinator: str, processes: int, process_id: int, seconds: float) -> None:
    """Wait until all processes have connected to an address.

    Args:
      coordinator: ``host:port`` at which process 0 listens.
      processes: number of processes.
      process_id: number of this process, from 0.
      seconds: how long to wait.

    Raises:
      MissingPeersError: if some processes are missing, with their numbers; or if another run uses
        the address.
    """
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + seconds
    if process_id == 0:
        _receive_all(coordinator, int(port), processes, seconds, end)
    else:
        _announce((host.strip("[]"), int(port)), processes, process_id, seconds, end)


def _receive_all(coordinator: str, port: int, processes: int, seconds: float, end: float) -> None:
    """Let all others continue when all have connected and the port is free again."""
    waiting: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        with _listener(coordinator, port) as listener:
            while len(waiting) < processes - 1:
                connection = _accept(listener, end)
                if connection is None:
                    raise _missing(coordinator, processes, seconds, waiting)
                stack.enter_context(connection)
                said = _receive(connection, min(end, time.monotonic() + GREETING_SECONDS))
                if said is None:
                    continue  # not one of our processes
                waiting = {number: one for number, one in waiting.items() if not _has_left(one)}
                refusal = _refusal(said, processes, waiting)
                if refusal is None:
                    waiting[said["process"]] = connection
                else:
                    _send(connection, {"refused": refusal})
        for connection in waiting.values():
            _send(connection, {"go": True})


def _missing(
    coordinator: str, processes: int, seconds: float, waiting: dict[int, socket.socket]
) -> MissingPeersError:
    """The error that lists the missing processes; it is also sent to the waiting ones."""
    listed = ", ".join(str(number) for number in range(1, processes) if number not in waiting)
    message = f"waited {seconds:g} s for {processes} processes; missing: process {listed}"
    for connection in waiting.values():
        _send(connection, {"refused": message})
    return MissingPeersError(f"{coordinator}: {message}")


def _refusal(said: dict[str, Any], processes: int, waiting: dict[int, Any]) -> str | None:
    """Why a process is refused, or None."""
    if said.get("processes") != processes:
        return f"expected {processes} processes, as in process 0, got {said.get('processes')}"
    if said.get("process") not in range(1, processes):
        return f"there is no process {said.get('process')}"
    if said["process"] in waiting:
        return f"process {said['process']} has already connected; does it belong to another run?"
    return None


def _announce(
    address: tuple[str, int], processes: int, process_id: int, seconds: float, end: float
) -> None:
    """Send this process's number until process 0 answers."""
    about = f"{address[0]}:{address[1]}"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left) as connection:
                _send(connection, {"process": process_id, "processes": processes})
                answer = _receive(connection, end + GREETING_SECONDS)  # process 0 may be later
        except OSError:
            answer = None
        if answer is not None and "refused" in answer:
            raise MissingPeersError(f"{about}: {answer['refused']}")
        if answer is not None:
            return
        time.sleep(min(RETRY_SECONDS, max(0.0, end - time.monotonic())))
    raise MissingPeersError(
        f"{about}: waited {seconds:g} s for process 0; it is missing or still waiting for others"
    )


@contextlib.contextmanager
def _listener(coordinator: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        listener = socket.create_server(
            ("", port), family=family, dualstack_ipv6=family == socket.AF_INET6
        )
    except OSError as error:
        raise MissingPeersError(
            f"{coordinator}: cannot listen on this address; is another run using it? "
            f"({error.strerror})"
        ) from error
    with listener:
        yield listener


def _accept(listener: socket.socket, end: float) -> socket.socket | None:
    listener.settimeout(max(0.001, end - time.monotonic()))
    try:
        return listener.accept()[0]
    except TimeoutError:
        return None


def _has_left(connection: socket.socket) -> bool:
    """Whether a waiting process has ended, so that it may have been started again."""
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.settimeout(GREETING_SECONDS)
    with contextlib.suppress(OSError):  # if the process has ended, it will be reported missing
        connection.sendall(f"{json.dumps(message)}\n".encode())


def _receive(connection: socket.socket, end: float) -> dict[str, Any] | None:
    """Receive one JSON object in a line; None for anything else, or on timeout."""
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < MAXIMUM_BYTES:
            connection.settimeout(max(0.001, end - time.monotonic()))
            more = connection.recv(MAXIMUM_BYTES)
            if not more:
                return None
            data += more
        said = json.loads(data)
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None
