"""Coverage-guided fuzzing of one reader: inputs that reach new branches are kept and changed on.

    python tests/fuzz/guided.py --reader csv --seconds 60

It needs Atheris, the extra ``fuzz`` (Linux). Exit status 0 if nothing went wrong in that time;
else the input is kept in the working directory, and its name is printed. libFuzzer counts the
executions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import atheris

os.environ.setdefault("JAX_PLATFORMS", "cpu")

with atheris.instrument_imports(include=["seqnets", "tomllib", "csv"]):
    from readers import READERS, run

MEGABYTES = 3000
"""A reader that takes more has found an input that fills the memory."""
SLOWEST = 20
"""Seconds for one input."""
LONGEST = 2**14


def main() -> None:
    """Fuzz in a temporary folder; in a process of its own, since libFuzzer ends it at once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reader", choices=sorted(READERS), required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=-1, help="executions; -1: as time allows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        fuzz(arguments)
    with tempfile.TemporaryDirectory() as folder:
        again = [sys.executable, *sys.argv, "--folder", folder]
        sys.exit(subprocess.run(again, check=False).returncode)


def fuzz(arguments: argparse.Namespace) -> NoReturn:
    """Begin with the reader's seeds and do not return."""
    reader = READERS[arguments.reader]
    work, corpus = arguments.folder / "work", arguments.folder / "corpus"
    work.mkdir()
    corpus.mkdir()
    for number, seed in enumerate(reader.seeds(work)):
        (corpus / f"seed-{number}").write_bytes(seed)

    def one_input(data: bytes) -> None:
        run(reader, work, data)

    options = {
        "max_total_time": arguments.seconds,
        "runs": arguments.runs,
        "seed": arguments.seed,
        "rss_limit_mb": MEGABYTES,
        "timeout": SLOWEST,
        "max_len": LONGEST,
        "len_control": 0,
        "print_final_stats": 1,
    }
    libfuzzer = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *libfuzzer, str(corpus)], one_input)
    atheris.Fuzz()
    sys.exit()


if __name__ == "__main__":
    main()
