"""What follows the update of the parameters: variables that are kept, but not trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from seqnets.checks import check_range
from seqnets.training.state import Clock
from seqnets.typing import PyTree

__all__ = ["After", "chain", "ema"]


def _nothing(params: PyTree) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True, eq=False)
class After:
    """A rule for variables, as an Optax transformation is a rule for parameters.

    Attributes:
      update: ``(variables, params, statistics, clock) -> variables``, called once per step with
        the new parameters and with the statistics of the loss functions, summed over all rows. The
        result has the structure of ``variables``.
      init: variables before the first step, by name, from the parameters.
    """

    update: Callable[[PyTree, PyTree, Mapping[str, Any], Clock], PyTree]
    init: Callable[[PyTree], Mapping[str, Any]] = _nothing


def chain(*rules: After) -> After:
    """Apply rules one after the other, each with variables of its own names.

    Raises:
      ValueError: when variables are initialized, if two rules use one name.
    """

    def init(params: PyTree) -> dict[str, Any]:
        variables: dict[str, Any] = {}
        for rule in rules:
            for name, value in rule.init(params).items():
                if name in variables:
                    raise ValueError(f"after: two rules have variables {name!r}; name them apart")
                variables[name] = value
        return variables

    def update(
        variables: PyTree, params: PyTree, statistics: Mapping[str, Any], clock: Clock
    ) -> PyTree:
        for rule in rules:
            variables = rule.update(variables, params, statistics, clock)
        return variables

    return After(update, init)


def ema(key: str | None = None, decay: float = 0.999) -> After:
    """Exponential moving average of parameters.

        average ← decay · average + (1 - decay) · θ

    It starts at the initial parameters and is found in the variables as ``"ema"``, or
    ``"ema_generator"`` for the key ``"generator"``. It is kept in float32 or wider, where small
    changes are not rounded away.

    Args:
      key: top-level key of the parameters that are averaged; None averages all.
      decay: in [0, 1).

    References:
      Polyak, Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM Journal on
      Control and Optimization 30, 1992; exponential weights as in Yazıcı et al., The Unusual
      Effectiveness of Averaging in GAN Training, 2019, arXiv:1806.04498.
    """
    check_range("decay", decay, 0, 1, closed="left")
    name = "ema" if key is None else f"ema_{key}"

    def init(params: PyTree) -> dict[str, Any]:
        return {name: jax.tree.map(_wide_copy, params if key is None else params[key])}

    def update(
        variables: PyTree, params: PyTree, statistics: Mapping[str, Any], clock: Clock
    ) -> PyTree:
        average = jax.tree.map(
            lambda a, p: decay * a + (1 - decay) * p.astype(a.dtype),
            variables[name],
            params if key is None else params[key],
        )
        return {**variables, name: average}

    return After(update, init)


def _wide_copy(x: Any) -> Any:
    """A copy in float32 or wider; the step donates its state, so nothing in it may be shared."""
    return jnp.array(x, jnp.promote_types(x.dtype, jnp.float32))
