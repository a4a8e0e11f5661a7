import gzip

import pandas as pd
import pytest

from seqnets.data.errors import DataError
from seqnets.data.forecasts import write_forecasts

ROWS = pd.DataFrame(
    {
        "unique_id": ["a", "b"],
        "ds": pd.to_datetime(["2024-01-01", "2024-01-02"]),
        "q0.1": [1.5, 0.1],
        "q0.5": [2.0, float("nan")],
    }
)
TEXT = "unique_id,ds,q0.1,q0.5\na,2024-01-01,1.5,2.0\nb,2024-01-02,0.1,\n"


def test_long_form(tmp_path):
    path = tmp_path / "forecast.csv"
    write_forecasts(path, ROWS)
    assert path.read_bytes() == TEXT.encode()
    assert list(tmp_path.iterdir()) == [path]


def test_gzip_by_name(tmp_path):
    path = tmp_path / "forecast.csv.gz"
    write_forecasts(str(path), ROWS)
    assert gzip.decompress(path.read_bytes()) == TEXT.encode()
    assert path.read_bytes()[4:8] == bytes(4)  # no time of writing: equal rows, equal files


def test_integer_steps(tmp_path):
    path = tmp_path / "forecast.csv"
    write_forecasts(path, pd.DataFrame({"unique_id": ["a"], "ds": [7], "q0.975": [1.0]}))
    assert path.read_text() == "unique_id,ds,q0.975\na,7,1.0\n"


@pytest.mark.parametrize(
    "names",
    [
        ["unique_id", "ds"],
        ["ds", "unique_id", "q0.5"],
        ["unique_id", "ds", "y"],
        ["unique_id", "ds", "q0"],
        ["unique_id", "ds", "q1"],
        ["unique_id", "ds", "q0.5", "q1.5"],
        ["unique_id", "ds", "q0.5.5"],
        ["unique_id", "ds", "q-0.5"],
        ["unique_id", "ds", "q"],
    ],
)
def test_wrong_columns(tmp_path, names):
    rows = pd.DataFrame({name: [1] for name in names})
    with pytest.raises(ValueError, match="rows: expected the columns unique_id, ds, and quantiles"):
        write_forecasts(tmp_path / "forecast.csv", rows)
    assert not list(tmp_path.iterdir())


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        write_forecasts(tmp_path / "absent" / "forecast.csv", ROWS)
