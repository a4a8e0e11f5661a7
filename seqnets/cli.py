"""What the scripts share: arguments, one line for a mistake, and exit statuses.

0  done      1  training broke down (not finite)      2  a mistake of the user
3  another process of the same training died          134  the same, noticed by JAX's runtime
128 + n  stopped by signal n (130 Ctrl-C, 143 SIGTERM), after saving
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax

from seqnets.config import parse_setting
from seqnets.jobs.running import Trained
from seqnets.runs import strict_json
from seqnets.training.loop import NonFiniteError
from seqnets.training.parallel import use_all_cores
from seqnets.training.processes import LeadError, join, leads
from seqnets.training.vigil import Vigil

__all__ = [
    "Parser",
    "absolute",
    "finish",
    "levels",
    "print_json",
    "run_directory",
    "run_script",
    "settings",
    "training_parser",
]

MISTAKES = (ValueError, TypeError, OSError, ImportError)
ANOTHER_DIED = 3
PARTING_SECONDS = 5.0  # for the others, and for what is known of them, where this process fails


class Parser(argparse.ArgumentParser):
    """An argument parser that says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}; --help shows the usage\n")


def training_parser(description: str, kind: str) -> Parser:
    """The arguments that both trainers take."""
    parser = Parser(description=description)
    parser.add_argument("config", metavar="CONFIG.toml", help=f"see configs/{kind}/")
    parser.add_argument(
        "--out", metavar="DIR", help="run directory (default: runs/ and the name of the config)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out from its last checkpoint"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        metavar="S",
        help="train for S seconds, compilation not counted; the learning rate's schedule is "
        "stretched over them",
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop at step N; the schedule is unchanged"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a key of the configuration; may be repeated",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write DIR/tensorboard for TensorBoard"
    )
    several = parser.add_argument_group("several processes", "see docs/guides/devices.md")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="be one of the processes that SLURM, Open MPI, Kubernetes or a TPU slice started",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--processes", type=int, metavar="P", help="how many there are")
    several.add_argument("--process-id", type=int, metavar="K", help="which this is, from 0")
    return parser


def settings(arguments: argparse.Namespace, **keys: Any) -> dict[str, Any]:
    """What ``--set`` gives, then the values of other options by dotted keys, which win.

    ``--max-steps`` without ``--max-seconds`` lifts a bound in seconds that the configuration
    has: a run bounded by steps alone is the same every time.
    """
    bounds = {"train.max_steps": arguments.max_steps, "train.max_seconds": arguments.max_seconds}
    given = {key: value for key, value in {**bounds, **keys}.items() if value is not None}
    if "train.max_steps" in given:
        given.setdefault("train.max_seconds", None)
    return {**dict(map(parse_setting, arguments.set)), **given}


def run_directory(arguments: argparse.Namespace) -> Path:
    """Where the run goes."""
    return Path(arguments.out or Path("runs") / Path(arguments.config).stem)


def finish(trained: Trained, out: Path) -> int:
    """Say where the run is, on standard error of process 0, and return the exit status."""
    steps = trained.result["steps"]
    if trained.signal is None:
        words, status = f"trained {steps} steps; the run is in {out}", 0
    else:
        name = signal.Signals(trained.signal).name
        words = f"stopped by {name} after step {steps}, saved; go on with --resume"
        status = 128 + trained.signal
    if leads():
        print(words, file=sys.stderr)
    return status


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(strict_json(values))


def run_script(parser: Parser, main: Callable[[argparse.Namespace], int]) -> NoReturn:
    """Parse the arguments, run, and exit: mistakes are said in one line, without a traceback.

    With ``SEQNETS_TRACEBACK`` set in the environment they keep their traceback.
    """
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")  # Orbax would have its own form
    sys.unraisablehook = _tell_unraisable
    use_all_cores()
    vigil = None
    try:
        vigil = _join(parser, arguments)
        status = main(arguments)
    except (Exception, KeyboardInterrupt) as error:
        told = _tell(parser, error)
        if vigil is None and told is None:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError) and vigil:
            time.sleep(PARTING_SECONDS)  # where another died the vigil says so, and ends this one
        if told is None:
            sys.excepthook(type(error), error, error.__traceback__)
        status = 1 if told is None else told
        if vigil:
            _part(status)
    if vigil:
        vigil.leave()
    sys.exit(status)


def _tell(parser: Parser, error: BaseException) -> int | None:
    """Say in a line what went wrong, and give the exit status; None if it is a bug."""
    if isinstance(error, LeadError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        _say(parser, "interrupted")
        return 130
    if isinstance(error, NonFiniteError):
        _say(parser, error)
        return 1
    if isinstance(error, MISTAKES) and not os.environ.get("SEQNETS_TRACEBACK"):
        _say(parser, error)
        return 2
    return None


def _join(parser: Parser, arguments: argparse.Namespace) -> Vigil | None:
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
    join(**given)
    host = None if given["coordinator"] is None else given["coordinator"].rpartition(":")[0]
    return Vigil(lambda number: _another_died(parser, number), host)


def _another_died(parser: Parser, number: int) -> None:
    """End at once: the main thread may be in a sum over devices that never comes back."""
    words = (
        f"process {number} died, and with it the training; when its cause is removed, start all "
        "processes again with --resume"
    )
    os.write(2, f"{_name(parser)}: error: {words}\n".encode())
    os._exit(ANOTHER_DIED)


def _tell_unraisable(unraisable: Any) -> None:
    """Pass by what TensorStore says of writes that ended after one beside them had failed.

    Their event loop is closed by then, and the failure is told in a line.
    """
    error = unraisable.exc_value
    if not isinstance(error, RuntimeError) or str(error) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _part(status: int) -> None:
    """Leave the other processes where this one ends with an error.

    It does not wait for them for long: they may have made none, and hang in a sum over devices.
    It then ends without a word, so that they notice.
    """
    parting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    parting.start()
    parting.join(PARTING_SECONDS)
    if parting.is_alive():
        sys.stderr.flush()
        os._exit(status)


def levels(text: str) -> tuple[float, ...]:
    """Parse ``0.1,0.5,0.9``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers like 0.1,0.5,0.9, got {text!r}"
        ) from None


def _say(parser: Parser, error: object) -> None:
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"{_name(parser)}: error: {message}", file=sys.stderr)


def _name(parser: Parser) -> str:
    """The script, and which process it is where there are others."""
    if not jax.distributed.is_initialized() or leads():
        return parser.prog
    return f"[process {jax.process_index()}] {parser.prog}"


def absolute(paths: Any) -> Any:
    """Absolute paths of a path, a list of them or None: a run finds its files from anywhere."""
    if paths is None:
        return None
    return str(Path(paths).resolve()) if isinstance(paths, str) else [absolute(p) for p in paths]
