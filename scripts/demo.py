"""Train a text model and a forecaster on built-in data, in a few minutes."""

from seqnets.launch import answer_interrupts

if __name__ == "__main__":
    answer_interrupts()

import argparse
import itertools
import time
from pathlib import Path

from seqnets.applications.application import Trained, fit_work, load_run
from seqnets.applications.command import finish
from seqnets.applications.forecasting.data import Histories
from seqnets.applications.forecasting.forecasting import FORECASTING
from seqnets.applications.language.language import LANGUAGE
from seqnets.baselines.text import lzma_bits, ngram_bits, unigram_bits
from seqnets.cli import run_command
from seqnets.config import load
from seqnets.data.builtin.mauna_loa import mauna_loa
from seqnets.data.checksums import checksum_of_series
from seqnets.decoding import Sampling
from seqnets.parser import Parser
from seqnets.plots import BANDS, plot_forecasts
from seqnets.presets import find_preset
from seqnets.runs import DirectoryStore

YEAR = 52
PROMPT = "def "


def main(arguments: argparse.Namespace) -> int:
    began = time.perf_counter()
    out = arguments.out or free_directory(Path("runs"), "demo")
    for part in (text, series):
        status = part(out, bounds(arguments))
        if status:
            return status
    print(f"\n{time.perf_counter() - began:.0f} seconds in total. Everything is in {out}")
    return 0


def text(out: Path, settings: dict[str, object]) -> int:
    """A byte model of the source code of Python's standard library."""
    print("Text: the source of the Python standard library, split by files")
    config = load(LANGUAGE.config, find_preset("text", "demo"), settings)
    read = LANGUAGE.read(config)
    trained = fit(LANGUAGE.prepare(config, lambda: read), out / "text")
    if trained.signal:
        return finish(trained, out / "text")
    fitted, split = load_run(LANGUAGE, out / "text").fitted, read.split
    print("\n  held-out bits per character")
    for name, bits in (
        ("unigram", unigram_bits(split.train, split.validation)),
        ("3 characters of context, smoothed", ngram_bits(split.train, split.validation)),
        ("lzma", lzma_bits(split.validation)),
        ("seqnets", fitted.evaluate(split.validation)["bits_per_character"]),
    ):
        print(f"    {name:36} {bits:.3f}")
    sample = fitted.generate(PROMPT, 400, Sampling(temperature=0.7))
    print("\n  a sample at temperature 0.7\n")
    print("\n".join("    " + line for line in (PROMPT + sample).splitlines()))
    return 0


def series(out: Path, settings: dict[str, object]) -> int:
    """A forecast of the last year of the CO2 record from the years before."""
    print("\nSeries: weekly CO2 at Mauna Loa; the last year is forecast from those before")
    (record,) = mauna_loa()
    past, future = record.split(-YEAR)
    histories = Histories([past], {"all but the last year": checksum_of_series([past])})
    config = load(FORECASTING.config, find_preset("forecast", "demo"), settings)
    trained = fit(FORECASTING.prepare(config, lambda: histories), out / "forecast")
    if trained.signal:
        return finish(trained, out / "forecast")
    fitted = load_run(FORECASTING, out / "forecast").fitted
    errors = fitted.evaluate([past], [future])
    print(f"\n    {'':24}{'seqnets':>10}{'seasonal naive':>16}")
    for name in ("mase", "smape", "weighted_quantile_loss", "coverage"):
        print(f"    {name:24}{errors[name]:10.4f}{errors['seasonal_naive'][name]:16.4f}")
    picture = out / "forecast.png"
    try:
        plot_forecasts(picture, [past], fitted.predict([past], BANDS), [future.values])
        print(f"\n  the picture is {picture}")
    except ImportError as error:
        print(f"\n  no plot: {error}")
    return 0


def fit(work: object, out: Path) -> Trained:
    """Train in a run directory."""
    return fit_work(work, DirectoryStore(out))  # type: ignore[arg-type]


def bounds(arguments: argparse.Namespace) -> dict[str, object]:
    """Settings that limit a training to ``--max-steps``, if given."""
    if arguments.max_steps is None:
        return {}
    return {"train.max_steps": arguments.max_steps, "train.max_seconds": None}


def free_directory(parent: Path, name: str) -> Path:
    """``parent/name``, or the first of name-2, name-3, ... that does not exist."""
    numbered = (parent / f"{name}-{number}" for number in itertools.count(2))
    return next(path for path in itertools.chain([parent / name], numbered) if not path.exists())


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder (default: runs/demo, runs/demo-2, ...)"
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop each training at step N, for a quick look"
    )
    run_command(parser, parser.parse_args(), main)
