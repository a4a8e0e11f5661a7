"""What is minimized: loss functions, and who trains which parameters, when, and how."""

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
    """What a loss function may look at beside the parameters and the batch."""

    carry: PyTree
    """Recurrent state kept since the previous batch, leaves [B, ...], or ()."""
    keys: StepKeys | None
    """Random keys of the step: one per row, and one that all rows share; None in evaluation."""
    variables: PyTree
    """`seqnets.training.TrainState.variables`."""
    progress: Float[Array, ""] | float
    """Fraction of the run that is done; 1 in evaluation."""


class LossOutput(NamedTuple):
    """What a loss function returns: sums over the rows at hand, and their next carry."""

    loss: Weighted
    """The summed loss and its weight, which must not depend on the parameters."""
    carry: PyTree = ()
    """State for the next batch, leaves [B, ...]; () leaves the carry as it is."""
    metrics: Mapping[str, Weighted] = {}
    """Further sums to report, each divided by its weight at the end."""
    statistics: Mapping[str, Any] = {}
    """Sums of any shape, added like gradients, for the function ``after`` the step."""


LossFn = Callable[..., Weighted | LossOutput]
"""``loss(params, batch)`` or ``loss(params, batch, given)``, with a `Given`.

It computes the loss of the rows at hand, on one device. The loss is a sum over rows with one weight
that does not depend on the parameters; only then is the division after the sum over all devices
exact. Terms with other denominators become values per row first.
"""

FullLossFn = Callable[[PyTree, Any, Given], LossOutput]
When = Callable[[Int[Array, ""], Float[Array, ""]], Bool[Array, ""]]
"""``when(step, progress) -> bool``, traced; the step counts from 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """One loss, the parameters that it trains, and the optimizer that moves them.

    Attributes:
      loss_fn: see `LossFn`.
      optimizer: Optax transformation, or `optax.MultiSteps`. It is given the extra arguments
        ``progress`` (fraction of the run that is done), ``progress_known`` (False where nothing
        says how long the run is, and progress is 0), ``value`` (the mean loss), and ``stale``
        (evaluations since the best).
      trains: top-level keys of the parameters. Gradient, clipping, and optimizer state exist for
        these only. None trains all.
      when: whether the objective takes part in a step, see `every` and `between`. None: always.
    """

    loss_fn: LossFn
    optimizer: optax.GradientTransformation
    trains: tuple[str, ...] | None = None
    when: When | None = None

    def __post_init__(self) -> None:
        """Reject a single key in place of a tuple of them."""
        if isinstance(self.trains, str):
            raise TypeError(f"trains: expected a tuple of keys, got {self.trains!r}")

    def trained(self, params: PyTree) -> PyTree:
        """The part of the parameters that is trained.

        Raises:
          ValueError: if the parameters have no such top-level key.
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
        """What the optimizer adds to the trained parameters, and its next state.

        The extra arguments are left out if its ``update`` cannot take them. That is asked of its
        signature and not of its type, since `optax.MultiSteps` takes them and lacks the type.
        """
        update = self.optimizer.update
        parameters = inspect.signature(update).parameters.values()
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return update(grads, state, params)
        return update(grads, state, params, **extra)

    def merged(self, trained: PyTree, params: PyTree) -> PyTree:
        """All parameters, with another trained part."""
        return trained if self.trains is None else {**params, **trained}


def every(n: int) -> When:
    """True at every n-th step, beginning with the n-th: after n - 1 others."""
    check_range("n", n, 1)
    return lambda step, progress: step % n == n - 1


def between(start: float, stop: float) -> When:
    """True where ``start <= progress < stop``, and to the very end where stop is 1."""
    check_range("start", start, 0, 1)
    check_range("stop", stop, start, 1)
    last = jnp.inf if stop == 1 else stop
    return lambda step, progress: (progress >= start) & (progress < last)


def resolve_loss(loss_fn: LossFn) -> FullLossFn:
    """The long form of a loss function, distinguished from the short one by the required arguments.

    Raises:
      TypeError: if it takes neither two nor three arguments; when called, if it returns neither a
        `Weighted` nor a `LossOutput`, or a metric is no `Weighted`.
      ValueError: when called, if total or weight of the loss is not a scalar.
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn: expected a function, got {loss_fn!r}")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(loss_fn).parameters.values()
    required = [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
    if len(required) not in (2, 3):
        raise TypeError(
            "loss_fn: expected a function of (params, batch) or (params, batch, given), "
            f"got one of ({', '.join(required)})"
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
    """What an error calls a value: a traced array has a type that says nothing to its owner."""
    return f"an array of shape {x.shape}" if isinstance(x, jax.Array) else type(x).__name__
