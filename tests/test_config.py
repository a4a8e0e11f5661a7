"""Configurations: what is read, what is refused, and what is written back."""

import tomllib
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from seqnets.applications.forecasting.config import ForecastConfig
from seqnets.applications.language.config import TextConfig
from seqnets.cells import CELLS, GRU, LSTM
from seqnets.config import (
    ConfigError,
    check_resumable,
    convert,
    dump,
    from_keywords,
    keywords_of,
    load,
    parse_setting,
    signature_of,
)
from seqnets.modules import Layer
from seqnets.optimizers import OPTIMIZERS
from seqnets.recurrence import Execution, Regularization, unroll

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
    assert loaded.model.build_layers()
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
    with pytest.raises(ConfigError, match=r"model\.cell: .*'lstm'"):
        load(TextConfig, write(""), {"model.cell": "lstn"}).model.build_layers()


@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_cell_runs(write, name):
    options = {"hidden": 5} if name == "lstm_projected" else {}
    settings = {"model.cell": name, "model.hidden": 6, "model.cell_options": options}
    (layer,) = load(TextConfig, write(""), settings).model.build_layers()
    cell = layer.cell
    params = cell.init(jax.random.key(0), 4)
    _, ys = unroll(cell, params, None, jax.random.normal(jax.random.key(1), (2, 5, 4)))
    assert ys.shape == (2, 5, 6)
    assert np.std(ys) > 0


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
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
    assert written["train"]["batch_size"] == 64
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
    regularization = Regularization(zoneout=(("c", 0.5), ("h", 0.05)), weight_drop=0.3)
    assert model.build_layers() == (Layer(LSTM(256), regularization),)
    assert model.execution() == Execution("auto", None, "bfloat16")
    assert load(TextConfig, write(dump(load(TextConfig, write(text))))).model == model
    plain = ForecastConfig().model
    assert plain.execution() == Execution()
    assert plain.build_layers()[0].regularization == Regularization(zoneout=())
    for wrong, message in (
        ("zoneout = {c = 1.0}", r"model\.zoneout"),
        ("zoneout = 0.5", r"model\.zoneout: Expected `object`"),
        ('dtype = "float8"', r"model\.dtype"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(TextConfig, write(f"[model]\n{wrong}\n"))


LAYERS = """
[model]
hidden = 6
weight_drop = 0.2
cell_options = { forget_bias = 2.0 }
[[model.layers]]
features = 4
zoneout = { c = 0.3 }
[[model.layers]]
cell = "gru"
weight_drop = 0.0
[[model.layers]]
cell_options = { forget_bias = 0.5 }
"""


def test_unequal_layers_and_options_of_cells(write):
    loaded = load(TextConfig, write(LAYERS))
    assert loaded.model.build_layers() == (
        Layer(LSTM(4, forget_bias=2.0), Regularization(zoneout=(("c", 0.3),), weight_drop=0.2)),
        Layer(GRU(6), Regularization(zoneout=())),
        Layer(LSTM(6, forget_bias=0.5), Regularization(zoneout=(), weight_drop=0.2)),
    )
    assert load(TextConfig, write(dump(loaded))) == loaded
    changed = load(TextConfig, write(LAYERS), {"model.layers.1.features": 9, "model.layers.0": {}})
    assert [layer.cell.features for layer in changed.model.build_layers()] == [6, 9, 6]


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (LAYERS, {"model.layers.3.features": 4}, r"model\.layers\.3\.features: .* below 3"),
        (LAYERS, {"model.layers.x.features": 4}, r"model\.layers\.x\.features: expected a number"),
        (LAYERS, {"model.layers.0.featuers": 4}, r"model\.layers\.0\.featuers.*'features'"),
        (
            LAYERS,
            {"model.layers.0.features": 0},
            r"model\.layers\.0\.features: Expected `int` >= 1",
        ),
        ("[model]\nlayers = []\n", {}, r"model\.layers: expected at least one layer"),
        ("[model]\nlayers = 'two'\n", {}, r"model\.layers: Expected `int \| array`"),
        (LAYERS, {"model.layers.1.cell": "gruu"}, r"model\.layers\.1\.cell: .*'gru'"),
        ("", {"model.cell_options": {"forget": 1.0}}, r"model\.cell_options: .*'forget' of lstm"),
        ("", {"model.cell_options": {"features": 3}}, r"model\.cell_options: unknown option"),
        ("", {"model.cell": "lstm_projected"}, r"model\.cell_options: .*hidden"),
        ("", {"model.strategy": "fusd"}, r"model\.strategy: unknown name 'fusd'.*'fused'"),
        ("", {"model.layers.0.features": 4}, r"model\.layers: expected a list of tables"),
        (
            "[model]\nlayers = 2\n",
            {"model.layers.0.features": 4},
            r"layers is neither a section nor",
        ),
    ],
)
def test_mistakes_in_layers_name_the_key(write, text, settings, message):

    def build():
        model = load(TextConfig, write(text), settings).model
        return model.build_layers(), model.execution()

    with pytest.raises(ConfigError, match=message):
        build()


def test_a_former_key_is_read(write):
    assert load(TextConfig, write("[data]\nsteps = 7\n")).data.chunk_length == 7
    assert load(TextConfig, write(""), {"data.steps": 8}).data.chunk_length == 8
    settings = {"data.steps": 9}
    assert load(TextConfig, write("[data]\nsteps = 7\n"), settings).data.chunk_length == 9
    assert "chunk_length = 7" in dump(load(TextConfig, write("[data]\nsteps = 7\n")))
    with pytest.raises(ConfigError, match=r"data\.chunk_length: given twice"):
        load(TextConfig, write("[data]\nsteps = 7\nchunk_length = 8\n"))


def test_default_options_belong_to_the_default_name(write):
    assert TextConfig().optimizer.schedule_options == {"final": 0.02}
    same = load(TextConfig, write("[optimizer]\nschedule = 'cosine'\n"))
    assert same.optimizer.schedule_options == {"final": 0.02}
    for other in (
        load(TextConfig, write("[optimizer]\nschedule = 'constant'\n")),
        load(TextConfig, write(""), {"optimizer.schedule": "constant"}),
        from_keywords(TextConfig, {"schedule": "constant"}),
    ):
        assert other.optimizer.schedule_options == {}
        other.optimizer.build()
        assert load(TextConfig, write(dump(other))) == other
    given = {"schedule": "linear", "schedule_options": {"final": 0.1}}
    assert from_keywords(TextConfig, given).optimizer.schedule_options == {"final": 0.1}
    base = from_keywords(TextConfig, {"cell": "lstm", "cell_options": {"forget_bias": 2.0}})
    assert convert(TextConfig, {"model": {"cell": "gru"}}, base=base).model.cell_options == {}
    assert convert(TextConfig, {"model": {"hidden": 9}}, base=base).model.cell_options


def test_what_may_change_on_resume(write):
    before = load(TextConfig, write(""))
    for settings in (
        {"train.max_steps": 5, "train.report_every": 1, "train.accumulate": 2, "train.spike": 9.0},
        {"data.files": ["elsewhere.txt"]},
    ):
        check_resumable(before, load(TextConfig, write(""), settings), "run")
    for key, value in (("train.seed", 5), ("model.hidden", 9), ("data.chunk_length", 3)):
        changed = load(TextConfig, write(""), {key: value})
        with pytest.raises(
            ConfigError, match=rf"^run: cannot resume with a different {key}: .* {value}"
        ):
            check_resumable(before, changed, "run")


# What the presets resolve to, in full; ALIKE is what all of them say.
ALIKE = {
    "model": {"cell": "lstm", "layers": 1, "variational": False, "recurrent_dropout": 0.0,
              "zoneout": {}, "weight_drop": 0.0, "dtype": "float32"},
    "optimizer": {"name": "adam", "options": {}, "schedule": "cosine", "warmup": 0.02,
                  "clip_norm": 1.0, "clip_value": 0.0},
    "train": {"seed": 0, "accumulate": 1, "shard_optimizer": False, "report_every": 50, "keep": 2,
              "on_nonfinite": "stop", "max_skips": 10, "max_rollbacks": 3},
}  # fmt: skip
RESOLVED = {
    ("text", "shakespeare-2min"): {
        "data": {"files": [], "tokenizer": "character", "validation": 0.1, "chunk_length": 64,
                 "fresh_starts": 0.05},
        "model": {"hidden": 256, "dropout": 0.0, "embedding": 64, "residual": False, "tied": False,
                  "activity_weight": 0.0, "temporal_weight": 0.0},
        "optimizer": {"learning_rate": 0.004, "schedule_options": {"final": 0.02},
                      "weight_decay": 0.01},
        "train": {"batch_size": 16, "steps": 4800, "max_seconds": 120.0, "evaluate_every": 1200,
                  "checkpoint_every": 1200},
    },
    ("text", "demo"): {
        "data": {"files": [], "tokenizer": "byte", "validation": 0.1, "chunk_length": 64,
                 "fresh_starts": 0.05},
        "model": {"hidden": 256, "dropout": 0.0, "embedding": 64, "residual": False, "tied": False,
                  "activity_weight": 0.0, "temporal_weight": 0.0},
        "optimizer": {"learning_rate": 0.004, "schedule_options": {"final": 0.02},
                      "weight_decay": 0.01},
        "train": {"batch_size": 16, "steps": 3600, "max_seconds": 90.0, "evaluate_every": 1000000,
                  "checkpoint_every": 1000000},
    },
    ("forecast", "m4-hourly"): {
        "data": {"horizon": 48, "season": 24, "context": 168, "profile": 7},
        "model": {"hidden": 64, "dropout": 0.2, "head": "quantile"},
        "optimizer": {"learning_rate": 0.003, "schedule_options": {}, "weight_decay": 0.0001},
        "train": {"batch_size": 64, "steps": 4000, "evaluate_every": 500, "checkpoint_every": 500},
    },
    ("forecast", "demo"): {
        "data": {"horizon": 52, "season": 52, "profile": 5},
        "model": {"hidden": 32, "dropout": 0.3, "head": "quantile"},
        "optimizer": {"learning_rate": 0.003, "schedule_options": {}, "weight_decay": 0.001},
        "train": {"batch_size": 32, "steps": 500, "evaluate_every": 50, "checkpoint_every": 50},
    },
    ("forecast", "default"): {
        "data": {"profile": 7},
        "model": {"hidden": 64, "dropout": 0.3, "head": "quantile"},
        "optimizer": {"learning_rate": 0.003, "schedule_options": {}, "weight_decay": 0.001},
        "train": {"batch_size": 64, "steps": 1500, "evaluate_every": 100, "checkpoint_every": 100},
    },
}  # fmt: skip


@pytest.mark.parametrize(("group", "name"), RESOLVED)
def test_presets_say_what_they_always_said(group, name):
    kind = TextConfig if group == "text" else ForecastConfig
    resolved = tomllib.loads(dump(load(kind, CONFIGS / group / f"{name}.toml")))
    assert resolved["model"].pop("cell_options") == {}  # newer than the values below
    assert resolved["model"].pop("strategy") == "auto"
    expected = RESOLVED[group, name]
    assert resolved == {key: ALIKE.get(key, {}) | expected[key] for key in expected}


@pytest.mark.parametrize("kind", [TextConfig, ForecastConfig])
def test_the_preset_default_is_the_sections_defaults(kind):
    group = "text" if kind is TextConfig else "forecast"
    assert load(kind, CONFIGS / group / "default.toml") == kind() == from_keywords(kind, {})


@pytest.mark.parametrize("kind", [TextConfig, ForecastConfig])
def test_keywords_are_the_fields(kind):
    known = keywords_of(kind)  # raises where two fields share one
    assert known["optimizer"] == "optimizer.name"
    assert known["optimizer_options"] == "optimizer.options"
    assert known["seed"] == "train.seed"
    assert not {"file", "files", "steps", "max_steps", "max_seconds"} & set(known)
    signature = signature_of(kind)
    assert set(signature.parameters) == set(known)
    given = {name: one.default for name, one in signature.parameters.items()}
    assert from_keywords(kind, given) == kind()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"hiden": 3}, "unknown keyword 'hiden'; did you mean 'hidden'"),
        ({"hidden": "x"}, "^hidden: Expected `int`, got `str`"),
        ({"hidden": 0}, "^hidden: Expected `int` >= 1"),
        ({"chunk_length": -1}, "^chunk_length: "),
        ({"layers": [{"feature": 3}]}, r"unknown key layers\.0\.feature"),
    ],
)
def test_mistakes_in_keywords_name_the_keyword(keywords, message):
    with pytest.raises(ConfigError, match=message):
        from_keywords(TextConfig, keywords)


def test_values_are_laid_over_another_configuration():
    base = from_keywords(TextConfig, {"hidden": 9, "batch_size": 4})
    changed = convert(TextConfig, {"train": {"seed": 3}}, base=base)
    assert (changed.model, changed.train.batch_size, changed.train.seed) == (base.model, 4, 3)
