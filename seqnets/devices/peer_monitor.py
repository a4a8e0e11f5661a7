"""Detect at once that another process died, in order to stop instead of waiting for it.

JAX's runtime detects this only by missing heartbeats, and until then a process hangs in the next
all-reduce. Here, each process keeps a connection to process 0 open, which the operating system
closes when the process ends for any reason; a process that ends normally announces it first. If
process 0 cannot be reached, only the runtime's heartbeats remain.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import jax

from seqnets.training.layout import Peers

__all__ = ["PeerMonitor"]

TIMEOUT = 5.0  # seconds for establishing a connection
NUMBER = 4  # bytes of a process number
LEAVING = b"\xff" * NUMBER
WELCOME = b"+"


class PeerMonitor:
    """Monitors the other processes; all processes must create one at the same time."""

    def __init__(
        self, peers: Peers, alarm: Callable[[int], None], address: str | None = None
    ) -> None:
        """Connect to the other processes and start monitoring.

        Args:
          peers: the processes.
          alarm: called with the number of a process that died, in a separate thread.
          address: host name of process 0 to try first; None for its own host name only.
        """
        self._alarm, self._lock = alarm, threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._left = False
        self._token = secrets.token_hex(16)
        _, told = peers.broadcast(lambda: (None, self._listen(address)))
        if not peers.lead:
            self._token = told["token"]
            self._connect(told["hosts"], told["port"])

    def leave(self) -> None:
        """Announce that this process ends normally."""
        with self._lock:
            self._left = True
            for connection in self._connections.values():
                _send(connection, LEAVING)

    def _listen(self, address: str | None) -> dict[str, Any]:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        server = socket.create_server(
            ("", 0), family=family, backlog=1024, dualstack_ipv6=family == socket.AF_INET6
        )
        self._start(self._monitor_all, server)
        hosts = [socket.gethostname()] if address is None else [address, socket.gethostname()]
        return {"hosts": hosts, "port": server.getsockname()[1], "token": self._token}

    def _connect(self, hosts: list[str], port: int) -> None:
        """Connect to process 0 by one of its host names."""
        for host in hosts:
            with contextlib.suppress(OSError):
                connection = socket.create_connection((host, port), timeout=TIMEOUT)
                number = jax.process_index().to_bytes(NUMBER, "big")
                connection.sendall(self._token.encode() + number)
                if connection.recv(1) == WELCOME:
                    connection.settimeout(None)
                    self._connections[0] = connection
                    self._start(self._monitor_lead, connection)
                    return
                connection.close()

    @staticmethod
    def _start(monitor: Callable[[socket.socket], None], connection: socket.socket) -> None:
        threading.Thread(
            target=monitor, args=(connection,), name="peer monitor", daemon=True
        ).start()

    def _monitor_lead(self, connection: socket.socket) -> None:
        """Wait until process 0 reports a dead process or leaves, or dies itself."""
        with connection:
            message = _receive(connection, NUMBER)
        if message != LEAVING and not self._left:
            self._alarm(int.from_bytes(message, "big") if message else 0)

    def _monitor_all(self, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is server:
                        self._admit(server, selector)
                    else:
                        selector.unregister(key.fileobj)
                        self._remove(key.data)

    def _admit(self, server: socket.socket, selector: selectors.BaseSelector) -> None:
        """Accept a connection from a process that knows the token."""
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            connection.settimeout(TIMEOUT)
            token = _receive(connection, len(self._token))
            number = int.from_bytes(_receive(connection, NUMBER), "big")
            if not hmac.compare_digest(token, self._token.encode()):
                connection.close()
                return
            with self._lock:
                self._connections[number] = connection
            selector.register(connection, selectors.EVENT_READ, number)
            connection.sendall(WELCOME)

    def _remove(self, number: int) -> None:
        """Remove a process that left; if it died, notify the others."""
        with self._lock:
            with self._connections.pop(number) as connection:
                if _receive(connection, NUMBER) == LEAVING:
                    return
            for other in self._connections.values():
                _send(other, number.to_bytes(NUMBER, "big"))
        if not self._left:
            self._alarm(number)


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # it died, which is detected elsewhere
        connection.sendall(data)


def _receive(connection: socket.socket, size: int) -> bytes:
    """Receive ``size`` bytes, or none if the connection breaks."""
    data = b""
    with contextlib.suppress(OSError):
        while len(data) < size and (part := connection.recv(size - len(data))):
            data += part
    return data if len(data) == size else b""
