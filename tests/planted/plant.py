"""Changes the library by one bug at a time, and runs the tests that must find it.

    python tests/planted/plant.py            # every bug: exit status 0 only if all are found
    python tests/planted/plant.py --table    # the table of docs/testing.md

The changes are made to copies of the working tree; the tests run without a bug first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parent))

from bugs import BUGS, Bug

ROOT = Path(__file__).parents[2]
COPIES = 2
"""As many run side by side."""


def table() -> str:
    """The bugs and the tests that find them, in Markdown."""
    rows = (f"| {bug.what} | `{bug.file}` | {_listed(bug)} |" for bug in BUGS)
    return "\n".join(("| Bug | In | Found by |", "|---|---|---|", *rows)) + "\n"


def _listed(bug: Bug) -> str:
    return ", ".join(f"`{test}`" for test in bug.tests)


def run(copy: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy of the tree until the first fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-p", "no:xdist", *(f"tests/{test}" for test in tests)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def found(bug: Bug, copy: Path) -> bool:
    """Whether every entry of the bug's tests fails in a copy that has the bug."""
    file = copy / "seqnets" / bug.file
    right = file.read_text()
    file.write_text(right.replace(bug.right, bug.wrong))
    try:
        return all(run(copy, (test,)).returncode == 1 for test in bug.tests)
    finally:
        file.write_text(right)


def main() -> int:
    """Plant the bugs and say which were found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the table of the bugs")
    if parser.parse_args().table:
        print(table(), end="")
        return 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(COPIES):
            copy = Path(folder) / str(number)
            for part in ("seqnets", "tests", "configs", "pyproject.toml"):
                kind = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
                copy.mkdir(exist_ok=True)
                kind(ROOT / part, copy / part)
            copies.put(copy)

        def one(bug: Bug | None) -> bool:
            copy = copies.get()
            try:
                if bug is not None:
                    return found(bug, copy)
                result = run(copy, tuple(dict.fromkeys(t for b in BUGS for t in b.tests)))
                print(result.stdout[-2000:] if result.returncode else "all pass without a bug")
                return result.returncode == 0
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(COPIES) as pool:
            results = list(pool.map(one, (None, *BUGS)))
    for bug, result in zip(BUGS, results[1:], strict=True):
        print("found    " if result else "NOT FOUND", f"{bug.file}: {bug.what}")
    print(f"{sum(results[1:])} of {len(BUGS)} found in {time.monotonic() - start:.0f} s")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
