"""How commands run: one line for a mistake, and exit statuses.

0  done      1  training broke down (not finite)      2  a mistake of the user
3  another process of the same training is missing    134  the same, noticed by JAX's runtime
128 + n  stopped by signal n (130 Ctrl-C, 143 SIGTERM), after saving
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

from seqnets.devices import (
    LeadError,
    MissingPeersError,
    PeerMonitor,
    connect,
    peers,
    use_all_cores,
)
from seqnets.training import NonFiniteError

__all__ = ["run_command"]

MISTAKES = (ValueError, TypeError, OSError, ImportError)
PEER_MISSING = 3
SHUTDOWN_SECONDS = 5.0  # for the peers, and for what is known of them, where this process fails


def run_command(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    run: Callable[[argparse.Namespace], int],
) -> NoReturn:
    """Run a command, and exit: mistakes are reported in one line, without a traceback.

    With ``SEQNETS_TRACEBACK`` set in the environment they keep their traceback.

    Args:
      parser: whose name begins the line.
      arguments: what it parsed.
      run: gives the exit status.
    """
    logging.basicConfig(format="%(message)s")  # Orbax would have its own form
    sys.unraisablehook = _report_unraisable
    warnings.showwarning = lambda message, *place: _say(parser, message, "warning")
    use_all_cores()
    monitor = None
    try:
        with _interruptible():
            monitor = _connect(parser, arguments)
            status = run(arguments)
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        reported = _report(parser, error)
        if monitor is None and reported is None:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError) and monitor:
            time.sleep(SHUTDOWN_SECONDS)  # if a peer died, the monitor says so and ends this one
        if reported is None:
            sys.excepthook(type(error), error, error.__traceback__)
        status = 1 if reported is None else reported
        if monitor:
            _shut_down(status)
    if monitor:
        monitor.leave()
    sys.exit(status)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Context in which Ctrl-C raises KeyboardInterrupt, unless it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _report(parser: argparse.ArgumentParser, error: BaseException) -> int | None:
    """Say in a line what went wrong, and give the exit status; None if it is a bug."""
    if isinstance(error, LeadError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        _say(parser, "interrupted")
        return 130
    if isinstance(error, MissingPeersError):
        _say(parser, error)
        return PEER_MISSING
    if isinstance(error, NonFiniteError):
        _say(parser, error)
        return 1
    if _is_out_of_memory(error):
        _say(parser, f"out of memory: {error}")
        return 2
    if isinstance(error, MISTAKES) and not os.environ.get("SEQNETS_TRACEBACK"):
        _say(parser, error)
        return 2
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out all the same: not all that is needed can be told before."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return str(error).startswith("RESOURCE_EXHAUSTED")
    return isinstance(error, MemoryError)


def _connect(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> PeerMonitor | None:
    """Be one of several processes, if the arguments say so."""
    names = ("coordinator", "processes", "process_id")
    given = {name: getattr(arguments, name, None) for name in names}
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    if len(missing) == len(names):
        if not getattr(arguments, "distributed", False):
            return None
    elif missing:
        raise ValueError(
            "expected all of --coordinator, --processes and --process-id, or none; "
            f"missing: {', '.join(missing)}"
        )
    connect(
        **given,
        seconds=arguments.connect_seconds,
        alarm=lambda message: _end(parser.prog, message),
    )
    host = None if given["coordinator"] is None else given["coordinator"].rpartition(":")[0]
    return PeerMonitor(peers(), lambda number: _peer_died(parser, number), host)


def _peer_died(parser: argparse.ArgumentParser, number: int) -> None:
    """End, and say who died: in an all-reduce this process would wait for ever."""
    message = (
        f"process {number} died, and with it the training; when its cause is removed, start all "
        "processes again with --resume"
    )
    _end(_name(parser), message)


def _end(name: str, message: str) -> NoReturn:
    """End at once, from any thread: the main one may be in native code and never come back."""
    os.write(2, f"{name}: error: {message}\n".encode())
    os._exit(PEER_MISSING)


def _report_unraisable(unraisable: Any) -> None:
    """Ignore what TensorStore says of writes that ended after one beside them had failed.

    Their event loop is closed by then, and the failure is reported in a line.
    """
    error = unraisable.exc_value
    if not isinstance(error, RuntimeError) or str(error) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _shut_down(status: int) -> None:
    """Leave the other processes where this one ends with an error.

    It does not wait for them for long: they may have made none, and hang in an all-reduce. It then
    ends without a word, so that they notice.
    """
    ending = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    ending.start()
    ending.join(SHUTDOWN_SECONDS)
    if ending.is_alive():
        sys.stderr.flush()
        os._exit(status)


def _say(parser: argparse.ArgumentParser, what: object, kind: str = "error") -> None:
    message = " ".join(str(what).split()) or type(what).__name__
    print(f"{_name(parser)}: {kind}: {message}", file=sys.stderr)


def _name(parser: argparse.ArgumentParser) -> str:
    """The command, and which process it is where there are others."""
    if not jax.distributed.is_initialized() or peers().lead:
        return parser.prog
    return f"[process {jax.process_index()}] {parser.prog}"
