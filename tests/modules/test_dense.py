import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets import activations, modules
from seqnets.modules import MLP, Dense, Dropout, Embed, LayerNorm, PReLU, RMSNorm

KEY = jax.random.key(0)


def keys(rows):
    return jax.random.split(KEY, rows)


@pytest.fixture
def xs(rng):
    return jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)


def spread(variables, rng):
    """The same tree with random values, so that zero biases do not hide a mistake."""
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), variables)


class TestMLP:
    def test_is_the_matrix_products(self, xs, rng):
        layer = MLP(features=(5, 6, 2), activation=activations.tanh)
        variables = spread(layer.init(KEY, xs), rng)
        want = np.asarray(xs, np.float64)
        for number in range(3):
            layer_params = variables["params"][f"layer_{number}"]
            want = want @ np.float64(layer_params["kernel"]) + np.float64(layer_params["bias"])
            want = np.tanh(want) if number < 2 else want
        # The products are in float32; errors of the tanh's argument are passed on undiminished.
        np.testing.assert_allclose(layer.apply(variables, xs), want, rtol=1e-4, atol=1e-5)

    def test_one_layer_is_dense(self, xs):
        variables = MLP(features=(3,)).init(KEY, xs)
        dense = Dense(3).apply({"params": variables["params"]["layer_0"]}, xs)
        np.testing.assert_array_equal(MLP(features=(3,)).apply(variables, xs), dense)

    def test_dropout_is_between_the_layers_and_by_row(self, xs):
        layer = MLP(features=(64, 64, 2), dropout=0.5)
        variables = layer.init(KEY, xs)
        plain = layer.apply(variables, xs)
        np.testing.assert_array_equal(MLP(features=(64, 64, 2)).apply(variables, xs), plain)
        noisy = layer.apply(variables, xs, keys(2))
        assert np.abs(noisy - plain).max() > 1e-3
        alone = layer.apply(variables, xs[1:], keys(2)[1:])
        np.testing.assert_allclose(alone, noisy[1:], rtol=1e-5, atol=1e-6)
        one = MLP(features=(2,), dropout=0.5)
        variables = one.init(KEY, xs)
        np.testing.assert_array_equal(one.apply(variables, xs, keys(2)), one.apply(variables, xs))

    def test_layers_draw_different_noise(self):
        """Identity weights show both masks: were they equal, survivors would be scaled by 4."""
        layer = MLP(features=(200, 200, 200), activation=activations.linear, dropout=0.5)
        eye = {"kernel": jnp.eye(200), "bias": jnp.zeros(200)}
        ys = layer.apply(
            {"params": {f"layer_{i}": eye for i in range(3)}}, jnp.ones((1, 200)), keys(1)
        )
        share = float((ys == 4).mean())
        assert 0.13 < share < 0.37  # 1/4 for independent masks, 1/2 for equal ones

    @pytest.mark.parametrize("features", [(), (3, 0), (-1,)])
    def test_rejects_sizes(self, features, xs):
        with pytest.raises(ValueError, match="features"):
            MLP(features=features).init(KEY, xs)

    def test_rejects_rates(self, xs):
        with pytest.raises(ValueError, match="rate"):
            MLP(features=(3, 3), dropout=1.0).init(KEY, xs)


class TestDropout:
    def test_is_the_function(self, xs):
        from seqnets.dropout import dropout

        layer = Dropout(0.4)
        assert layer.init(KEY, xs) == {}
        np.testing.assert_array_equal(layer.apply({}, xs, keys(2)), dropout(xs, keys(2), 0.4))
        np.testing.assert_array_equal(layer.apply({}, xs), xs)
        same = Dropout(0.4, same_steps=True).apply({}, xs, keys(2))
        np.testing.assert_array_equal(same, dropout(xs, keys(2), 0.4, same_steps=True))
        assert (same != layer.apply({}, xs, keys(2))).any()

    def test_rejects(self, xs):
        with pytest.raises(ValueError, match="rate"):
            Dropout(1.0).apply({}, xs)
        with pytest.raises(ValueError, match="keys"):
            Dropout(0.5).apply({}, xs, keys(3))


class TestPReLU:
    @pytest.mark.parametrize(("per_feature", "shape"), [(False, ()), (True, (4,))])
    def test_parameter_and_value(self, xs, rng, per_feature, shape):
        layer = PReLU(per_feature=per_feature)
        variables = layer.init(KEY, xs)
        slope = variables["params"]["slope"]
        assert slope.shape == shape
        np.testing.assert_array_equal(slope, 0.25)
        variables = spread(variables, rng)
        slope = np.asarray(variables["params"]["slope"])
        want = np.where(np.asarray(xs) >= 0, xs, slope * np.asarray(xs))
        np.testing.assert_allclose(layer.apply(variables, xs), want, rtol=1e-6)

    def test_gradient_reaches_the_slope(self, xs):
        layer = PReLU(per_feature=True, initial_slope=0.1)
        grad = jax.grad(lambda v: layer.apply(v, xs).sum())(layer.init(KEY, xs))
        want = np.minimum(np.asarray(xs), 0).sum((0, 1))
        np.testing.assert_allclose(grad["params"]["slope"], want, rtol=1e-5)

    def test_inside_an_mlp_shaped_model(self, xs):
        model = nn.Sequential([Dense(5), PReLU(), Dense(2)])
        assert model.apply(model.init(KEY, xs), xs).shape == (2, 3, 2)


def test_embedding_and_tied_output(rng):
    """Rows of the table in, and logits by products with the same table."""
    layer = Embed(num_embeddings=7, features=4)
    table = rng.normal(size=(7, 4)).astype(np.float32)
    variables = {"params": {"embedding": jnp.asarray(table)}}
    tokens = rng.integers(0, 7, (2, 3))
    np.testing.assert_array_equal(layer.apply(variables, tokens), table[tokens])
    hidden = rng.normal(size=(2, 3, 4)).astype(np.float32)
    logits = layer.apply(variables, hidden, method="attend")
    np.testing.assert_allclose(logits, hidden @ table.T, rtol=1e-5, atol=1e-6)


def test_dense_and_norms_in_float64(xs, rng):
    exact = np.asarray(xs, np.float64)
    dense = Dense(3)
    variables = spread(dense.init(KEY, xs), rng)
    kernel, bias = (np.float64(variables["params"][name]) for name in ("kernel", "bias"))
    np.testing.assert_allclose(
        dense.apply(variables, xs), exact @ kernel + bias, rtol=1e-5, atol=1e-5
    )
    centered = exact - exact.mean(-1, keepdims=True)
    want = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
    layer = LayerNorm()
    np.testing.assert_allclose(layer.apply(layer.init(KEY, xs), xs), want, rtol=1e-4, atol=1e-5)
    want = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-6)
    layer = RMSNorm()
    np.testing.assert_allclose(layer.apply(layer.init(KEY, xs), xs), want, rtol=1e-4, atol=1e-5)


def test_the_package_names_its_layers():
    expected = {"Dense", "Embed", "LayerNorm", "RMSNorm", "MLP", "Dropout", "PReLU", "RNN", "Stack"}
    assert expected <= set(vars(modules))
