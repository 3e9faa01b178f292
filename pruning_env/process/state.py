"""What an episode is made of: the state it is in, and what one step gives.

Frozen records without behaviour of their own. Knows nothing of how a step prunes, judges or ends.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Recovered
    from pruning_env.evaluation.metrics import Metrics
    from pruning_env.evaluation.weights import Weights

__all__ = ["PruningState", "Transition"]


@dataclass(frozen=True, eq=False)
class PruningState:
    """Where an episode is. Immutable: keeping a reference is a checkpoint.

    Equal when all fields are; hashable; pickles. The arrays are copied and read-only.

    Attributes:
        keep: (C,) bool, which channels are left.
        counts: (L,) int64, how many channels each group keeps.
        step: steps taken since the dense network.
        metrics: search-val metrics, or None while not judged.
        usage: one ratio to dense per budget, in the budgets' order.
        params: parameters / dense.
        macs: MACs / dense.
        last_action: (L,) float64 in [-1, 1], the action that led here; zeros at the start.
        requested: channels that the last step announced.
        removed: channels that it removed. Fewer only when nothing more can be removed, or where a
            group's dense width was no multiple of `round_to` and its partial unit went.
        weights: what recovery trained; while not judged, what it will start from. None where it
            does not train, and for the dense network. Where only commits are trained, what was
            trained last: weights of the network or of a larger one that it was cut out of.
        known: while not judged, the metrics of the last state before it that was; else None.
        teacher: the network that teaches where only commits are trained, as `Recovered`: the best
            on search-val of the dense one and those trained on the way; None for the dense one.
        sensitivity: (C,) float64 >= 0, how much each channel matters to the loss as measured last
            on a pruned network, 0 for those gone by then; by "probe" (L,), how much accuracy goes
            with a tenth of each group. None where it is not measured again, and until the state is
            settled where it is due.
        ranking: (C,) float64, the importance that channels were ranked by last. None where that is
            the dense network's, and where they are ranked anew at the next step.
    """

    keep: np.ndarray
    counts: np.ndarray
    step: int
    metrics: Metrics | None
    usage: tuple[float, ...]
    params: float
    macs: float
    last_action: np.ndarray
    requested: int
    removed: int
    weights: Weights | None = None
    known: Metrics | None = None
    sensitivity: np.ndarray | None = None
    teacher: Recovered | None = None
    ranking: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Own the arrays and lock them."""
        arrays = [("keep", bool), ("counts", np.int64), ("last_action", np.float64)]
        arrays += [
            (name, np.float64)
            for name in ("sensitivity", "ranking")
            if getattr(self, name) is not None
        ]
        for name, dtype in arrays:
            array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def latest(self) -> Metrics:
        """The state's metrics, or while it is not judged the last ones before it.

        Raises:
            ValueError: there are neither.
        """
        latest = self.known if self.metrics is None else self.metrics
        if latest is None:
            raise ValueError("state has metrics=None; give a judged state")
        return latest

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickle through the constructor, or the arrays would come back writeable."""
        return type(self), self._values()

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal, bit for bit."""
        return isinstance(other, PruningState) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash of what `__eq__` compares."""
        return hash(self._key())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self))

    def _key(self) -> tuple[Any, ...]:
        return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in self._values())


@dataclass(frozen=True)
class Transition:
    """What one step gives.

    Attributes:
        state: the state after it; judged, but by a lazy reward only where the episode ends.
        reward: the sum of `reward_terms`, in their order.
        reward_terms: summands by name, already scaled.
        cost: paid at the last step only, else 0; what it is, the constraint says.
        terminated: whether the episode is over.
        feasible: whether every budget is met after it.
    """

    state: PruningState
    reward: float
    reward_terms: dict[str, float]
    cost: float
    terminated: bool
    feasible: bool
