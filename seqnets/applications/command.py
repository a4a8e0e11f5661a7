"""What the commands of all applications share, and the command ``train``."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqnets.applications.application import Application, Trained, fit_work, prepare_work
from seqnets.config import load, parse_setting
from seqnets.data.files import STANDARD_INPUT
from seqnets.devices import peers
from seqnets.files import descriptor_of
from seqnets.presets import find_preset
from seqnets.runs import DirectoryStore, strict_json

__all__ = ["Command", "absolute", "finish", "levels", "print_json", "train_command"]


@dataclasses.dataclass(frozen=True)
class Command:
    """One command, such as ``seqnets text train``.

    Attributes:
      name: name of the command, such as ``"train"``.
      help: one-line description.
      add_arguments: adds its arguments to a parser.
      run: runs the command and returns the exit status.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def train_command(
    application: Application[Any, Any, Any],
    group: str,
    help: str,
    add_data: Callable[[argparse.ArgumentParser], None],
    settings: Callable[[argparse.Namespace], Mapping[str, Any]],
) -> Command:
    """Make the command ``train`` of an application.

    Args:
      application: the application.
      group: name of its group of commands and presets, such as ``"text"``.
      help: one-line description.
      add_data: adds the arguments for data, such as ``--data``.
      settings: returns the values of these arguments by dotted key of the configuration; None
        leaves a key unchanged.
    """

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        _add_training_arguments(parser, group)
        add_data(parser)

    def run(arguments: argparse.Namespace) -> int:
        path = find_preset(group, arguments.config)
        config = load(application.config, path, _settings(arguments, settings(arguments)))
        out = Path(arguments.out or Path("runs") / path.stem)
        store = DirectoryStore(out, keep=config.train.keep, tensorboard=arguments.tensorboard)
        work = prepare_work(application, config, lambda: application.read(config))
        return finish(fit_work(work, store, resume=arguments.resume), out)

    return Command("train", help, add_arguments, run)


def finish(trained: Trained, out: Path) -> int:
    """Print where the run is, to standard error on process 0, and return the exit status."""
    steps = trained.result["steps"]
    if trained.signal is None:
        message, status = f"trained {steps} steps; the run is in {out}", 0
    else:
        name = signal.Signals(trained.signal).name
        message = f"stopped by {name} after step {steps}, saved; continue with --resume"
        status = 128 + trained.signal
    if peers().lead:
        print(message, file=sys.stderr)
    return status


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object to standard output."""
    print(strict_json(dict(values)))


def levels(text: str) -> tuple[float, ...]:
    """Parse ``0.1,0.5,0.9``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers like 0.1,0.5,0.9, got {text!r}"
        ) from None


def absolute(paths: Any) -> Any:
    """Make a path, or a list of paths, absolute, so that the working directory does not matter.

    None, standard input, and open file descriptors are returned unchanged.
    """
    if paths is None:
        return None
    if not isinstance(paths, str):
        return [absolute(path) for path in paths]
    stream = paths == STANDARD_INPUT or descriptor_of(paths) is not None
    return paths if stream else str(Path(paths).resolve())


def _add_training_arguments(parser: argparse.ArgumentParser, group: str) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help=f"a file ending in .toml, or the name of a preset (see seqnets {group} configs)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="run directory (default: runs/ plus the name of CONFIG)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out from its last checkpoint"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        metavar="S",
        help="train for S seconds, not counting compilation; the learning rate schedule spans "
        "this time",
    )
    parser.add_argument(
        "--max-steps",
        type=int,
        metavar="N",
        help="stop at step N; schedules do not change, unless they would end before N",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set a key of the configuration; may be repeated",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write DIR/tensorboard for TensorBoard"
    )
    several = parser.add_argument_group(
        "several processes", "one run over several processes or hosts"
    )
    several.add_argument(
        "--distributed",
        action="store_true",
        help="join the processes started by SLURM, Open MPI, Kubernetes, or on a TPU slice",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--processes", type=int, metavar="P", help="number of processes")
    several.add_argument(
        "--process-id", type=int, metavar="K", help="number of this process, from 0"
    )
    several.add_argument(
        "--connect-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long to wait for the other processes (default: 60)",
    )


def _settings(arguments: argparse.Namespace, data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key: those of ``--set``, overridden by those of other options.

    ``--max-steps`` without ``--max-seconds`` removes the configuration's limit in seconds, since a
    run limited only by steps is reproducible.
    """
    bounds = {"train.max_steps": arguments.max_steps, "train.max_seconds": arguments.max_seconds}
    given = {key: value for key, value in {**bounds, **data}.items() if value is not None}
    if "train.max_steps" in given:
        given.setdefault("train.max_seconds", None)
    return {**dict(map(parse_setting, arguments.set)), **given}
