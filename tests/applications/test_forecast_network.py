"""The forecaster: it starts at seasonal naive, keeps rows apart, and counts what was observed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.applications.forecasting.data import validation_windows
from seqnets.applications.forecasting.network import ForecastNetwork
from seqnets.applications.forecasting.objective import forecasting_loss
from seqnets.cells import GRU, LSTM
from seqnets.data.series import Series
from seqnets.data.source import WHOLE
from seqnets.data.windows import SeriesWindows, Window, WindowShape, WindowSource
from seqnets.heads import GaussianHead, QuantileHead
from seqnets.modules import Layer
from seqnets.reduction import Weighted
from seqnets.training import Given

SHAPE = WindowShape(context=9, horizon=4, season=3, profile=2)
HEAD = QuantileHead((0.1, 0.5, 0.9))
EVALUATION = Given((), None, (), 1.0)


@pytest.fixture
def windows(rng):
    walks = [10 + np.cumsum(rng.normal(size=n)) for n in (30, 12, 7)]
    return SeriesWindows([Series(str(i), walk) for i, walk in enumerate(walks)], SHAPE)


@pytest.fixture
def window(windows):
    return windows.windows(np.array([0, 1, 2]), np.array([20, 8, 3]))


@pytest.mark.parametrize("layers", [(Layer(LSTM(5)),), (Layer(GRU(5)), Layer(GRU(5)))])
def test_training_starts_at_seasonal_naive(windows, window, layers):
    model = ForecastNetwork(layers, HEAD)
    params = model.init(jax.random.key(0), window)["params"]
    raw = model.apply({"params": params}, window)
    assert raw.shape == (3, 4, 3)
    np.testing.assert_array_equal(HEAD.quantiles(raw, [0.5]), 0)


def trained_params(model, window, rng):
    """Parameters with an output layer that is not zero."""
    params = model.init(jax.random.key(0), window)["params"]
    return jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params)


def test_a_row_depends_on_itself_alone(window, rng):
    model = ForecastNetwork((Layer(LSTM(5)),), HEAD)
    params = trained_params(model, window, rng)
    together = model.apply({"params": params}, window)
    for row in range(3):
        alone = model.apply({"params": params}, Window(*(x[row : row + 1] for x in window)))
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-5, atol=1e-6)


def test_steps_before_the_start_never_matter(window, rng):
    model = ForecastNetwork((Layer(LSTM(5)),), HEAD)
    params = trained_params(model, window, rng)
    noise = np.where(window.past_mask[..., None], window.past, 1e6)
    assert np.any(noise != window.past)
    np.testing.assert_array_equal(
        model.apply({"params": params}, window),
        model.apply({"params": params}, window._replace(past=noise)),
    )


def test_loss_counts_observed_steps(window, rng):
    model = ForecastNetwork((Layer(LSTM(5)),), GaussianHead())
    params = trained_params(model, window, rng)
    weight = (rng.random(window.weight.shape) < 0.6).astype(np.float32)
    loss, carry, *_ = forecasting_loss(model)(params, window._replace(weight=weight), EVALUATION)
    raw = np.asarray(model.apply({"params": params}, window), np.float64)
    scale = np.log1p(np.exp(raw[..., 1] + np.log(np.e - 1))) + 1e-4
    z = (window.target - raw[..., 0]) / scale
    nats = np.log(scale) + z**2 / 2 + np.log(2 * np.pi) / 2
    np.testing.assert_allclose(loss.total, (nats * weight).sum(), rtol=1e-4)  # float32
    assert loss.weight == weight.sum()
    assert carry == ()


def test_the_median_loss_of_zero_is_the_mase(windows):
    """Targets are in units of the past seasonal change, so the loss of saying 0 is naive's MASE."""
    window = windows.windows(np.array([0]), np.array([20]))
    model = ForecastNetwork((Layer(LSTM(2)),), QuantileHead((0.5,)))
    params = model.init(jax.random.key(0), window)["params"]
    loss = forecasting_loss(model)(params, window, EVALUATION).loss
    values = windows.values[:30]
    scale = np.mean(np.abs(values[3:20] - values[:17]))
    naive = np.mean(np.abs(values[20:24] - values[[17, 18, 19, 17]])) / scale
    np.testing.assert_allclose(loss.mean(), naive, rtol=1e-5)


def test_validation_shows_nothing_of_what_it_asks_for(rng):
    walks = [10 + np.cumsum(rng.normal(size=n)) for n in (30, 12, 9)]
    series, changed = (
        [Series(f"{i}", np.concatenate([walk[:-4], end])) for i, walk in enumerate(walks)]
        for end in ([1.0, 2.0, 3.0, 4.0], [np.nan, 1e300, -1e300, 0.0])
    )
    one, two = (validation_windows(SeriesWindows(each, SHAPE), WHOLE) for each in (series, changed))
    chex.assert_trees_all_equal(*([batch[:3] for batch in batches] for batches in (one, two)))
    assert np.any(one[0].target != two[0].target)


def test_it_learns_what_seasonal_naive_cannot(rng):
    """A trend: naive is off by the slope times the season, always."""
    line = Series("line", np.arange(60) * 2.0 + rng.normal(0, 0.1, 60))
    windows = SeriesWindows([line], SHAPE)
    model = ForecastNetwork((Layer(LSTM(8)),), HEAD)
    optimizer = optax.adam(0.02)
    loss_fn = forecasting_loss(model)
    source = WindowSource(windows, batch_size=8, seed=0)
    params = model.init(jax.random.key(0), source.batch(0))["params"]

    @jax.jit
    def step(params, state, window):
        def mean(params):
            loss: Weighted = loss_fn(params, window, EVALUATION).loss
            return loss.mean()

        loss, grads = jax.value_and_grad(mean)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimizer.init(params), []
    for k in range(60):
        params, state, loss = step(params, state, source.batch(k))
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.25 * losses[0]


def test_dropout_needs_keys(window):
    model = ForecastNetwork((Layer(LSTM(5)), Layer(LSTM(5))), HEAD, dropout=0.5)
    params = model.init(jax.random.key(0), window)["params"]
    params["output"]["kernel"] = jnp.ones_like(params["output"]["kernel"])
    keys = jax.random.split(jax.random.key(1), 3)
    plain = model.apply({"params": params}, window)
    np.testing.assert_array_equal(plain, model.apply({"params": params}, window, None))
    assert np.any(plain != model.apply({"params": params}, window, keys))
