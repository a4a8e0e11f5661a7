import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.optimizers import momentum, nesterov, sgd

G = jnp.float32(2.0)


def two_updates(optimizer):
    state = optimizer.init(G)
    first, state = optimizer.update(G, state)
    second, _ = optimizer.update(G, state)
    return float(first), float(second)


def test_first_two_steps_by_hand():
    # g = 2, η = 0.5, μ = 0.5: v is 2 and then 3. All of these are exact in float32.
    assert two_updates(sgd(0.5)) == (-1.0, -1.0)
    assert two_updates(momentum(0.5, momentum=0.5)) == (-1.0, -1.5)
    assert two_updates(nesterov(0.5, momentum=0.5)) == (-1.5, -1.75)


def test_no_momentum_is_plain_descent():
    assert two_updates(momentum(0.5, momentum=0.0)) == two_updates(sgd(0.5))


@pytest.mark.parametrize("make", [sgd, momentum, nesterov])
@pytest.mark.parametrize("rate", [-0.1, np.inf, np.nan])
def test_rejects_learning_rates(make, rate):
    with pytest.raises(ValueError, match="learning_rate"):
        make(rate)


@pytest.mark.parametrize("make", [momentum, nesterov])
@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan])
def test_rejects_momenta(make, value):
    with pytest.raises(ValueError, match="momentum"):
        make(0.1, momentum=value)
