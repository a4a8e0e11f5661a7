"""The language model: what it may look at, what it carries, and what its loss counts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.applications.language.network import LanguageNetwork, initial_carry
from seqnets.applications.language.objective import language_loss
from seqnets.cells import GRU, LSTM
from seqnets.data.text import EvaluationBatch, TextBatch
from seqnets.modules import Layer
from seqnets.recurrence import Execution, Regularization
from seqnets.training import Given, StepKeys

B, T, V = 3, 7, 11
LAYERS = (Layer(LSTM(6)), Layer(GRU(6)))


def given(carry, keys=None):
    return Given(carry, keys, (), 0.0)


@pytest.fixture(scope="module")
def model():
    return LanguageNetwork(vocabulary=V, embedding=5, layers=LAYERS)


@pytest.fixture(scope="module")
def params(model):
    return model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


@pytest.fixture
def tokens(rng):
    return rng.integers(0, V, (B, T + 1)).astype(np.int32)


def batch_of(tokens, reset=None):
    reset = np.zeros((B, T), bool) if reset is None else reset
    return TextBatch(tokens[:, :-1], tokens[:, 1:], reset)


def test_loss_is_the_mean_over_next_tokens(model, params, tokens):
    start = initial_carry(model, params, B)
    loss = language_loss(model)(params, batch_of(tokens), given(start)).loss
    _, logits = model.apply({"params": params}, tokens[:, :-1])
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_p, tokens[:, 1:, None].astype(int), -1)
    np.testing.assert_allclose(loss.total, -chosen.sum(), rtol=1e-5)  # float32 sums
    assert loss.weight == B * T


@pytest.mark.parametrize("tied", [False, True])
def test_training_starts_at_unit_scale(tied, rng):
    """The layers read inputs of unit variance, and no logit begins far from the others."""
    model = LanguageNetwork(vocabulary=200, embedding=100, layers=(Layer(LSTM(100)),), tied=tied)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    table = params["embed"]["embedding"]
    # 20,000 draws: the deviation is known to 0.5%
    np.testing.assert_allclose(np.std(table), 0.1 if tied else 1.0, rtol=0.03)
    ys = jnp.asarray(rng.normal(size=(64, 1, 100)), jnp.float32)
    logits = model.apply({"params": params}, ys, method="logits")
    np.testing.assert_allclose(np.std(logits), 1.0, rtol=0.1)


def test_a_fresh_state_forgets_the_carry_of_every_batch(model, params, tokens):
    fresh = language_loss(model, from_fresh_state=True)
    start = initial_carry(model, params, B)
    other = jax.tree.map(lambda x: x + 1, start)
    mask = np.ones((B, T), bool)
    batch = EvaluationBatch(tokens[:, :-1], tokens[:, 1:], mask)
    want = language_loss(model)(params, batch, given(start)).loss
    for carry in ((), other):
        loss, kept, *_ = fresh(params, batch, given(carry))
        np.testing.assert_allclose(loss.total, want.total, rtol=1e-6)
        assert kept == ()


def test_a_logit_sees_its_token_and_those_before(model, params, tokens, rng):
    _, logits = model.apply({"params": params}, tokens)
    changed = tokens.copy()
    changed[:, 4] = (changed[:, 4] + 1) % V
    _, others = model.apply({"params": params}, changed)
    np.testing.assert_array_equal(logits[:, :4], others[:, :4])
    assert np.all(np.any(logits[:, 4:] != others[:, 4:], axis=-1))


def test_two_batches_with_the_carry_are_one(model, params, tokens):
    loss_fn = language_loss(model)
    start = initial_carry(model, params, B)
    whole, end, *_ = loss_fn(params, batch_of(tokens), given(start))
    none = np.zeros((B, 3), bool)
    batch = TextBatch(tokens[:, :3], tokens[:, 1:4], none)
    first, carry, *_ = loss_fn(params, batch, given(start))
    none = np.zeros((B, T - 3), bool)
    batch = TextBatch(tokens[:, 3:-1], tokens[:, 4:], none)
    second, last, *_ = loss_fn(params, batch, given(carry))
    np.testing.assert_allclose(first.total + second.total, whole.total, rtol=1e-6)
    chex.assert_trees_all_close(last, end, rtol=1e-5, atol=1e-6)


def test_a_reset_forgets_the_carry(model, params, tokens, rng):
    start = initial_carry(model, params, B)
    other = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32), start)
    reset = np.zeros((B, T), bool)
    reset[:, 0] = True
    loss_fn = language_loss(model)
    plain = loss_fn(params, batch_of(tokens), given(start)).loss
    again = loss_fn(params, batch_of(tokens, reset), given(other)).loss
    kept = loss_fn(params, batch_of(tokens), given(other)).loss
    np.testing.assert_allclose(again.total, plain.total, rtol=1e-6)
    assert abs(kept.total - plain.total) > 1e-3


def test_padding_of_an_evaluation_counts_nothing(model, params, tokens, rng):
    mask = np.arange(T)[None, :] < np.array([[T], [4], [0]])
    batch = EvaluationBatch(tokens[:, :-1], tokens[:, 1:], mask)
    other = EvaluationBatch(*(np.where(mask, x, 0) for x in batch[:2]), mask)
    loss_fn = language_loss(model)
    start = initial_carry(model, params, B)
    first, carry, *_ = loss_fn(params, batch, given(start))
    second, same, *_ = loss_fn(params, other, given(start))
    assert first.weight == T + 4
    np.testing.assert_array_equal(first.total, second.total)
    chex.assert_trees_all_equal(carry, same)
    # The row of length 0 keeps its carry.
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x: x[2], tree) for tree in (carry, start)))


def test_the_gradient_stops_at_the_carry(model, params, tokens):
    def through(scale):
        start = jax.tree.map(lambda x: x + scale, initial_carry(model, params, B))
        carry = language_loss(model)(params, batch_of(tokens), given(start)).carry
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(carry))

    assert jax.grad(through)(0.3) == 0


@pytest.mark.parametrize("hidden", [5, 6])
def test_tied_output_has_no_matrix_of_its_own(hidden):
    model = LanguageNetwork(vocabulary=V, embedding=5, layers=(Layer(LSTM(hidden)),), tied=True)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    assert "output" not in params
    assert ("projection" in params) == (hidden != 5)
    _, logits = model.apply({"params": params}, jnp.zeros((2, 3), jnp.int32))
    assert logits.shape == (2, 3, V)
    grads = jax.grad(
        lambda p: model.apply({"params": p}, jnp.ones((1, 2), jnp.int32))[1][..., 4].sum()
    )(params)
    assert np.any(grads["embed"]["embedding"][4] != 0)  # reached through the output only


def test_dropout_follows_the_row(tokens):
    model = LanguageNetwork(
        vocabulary=V, embedding=5, layers=(Layer(LSTM(6)), Layer(LSTM(6))), dropout=0.5
    )
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    keys = jax.random.split(jax.random.key(1), B)
    _, whole = model.apply({"params": params}, tokens, dropout_keys=keys)
    _, row = model.apply({"params": params}, tokens[1:2], dropout_keys=keys[1:2])
    _, none = model.apply({"params": params}, tokens)
    np.testing.assert_allclose(whole[1:2], row, rtol=1e-5, atol=1e-6)
    assert np.any(np.abs(whole - none) > 1e-3)


def test_penalties_are_added_in_training_only_and_reported(model, params, tokens):
    keys = StepKeys(jax.random.split(jax.random.key(1), B), jax.random.key(2))
    start, batch = initial_carry(model, params, B), batch_of(tokens)
    plain, _, nothing, _ = language_loss(model)(params, batch, given(start, keys))
    assert nothing == {}
    penalized = language_loss(model, activity_weight=2.0, temporal_weight=3.0)
    loss, _, metrics, _ = penalized(params, batch, given(start, keys))
    _, ys = model.apply({"params": params}, tokens[:, :-1], start, method="outputs")
    ys = np.asarray(ys, np.float64)
    changes = np.square(ys[:, 1:] - ys[:, :-1]).mean(-1).sum()
    np.testing.assert_allclose(
        metrics["activity"].total, 2 * np.square(ys).mean(-1).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(metrics["temporal_activity"].total, 3 * changes, rtol=1e-5)
    added = sum(part.total for part in metrics.values())
    np.testing.assert_allclose(loss.total, plain.total + added, rtol=1e-6)
    assert loss.weight == plain.weight == B * T
    evaluated, _, metrics, _ = penalized(params, batch, given(start))
    assert metrics == {}
    np.testing.assert_allclose(evaluated.total, plain.total, rtol=1e-6)


def test_bfloat16_logits_are_float32_and_near(params, tokens):
    for tied in (False, True):
        wide, narrow = (
            LanguageNetwork(V, 5, LAYERS, tied=tied, execution=Execution(dtype=dtype))
            for dtype in (None, "bfloat16")
        )
        params = wide.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
        (_, want), (carry, got) = (m.apply({"params": params}, tokens) for m in (wide, narrow))
        assert got.dtype == "float32"
        assert {leaf.dtype.name for leaf in jax.tree.leaves(carry)} == {"float32"}
        np.testing.assert_allclose(got, want, atol=0.03)


def test_every_regularizer_acts_in_training_and_none_in_evaluation(params, tokens):
    keys = StepKeys(jax.random.split(jax.random.key(1), B), jax.random.key(2))
    plain = LanguageNetwork(V, 5, LAYERS)
    start, batch = initial_carry(plain, params, B), batch_of(tokens)
    want = language_loss(plain)(params, batch, given(start)).loss.total
    for chosen in (
        Regularization(recurrent_dropout=0.5),
        Regularization(zoneout=(("h", 0.5),)),
        Regularization(weight_drop=0.5),
    ):
        layers = tuple(Layer(layer.cell, chosen) for layer in LAYERS)
        loss_fn = language_loss(LanguageNetwork(V, 5, layers))
        assert abs(loss_fn(params, batch, given(start, keys)).loss.total - want) > 1e-3
        still = loss_fn(params, batch, given(start)).loss.total
        if not chosen.zoneout:  # which moves by its expectation
            np.testing.assert_allclose(still, want, rtol=1e-6)
