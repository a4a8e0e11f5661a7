"""What processes tell each other, in a process on its own; among several: tests/distributed/."""

import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.devices import connect, peers
from seqnets.devices.processes import SIGNALS, Message, Processes, _Leaf
from seqnets.reduction import Weighted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", None, 0), "expected all of coordinator, .* or none; missing: processes"),
        ((None, 2, 0), "missing: coordinator"),
        (("localhost", 2, 0), "coordinator: expected host:port, got 'localhost'"),
        (("localhost:0", 2, 0), "coordinator: expected host:port"),
        ((":99", 2, 0), "coordinator: expected host:port"),
        (("localhost:9", 0, 0), "processes: expected at least 1, got 0"),
        (("localhost:9", 2, 2), "process_id: expected 0 to 1, got 2"),
        (("localhost:9", 2, -1), "process_id: expected 0 to 1, got -1"),
    ],
)
def test_mistakes_in_connecting(given, message):
    with pytest.raises(ValueError, match=message):
        connect(*given)


@pytest.mark.parametrize("alone", [peers(), Processes()], ids=["alone", "one of one"])
def test_a_process_on_its_own_leads_itself(rng, alone):
    tree = {"a": rng.normal(size=3)}
    sums = {"loss": Weighted(np.float64(2), np.float64(3)), "counts": np.arange(6.0).reshape(2, 3)}
    assert alone.lead
    assert alone.count == 1
    assert alone.broadcast(lambda: ("kept", "told")) == ("kept", "told")
    np.testing.assert_array_equal(alone.scatter(tree["a"], slice(1, 3)), tree["a"][1:])
    assert alone.gather("ü" * 3000) == ["ü" * 3000]
    alone.wait()
    chex.assert_trees_all_equal(alone.broadcast_arrays(tree), tree)
    chex.assert_trees_all_equal(alone.all_reduce(sums), sums)
    with pytest.raises(KeyError, match="here"):
        alone.broadcast(lambda: {}["here"])


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
    consensus, messages = Processes().consensus(1.0), []
    assert not consensus.alone
    for process, number in enumerate(signals):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        messages.append(consensus.message(4, 7.25 + process, number))
    assert {leaf.shape for message in messages for leaf in message} == {(4,)}
    assert (consensus.seconds(99.0), consensus.signal(signal.SIGINT)) == (1.0, None)
    # Added up over rows and processes, as a step adds them.
    reply = Message(
        *(jnp.float32(sum(part.sum() for part in own)) for own in zip(*messages, strict=True))
    )
    consensus.receive(reply)
    assert consensus.seconds(99.0) == 7.25
    assert consensus.signal(None) == want
    assert set(SIGNALS) == {signal.SIGINT, signal.SIGTERM}


def test_a_process_on_its_own_goes_by_its_own_clock():
    consensus = peers().consensus(1.0)
    assert consensus.alone
    assert consensus.message(4, 2.0, None) == ()
    assert (consensus.seconds(3.0), consensus.signal(9), consensus.ask(9)) == (3.0, 9, False)
