"""The pictures of the forecasting tutorial and the forecast in the README.

    python docs/pictures/forecasting.py

trains two forecasters on the CO2 record of Mauna Loa and writes into ``docs/images``.
"""

import matplotlib.pyplot as plt
import pandas as pd
from style import IMAGES, STYLE

from seqnets import Forecaster
from seqnets.baselines import seasonal_naive
from seqnets.data import mauna_loa, series_from_frame
from seqnets.plots import BANDS, plot_forecasts

TITLE = "CO$_2$ at Mauna Loa (ppm)"
HORIZON, YEARS = 52, 10
LEVELS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
MODEL = {"hidden": 32, "profile": 5, "batch_size": 32}  # as in configs/forecast/demo.toml
SIZE = (7, 4.2)  # inches


def main() -> None:
    """Write all pictures."""
    (record,) = mauna_loa()
    frame = pd.DataFrame({"unique_id": TITLE, "ds": record.times, "y": record.values})

    past, future = frame[:-HORIZON], frame[-HORIZON:]
    demo = Forecaster(**MODEL, evaluate_every=50, checkpoint_every=50).fit(past, steps=500)
    draw_forecast("forecast.png", demo, past, future)

    train, test = frame[: -YEARS * HORIZON], frame[-YEARS * HORIZON :]
    often = {"report_every": 10, "evaluate_every": 25, "checkpoint_every": 25}
    forecaster = Forecaster(**MODEL, **often).fit(train, steps=300)
    draw_forecast("forecasting_forecast.png", forecaster, train, test[:HORIZON])
    draw_calibration("forecasting_calibration.png", forecaster, frame)
    draw_curve("forecasting_training.png", forecaster)


def draw_forecast(
    name: str, forecaster: Forecaster, past: pd.DataFrame, future: pd.DataFrame
) -> None:
    """The year after the end of the training data, with bands."""
    forecast = forecaster.predict(levels=BANDS)
    quantiles = forecast[[str(level) for level in BANDS]].to_numpy()
    plot_forecasts(IMAGES / name, series_from_frame(past), [quantiles], [future["y"].to_numpy()])


def draw_calibration(name: str, forecaster: Forecaster, frame: pd.DataFrame) -> None:
    """Observed shares beside nominal levels, over the years that were held out."""
    histories, actuals, naive = [], [], []
    for year in range(YEARS, 0, -1):
        end = len(frame) - year * HORIZON
        history = frame[:end].assign(unique_id=f"{year} years before the end")
        actual = frame[end : end + HORIZON].assign(unique_id=f"{year} years before the end")
        values = seasonal_naive(history["y"].to_numpy(), HORIZON, HORIZON, LEVELS)
        naive.append(actual.assign(**{str(q): values[:, i] for i, q in enumerate(LEVELS)}))
        histories.append(history)
        actuals.append(actual)
    forecast = forecaster.predict(pd.concat(histories), LEVELS)
    joined = pd.concat(actuals).merge(forecast, on=["unique_id", "ds"])

    figure, axes = plt.subplots(figsize=(5.8, 5.2))
    axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1, label="calibrated")
    axes.plot(LEVELS, observed_shares(joined), "o-", color="tab:blue", label="seqnets")
    axes.plot(
        LEVELS, observed_shares(pd.concat(naive)), "s-", color="tab:orange", label="seasonal naive"
    )
    axes.set(xlabel="nominal level of the quantile", ylabel="observed share at or below it")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False)
    figure.savefig(IMAGES / name)


def observed_shares(joined: pd.DataFrame) -> list[float]:
    """For each level, the share of the observed values that are at or below the quantile."""
    observed = joined.dropna(subset="y")
    return [float((observed["y"] <= observed[str(level)]).mean()) for level in LEVELS]


def draw_curve(name: str, forecaster: Forecaster) -> None:
    """Training and validation loss."""
    records = pd.DataFrame(forecaster.records)
    best = forecaster.result["best_step"]
    figure, axes = plt.subplots()
    for split, label, color in (
        ("train", "training", "tab:gray"),
        ("validation", "validation", "tab:blue"),
    ):
        part = records[records["split"] == split]
        axes.plot(part["step"], part["loss"], color=color, label=label)
    chosen = records[(records["split"] == "validation") & (records["step"] == best)]
    axes.plot(chosen["step"], chosen["loss"], "o", color="tab:blue", label="best checkpoint")
    axes.set(xlabel="optimizer step", ylabel="quantile loss\n(units of the seasonal change)")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(IMAGES / name)


if __name__ == "__main__":
    with plt.rc_context(STYLE | {"figure.figsize": SIZE}):
        main()
