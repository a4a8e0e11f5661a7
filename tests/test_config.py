"""Configurations: what is read, what is refused, and what is written back."""

import tomllib
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from seqnets import config
from seqnets.config import ConfigError, ForecastConfig, TextConfig, dump, load, parse_setting
from seqnets.recurrence import Regularization, unroll

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.toml")), ids=lambda path: path.stem)
def test_every_configuration_loads_and_builds(path):
    kind = TextConfig if path.parent.name == "text" else ForecastConfig
    loaded = load(kind, path)
    assert loaded.model.cells()
    loaded.optimizer.build().init({"w": np.zeros((2, 2), np.float32)})
    assert path.read_text().startswith("#"), "a configuration opens with its command and figure"


def test_an_empty_file_gives_the_defaults(write):
    assert load(TextConfig, write("")) == TextConfig()
    assert load(ForecastConfig, write("")) == ForecastConfig()


def test_what_is_written_reads_back(write):
    settings = {
        "optimizer.plateau": {"factor": 0.5, "patience": 3},
        "optimizer.options": {"beta1": 0.8},
        "data.files": ["a ü.txt", 'b"\\.txt'],
        "train.max_seconds": 1.5,
    }
    loaded = load(TextConfig, write("[model]\nhidden = 12\n"), settings)
    assert loaded.model.hidden == 12
    assert loaded.optimizer.plateau.patience == 3
    assert loaded.data.files == ("a ü.txt", 'b"\\.txt')
    assert load(TextConfig, write(dump(loaded))) == loaded


def test_settings_override_and_take_out(write):
    path = write("[train]\nmax_seconds = 3\nseed = 1\n")
    loaded = load(TextConfig, path, {"train.max_seconds": None, "train.seed": 2})
    assert loaded.train.max_seconds is None
    assert loaded.train.seed == 2
    assert load(TextConfig, path, {"model.cell": None}).model.cell == "lstm"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.seed=3", ("train.seed", 3)),
        ("optimizer.learning_rate = 3e-4", ("optimizer.learning_rate", 3e-4)),
        ("model.cell=gru", ("model.cell", "gru")),
        ('model.cell="gru"', ("model.cell", "gru")),
        ("model.tied=true", ("model.tied", True)),
        ('data.files=["a", "b"]', ("data.files", ["a", "b"])),
        ("data.file=C:\\a=b.csv", ("data.file", "C:\\a=b.csv")),
    ],
)
def test_settings_are_typed(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["seed", "seed=3", "=3", "train.=3", ".seed=3", ""])
def test_settings_of_another_form_are_refused(text):
    with pytest.raises(ConfigError, match=r"--set: expected section\.key=value"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimiser]\n", "unknown key optimiser; did you mean 'optimizer'"),
        ("[optimizer]\nlearning_rat = 1\n", r"optimizer\.learning_rat.*'learning_rate'"),
        ("[train]\nbatch_size = 0\n", r"train\.batch_size: Expected `int` >= 1"),
        ("[train]\nbatch_size = 1.5\n", r"train\.batch_size: Expected `int`"),
        ("[train]\nbatch_size = true\n", r"train\.batch_size: Expected `int`"),
        ("[train]\nseed = -1\n", r"train\.seed"),
        ("[model]\nhidden = 'x'\n", r"model\.hidden: Expected `int`, got `str`"),
        ("[model]\ndropout = 1.0\n", r"model\.dropout"),
        ("model = 3\n", "model: Expected `object`"),
        ("[optimizer]\nlearning_rate = 0\n", r"optimizer\.learning_rate"),
        ("[data]\nvalidation = 1.0\n", r"data\.validation"),
        ("[optimizer.plateau]\nfactr = 0.5\n", r"optimizer\.plateau\.factr.*'factor'"),
        ("[optimizer.plateau]\nfactor = 2.0\n", "factor: expected a value in"),
        ("not toml", "not a TOML file"),
    ],
)
def test_mistakes_name_the_key(write, text, message):
    with pytest.raises(ConfigError, match=message):
        load(TextConfig, write(text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load(TextConfig, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load(TextConfig, tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe4'")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load(TextConfig, tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer.name": "adm"}, r"optimizer\.name: unknown name 'adm'; did you mean 'adam'"),
        ({"optimizer.schedule": "cosin"}, r"optimizer\.schedule.*'cosine'"),
        ({"optimizer.options": {"beta3": 0.1}}, r"optimizer\.options.*'beta3' of adam"),
        ({"optimizer.options": {"beta1": 1.5}}, r"optimizer\.options: beta1"),
        ({"optimizer.options": {"learning_rate": 1.0}}, r"optimizer\.options"),
        ({"optimizer.schedule_options": {"last": 0.1}}, r"optimizer\.schedule_options.*'last'"),
    ],
)
def test_optimizers_that_do_not_exist(write, settings, message):
    loaded = load(TextConfig, write(""), settings)
    with pytest.raises(ConfigError, match=message):
        loaded.optimizer.build()


def test_cells_that_do_not_exist(write):
    with pytest.raises(ConfigError, match=r"model\.cell.*'lstm'"):
        load(TextConfig, write(""), {"model.cell": "lstn"}).model.cells()


@pytest.mark.parametrize("name", sorted(config.CELLS))
def test_every_cell_runs(write, name):
    (cell,) = load(TextConfig, write(""), {"model.cell": name, "model.hidden": 6}).model.cells()
    params = cell.init(jax.random.key(0), 4)
    _, ys = unroll(cell, params, None, jax.random.normal(jax.random.key(1), (2, 5, 4)))
    assert ys.shape == (2, 5, 6)
    assert np.std(ys) > 0


@pytest.mark.parametrize("name", sorted(config.OPTIMIZERS))
def test_every_optimizer_lowers_a_quadratic(write, name):
    """A quarter of the run is enough to see a table entry that maximises or does nothing."""
    rate = {"adadelta": 10.0, "adagrad": 0.3}.get(name, 0.05)
    built = load(
        TextConfig, write(""), {"optimizer.name": name, "optimizer.learning_rate": rate}
    ).optimizer.build()
    params = {"w": np.array([[1.0, -2.0]], np.float32)}
    state = built.init(params)
    update = jax.jit(lambda p, s, t: built.update(p, s, p, progress=t, value=0.0))
    for step in range(60):
        updates, state = update(params, state, np.float32(step / 60))
        params = optax.apply_updates(params, updates)
    assert np.abs(params["w"]).max() < 1.5


def test_what_is_written_holds_every_default(write):
    """A run must be rebuilt from its file alone, also when defaults change later."""
    written = tomllib.loads(dump(load(ForecastConfig, write("[train]\nseed = 3\n"))))
    assert written["data"] == {"profile": 7}  # all else is None, which TOML cannot say
    assert written["train"]["seed"] == 3
    assert written["train"]["batch_size"] == 32
    assert written["model"]["cell"] == "lstm"


@pytest.mark.parametrize(
    "text", ["[train]\nseed = " + "9" * 5000, "a = " + "[" * 9000, "a.b", "\0", "a = 1\na = 2"]
)
def test_what_toml_cannot_read_is_a_mistake_of_the_configuration(write, text):
    with pytest.raises(ConfigError, match="not a TOML file"):
        load(TextConfig, write(text))
    assert parse_setting("train.seed=" + "9" * 5000) == ("train.seed", "9" * 5000)
    assert parse_setting("train.seed=" + "[" * 9000) == ("train.seed", "[" * 9000)


def test_a_large_file_is_not_parsed(write):
    """What TOML's parser takes grows with the square of a key's parts."""
    with pytest.raises(ConfigError, match="expected at most 32768 bytes"):
        load(TextConfig, write("a." * 50_000 + "b = 1"))


def test_what_the_layers_are_told_of_the_recurrence(write):
    text = '[model]\nzoneout = {h = 0.05, c = 0.5}\nweight_drop = 0.3\ndtype = "bfloat16"\n'
    model = load(TextConfig, write(text)).model
    assert model.recurrence() == {
        "dropout": 0.0,
        "variational": False,
        "regularization": Regularization(zoneout=(("c", 0.5), ("h", 0.05)), weight_drop=0.3),
        "dtype": "bfloat16",
    }
    assert load(TextConfig, write(dump(load(TextConfig, write(text))))).model == model
    plain = ForecastConfig().model.recurrence()
    assert plain["dtype"] is None
    assert plain["regularization"] == Regularization(zoneout=())
    for wrong, message in (
        ("zoneout = {c = 1.0}", r"model\.zoneout"),
        ("zoneout = 0.5", r"model\.zoneout: Expected `object`"),
        ('dtype = "float8"', r"model\.dtype"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(TextConfig, write(f"[model]\n{wrong}\n"))
