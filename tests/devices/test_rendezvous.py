"""Processes that find each other, or say who is missing: as threads of this one."""

import socket
import threading
import time

import pytest

from seqnets.devices import MissingPeersError, connect
from seqnets.devices.rendezvous import meet


@pytest.fixture
def address():
    with socket.create_server(("localhost", 0)) as server:
        return f"localhost:{server.getsockname()[1]}"


def together(*calls):
    """What each call raised, or None; all at the same time."""
    errors = [None] * len(calls)

    def run(number, call):
        try:
            call()
        except Exception as error:
            errors[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_all_go_on_when_all_have_come(address):
    def late():
        time.sleep(0.5)
        meet(address, 3, 1, 20)

    start = time.monotonic()
    errors = together(lambda: meet(address, 3, 2, 20), lambda: meet(address, 3, 0, 20), late)
    assert errors == [None] * 3
    assert time.monotonic() - start >= 0.5


def test_the_missing_are_named_to_all_who_have_come(address):
    errors = together(lambda: meet(address, 4, 0, 1.5), lambda: meet(address, 4, 2, 1))
    for error in errors:
        assert isinstance(error, MissingPeersError)
        assert str(error) == f"{address}: waited 1.5 s for 4 processes; missing: process 1, 3"


def test_without_process_0(address):
    start = time.monotonic()
    with pytest.raises(MissingPeersError, match=r"waited 0\.5 s for process 0; it is missing"):
        meet(address, 2, 1, 0.5)
    assert 0.5 <= time.monotonic() - start < 5


def test_the_port_is_free_when_the_others_go_on(address):
    """JAX's runtime listens there next."""
    host, port = address.split(":")

    def other():
        meet(address, 2, 1, 20)
        socket.create_server((host, int(port))).close()

    assert together(lambda: meet(address, 2, 0, 20), other) == [None, None]


def test_two_trainings_at_one_address_stay_apart(address):
    """Whoever comes second is refused, and the first goes on."""
    refused = []

    def first():
        meet(address, 3, 0, 20)

    def others():
        waits = threading.Thread(target=meet, args=(address, 3, 1, 20))
        waits.start()
        time.sleep(0.5)
        for call in (
            (address, 3, 0, 5),
            (address, 3, 1, 5),
            (address, 2, 1, 5),
            (address, 3, 7, 5),
        ):
            with pytest.raises(MissingPeersError) as error:
                meet(*call)
            refused.append(str(error.value))
        meet(address, 3, 2, 20)
        waits.join()

    assert together(first, others) == [None, None]
    in_use, again, fewer, unknown = refused
    assert "cannot listen on this address; is another run using it?" in in_use
    assert "process 1 has already connected" in again
    assert "expected 3 processes, as in process 0, got 2" in fewer
    assert "there is no process 7" in unknown


def test_strangers_do_not_matter_and_one_may_start_again(address):
    host, port = address.split(":")

    def others():
        for words in (b"GET / HTTP/1.1\n", b"", b'{"process": 1, "processes": 2}\n'):
            time.sleep(0.3)
            with socket.create_connection((host, int(port)), timeout=5) as stranger:
                stranger.sendall(words)
        meet(address, 3, 1, 20)

    errors = together(lambda: meet(address, 3, 0, 20), others, lambda: meet(address, 3, 2, 20))
    assert errors == [None] * 3


def test_a_training_that_is_missing_one_says_so_and_nothing_hangs(address):
    with pytest.raises(MissingPeersError, match="missing: process 1"):
        connect(address, 2, 0, seconds=0.2)
    with pytest.raises(ValueError, match="seconds: expected a value in"):
        connect(address, 2, 0, seconds=0)
