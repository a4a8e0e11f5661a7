"""Running commands, with one-line error messages and exit statuses.

0  success    1  training stopped at a non-finite step, or a bug in seqnets    2  user error
3  another process of the same run is missing or died    134  the same, detected by JAX's runtime
128 + n  stopped by signal n (130 Ctrl-C, 143 SIGTERM); training saves the run first
141  nothing reads the output any more, as after ``| head``
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
NOT_READ = 128 + 13  # as if by SIGPIPE, which Python ignores
SHUTDOWN_SECONDS = 5.0  # to wait for the peers or the peer monitor when this process fails


def run_command(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    run: Callable[[argparse.Namespace], int],
) -> NoReturn:
    """Run a command and exit; user errors are reported in one line, without a traceback.

    If ``SEQNETS_TRACEBACK`` is set in the environment, they keep their traceback.

    Args:
      parser: parser of the command; its name begins the line.
      arguments: parsed arguments.
      run: runs the command and returns the exit status.
    """
    logging.basicConfig(format="%(message)s")  # otherwise Orbax sets its own format
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
            time.sleep(SHUTDOWN_SECONDS)  # if a peer died, the monitor ends this process first
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
    """Context in which Ctrl-C raises KeyboardInterrupt, unless SIGINT is ignored."""
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
    """Report an error in one line and return the exit status; None if the error is a bug."""
    if isinstance(error, LeadError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        _say(parser, "interrupted")
        return 130
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        return NOT_READ
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
    """Whether memory ran out in spite of the checks, which cannot predict all that is needed."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return str(error).startswith("RESOURCE_EXHAUSTED")
    return isinstance(error, MemoryError)


def _connect(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> PeerMonitor | None:
    """Connect to the other processes, if the arguments ask for it."""
    names = ("coordinator", "processes", "process_id")
    given = {name: getattr(arguments, name, None) for name in names}
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    if len(missing) == len(names):
        if not getattr(arguments, "distributed", False):
            return None
    elif missing:
        raise ValueError(
            "expected all of --coordinator, --processes, and --process-id, or none; "
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
    """End this process, which would otherwise hang in an all-reduce, and report which one died."""
    message = (
        f"process {number} died, which stopped the training; fix the cause and restart all "
        "processes with --resume"
    )
    _end(_name(parser), message)


def _end(name: str, message: str) -> NoReturn:
    """Exit at once, from any thread, since the main thread may never return from native code."""
    os.write(2, f"{name}: error: {message}\n".encode())
    os._exit(PEER_MISSING)


def _report_unraisable(unraisable: Any) -> None:
    """Ignore TensorStore's errors for writes that end after another write has failed.

    Their event loop is closed by then, and the first failure is reported anyway.
    """
    error = unraisable.exc_value
    if not isinstance(error, RuntimeError) or str(error) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _shut_down(status: int) -> None:
    """Disconnect from the other processes after an error in this one.

    Wait for them only briefly, since without an error of their own they hang in an all-reduce. Then
    exit without announcing it, so that they detect the end of this process.
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
    """The name of the command, with the process number if this is not process 0."""
    if not jax.distributed.is_initialized() or peers().lead:
        return parser.prog
    return f"[process {jax.process_index()}] {parser.prog}"
