"""Counters of evaluations: networks judged on search-val, and reads of the test split.

A ledger belongs to an evaluator and stays one object when environments are copied or pickled, so
that a copy spends what its original does. A meter counts for all ledgers of the process while it is
open, also for those of environments that somebody makes in the meantime. What other processes do is
seen by neither. Knows nothing of networks, images or budgets.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Sequence
from typing import Any

from pruning_env.tasks.loads import open_loads

__all__ = ["Ledger", "Meter"]


class Ledger:
    """Counts of evaluations that an environment and its copies share; they never shrink.

    Deep copies are the object itself, and so are pickles loaded where it is alive; elsewhere a
    pickle is a ledger of its own that goes on from the same counts.

    Attributes:
        evaluations: networks judged on search-val.
        test_openings: looks at the test split.
        image_passes: images that pruned networks were shown.
    """

    def __init__(self) -> None:
        self._key = uuid.uuid4().hex
        self._evaluations = 0
        self._test_openings = 0
        self._image_passes = 0
        _ALIVE[self._key] = self

    @property
    def evaluations(self) -> int:
        """Networks judged on search-val."""
        return self._evaluations

    @property
    def test_openings(self) -> int:
        """Looks at the test split."""
        return self._test_openings

    @property
    def image_passes(self) -> int:
        """Images that pruned networks were shown: to recover, to be judged, or to be trained."""
        return self._image_passes

    def showed(self, images: int) -> None:
        """Count images, each once for every network and purpose."""
        self._image_passes += images
        for meter in _METERS:
            meter.image_passes += images

    def judged(self, accuracies: Sequence[float]) -> None:
        """Count networks by what came out, in the order in which they were asked for."""
        self._evaluations += len(accuracies)
        for meter in _METERS:
            meter.note(accuracies)

    def opened(self) -> None:
        """Count a look at the test split."""
        self._test_openings += 1
        for meter in _METERS:
            meter.test_openings += 1

    def at_least(self, evaluations: int) -> None:
        """Go on from so many evaluations, which were counted elsewhere, unless there are more."""
        self._evaluations = max(self._evaluations, evaluations)

    def __copy__(self) -> Ledger:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Ledger:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _find, (self._key, self._evaluations, self._test_openings, self._image_passes)


class Meter:
    """Evaluations of the whole process, from `with Meter() as meter:` to the end of the block.

    Attributes:
        evaluations: networks judged on search-val.
        test_openings: looks at the test split.
        image_passes: images that pruned networks were shown.
        test_loads: loads of a data set, and its test split with it, other than by an environment,
            which locks that away; known when the block is over.
    """

    def __init__(self) -> None:
        self.evaluations = 0
        self.test_openings = 0
        self.image_passes = 0
        self.test_loads = 0
        self._first: dict[float, int] = {}

    def note(self, accuracies: Sequence[float]) -> None:
        """Count networks by what came out, in their order."""
        for accuracy in accuracies:
            self._first.setdefault(float(accuracy), self.evaluations)
            self.evaluations += 1

    def seen(self, accuracy: float, evaluations: int) -> bool:
        """Whether that accuracy was among the first so many evaluations."""
        return self._first.get(float(accuracy), evaluations) < evaluations

    def __enter__(self) -> Meter:
        _METERS.append(self)
        self._loads_before = open_loads()
        return self

    def __exit__(self, *error: object) -> None:
        _METERS.remove(self)
        self.test_loads = open_loads() - self._loads_before


def _find(key: str, evaluations: int, test_openings: int, image_passes: int = 0) -> Ledger:
    """The ledger of a pickle, which does without the last number if it is an older one."""
    known = _ALIVE.get(key)
    if known is not None:
        return known
    ledger = Ledger()
    ledger._evaluations, ledger._test_openings = evaluations, test_openings
    ledger._image_passes = image_passes
    return ledger


#: Ledgers of this process, so that a pickle finds its own.
_ALIVE: weakref.WeakValueDictionary[str, Ledger] = weakref.WeakValueDictionary()

#: Meters that are open: whoever makes an environment of his own is met nowhere else.
_METERS: list[Meter] = []
