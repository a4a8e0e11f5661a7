"""Roles of weights, found wherever in the tree."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest

from seqnets.cells import GRU, LSTM, SRU, CellStack, ConvLSTM, IndRNN, LearnedCarry, PeepholeLSTM
from seqnets.cells.roles import has_roles, map_role, roles, weights_of_role

NAMES = {
    "gru": (GRU(3), {"w_x": "input", "w_h": "recurrent"}),
    "sru": (SRU(3), {"w_x": "input"}),
    "ind_rnn": (IndRNN(3), {"w_x": "input"}),
    "peephole": (PeepholeLSTM(3), {"w_x": "input", "w_h": "recurrent"}),
    "conv": (ConvLSTM(3, image=(4,), kernel=(3,)), {"w_x": "input", "w_h": "recurrent"}),
}


@pytest.mark.parametrize(("cell", "known"), NAMES.values(), ids=NAMES)
def test_weights_are_found_by_role(cell, known):
    params = cell.init(jax.random.key(0), 2)
    for role in ("input", "recurrent"):
        changed = map_role(jnp.zeros_like, params, (role,))
        for name in params._fields:
            before, after = getattr(params, name), getattr(changed, name)
            if known.get(name) == role:
                chex.assert_trees_all_equal(after, jnp.zeros_like(before))
                assert list(weights_of_role(params, role)) == [before]
            else:
                assert after is before or before == () or isinstance(before, tuple)
    assert has_roles(params)


def test_composites_learned_carries_and_trees_are_searched():
    stack = CellStack((LSTM(3), LearnedCarry(GRU(2))))
    tree = {"layer": {"cell": stack.init(jax.random.key(0), 2)}, "other": jnp.ones(3)}
    assert len(list(weights_of_role(tree, "recurrent"))) == 2
    others = list(weights_of_role(tree, "other"))
    assert any(leaf is tree["other"] for leaf in others)
    total = sum(len(list(weights_of_role(tree, r))) for r in ("input", "recurrent", "other"))
    assert total == len(jax.tree.leaves(tree))


def test_what_says_nothing_has_no_roles():
    assert not has_roles({"w": jnp.ones(2)})
    assert not has_roles((jnp.ones(2),))

    @roles(w="recurrent")
    class Own(NamedTuple):
        w: jax.Array

    assert has_roles([Own(jnp.ones(2))])
