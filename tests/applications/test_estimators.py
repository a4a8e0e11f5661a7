"""The estimators: in memory, in a directory, saved and loaded, warm, and by the same numbers."""

import inspect
import json
import subprocess
import sys

import chex
import numpy as np
import pandas as pd
import pytest

from seqnets import Forecaster, LanguageModel
from seqnets.applications import application
from seqnets.applications.estimator import NotFittedError
from seqnets.applications.forecasting import forecasting
from seqnets.applications.language import language
from seqnets.config import ConfigError, convert, dump
from seqnets.data import DataError, Series
from seqnets.data.cells import LARGEST
from seqnets.devices import NotEnoughMemoryError, peers
from seqnets.modules import apply
from seqnets.runs.lock import RunLock

SMALL_TEXT = {"hidden": 12, "embedding": 6, "batch_size": 4, "chunk_length": 16}
SMALL_SERIES = {"hidden": 8, "batch_size": 8, "horizon": 6, "season": 6, "context": 12}
TEXT = "the cat sat on the mat. " * 200


def frame(steps=64, start=0, names="abcd"):
    """Series with a season of 6 and noise, from a later start too."""
    days = pd.date_range("2024-01-01", periods=start + steps)
    season = 30 + 5 * np.sin(np.arange(len(days)) * 2 * np.pi / 6)
    parts = []
    for name in names:
        noise = np.random.default_rng(list(name.encode())).normal(0, 0.5, len(days))
        parts.append(pd.DataFrame({"unique_id": name, "ds": days, "y": season + noise}))
    return pd.concat([part.iloc[start:] for part in parts], ignore_index=True)


@pytest.fixture(scope="module")
def writer():
    return LanguageModel(**SMALL_TEXT, learning_rate=0.02).fit(TEXT, steps=160)


@pytest.fixture(scope="module")
def forecaster():
    return Forecaster(**SMALL_SERIES).fit(frame(), steps=60)


def test_a_text_is_learned_measured_and_continued(writer):
    written = writer.generate("the cat sat", tokens=40, temperature=0)
    assert written == ("the cat sat on the mat. " * 3)[11 : 11 + 40]
    figures = writer.score(TEXT)
    assert set(figures) == {
        "nats", "bits_per_character", "perplexity", "tokens", "tokens_per_second",
        "nats_from_fresh_state", "unseen_share",
    }  # fmt: skip
    assert figures["nats"] < 0.5
    assert figures["nats_from_fresh_state"] < figures["nats"] + 0.1
    assert figures["unseen_share"] == 0
    assert figures["tokens"] == len(TEXT) - 1
    assert writer.result["steps"] == 160
    assert {record["split"] for record in writer.records} == {"train", "validation"}
    hot = [writer.generate("the ", tokens=30, temperature=3.0, seed=seed) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    assert len(hot[0]) == 30
    assert writer.generate("the ", tokens=30, temperature=3.0, top_k=1) == writer.generate(
        "the ", tokens=30, temperature=0
    )


def test_without_a_prompt_a_text_is_written_from_its_beginning():
    lines = LanguageModel(**SMALL_TEXT, learning_rate=0.02, fresh_starts=0.3)
    lines.fit("the cat sat\n" * 400, steps=120)
    assert lines.generate("", tokens=23, temperature=0) == "the cat sat\nthe cat sat"
    drawn = [lines.generate("", tokens=9, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("tokenizer", ["byte", "character"])
def test_characters_that_did_not_occur_in_training_are_said(tokenizer, tmp_path):
    writer = LanguageModel(**SMALL_TEXT, tokenizer=tokenizer).fit(TEXT, steps=1)
    told = r"text: 0\.6% of its characters did not occur in training: '\\r', 'é'; they are read"
    with pytest.warns(UserWarning, match=told) as warned:
        figures = writer.score(TEXT[:497] + "\r\ré")
    assert warned[0].filename == __file__
    assert figures["unseen_share"] == 3 / 500
    writer.save(tmp_path / "model")
    for model in (writer, LanguageModel.load(tmp_path / "model")):
        with pytest.warns(UserWarning, match=r"prompt: 25% of its characters .* 'X'; they are"):
            model.generate("caXt", tokens=1)


def test_forecasts_have_the_promised_form(forecaster):
    table = forecaster.predict(levels=(0.9, 0.1, 0.5))
    assert table.columns.tolist() == ["unique_id", "ds", "0.1", "0.5", "0.9"]
    assert isinstance(table.index, pd.RangeIndex)
    assert len(table) == 4 * 6
    expected = pd.date_range("2024-01-01", periods=70)[64:]
    for name, own in table.groupby("unique_id"):
        assert name in "abcd"
        assert own["ds"].tolist() == expected.tolist()
    assert (table["0.1"] <= table["0.5"]).all()
    assert (table["0.5"] <= table["0.9"]).all()


def test_other_histories_are_forecast_too(forecaster):
    other = frame(steps=30, names="xy").set_index("unique_id")
    table = forecaster.predict(other, levels=[0.5])
    assert table["unique_id"].unique().tolist() == ["x", "y"]
    assert table["ds"].min() == pd.Timestamp("2024-01-31")
    together = forecaster.predict(frame(steps=30, names="xyz"), levels=[0.5])
    same = together[together["unique_id"] != "z"].reset_index(drop=True)
    # One program serves any number of series, in batches of one size.
    np.testing.assert_allclose(same["0.5"], table["0.5"], rtol=1e-6)


def traced_at_most(n, module, monkeypatch):
    """Count how often programs of a module apply a network to tracers."""
    chex.clear_trace_counter()
    monkeypatch.setattr(module, "apply", chex.assert_max_traces(apply, n=n))


def test_one_program_predicts_any_number_of_series(forecaster, monkeypatch):
    traced_at_most(1, forecasting, monkeypatch)
    many = [f"{letter}{number}" for letter in "ab" for number in range(75)]
    for names in ("a", "abc", "abcde", many):
        table = forecaster.predict(frame(steps=20, names=names), levels=(0.2, 0.7))
        assert len(table) == 6 * len(names)
    with pytest.raises(AssertionError, match="traced > 1 times"):
        forecaster.predict(levels=(0.2, 0.8))


def test_two_programs_generate_any_length_from_any_prompt(writer, monkeypatch):
    """One reads prompts, one writes."""
    language._reader.cache_clear()
    traced_at_most(2, language, monkeypatch)
    for prompt, tokens, seed in ((1, 1, 0), (2, 64, 1), (65, 65, 2), (66, 3, 3), (300, 200, 4)):
        text = writer.generate(TEXT[:prompt], tokens=tokens, seed=seed, temperature=0.9, top_k=5)
        assert len(text) == tokens
    with pytest.raises(AssertionError, match="traced > 2 times"):
        writer.generate("the ", tokens=3, top_k=4)


@pytest.mark.parametrize(
    "pattern",
    [
        [LARGEST, -LARGEST],
        [0.0, LARGEST],
        [1e-300, 2e-300],
        [1.0, LARGEST, 1.0, 1e-150],
        [5e-324, 0],
    ],
)
def test_values_of_any_size_are_forecast(forecaster, pattern):
    values = np.resize(pattern, 60)
    days = pd.date_range("2024-01-01", periods=60)
    table = forecaster.predict(pd.DataFrame({"unique_id": "a", "ds": days, "y": values}))
    chex.assert_tree_all_finite(table[["0.1", "0.5", "0.9"]].to_numpy())


def test_forecasts_that_are_not_finite_are_an_error(forecaster):
    """Series made by hand have passed no check."""
    huge = Series("huge", np.resize([1.7e308, -1.7e308], 60))
    with pytest.raises(DataError, match="series 'huge': the forecasts are not finite"):
        forecaster.fitted.predict([Series("a", np.arange(60.0)), huge], (0.1, 0.5))


def test_score_is_what_evaluate_prints(forecaster):
    actual = frame(steps=6, start=64)
    figures = forecaster.score(actual)
    assert {"smape", "mase", "weighted_quantile_loss", "coverage", "seasonal_naive"} <= set(figures)
    assert figures == forecaster.score(actual, frame())
    assert figures["horizon"] == 6
    with pytest.raises(DataError, match="expected actual values from"):
        forecaster.score(frame(steps=6, start=63))


@pytest.mark.parametrize("kind", ["writer", "forecaster"])
def test_saved_and_loaded_it_is_the_same(kind, request, tmp_path):
    fitted = request.getfixturevalue(kind)
    fitted.save(tmp_path / "model")
    loaded = type(fitted).load(tmp_path / "model")
    chex.assert_trees_all_equal(loaded.fitted.weights, fitted.fitted.weights)
    assert loaded.result == json.loads(json.dumps(fitted.result))
    if kind == "writer":
        given = {"tokens": 50, "temperature": 1.5, "seed": 3}
        assert loaded.generate("the ", **given) == fitted.generate("the ", **given)
    else:
        pd.testing.assert_frame_equal(loaded.predict(), fitted.predict(), check_exact=True)
    loaded.save(tmp_path / "again")
    again = type(fitted).load(tmp_path / "again")
    chex.assert_trees_all_equal(again.fitted.weights, fitted.fitted.weights)
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        fitted.save(tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LanguageModel, Forecaster])
def test_two_fits_with_one_seed_are_bit_equal_and_another_is_not(kind):
    def weights(seed):
        if kind is LanguageModel:
            fitted = LanguageModel(**SMALL_TEXT, seed=seed, dropout=0.2).fit(TEXT, steps=12)
        else:
            fitted = Forecaster(**SMALL_SERIES, seed=seed).fit(frame(), steps=12)
        return fitted.fitted.weights

    chex.assert_trees_all_equal(weights(3), weights(3))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(weights(3), weights(4))


def test_a_second_fit_begins_with_the_weights_of_the_first(writer):
    """Warm: few steps on other text of the same alphabet keep what was learned."""
    warm = LanguageModel(**SMALL_TEXT, learning_rate=1e-4).fit(TEXT, steps=2)
    cold = warm.score(TEXT)["nats"]
    warm._weights = writer.fitted.weights
    warm.fit(TEXT[5:], steps=2)
    assert warm.score(TEXT)["nats"] < 0.7 < cold
    with pytest.raises(ValueError, match=r"parameters of the new model differ|expected shape"):
        warm.fit("other characters! " * 100, steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LanguageModel, Forecaster])
def test_a_fit_in_a_directory_is_the_commands_run(kind, tmp_path):
    small = SMALL_TEXT if kind is LanguageModel else SMALL_SERIES
    data = TEXT if kind is LanguageModel else frame()
    memory = kind(**small).fit(data, steps=12)
    whole = kind(**small).fit(data, steps=12, directory=tmp_path / "whole")
    chex.assert_trees_all_equal(whole.fitted.weights, memory.fitted.weights)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {"checkpoints", "config.toml", "data.json", "metrics.jsonl", "result.json"} <= names
    loaded = kind.load(tmp_path / "whole")
    chex.assert_trees_all_equal(loaded.fitted.weights, memory.fitted.weights)
    steps = [(record["split"], record["step"]) for record in memory.records]
    for fitted in (whole, loaded):
        assert [(record["split"], record["step"]) for record in fitted.records] == steps
    other = Forecaster if kind is LanguageModel else LanguageModel
    with pytest.raises(ConfigError, match="whole: expected a run of this application, got one of"):
        other.load(tmp_path / "whole")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        kind(**small).fit(data, steps=12, directory=tmp_path / "whole")
    again = kind(**small).fit(data, steps=12, directory=tmp_path / "whole", resume=True)
    chex.assert_trees_all_equal(again.fitted.weights, memory.fitted.weights)
    if kind is Forecaster:
        with pytest.raises(DataError, match="frame: expected series"):
            loaded.predict()


def among_two(monkeypatch, other):
    """Have another process with another configuration, as TOML."""

    class Two(type(peers())):
        def gather(self, text):
            return [text, other]

    monkeypatch.setattr(application, "all_peers", Two)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 3}, r"train\.seed: .* got 0 in process 0 and 3 in process 1"),
        ({"learning_rate": 0.5}, r"optimizer\.learning_rate: .* 0\.5 in process 1"),
        ({"hidden": 9}, r"model\.hidden: .* 9 in process 1"),
    ],
)
@pytest.mark.parametrize("kind", [LanguageModel, Forecaster])
def test_processes_with_other_keywords_are_refused(kind, monkeypatch, other, message):
    small, data = (SMALL_TEXT, TEXT) if kind is LanguageModel else (SMALL_SERIES, frame())
    among_two(monkeypatch, dump(kind(**{**small, **other}).config))
    with pytest.raises(ConfigError, match=message):
        kind(**small).fit(data)


def test_processes_with_other_limits_are_refused_and_other_paths_are_not(monkeypatch):
    config = LanguageModel(**SMALL_TEXT).config
    longer = convert(type(config), {"train": {"steps": 3}}, base=config)
    among_two(monkeypatch, dump(longer))
    with pytest.raises(ConfigError, match=r"train\.steps: .* 2 in process 0 and 3 in process 1"):
        LanguageModel(**SMALL_TEXT).fit(TEXT, steps=2)
    elsewhere = convert(type(config), {"data": {"files": ["x"]}}, base=longer)
    among_two(monkeypatch, dump(elsewhere))
    assert LanguageModel(**SMALL_TEXT).fit(TEXT, steps=3).result["steps"] == 3


def test_a_directory_is_fitted_in_by_one_at_a_time(tmp_path):
    lock = RunLock()
    lock.acquire(tmp_path)
    for resume in (False, True):
        with pytest.raises(ValueError, match=f"{tmp_path}: is being trained by process"):
            LanguageModel(**SMALL_TEXT).fit(TEXT, steps=1, directory=tmp_path, resume=resume)
    lock.release()
    LanguageModel(**SMALL_TEXT).fit(TEXT, steps=1, directory=tmp_path)
    with pytest.raises(DataError, match="has changed"):  # which leaves no lock either
        LanguageModel(**SMALL_TEXT).fit(TEXT[5:], steps=1, directory=tmp_path, resume=True)
    RunLock().check(tmp_path)


def test_series_of_text_are_joined():
    parts = [TEXT[:1000], TEXT[1000:]]
    one = LanguageModel(**SMALL_TEXT).fit(parts, steps=2)
    chex.assert_trees_all_equal(
        one.fitted.weights, LanguageModel(**SMALL_TEXT).fit(TEXT, steps=2).fitted.weights
    )


@pytest.mark.parametrize("kind", [LanguageModel, Forecaster])
def test_keywords_are_shown_and_checked(kind):
    parameters = inspect.signature(kind).parameters
    assert {"cell", "hidden", "layers", "optimizer", "learning_rate", "seed"} <= set(parameters)
    assert parameters["optimizer"].default == "adam"
    with pytest.raises(ConfigError, match="unknown keyword 'hiden'; did you mean 'hidden'"):
        kind(hiden=3)
    with pytest.raises(ConfigError, match=r"^hidden: Expected `int`"):
        kind(hidden="many")
    layers = [{"features": 5}, {"cell": "gru", "features": 4}]
    assert len(kind(layers=layers).config.model.build_layers()) == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LanguageModel().generate("a"), NotFittedError, "call fit, or LanguageModel.load"),
        (lambda: Forecaster().predict(), NotFittedError, r"Forecaster is not fitted"),
        (lambda: Forecaster().save("x"), NotFittedError, r"not fitted"),
        (lambda: LanguageModel().fit("ab"), DataError, "expected at least"),
        (lambda: LanguageModel().fit("abc" * 999, steps=0), ConfigError, "^steps: "),
        (lambda: LanguageModel().fit("abc" * 999, seconds=-1.0), ConfigError, "^seconds: "),
        (lambda: LanguageModel().fit("abc", resume=True), ConfigError, "resume: expected a dir"),
        (lambda: LanguageModel(tokenizer="word").fit("abc" * 999), ConfigError, "tokenizer"),
        (lambda: Forecaster().fit("series.csv"), TypeError, "frame: expected a pandas DataFrame"),
        (lambda: Forecaster().fit(frame().iloc[:3]), DataError, "no series is long enough"),
        (lambda: LanguageModel.load("nowhere"), ValueError, "there is no such folder"),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("keywords", [{"hidden": 2_000_000}, {"embedding": 2**31 - 1}])
def test_what_cannot_fit_into_memory_is_refused_before_it_is_tried(keywords):
    with pytest.raises(NotEnoughMemoryError, match=r"^training needs [0-9.]+ [TP]B of memory, "):
        LanguageModel(batch_size=2, chunk_length=8, **keywords).fit("to be " * 50, steps=1)


def test_a_text_that_cannot_fit_into_memory_is_not_begun(writer):
    for tokens in (10**12, 10**30):
        with pytest.raises(NotEnoughMemoryError, match=f"tokens: a text of {tokens} tokens needs "):
            writer.generate("the ", tokens=tokens)


def test_seeds_that_would_be_others_are_refused(writer):
    """JAX takes seeds modulo 2³²."""
    for seed in (2**32, 10**30, -1):
        with pytest.raises(ValueError, match=r"seed: expected a value in \[0, 4294967295\]"):
            writer.generate("the ", tokens=3, seed=seed)
    texts = {writer.generate("the ", tokens=30, temperature=4.0, seed=s) for s in (0, 2**32 - 1)}
    assert len(texts) == 2


def test_very_many_layers_are_refused_before_they_are_traced():
    for layers in (257, 100_000, [{}] * 300):
        model = LanguageModel(layers=layers)
        with pytest.raises(ConfigError, match=r"model.layers: expected at most 256"):
            model.fit("to be " * 500, steps=1)


def test_wrong_levels_and_prompts(writer, forecaster):
    for levels in ((0.5, 1.5), (), (0.5, 0.5)):
        with pytest.raises(ValueError, match=r"levels: expected increasing numbers in \(0, 1\)"):
            forecaster.predict(levels=levels)
    with pytest.raises(ValueError, match=r"levels: expected shape \[Q\] \(1 axes\), got \(\)"):
        forecaster.predict(levels=0.5)
    with pytest.raises(ValueError, match="tokens"):
        writer.generate("a", tokens=0)
    with pytest.raises(TypeError, match="prompt: expected a text, got int"):
        writer.generate(3)
    with pytest.raises(TypeError, match="text: expected a text, got list of str"):
        writer.score(["a"])
    for data, got in ((3, "int"), (["a", 3], "list of str")):
        with pytest.raises(TypeError, match=f"data: expected a text or a list of texts, got {got}"):
            LanguageModel().fit(data)


def test_with_seconds_and_steps_the_first_limit_ends_a_fit():
    both = LanguageModel(**SMALL_TEXT).fit(TEXT, steps=3, seconds=1000)
    assert both.result["steps"] == 3


LATE = """
import sys, jax
jax.devices()
from seqnets import LanguageModel
LanguageModel(hidden=4, batch_size=2, chunk_length=8).fit("to be " * 99, steps=1)
"""


def test_where_jax_is_in_use_one_line_says_so():
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "memory of each device" not in line]
    assert len(lines) <= 1
    assert all("JAX is already in use with 1 CPU device(s)" in line for line in lines)
