"""Connections that break: who died, who left, and who is not one of us."""

import os
import queue
import socket

import jax
import pytest

from seqnets.devices import PeerMonitor


@pytest.fixture
def watch(monkeypatch):
    """``watch(number)``: the monitor of a process of this number, and the queue of its alarms."""
    told = {}

    class Peers:
        lead = property(lambda self: jax.process_index() == 0)

        def broadcast(self, make):
            if "value" not in told:
                told["value"] = make()[1]
            return None, told["value"]

    def watch(number):
        monkeypatch.setattr(jax, "process_index", lambda: number)
        alarms = queue.Queue()
        return PeerMonitor(Peers(), alarms.put, "127.0.0.1"), alarms, told["value"]

    return watch


def die(process):
    """Break the connection as the system does when a process ends."""
    process._connections[0].shutdown(socket.SHUT_RDWR)


def test_all_hear_of_the_one_that_dies(watch):
    (_, lead_alarms, _), (_, alarms, _), (dying, _, _) = watch(0), watch(1), watch(2)
    die(dying)
    assert lead_alarms.get(timeout=20) == 2
    assert alarms.get(timeout=20) == 2


def test_leaving_is_not_dying(watch):
    (lead, lead_alarms, _), (leaving, _, _), (dying, alarms, _) = watch(0), watch(1), watch(2)
    leaving.leave()
    die(dying)
    assert lead_alarms.get(timeout=20) == 2  # and not 1, which left before
    lead.leave()
    assert lead_alarms.empty()
    assert alarms.get(timeout=20) == 0  # its own connection, broken


def test_one_without_the_token_is_not_heard(watch):
    _, alarms, told = watch(0)
    with socket.create_connection(("127.0.0.1", told["port"])) as stranger:
        stranger.sendall(os.urandom(16).hex().encode() + bytes(4))
        assert stranger.recv(1) == b""
    dying, _, _ = watch(3)
    die(dying)
    assert alarms.get(timeout=20) == 3
    assert alarms.empty()


def test_without_a_way_to_process_0_there_is_no_monitor(watch, monkeypatch):
    def refuse(address, timeout):
        raise ConnectionRefusedError

    watch(0)
    monkeypatch.setattr(socket, "create_connection", refuse)
    alone, alarms, _ = watch(1)
    alone.leave()
    assert alarms.empty()
