"""Rules that update variables that are not trained, after each update of the parameters."""

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
    """A rule that updates variables, as an Optax transformation updates parameters.

    Attributes:
      update: ``(variables, params, statistics, clock) -> variables``, called once per step with
        the new parameters and with the statistics of the loss functions, summed over all rows. The
        result has the same structure as ``variables``.
      init: ``params -> variables``, the variables before the first step, in a dict by name.
    """

    update: Callable[[PyTree, PyTree, Mapping[str, Any], Clock], PyTree]
    init: Callable[[PyTree], Mapping[str, Any]] = _nothing


def chain(*rules: After) -> After:
    """Apply several rules in order.

    Args:
      *rules: rules whose variables have different names.

    Returns:
      One rule with the variables of all of them.

    Raises:
      ValueError: when the variables are initialized, if two rules use the same name.
    """

    def init(params: PyTree) -> dict[str, Any]:
        variables: dict[str, Any] = {}
        for rule in rules:
            for name, value in rule.init(params).items():
                if name in variables:
                    raise ValueError(f"after: two rules use the variable name {name!r}")
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

    The average starts at the initial parameters, without bias correction. It is the variable
    ``"ema"``, or ``"ema_generator"`` for the key ``"generator"``, and is kept in float32 or wider
    so that small changes are not rounded away.

    Args:
      key: top-level key of the parameters to average; None averages all parameters.
      decay: in [0, 1).

    Returns:
      The rule, for ``after`` of `make_train_step`.

    Raises:
      ValueError: if ``decay`` is out of range.

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
    """A copy in float32 or wider; the step donates its state, so its arrays must not be shared."""
    return jnp.array(x, jnp.promote_types(x.dtype, jnp.float32))
