"""Objectives: loss functions, the parameters that they train, and their optimizers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqnets.checks import check_range, did_you_mean
from seqnets.reduction import Weighted
from seqnets.training.state import StepKeys
from seqnets.typing import Array, Bool, Float, Int, PyTree

__all__ = [
    "Given",
    "LossFn",
    "LossOutput",
    "Objective",
    "When",
    "between",
    "every",
    "resolve_loss",
]


class Given(NamedTuple):
    """Third argument of a loss function, after the parameters and the batch."""

    carry: PyTree
    """Recurrent state from the previous batch, leaves [B, ...], or ()."""
    keys: StepKeys | None
    """Random keys of the step: one per row and one shared by all rows; None in evaluation."""
    variables: PyTree
    """`seqnets.training.TrainState.variables`."""
    progress: Float[Array, ""] | float
    """Fraction of the run that is done; 1 in evaluation."""


class LossOutput(NamedTuple):
    """Result of a loss function: sums over the rows it was given, and their next carry."""

    loss: Weighted
    """The summed loss and its weight; the weight must not depend on the parameters."""
    carry: PyTree = ()
    """Recurrent state for the next batch, leaves [B, ...]; () keeps the current carry."""
    metrics: Mapping[str, Weighted] = {}
    """Additional sums to report, each divided by its weight at the end."""
    statistics: Mapping[str, Any] = {}
    """Sums of any shape, added over rows like gradients, for the rule ``after`` the step."""


LossFn = Callable[..., Weighted | LossOutput]
"""``loss(params, batch)`` or ``loss(params, batch, given)``, with a `Given`.

It computes the loss of the rows on one device, as a sum over rows and a weight that does not depend
on the parameters; otherwise dividing after the sum over all devices would not be exact. Divide
terms that have another denominator by it per row.
"""

FullLossFn = Callable[[PyTree, Any, Given], LossOutput]
When = Callable[[Int[Array, ""], Float[Array, ""]], Bool[Array, ""]]
"""``when(step, progress) -> bool``, traced; the step counts from 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """A loss function, the parameters that it trains, and their optimizer.

    Attributes:
      loss_fn: see `LossFn`.
      optimizer: Optax transformation, or `optax.MultiSteps`. Its ``update`` receives the extra
        arguments ``progress`` (fraction of the run that is done), ``progress_known`` (False if the
        length of the run is unknown; progress is then 0), ``value`` (mean loss), and ``stale``
        (evaluations since the best one).
      trains: tuple of top-level keys of the parameters to train. Only these have gradients and
        optimizer state, and only they count for clipping. None trains all parameters.
      when: ``(step, progress) -> bool``, whether the objective takes part in a step; see `every`
        and `between`. None for every step.

    Raises:
      TypeError: if ``trains`` is a string.
    """

    loss_fn: LossFn
    optimizer: optax.GradientTransformation
    trains: tuple[str, ...] | None = None
    when: When | None = None

    def __post_init__(self) -> None:
        """Reject a string instead of a tuple of keys."""
        if isinstance(self.trains, str):
            raise TypeError(f"trains: expected a tuple of keys, got {self.trains!r}")

    def trained(self, params: PyTree) -> PyTree:
        """Select the parameters that are trained.

        Args:
          params: all parameters.

        Returns:
          A dict of the keys in ``trains``, or ``params`` if that is None.

        Raises:
          ValueError: if the parameters are not a dict or lack one of the keys.
        """
        if self.trains is None:
            return params
        if not isinstance(params, Mapping):
            raise ValueError(f"trains: expected parameters in a dict, got {type(params).__name__}")
        for key in self.trains:
            if key not in params:
                raise ValueError(f"trains: no parameters {key!r}; {did_you_mean(key, params)}")
        return {key: params[key] for key in self.trains}

    def updates(
        self, grads: PyTree, state: PyTree, params: PyTree, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """Compute the optimizer's updates of the trained parameters and its next state.

        Args:
          grads: gradient, in the structure of `trained`.
          state: optimizer state.
          params: trained parameters.
          **extra: extra arguments of the optimizer, omitted if its ``update`` does not accept them.

        Returns:
          ``(updates, state)``, as from Optax.
        """
        # The signature decides, not the type: `optax.MultiSteps` accepts them but lacks the type.
        update = self.optimizer.update
        parameters = inspect.signature(update).parameters.values()
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return update(grads, state, params)
        return update(grads, state, params, **extra)

    def merged(self, trained: PyTree, params: PyTree) -> PyTree:
        """Return ``params`` with the trained part replaced by ``trained``."""
        return trained if self.trains is None else {**params, **trained}


def every(n: int) -> When:
    """Take part in every n-th step.

        step mod n = n - 1, with steps counted from 0

    Args:
      n: ≥ 1.

    Returns:
      A condition for `Objective`.

    Raises:
      ValueError: if ``n`` is below 1.
    """
    check_range("n", n, 1)
    return lambda step, progress: step % n == n - 1


def between(start: float, stop: float) -> When:
    """Take part while ``start <= progress < stop``, including the end of the run if stop is 1.

    Args:
      start: fraction of the run, in [0, 1].
      stop: fraction of the run, in [start, 1].

    Returns:
      A condition for `Objective`.

    Raises:
      ValueError: if an argument is out of range.
    """
    check_range("start", start, 0, 1)
    check_range("stop", stop, start, 1)
    last = jnp.inf if stop == 1 else stop
    return lambda step, progress: (progress >= start) & (progress < last)


def resolve_loss(loss_fn: LossFn) -> FullLossFn:
    """Convert a loss function to the form ``(params, batch, given) -> LossOutput``.

    Args:
      loss_fn: see `LossFn`; the number of its required arguments tells the two forms apart.

    Raises:
      TypeError: if it does not require two or three arguments; when called, if it returns neither a
        `Weighted` nor a `LossOutput`, or a metric is not a `Weighted`.
      ValueError: when called, if the total or the weight of the loss is not a scalar.
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn: expected a function, got {loss_fn!r}")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(loss_fn).parameters.values()
    required = [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
    if len(required) not in (2, 3):
        raise TypeError(
            "loss_fn: expected a function of (params, batch) or (params, batch, given), "
            f"got ({', '.join(required)})"
        )
    short = len(required) == 2

    def full(params: PyTree, batch: Any, given: Given) -> LossOutput:
        output = loss_fn(params, batch) if short else loss_fn(params, batch, given)
        if isinstance(output, Weighted):
            output = LossOutput(output)
        _check_output(output)
        return output

    return full


def _check_output(output: Any) -> None:
    hint = "seqnets.weighted(losses, mask) gives a Weighted"
    if not isinstance(output, LossOutput):
        got = _kind(output)
        raise TypeError(f"loss_fn: expected a Weighted or a LossOutput, got {got}; {hint}")
    if not isinstance(output.metrics, Mapping):
        raise TypeError(f"loss_fn: expected metrics by name, got {_kind(output.metrics)}; {hint}")
    for name, sums in {"the loss": output.loss, **output.metrics}.items():
        if not isinstance(sums, Weighted):
            got = _kind(sums)
            raise TypeError(f"loss_fn: expected {name} as a Weighted, got {got}; {hint}")
    shapes = [jnp.shape(part) for part in output.loss]
    if any(shapes):
        raise ValueError(f"loss_fn: expected scalars in the loss, got the shapes {shapes}; {hint}")


def _kind(x: Any) -> str:
    """Describe a value for an error message; the type of a traced array would not help."""
    return f"an array of shape {x.shape}" if isinstance(x, jax.Array) else type(x).__name__
