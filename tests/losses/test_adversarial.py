import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets import losses
from seqnets.losses import gradient_penalty

PAIRS = ["non_saturating", "least_squares", "hinge", "wasserstein"]


def functions(pair):
    return getattr(losses, f"{pair}_discriminator"), getattr(losses, f"{pair}_generator")


def keys(rows):
    return jax.random.split(jax.random.key(3), rows)


def oracle(pair, real, fake):
    """Losses of the discriminator on both, and of the generator, in float64."""
    real, fake = np.float64(real), np.float64(fake)
    return {
        "non_saturating": (np.logaddexp(0, -real), np.logaddexp(0, fake), np.logaddexp(0, -fake)),
        "least_squares": ((real - 1) ** 2 / 2, fake**2 / 2, (fake - 1) ** 2 / 2),
        "hinge": (np.maximum(1 - real, 0), np.maximum(1 + fake, 0), -fake),
        "wasserstein": (-real, fake, -fake),
    }[pair]


@pytest.mark.parametrize("pair", PAIRS)
def test_float64(pair, rng):
    """The two batches may be of different sizes."""
    real = np.append(3 * rng.normal(size=5), [-1e4, 1e4]).astype(np.float32)
    fake = np.append(3 * rng.normal(size=4), [-1e4, 1e4]).astype(np.float32)
    discriminator, generator = functions(pair)
    got = (*discriminator(real, fake), generator(fake))
    for value, want in zip(got, oracle(pair, real, fake), strict=True):
        np.testing.assert_allclose(value, want, rtol=2e-6, atol=1e-6)


def test_non_saturating_is_cross_entropy(rng):
    real, fake = rng.normal(size=(2, 6)).astype(np.float32)
    on_real, on_fake = losses.non_saturating_discriminator(real, fake)
    ones, zeros = np.ones_like(real), np.zeros_like(fake)
    want = optax.sigmoid_binary_cross_entropy(real, ones)
    np.testing.assert_allclose(on_real, want, rtol=2e-6)
    want = optax.sigmoid_binary_cross_entropy(fake, zeros)
    np.testing.assert_allclose(on_fake, want, rtol=2e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_directions(pair):
    """The discriminator wants real up and fake down, the generator wants fake up."""
    discriminator, generator = functions(pair)
    by_real, by_fake = jax.grad(lambda r, f: sum(discriminator(r, f)), (0, 1))(0.3, 0.2)
    assert by_real < 0 < by_fake
    assert jax.grad(generator)(0.2) < 0


def test_the_generator_learns_from_a_discriminator_that_wins():
    """Slope -1 at a logit of -1e4; the saturating log(1 - σ) would have 0."""
    assert jax.grad(losses.non_saturating_generator)(-1e4) == -1
    assert jax.grad(losses.hinge_generator)(-1e4) == -1


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda d: d.__name__)
def test_half_precision(pair, dtype):
    """1e4² is beyond float16."""
    logits = jnp.asarray([-1e4, 1e4], dtype)
    discriminator, generator = functions(pair)
    for value in (*discriminator(logits, logits), generator(logits)):
        assert value.dtype == jnp.float32
        assert np.isfinite(value).all()
    grad = jax.grad(lambda x: generator(x).sum())(logits)
    assert grad.dtype == dtype
    assert np.isfinite(grad.astype(np.float32)).all()


class TestGradientPenalty:
    def test_linear_critic(self, rng):
        """(|w| - 1)² everywhere, over all axes of a row."""
        w = rng.normal(size=(3, 4)).astype(np.float32)
        real, fake = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
        got = gradient_penalty(lambda x: jnp.einsum("bij,ij->b", x, w), real, fake, keys(5))
        np.testing.assert_allclose(got, np.full(5, (np.linalg.norm(w) - 1) ** 2), rtol=1e-5)

    def test_points_lie_between_and_differ(self, rng):
        """A critic |x|²/2 has the gradient x, which tells where it was asked."""
        real, fake = np.zeros((200, 1), np.float32), np.full((200, 1), 3, np.float32)
        penalty = gradient_penalty(lambda x: jnp.sum(x * x, -1) / 2, real, fake, keys(200))
        x = 1 + np.sqrt(penalty) * np.where(penalty > 1, 1, np.nan)  # x > 2 can be told apart
        x = x[np.isfinite(x)]
        assert np.all((x > 2) & (x < 3))
        # Uniform on (0, 3): a third lies above 2; the standard error of the share is 0.033.
        assert 0.2 < len(x) / 200 < 0.47
        assert len(np.unique(x)) == len(x)

    def test_rows_depend_on_their_key_only(self, rng):
        real, fake = rng.normal(size=(2, 4, 3)).astype(np.float32)
        critic = lambda x: jnp.sum(x**3, -1)  # noqa: E731
        whole = gradient_penalty(critic, real, fake, keys(4))
        part = gradient_penalty(critic, real[2:], fake[2:], keys(4)[2:])
        np.testing.assert_allclose(whole[2:], part, rtol=1e-5)

    def test_gradient_by_the_critics_weights(self, rng):
        """d(|w| - 1)²/dw = 2 (|w| - 1) w/|w|, by differentiating twice."""
        w = jnp.asarray(rng.normal(size=3), jnp.float32)
        real, fake = rng.normal(size=(2, 4, 3)).astype(np.float32)
        grad = jax.grad(lambda w: gradient_penalty(lambda x: x @ w, real, fake, keys(4)).mean())(w)
        norm = np.linalg.norm(w)
        np.testing.assert_allclose(grad, 2 * (norm - 1) * w / norm, rtol=1e-4, atol=1e-6)

    def test_dead_critic(self, rng):
        """Gradient zero: penalty 1, and no NaN in the critic's own gradient."""
        real, fake = rng.normal(size=(2, 4, 3)).astype(np.float32)
        f = lambda w: gradient_penalty(lambda x: x @ w, real, fake, keys(4)).sum()  # noqa: E731
        value, grad = jax.value_and_grad(f)(jnp.zeros(3))
        assert value == 4
        np.testing.assert_array_equal(grad, 0)

    def test_half_precision(self):
        """A slope of 300, whose square is beyond float16."""
        real, fake = jnp.ones((2, 3), jnp.float16), jnp.zeros((2, 3), jnp.float16)
        penalty = gradient_penalty(lambda x: 300 * x[:, 0], real, fake, keys(2))
        np.testing.assert_array_equal(penalty, [299.0**2] * 2)

    def test_rejects(self):
        critic, x = (lambda x: x.sum(-1)), jnp.ones((2, 3))
        with pytest.raises(ValueError, match="real"):
            gradient_penalty(critic, x, jnp.ones((1, 3)), keys(2))
        with pytest.raises(ValueError, match="keys"):
            gradient_penalty(critic, x, x, keys(3))
        with pytest.raises(ValueError, match="critic"):
            gradient_penalty(lambda x: x, x, x, keys(2))
        with pytest.raises(TypeError, match="real"):
            gradient_penalty(critic, jnp.ones((2, 3), int), jnp.ones((2, 3), int), keys(2))
