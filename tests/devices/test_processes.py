"""What processes tell each other, in a process on its own; among several: tests/distributed/."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seqnets.training.processes import (
    SIGNALS,
    Agreement,
    _Leaf,
    add_up,
    copy_of_lead,
    from_lead,
    join,
    leads,
    meet,
    part_of_lead,
    passing_words,
    told_by_lead,
)

from seqnets.reduction import Weighted
from seqnets.training.state import StepInfo


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", None, 0), "expected all of coordinator, processes, process_id; no proc"),
        ((None, 2, 0), "no coordinator"),
        (("localhost", 2, 0), "coordinator: expected host:port, got 'localhost'"),
        (("localhost:0", 2, 0), "coordinator: expected host:port"),
        ((":99", 2, 0), "coordinator: expected host:port"),
        (("localhost:9", 0, 0), "processes: expected at least 1, got 0"),
        (("localhost:9", 2, 2), "process_id: expected 0 to 1, got 2"),
        (("localhost:9", 2, -1), "process_id: expected 0 to 1, got -1"),
    ],
)
def test_mistakes_in_joining(given, message):
    with pytest.raises(ValueError, match=message):
        join(*given)


def test_a_process_on_its_own_leads_itself(rng):
    tree = {"a": rng.normal(size=3)}
    sums = {"loss": Weighted(np.float64(2), np.float64(3))}
    assert leads()
    assert from_lead(lambda: "made") == "made"
    assert told_by_lead(lambda: ("kept", "told")) == ("kept", "told")
    np.testing.assert_array_equal(part_of_lead(tree["a"], slice(1, 3)), tree["a"][1:])
    meet()
    assert copy_of_lead(tree) is tree
    assert add_up(sums) is sums
    with pytest.raises(KeyError, match="here"):
        from_lead(lambda: {}["here"])


@pytest.mark.parametrize("shape", [(), (3, 2), (0, 4)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
def test_leaves_travel_bit_for_bit(rng, shape, dtype):
    x = np.asarray(jnp.asarray(rng.normal(size=shape) * 100, dtype))
    leaf = _Leaf(x)
    back = leaf.like(leaf.bytes().copy())
    assert (back.dtype, back.shape) == (x.dtype, x.shape)
    assert back.tobytes() == x.tobytes()


def test_keys_travel():
    key = jax.random.key(3, impl="rbg")
    leaf = _Leaf(key)
    assert leaf.like(leaf.bytes().copy()) == key


def heard(agreement, words):
    """Words of several processes, added up as a step adds them."""

    def loss_fn(params, carry, batch, keys):
        assert batch == "batch"
        return Weighted(jnp.float32(1), jnp.float32(1)), ((), {"squares": 1})

    metrics = [passing_words(loss_fn)((), (), one, None)[1][1] for one in words]
    (name,) = set(metrics[0]) - {"squares"}
    total = sum((m[name] for m in metrics[1:]), metrics[0][name])
    info = StepInfo(None, {**metrics[0], name: total}, None, None)
    assert agreement.hear(info).metrics == {"squares": 1}


@pytest.mark.parametrize(
    ("signals", "want"),
    [
        ([None, None, None], None),
        ([None, signal.SIGINT, None], signal.SIGINT),
        ([signal.SIGINT, None, signal.SIGTERM], signal.SIGTERM),
        ([signal.SIGTERM] * 3, signal.SIGTERM),
        ([signal.SIGINT] * 3, signal.SIGINT),
    ],
)
def test_one_clock_and_one_signal(monkeypatch, signals, want):
    agreement, words = Agreement(1.0), []
    for process, number in enumerate(signals):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        told = agreement.tell(np.zeros((4, 2)), 7.25 + process, number)
        words.append(told._replace(batch="batch"))
    heard(agreement, words)
    assert agreement.seconds == 7.25
    assert agreement.signal == want
    assert set(SIGNALS) == {signal.SIGINT, signal.SIGTERM}
