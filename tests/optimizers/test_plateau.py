from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqnets.optimizers import Plateau, reduce_on_plateau


def factors(optimizer, losses):
    """What an update of 1 becomes at every step."""
    update = jax.jit(lambda state, value: optimizer.update(jnp.float32(1), state, value=value))
    state, out = optimizer.init(jnp.float32(0)), []
    for loss in losses:
        factor, state = update(state, jnp.float32(loss))
        out.append(float(factor))
    return out


def test_as_torch_with_one_more_patience():
    golden = np.load(Path(__file__).with_name("golden.npz"))
    plateau = Plateau(factor=0.5, patience=3, cooldown=3, steps=1)
    out = factors(reduce_on_plateau(plateau), golden["losses"])
    np.testing.assert_array_equal(out, golden["torch/plateau"])  # powers of 1/2
    assert out[-1] < 0.1 < out[15]


def test_flat_loss_is_reduced_and_falling_loss_is_not():
    optimizer = reduce_on_plateau(Plateau(factor=0.5, patience=2, steps=1))
    assert factors(optimizer, [1.0] * 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert factors(optimizer, 0.99 ** np.arange(30)) == [1.0] * 30


def test_sign_of_the_loss_does_not_matter():
    optimizer = reduce_on_plateau(Plateau(factor=0.5, patience=2, steps=1))
    assert factors(optimizer, [-3.0] * 4) == [1, 1, 0.5, 0.5]
    assert factors(optimizer, [0.0] * 4) == [1, 1, 0.5, 0.5]
    assert factors(optimizer, -(1.01 ** np.arange(30))) == [1.0] * 30
    theirs = optax.contrib.reduce_on_plateau(factor=0.5, patience=2)
    assert factors(theirs, [-3.0] * 4) == [1.0] * 4  # the difference that is stated


def test_windows_are_averaged():
    # Means 2, 2 (bad), 1 (better), 1 (bad), 1 (bad, the second in a row); each step alone would
    # be judged otherwise.
    losses = [1, 3, 3, 1, 2, 0, 0, 2, 1, 1, 5]
    optimizer = reduce_on_plateau(Plateau(factor=0.5, patience=2, steps=2))
    assert factors(optimizer, losses) == [1.0] * 9 + [0.5] * 2


def test_best_is_the_mean_of_a_window():
    optimizer = reduce_on_plateau(Plateau(steps=4))
    state = optimizer.init(jnp.float32(0))
    for loss in (1.0, 2.0, 3.0, 6.0):
        assert jnp.isinf(state.best)
        _, state = optimizer.update(jnp.float32(1), state, value=jnp.float32(loss))
    assert (float(state.best), float(state.total), int(state.filled)) == (3.0, 0.0, 0)


def test_threshold_is_relative():
    def reduced(loss):
        optimizer = reduce_on_plateau(Plateau(factor=0.5, patience=1, steps=1, threshold=0.1))
        return factors(optimizer, [100.0, loss])[-1] == 0.5

    assert reduced(92.0)
    assert not reduced(89.0)


def test_cooldown_does_not_count():
    optimizer = reduce_on_plateau(Plateau(factor=0.5, patience=1, cooldown=2, steps=1))
    assert factors(optimizer, [1.0] * 7) == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_a_loss_that_is_no_number_is_no_improvement():
    optimizer = reduce_on_plateau(Plateau(factor=0.5, patience=1, steps=1))
    assert factors(optimizer, [1.0, np.nan, 0.5]) == [1, 0.5, 0.5]


def test_updates_keep_their_dtype():
    optimizer = reduce_on_plateau(Plateau(steps=1))
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}
    out, _ = optimizer.update(tree, optimizer.init(tree), value=jnp.bfloat16(1))
    assert (out["a"].dtype, out["b"].dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("factor", 0.0),
        ("factor", 1.0),
        ("patience", 0),
        ("cooldown", -1),
        ("steps", 0),
        ("threshold", -0.1),
    ],
)
def test_rejects(name, value):
    with pytest.raises(ValueError, match=name):
        Plateau(**{name: value})


def test_needs_a_scalar_value():
    optimizer = reduce_on_plateau(Plateau())
    state = optimizer.init(jnp.ones(2))
    with pytest.raises(ValueError, match="value"):
        optimizer.update(jnp.ones(2), state)
    with pytest.raises(ValueError, match="value"):
        optimizer.update(jnp.ones(2), state, value=jnp.ones(2))
