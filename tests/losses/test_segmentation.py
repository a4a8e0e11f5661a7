import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.losses import dice, generalized_dice

B, H, W, K = 2, 3, 4, 3


@pytest.fixture
def binary(rng):
    return rng.uniform(size=(B, H, W)).astype(np.float32), rng.integers(0, 2, (B, H, W))


@pytest.fixture
def classes(rng):
    p = rng.dirichlet(np.ones(K), (B, H, W)).astype(np.float32)
    return p, np.eye(K, dtype=np.float32)[rng.integers(0, K, (B, H, W))]


def dice_by_loops(p, t, w, smooth):
    losses = []
    for row in range(p.shape[0]):
        overlap = total = 0.0
        for index in np.ndindex(p.shape[1:]):
            a, b, c = float(p[row][index]), float(t[row][index]), float(w[row][index])
            overlap += c * a * b
            total += c * (a + b)
        losses.append(1 - (2 * overlap + smooth) / (total + smooth))
    return losses


def generalized_by_loops(p, t, w):
    losses = []
    for row in range(p.shape[0]):
        above = below = 0.0
        for k in range(p.shape[-1]):
            a, b = p[row, ..., k].astype(float), t[row, ..., k].astype(float)
            size = (w[row] * b).sum()
            if size > 0:
                above += (w[row] * a * b).sum() / size**2
                below += (w[row] * (a + b)).sum() / size**2
        losses.append(1 - 2 * above / below if below else 0.0)
    return losses


def test_dice_by_hand():
    """Two of three predicted positions overlap with four: 1 - 2·2/(3 + 4), smoothed by 1."""
    p, t = jnp.array([[1.0, 1, 1, 0, 0]]), jnp.array([[1.0, 1, 0, 1, 1]])
    np.testing.assert_allclose(dice(p, t), [1 - 5 / 8], rtol=1e-6)
    np.testing.assert_allclose(dice(p, t, smooth=1e-6), [1 - 4 / 7], rtol=1e-5)


@pytest.mark.parametrize("smooth", [1.0, 0.1])
def test_dice_is_the_loops(binary, smooth):
    p, t = binary
    want = dice_by_loops(p, t, np.ones(p.shape), smooth)
    np.testing.assert_allclose(dice(p, t, smooth=smooth), want, rtol=1e-5)


def test_weights_enter_each_sum_once(binary, classes, rng):
    w = rng.uniform(0, 2, (B, H, W)).astype(np.float32)
    w[0, 0] = 0
    p, t = binary
    np.testing.assert_allclose(dice(p, t, w), dice_by_loops(p, t, w, 1.0), rtol=1e-5)
    p, t = classes
    np.testing.assert_allclose(generalized_dice(p, t, w), generalized_by_loops(p, t, w), rtol=1e-5)


def test_generalized_is_the_loops(classes):
    p, t = classes
    want = generalized_by_loops(p, t, np.ones((B, H, W)))
    np.testing.assert_allclose(generalized_dice(p, t), want, rtol=1e-5)


def test_generalized_of_distributions(classes, rng):
    p, _ = classes
    t = rng.dirichlet(np.ones(K), (B, H, W)).astype(np.float32)
    want = generalized_by_loops(p, t, np.ones((B, H, W)))
    np.testing.assert_allclose(generalized_dice(p, t), want, rtol=1e-5)


def test_classes_count_the_same_whatever_their_size():
    """One wrong position of a rare class costs more than one of a frequent class."""
    t = np.eye(2, dtype=np.float32)[[0] * 9 + [1]][None]
    rare_wrong, frequent_wrong = t.copy(), t.copy()
    rare_wrong[0, 9] = [1, 0]
    frequent_wrong[0, 0] = [0, 1]
    assert generalized_dice(rare_wrong, t) > generalized_dice(frequent_wrong, t)


def test_masked_positions_never_matter(binary, classes, rng):
    """Not even NaN there, and the loss is that of the real positions alone."""
    mask = np.ones((B, H, W), bool)
    mask[:, :, 2:] = False
    for loss, (p, t) in ((dice, binary), (generalized_dice, classes)):
        spoiled = p.copy()
        spoiled[:, :, 2:] = np.nan
        value, grad = jax.value_and_grad(lambda p, f=loss, t=t: f(p, t, mask).sum())(
            jnp.asarray(spoiled)
        )
        np.testing.assert_allclose(value, loss(p[:, :, :2], t[:, :, :2]).sum(), rtol=1e-6)
        np.testing.assert_array_equal(grad[:, :, 2:], 0)
        assert np.all(np.isfinite(grad))
        assert np.any(grad[:, :, :2] != 0)


def test_perfect_and_empty():
    t = np.eye(K, dtype=np.float32)[np.array([[0, 1, 1, 0]])]  # class 2 does not occur
    np.testing.assert_allclose(generalized_dice(t, t), [0], atol=1e-6)
    np.testing.assert_allclose(generalized_dice(t, t, np.zeros((1, 4))), [0])
    np.testing.assert_allclose(dice(t[..., 0], t[..., 0]), [0], atol=1e-6)
    zeros = np.zeros((1, 4), np.float32)
    np.testing.assert_allclose(dice(zeros, zeros), [0])
    for gradient in (
        jax.grad(lambda p: generalized_dice(p, t, np.zeros((1, 4))).sum())(t),
        jax.grad(lambda p: dice(p, zeros, zeros).sum())(zeros),
    ):
        np.testing.assert_array_equal(gradient, 0)


def test_half_precision_sums_do_not_overflow():
    """70000 positions: their number is beyond float16."""
    ones = jnp.ones((1, 70000), jnp.float16)
    np.testing.assert_allclose(dice(ones, ones), [0], atol=1e-5)
    np.testing.assert_allclose(dice(ones, jnp.zeros_like(ones)), [1 - 1 / 70001], rtol=1e-5)


def test_targets_of_booleans(binary):
    p, t = binary
    np.testing.assert_array_equal(dice(p, t == 1), dice(p, t))


def test_rejects(binary, classes):
    p, t = binary
    for smooth in (0.0, -1.0):
        with pytest.raises(ValueError, match="smooth"):
            dice(p, t, smooth=smooth)
    with pytest.raises(ValueError, match="mask"):
        dice(p, t, np.ones((B, H)))
    p, t = classes
    with pytest.raises(ValueError, match="mask"):
        generalized_dice(p, t, np.ones((B, H, W, K)))
    with pytest.raises(ValueError, match="probabilities"):
        generalized_dice(np.ones(K), np.ones(K))
