import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special as sp

from seqnets.losses import (
    binary_cross_entropy,
    binary_focal,
    categorical_cross_entropy,
    cross_entropy,
    focal,
)
from seqnets.reduction import weighted

V = 5
ROUNDING = 5e-7  # of the logarithm of a sum of V numbers that are at most 1


@pytest.fixture
def logits(rng):
    return 3 * rng.normal(size=(2, 3, V)).astype(np.float32)


@pytest.fixture
def targets(rng):
    return rng.integers(0, V, (2, 3))


@pytest.fixture
def distributions(rng):
    return rng.dirichlet(np.ones(V), (2, 3)).astype(np.float32)


def one_hot(targets):
    return np.eye(V)[targets]


class TestCrossEntropy:
    def test_by_hand(self):
        loss = cross_entropy(jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.array(1))
        np.testing.assert_allclose(loss, 2 * np.log(2), rtol=1e-6)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
    def test_float64_and_optax(self, logits, targets, smoothing):
        loss = cross_entropy(logits, targets, smoothing)
        q = (1 - smoothing) * one_hot(targets) + smoothing / V
        want = -np.sum(q * sp.log_softmax(logits.astype(np.float64), -1), -1)
        np.testing.assert_allclose(loss, want, rtol=2e-6, atol=ROUNDING)
        labels = optax.smooth_labels(jnp.asarray(one_hot(targets)), smoothing)
        np.testing.assert_allclose(
            loss, optax.softmax_cross_entropy(logits, labels), rtol=2e-6, atol=ROUNDING
        )

    def test_gradient_is_probability_minus_target(self, logits, targets):
        grad = jax.grad(lambda x: cross_entropy(x, targets, 0.1).sum())(jnp.asarray(logits))
        q = 0.9 * one_hot(targets) + 0.1 / V
        want = sp.softmax(logits.astype(np.float64), -1) - q
        np.testing.assert_allclose(grad, want, atol=5e-7)

    def test_extreme_logits(self):
        """Loss and gradient at ±1e4, and at classes ruled out by -∞."""
        logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [-np.inf, 1.0, 1.0]])
        targets = jnp.array([1, 0, 2])
        loss, grad = jax.vmap(jax.value_and_grad(cross_entropy))(logits, targets)
        np.testing.assert_allclose(loss, [2e4, np.log(3), np.log(2)], rtol=1e-6)
        want = [[1, -1, 0], [-2 / 3, 1 / 3, 1 / 3], [0, 0.5, -0.5]]
        np.testing.assert_allclose(grad, want, atol=1e-6)

    def test_target_that_is_ruled_out(self):
        assert cross_entropy(jnp.array([-np.inf, 0.0]), jnp.array(0)) == np.inf
        assert cross_entropy(jnp.array([-np.inf, 0.0]), jnp.array(1), 0.1) == np.inf

    def test_large_offset_costs_no_digits(self, logits, targets):
        """8192 moves the logits onto a grid of 2⁻¹⁰; the loss of the moved ones is exact."""
        moved = logits + np.float32(8192)
        want = cross_entropy(moved - np.float32(8192), targets)
        np.testing.assert_array_equal(cross_entropy(moved, targets), want)

    @pytest.mark.parametrize("target", [-1, -100, V, 2**30])
    def test_class_outside_is_nan_and_maskable(self, logits, target):
        logits, targets = jnp.asarray(logits[0]), jnp.array([1, target, 2])
        loss = cross_entropy(logits, targets)
        assert np.isnan(loss[1])
        mask = jnp.array([True, False, True])
        f = lambda x: weighted(cross_entropy(x, targets), mask).mean()  # noqa: E731
        value, grad = jax.value_and_grad(f)(logits)
        np.testing.assert_allclose(value, (loss[0] + loss[2]) / 2, rtol=1e-6)
        assert np.isfinite(grad).all()
        np.testing.assert_array_equal(grad[1], 0)

    def test_many_classes_in_half_precision(self):
        """70000 equal classes: their number is beyond float16."""
        loss = cross_entropy(jnp.zeros(70000, jnp.float16), jnp.array(3))
        np.testing.assert_allclose(loss, np.log(70000), rtol=1e-6)

    def test_rejects(self, logits, targets):
        with pytest.raises(ValueError, match="targets"):
            cross_entropy(logits, targets[:, :2])
        with pytest.raises(TypeError, match="targets"):
            cross_entropy(logits, targets.astype(np.float32))
        for smoothing in (-0.1, 1.1, np.nan):
            with pytest.raises(ValueError, match="label_smoothing"):
                cross_entropy(logits, targets, smoothing)


class TestCategoricalCrossEntropy:
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_float64_and_optax(self, logits, distributions, smoothing):
        loss = categorical_cross_entropy(logits, distributions, smoothing)
        q = (1 - smoothing) * distributions.astype(np.float64) + smoothing / V
        want = -np.sum(q * sp.log_softmax(logits.astype(np.float64), -1), -1)
        np.testing.assert_allclose(loss, want, rtol=2e-6, atol=ROUNDING)
        theirs = optax.softmax_cross_entropy(logits, optax.smooth_labels(distributions, smoothing))
        np.testing.assert_allclose(loss, theirs, rtol=2e-6, atol=ROUNDING)

    def test_one_hot_is_cross_entropy(self, logits, targets):
        for smoothing in (0.0, 0.1):
            np.testing.assert_allclose(
                categorical_cross_entropy(logits, one_hot(targets), smoothing),
                cross_entropy(logits, targets, smoothing),
                rtol=2e-6,
                atol=ROUNDING,
            )

    def test_classes_ruled_out(self):
        """Probability 0 and logit -∞ agree: no NaN in the value or in the gradient."""
        logits, q = jnp.array([-np.inf, 0.0, 0.0]), jnp.array([0.0, 0.25, 0.75])
        loss, grad = jax.value_and_grad(categorical_cross_entropy)(logits, q)
        np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
        np.testing.assert_allclose(grad, [0, 0.25, -0.25], atol=1e-6)
        assert categorical_cross_entropy(logits, q[::-1]) == np.inf

    def test_gradient_by_the_distribution(self, logits):
        """-log p, also where the probability is 0 (and the logit is finite)."""
        x, q = jnp.asarray(logits[0, 0]), jnp.array([0.0, 0.5, 0.5, 0.0, 0.0])
        grad = jax.grad(categorical_cross_entropy, 1)(x, q)
        want = -sp.log_softmax(logits[0, 0].astype(np.float64))
        np.testing.assert_allclose(grad, want, rtol=2e-6)

    def test_rejects(self, logits, distributions):
        with pytest.raises(ValueError, match="distributions"):
            categorical_cross_entropy(logits, distributions[:, :1])
        with pytest.raises(ValueError, match="label_smoothing"):
            categorical_cross_entropy(logits, distributions, 2.0)


class TestBinaryCrossEntropy:
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_float64_and_optax(self, rng, smoothing):
        x = (5 * rng.normal(size=(4, 6))).astype(np.float32)
        t = rng.uniform(size=(4, 6)).astype(np.float32)
        loss = binary_cross_entropy(x, t, smoothing)
        soft = t.astype(np.float64) * (1 - smoothing) + smoothing / 2
        want = -soft * sp.log_expit(x) - (1 - soft) * sp.log_expit(-x.astype(np.float64))
        np.testing.assert_allclose(loss, want, rtol=3e-6)
        theirs = optax.sigmoid_binary_cross_entropy(x, optax.smooth_labels(t, 0))
        if smoothing == 0:
            np.testing.assert_allclose(loss, theirs, rtol=3e-6)

    def test_two_classes_of_cross_entropy(self, rng):
        x = rng.normal(size=7).astype(np.float32)
        targets = rng.integers(0, 2, 7)
        for smoothing in (0.0, 0.1):
            np.testing.assert_allclose(
                binary_cross_entropy(x, targets, smoothing),
                cross_entropy(np.stack([0 * x, x], -1), targets, smoothing),
                rtol=2e-6,
                atol=ROUNDING,
            )

    def test_extremes(self):
        """Certain and right: 0, at infinity too; certain and wrong: the distance."""
        x = jnp.array([1e4, -1e4, np.inf, -np.inf, 1e4, -1e4, np.inf])
        t = jnp.array([1.0, 0, 1, 0, 0, 1, 0])
        loss, grad = jax.vmap(jax.value_and_grad(binary_cross_entropy))(x, t)
        np.testing.assert_array_equal(loss, [0, 0, 0, 0, 1e4, 1e4, np.inf])
        np.testing.assert_array_equal(grad, [0, 0, 0, 0, 1, -1, 1])

    def test_gradient_by_the_target(self):
        """-x, at targets 0 and 1 too."""
        grad = jax.vmap(jax.grad(binary_cross_entropy, 1))(jnp.full(3, 0.7), jnp.array([0, 0.5, 1]))
        np.testing.assert_allclose(grad, [-0.7] * 3, rtol=1e-6)

    def test_targets_of_any_type(self, rng):
        x = rng.normal(size=5)
        t = np.array([0, 1, 1, 0, 1])
        want = binary_cross_entropy(x, t.astype(np.float32))
        np.testing.assert_array_equal(binary_cross_entropy(x, t), want)
        np.testing.assert_array_equal(binary_cross_entropy(x, t.astype(bool)), want)

    def test_rejects(self):
        with pytest.raises(ValueError, match="targets"):
            binary_cross_entropy(jnp.ones((2, 1)), jnp.ones((2,)))
        with pytest.raises(ValueError, match="label_smoothing"):
            binary_cross_entropy(jnp.ones(2), jnp.ones(2), -0.5)


class TestFocal:
    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
    def test_float64(self, logits, targets, gamma):
        log_p = sp.log_softmax(logits.astype(np.float64), -1)
        log_p = np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
        want = -((1 - np.exp(log_p)) ** gamma) * log_p
        # Relative errors of a small loss (above) enter with the power gamma + 1.
        got = focal(logits, targets, gamma)
        np.testing.assert_allclose(got, want, rtol=2e-5 * (1 + gamma))

    def test_gamma_zero_is_cross_entropy(self, logits, targets):
        want = cross_entropy(logits, targets)
        np.testing.assert_array_equal(focal(logits, targets, 0.0), want)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
    def test_extremes(self, gamma):
        """Certain and right, certain and wrong, ruled out: finite gradients, right loss."""
        logits = jnp.array([[1e4, -1e4], [-1e4, 1e4], [0.0, -np.inf], [60.0, 0.0]])
        f = jax.vmap(jax.value_and_grad(lambda x: focal(x, jnp.array(0), gamma)))
        loss, grad = f(logits)
        np.testing.assert_allclose(loss, [0, 2e4, 0, 0], atol=1e-6)
        np.testing.assert_allclose(grad, [[0, 0], [-1, 1], [0, 0], [0, 0]], atol=1e-6)

    def test_rejects(self, logits, targets):
        with pytest.raises(ValueError, match="gamma"):
            focal(logits, targets, -1.0)
        with pytest.raises(ValueError, match="targets"):
            focal(logits, targets[0])
        with pytest.raises(TypeError, match="targets"):
            focal(logits, targets.astype(np.float32))


class TestBinaryFocal:
    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_float64_and_optax(self, rng, alpha, gamma):
        x = 3 * rng.normal(size=(3, 8)).astype(np.float32)
        t = rng.integers(0, 2, (3, 8)).astype(np.float32)
        loss = binary_focal(x, t, gamma, alpha)
        right = sp.expit(np.where(t == 1, 1.0, -1.0) * x)
        share = 1 if alpha is None else np.where(t == 1, alpha, 1 - alpha)
        want = -share * sp.expit(np.where(t == 1, -1.0, 1.0) * x) ** gamma * np.log(right)
        np.testing.assert_allclose(loss, want, rtol=5e-6)
        theirs = optax.sigmoid_focal_loss(x, t, alpha=alpha, gamma=gamma)
        np.testing.assert_allclose(loss, theirs, rtol=1e-4, atol=1e-6)  # theirs computes 1 - p

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_extremes(self, gamma):
        x, t = jnp.array([1e4, -1e4, 1e4, np.inf, -np.inf]), jnp.array([1.0, 0, 0, 1, 0])
        f = jax.vmap(jax.value_and_grad(lambda x, t: binary_focal(x, t, gamma)))
        loss, grad = f(x, t)
        np.testing.assert_array_equal(loss, [0, 0, 1e4, 0, 0])
        np.testing.assert_allclose(grad, [0, 0, 1, 0, 0], atol=1e-6)

    def test_rejects(self):
        x = jnp.ones(2)
        with pytest.raises(ValueError, match="gamma"):
            binary_focal(x, x, -1.0)
        with pytest.raises(ValueError, match="alpha"):
            binary_focal(x, x, 2.0, 1.5)
        with pytest.raises(ValueError, match="targets"):
            binary_focal(x, jnp.ones((2, 2)))
