import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqnets.initializers import Initialization, chrono, embedding_table, forget_bias, per_gate

KEY = jax.random.key(5)
ORTHOGONAL = jax.nn.initializers.orthogonal()


def test_tables_of_embeddings_are_of_unit_scale():
    """Each entry; or each row, where the table is the output layer as well."""
    shape = (2000, 50)
    free, tied = (embedding_table(tied=tied)(jax.random.key(0), shape) for tied in (False, True))
    chex.assert_type([free, tied], jnp.float32)
    chex.assert_trees_all_close(tied * np.sqrt(50), free, rtol=1e-6)
    # 100,000 draws: the mean is known to 0.003, the deviation to 0.002
    np.testing.assert_allclose([free.mean(), free.std()], [0, 1], atol=0.015)


def test_every_gate_is_orthogonal():
    """[H, H] blocks with their own draws; one draw of the whole would scale them down."""
    blocks = np.split(np.asarray(per_gate(ORTHOGONAL, 4)(KEY, (6, 24), jnp.float32)), 4, axis=-1)
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-6)
    for i, j in [(0, 1), (1, 2), (2, 3), (0, 3)]:
        assert np.abs(blocks[i] - blocks[j]).max() > 0.1


def test_blocks_see_their_own_size():
    """Glorot's limit is that of [D, H], not of [D, G·H]."""
    init = per_gate(jax.nn.initializers.glorot_uniform(), 3)
    weight = init(KEY, (50, 150), jnp.float32)
    limit = np.sqrt(6 / 100)
    assert 0.95 * limit < np.abs(weight).max() <= limit


def test_one_gate_is_the_initializer():
    want = ORTHOGONAL(jax.random.split(KEY, 1)[0], (3, 5), jnp.float32)
    np.testing.assert_array_equal(per_gate(ORTHOGONAL, 1)(KEY, (3, 5), jnp.float32), want)


def test_a_tuple_has_one_initializer_a_gate():
    """The blocks in order, each with the key it has where all are drawn alike."""
    both = per_gate((ORTHOGONAL, jax.nn.initializers.ones), 2)(KEY, (3, 6), jnp.float32)
    alike = per_gate(ORTHOGONAL, 2)(KEY, (3, 6), jnp.float32)
    np.testing.assert_array_equal(both[:, :3], alike[:, :3])
    np.testing.assert_array_equal(both[:, 3:], np.ones((3, 3)))


def test_initializations_are_values():
    assert Initialization() == Initialization()
    assert hash(Initialization(inputs=ORTHOGONAL)) == hash(Initialization(inputs=ORTHOGONAL))
    assert Initialization(inputs=ORTHOGONAL) != Initialization(recurrent=ORTHOGONAL)


def test_forget_bias():
    np.testing.assert_array_equal(
        forget_bias(1.5, 1, 4)(KEY, (8,), jnp.float32), [0, 0, 1.5, 1.5, 0, 0, 0, 0]
    )
    stacked = forget_bias(1.0, gate=2, gates=3)(KEY, (2, 3), jnp.float32)
    np.testing.assert_array_equal(stacked, [[0, 0, 1], [0, 0, 1]])


def test_chrono():
    """b_f = log u with u uniform on (1, T - 1), b_i = -b_f, and zeros elsewhere."""
    init = chrono(100, forget_gate=1, input_gate=0, gates=4)
    i, f, g, o = np.split(np.asarray(init(KEY, (4000,), jnp.float32)), 4)
    np.testing.assert_array_equal(i, -f)
    np.testing.assert_array_equal(g, 0)
    np.testing.assert_array_equal(o, 0)
    u = np.exp(f)
    assert 1 <= u.min() < 2
    assert 98 < u.max() < 99.01
    # Uniform on (1, 99): mean 50 and deviation 28.3, so the mean of 1000 errs by 0.9.
    assert abs(u.mean() - 50) < 4
    assert abs(u.std() - 28.3) < 2


def test_chrono_without_an_input_gate():
    f, other = np.split(np.asarray(chrono(10, forget_gate=0, gates=2)(KEY, (6,), jnp.float32)), 2)
    assert np.all(f > 0)
    np.testing.assert_array_equal(other, 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    "init",
    [
        per_gate(jax.nn.initializers.normal(), 2),
        forget_bias(1.0, 0, 2),
        chrono(9, forget_gate=0, gates=2),
    ],
    ids=["per_gate", "forget_bias", "chrono"],
)
def test_dtype_shape_and_division(init, dtype):
    array = jax.jit(lambda key: init(key, (3, 4), dtype))(KEY)
    assert array.dtype == dtype
    assert array.shape == (3, 4)
    with pytest.raises(ValueError, match="divisible by 2 gates"):
        init(KEY, (3, 5), dtype)


def test_rejects():
    with pytest.raises(ValueError, match="gates"):
        per_gate(ORTHOGONAL, 0)
    with pytest.raises(ValueError, match="initializer: expected one for each of 4 gates, got 3"):
        per_gate((ORTHOGONAL,) * 3, 4)
    for gate in (-1, 4):
        with pytest.raises(ValueError, match="gate"):
            forget_bias(1.0, gate, 4)
        with pytest.raises(ValueError, match="forget_gate"):
            chrono(10, forget_gate=gate, gates=4)
        with pytest.raises(ValueError, match="input_gate"):
            chrono(10, forget_gate=0, input_gate=gate, gates=4)
    with pytest.raises(ValueError, match="longest"):
        chrono(2, forget_gate=0, gates=4)
