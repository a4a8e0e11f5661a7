"""The forecast scripts end to end on seasonal series: better than naive, and resumed exactly."""

import json
import tomllib

import pandas as pd
import pytest


def result(path):
    return json.loads((path / "result.json").read_text())


def test_from_training_to_picture(train_forecast, run, files, tmp_path):
    out = tmp_path / "run"
    trained = train_forecast("--out", out, "--max-steps", 150)
    assert trained.status == 0, trained.err
    assert trained.out == ""

    measured = run("evaluate_forecast", out, "--data", files / "history.csv",
                   "--actual", files / "future.csv")  # fmt: skip
    assert measured.status == 0, measured.err
    errors = json.loads(measured.out)
    naive = errors["seasonal_naive"]
    assert {"smape", "mase", "weighted_quantile_loss", "coverage"} <= set(errors) & set(naive)
    # A sine and noise: averaging seasons beats repeating one, whose noise counts twice.
    assert errors["mase"] < naive["mase"]
    assert 0 < errors["smape"] < naive["smape"] < 10

    table_file, picture = tmp_path / "forecasts.csv", tmp_path / "forecasts.png"
    drawn = run("forecast", out, "--data", files / "history.csv", "--quantiles", "0.1,0.5,0.9",
                "--output", table_file, "--plot", picture)  # fmt: skip
    assert drawn.status == 0, drawn.err
    assert drawn.out == ""
    table = pd.read_csv(table_file)
    assert list(table.columns) == ["unique_id", "ds", "q0.1", "q0.5", "q0.9"]
    assert len(table) == 4 * 6
    assert list(table["ds"][:6]) == [64, 65, 66, 67, 68, 69]
    assert (table["q0.1"] < table["q0.5"]).all()
    assert (table["q0.5"] < table["q0.9"]).all()
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = run("forecast", out, "--data", files / "history.csv")
    assert printed.out == table_file.read_text()

    links = [tmp_path / "link.csv", tmp_path / "link.png"]
    for link, name in zip(links, ("linked", "drawn"), strict=True):
        link.symlink_to(name)
    done = run("forecast", out, "--data", files / "history.csv",
               "--output", links[0], "--plot", links[1])  # fmt: skip
    assert done.status == 0, done.err
    assert all(link.is_symlink() for link in links)
    assert (tmp_path / "linked").read_text() == printed.out
    assert (tmp_path / "drawn").read_bytes() == picture.read_bytes()


def test_resuming_is_going_straight_on(train_forecast, tmp_path):
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    assert train_forecast("--out", straight, "--max-steps", 20).status == 0
    assert train_forecast("--out", halved, "--max-steps", 10).status == 0
    assert train_forecast("--out", halved, "--max-steps", 20, "--resume").status == 0
    assert result(halved)["parameters_sha256"] == result(straight)["parameters_sha256"]
    assert result(halved)["validation_loss"] == result(straight)["validation_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gaussian", "student_t"])
def test_other_heads(train_forecast, run, files, tmp_path, head):
    out = tmp_path / "run"
    done = train_forecast("--out", out, "--max-steps", 30, "--set", f"model.head={head}",
                          "--set", "model.cell=gru", "--set", "model.layers=2")  # fmt: skip
    assert done.status == 0, done.err
    printed = run("forecast", out, "--data", files / "history.csv", "--quantiles", "0.5")
    assert printed.out.startswith("unique_id,ds,q0.5\na,64,")


def test_season_and_horizon_come_from_the_dates(run, files, tmp_path):
    times = pd.date_range("2001-01-31", periods=60, freq="ME")
    path = tmp_path / "monthly.csv"
    pd.DataFrame({"month": times, "y": range(60)}).to_csv(path, index=False)
    done = run("train_forecast", files / "empty.toml", "--data", path, "--max-steps", 2,
               "--set", "model.hidden=4", "--out", tmp_path / "run")  # fmt: skip
    assert done.status == 0, done.err
    data = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["data"]
    assert (data["season"], data["horizon"], data["context"]) == (12, 12, 84)
    printed = run("forecast", tmp_path / "run", "--data", path)
    assert printed.out.splitlines()[1].startswith("y,2006-01-31,")


def test_missing_values_and_series_too_short_to_learn_from(run, files, tmp_path):
    """Holes stay holes, and a series of two steps is forecast though it teaches nothing."""
    path = tmp_path / "series.csv"
    rows = ["unique_id,ds,y", "short,1,5", "short,2,6"]
    rows += [f"long,{t},{'' if t % 7 == 3 else t % 6}" for t in range(40)]
    path.write_text("\n".join(rows) + "\n")
    out = tmp_path / "run"
    done = run("train_forecast", files / "empty.toml", "--data", path, "--max-steps", 3,
               "--horizon", 4, "--season", 6, "--set", "model.hidden=4", "--out", out)  # fmt: skip
    assert done.status == 0, done.err
    printed = run("forecast", out, "--data", path)
    assert printed.status == 0, printed.err
    assert len(printed.out.splitlines()) == 1 + 2 * 4
    assert "nan" not in printed.out.lower()
    assert ",," not in printed.out


def test_a_horizon_of_one_step(train_forecast, run, files, tmp_path):
    out, actual = tmp_path / "run", tmp_path / "actual.csv"
    assert train_forecast("--out", out, "--max-steps", 2, "--horizon", 1).status == 0
    rows = (files / "future.csv").read_text().splitlines()
    actual.write_text("\n".join(row for row in rows if ",64," in row or "ds" in row) + "\n")
    done = run("evaluate_forecast", out, "--data", files / "history.csv", "--actual", actual)
    assert done.status == 0, done.err
    assert json.loads(done.out)["horizon"] == 1
