"""Both main jobs on built-in data, in a few minutes: a text model, then a forecaster."""

import itertools
import time
from argparse import Namespace
from pathlib import Path

import pandas as pd

from seqnets import cli
from seqnets.baselines.text import lzma_bits, ngram_bits, unigram_bits
from seqnets.config import ForecastConfig, TextConfig, load
from seqnets.data.builtin.mauna_loa import mauna_loa
from seqnets.data.series import Series
from seqnets.decoding import Sampling
from seqnets.jobs.corpus import read_split
from seqnets.jobs.forecasting import evaluate_forecast, forecast, load_forecast_run, train_forecast
from seqnets.jobs.text import evaluate_text, generate_text, load_text_run, train_text
from seqnets.plots import BANDS, plot_forecasts

CONFIGS = Path(__file__).parents[1] / "configs"
YEAR = 52
PROMPT = "def "


def main(arguments: Namespace) -> int:
    began = time.perf_counter()
    out = arguments.out or free_directory(Path("runs"), "demo")
    for part in (text, series):
        status = part(out, arguments)
        if status:
            return status
    print(f"\nIn all {time.perf_counter() - began:.0f} seconds. Everything is in {out}")
    return 0


def text(out: Path, arguments: Namespace) -> int:
    """A character model of the Python standard library's source."""
    print("Text: the source of the Python standard library, split by files")
    config = load(TextConfig, CONFIGS / "text" / "demo.toml", bounds(arguments))
    trained = train_text(config, out / "text")
    if trained.signal:
        return cli.finish(trained, out / "text")
    run, split = load_text_run(out / "text"), read_split(config)
    print("\n  held-out bits per character")
    for name, bits in (
        ("unigram", unigram_bits(split.train, split.validation)),
        ("3 characters of context, smoothed", ngram_bits(split.train, split.validation)),
        ("lzma", lzma_bits(split.validation)),
        ("seqnets", evaluate_text(run, split.validation)["bits_per_character"]),
    ):
        print(f"    {name:36} {bits:.3f}")
    sample = generate_text(run, PROMPT, 400, Sampling(temperature=0.7))
    print("\n  a sample at temperature 0.7\n")
    print("\n".join("    " + line for line in (PROMPT + sample).splitlines()))
    return 0


def series(out: Path, arguments: Namespace) -> int:
    """One year of the CO2 record, forecast from the years before."""
    print("\nSeries: weekly CO2 at Mauna Loa; the last year is forecast from those before")
    (record,) = mauna_loa()
    past, future = record.split(-YEAR)
    (out / "series").mkdir(parents=True)
    write_long(out / "series" / "history.csv", past)
    write_long(out / "series" / "actual.csv", future)
    history = str((out / "series" / "history.csv").resolve())
    given = {**bounds(arguments), "data.file": history}
    config = load(ForecastConfig, CONFIGS / "forecast" / "demo.toml", given)
    trained = train_forecast(config, out / "forecast")
    if trained.signal:
        return cli.finish(trained, out / "forecast")
    run = load_forecast_run(out / "forecast")
    errors = evaluate_forecast(run, [past], [future])
    print(f"\n    {'':24}{'seqnets':>10}{'seasonal naive':>16}")
    for name in ("mase", "smape", "weighted_quantile_loss", "coverage"):
        print(f"    {name:24}{errors[name]:10.4f}{errors['seasonal_naive'][name]:16.4f}")
    picture = out / "forecast.png"
    plot_forecasts(picture, [past], forecast(run, [past], BANDS), [future.values])
    print(f"\n  the picture is {picture}")
    return 0


def bounds(arguments: Namespace) -> dict[str, object]:
    """Settings of a training: as configured, or a few steps."""
    if arguments.max_steps is None:
        return {}
    return {"train.max_steps": arguments.max_steps, "train.max_seconds": None}


def write_long(path: Path, one: Series) -> None:
    """Write a series in long form, as `train_forecast.py --data` reads it."""
    pd.DataFrame({"unique_id": one.id, "ds": one.times, "y": one.values}).to_csv(path, index=False)


def free_directory(parent: Path, name: str) -> Path:
    """``parent/name``, or the first of name-2, name-3, ... that does not exist."""
    numbered = (parent / f"{name}-{number}" for number in itertools.count(2))
    return next(path for path in itertools.chain([parent / name], numbered) if not path.exists())


if __name__ == "__main__":
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the next free runs/demo")
    parser.add_argument("--max-steps", type=int, metavar="N", help="of each training, for a look")
    cli.run_script(parser, main)
