"""What is said of a language model and a text: figures from both kinds of state, and warnings."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.applications.language.config import TextConfig
from seqnets.applications.language.data import Texts
from seqnets.applications.language.language import LANGUAGE, FittedLanguageModel
from seqnets.applications.language.network import LanguageNetwork
from seqnets.cells import Elman
from seqnets.config import convert
from seqnets.data.text import TextSplit
from seqnets.data.tokenizers import CharacterTokenizer
from seqnets.modules import Layer
from seqnets.training import Weights

TEXT = "a" * 2500  # two rows of an evaluation


def slow_starter(rise):
    """A model that counts in its state, and expects the right token only once it is full.

    It adds ``rise`` a token, so that the logit of "a" over the other's is 8 · (t · rise - 1).
    """
    layers = (Layer(Elman(1, activation=lambda x: jnp.minimum(x, 2.0))),)
    network = LanguageNetwork(vocabulary=2, embedding=1, layers=layers)
    params = network.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    params = jax.tree.map(jnp.zeros_like, params)
    cell = params["stack"]["layer_0"]["cell"]
    cell = cell._replace(w_h=jnp.ones((1, 1)), b=jnp.full((1,), rise))
    params["stack"]["layer_0"]["cell"] = cell
    params["output"] = {"kernel": jnp.array([[0.0, 8.0]]), "bias": jnp.array([0.0, -8.0])}
    return FittedLanguageModel(CharacterTokenizer("a"), network, Weights(params, ()))


def nats_after(rise, t):
    """Of the token that follows t of them."""
    return np.log1p(np.exp(-8 * (np.minimum(t * rise, 2) - 1)))


def test_a_large_loss_from_the_initial_state_is_measured_and_said():
    rise = 0.01
    with pytest.warns(
        UserWarning, match=r"nats per token from the initial state, but 0\.3"
    ) as told:
        figures = slow_starter(rise).evaluate(TEXT)
    assert len(told) == 1
    rows = [np.arange(1, 1251), np.arange(1, 1250)]  # 2,499 predictions
    carried = np.concatenate([nats_after(rise, t) for t in rows])
    fresh = np.concatenate([nats_after(rise, (t - 1) % 256 + 1) for t in rows])
    np.testing.assert_allclose(figures["nats"], carried.mean(), rtol=1e-4)  # float32 states
    np.testing.assert_allclose(figures["nats_from_fresh_state"], fresh.mean(), rtol=1e-4)


def test_a_small_loss_from_the_initial_state_is_measured_only():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = slow_starter(0.5).evaluate(TEXT)
    assert figures["nats"] < figures["nats_from_fresh_state"] < figures["nats"] + 0.1


def test_many_unseen_characters_are_counted_and_some_are_shown():
    with pytest.warns(
        UserWarning, match=r"'e', 'f', 'g', 'h', 'i', 'j', 'k' and 15 more; "
    ) as told:
        figures = slow_starter(0.5).evaluate(TEXT + "bcdefghijklmnopqrstuvwxyz")
    assert "text: 0.99% of its characters did not occur" in str(told[0].message)
    np.testing.assert_allclose(figures["unseen_share"], 25 / 2525)


def test_training_begins_rows_afresh_unless_told_otherwise():
    """Prompts and texts begin with the initial state, so training must show it."""
    for settings, expected in (({}, 0.05), ({"fresh_starts": 0.0}, 0.0)):
        small = {"data": {"chunk_length": 4} | settings, "model": {"hidden": 2}}
        config = convert(TextConfig, small)
        texts = Texts(TextSplit("abc" * 2000, "abc" * 20), {})
        source = LANGUAGE.prepare(config, lambda texts=texts: texts).source
        resets = np.concatenate([source.batch(k).reset[:, 0] for k in range(1, 90)])
        # 1,424 draws: within 4 deviations
        np.testing.assert_allclose(resets.mean(), expected, atol=4 * np.sqrt(0.05 * 0.95 / 1424))
