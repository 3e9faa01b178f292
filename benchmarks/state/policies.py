"""The best that each class of policies can do in a `World`, exactly where that is possible.

A policy is judged by its mean regret over cases. The classes, each of which contains the one before
it: one action for ever; a schedule, which knows only how far the episode has come; a policy that
sees the state and the limit; and the latter with every split of a step's units instead of the few
actions, which bounds all policies there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.state.world import Case, World

#: Random starts of the search for a schedule, beside the best constant action.
RESTARTS = 20


@dataclass(frozen=True)
class Answer:
    """How good a class of policies is.

    Attributes:
        regret: mean over the cases.
        exact: whether no member of the class is better. Otherwise it is what a search found, and
            the class may be better.
    """

    regret: float
    exact: bool


class Judge:
    """Plays cases side by side.

    Args:
        world: that they are in; it explores them.
        cases: at least one.
    """

    def __init__(self, world: World, cases: tuple[Case, ...]) -> None:
        self.world, self.cases = world, cases
        self.places = world.explore(cases)
        self.starts = np.array([case.start for case in cases])
        limits = list(dict.fromkeys(case.limit for case in cases))
        self._kind = np.array([limits.index(case.limit) for case in cases])
        self.limits = tuple(limits)
        self._over = np.stack([world.over(limit) for limit in limits])
        self._regret = np.stack([world.regret(world.value(limit), limit) for limit in limits])
        removed = world.left[world.dense].sum() - world.left.sum(axis=1)
        self._clock = removed // world.units  # steps that a place is away from the dense network
        self.length = int(self._clock[self.places].max()) + 1

    def running(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether episodes go on, for (..., cases) places."""
        return ~self._over[self._kind, places]

    def regrets(self, ends: NDArray[np.int64]) -> NDArray[np.float64]:
        """(..., cases) of ends (..., cases)."""
        return self._regret[self._kind, ends]

    def play(self, schedules: NDArray[np.int64], by_progress: bool) -> NDArray[np.float64]:
        """(S,) mean regret of S schedules, (S, length) action numbers.

        Args:
            schedules: action of each step.
            by_progress: whether a step is counted from the dense network, by what was removed, and
                not from the episode's start.
        """
        places = np.tile(self.starts, (len(schedules), 1))
        rows = np.arange(len(schedules))[:, None]
        for step in range(self.length):
            running = self.running(places)
            if not running.any():
                break
            clock = np.minimum(self._clock[places], self.length - 1) if by_progress else step
            after = self.world.follow(places, schedules[rows, clock])
            places = np.where(running, after, places)
        return self.regrets(places).mean(axis=1)


def constant(judge: Judge) -> Answer:
    """The best action that is repeated to the end; all are tried."""
    return Answer(float(_constants(judge).min()), True)


def _constants(judge: Judge) -> NDArray[np.float64]:
    count = len(judge.world.actions)
    return judge.play(np.repeat(np.arange(count)[:, None], judge.length, axis=1), False)


def schedule(judge: Judge, by_progress: bool, rng: np.random.Generator) -> Answer:
    """The best sequence of actions that coordinate descent finds, from several starts.

    Args:
        judge: of the cases.
        by_progress: see `Judge.play`.
        rng: of the starts, and of the order in which steps are improved.
    """
    count = len(judge.world.actions)
    starts = rng.integers(count, size=(RESTARTS + 1, judge.length))
    starts[0] = _constants(judge).argmin()
    return Answer(min(_descend(judge, start, by_progress, rng) for start in starts), False)


def _descend(
    judge: Judge, start: NDArray[np.int64], by_progress: bool, rng: np.random.Generator
) -> float:
    """Replace one step's action at a time by the best one, until none can be improved."""
    best, regret = start.copy(), np.inf
    while True:
        before = regret
        for step in rng.permutation(judge.length):
            tried = np.repeat(best[None], len(judge.world.actions), axis=0)
            tried[:, step] = np.arange(len(tried))
            regrets = judge.play(tried, by_progress)
            best, regret = tried[regrets.argmin()], float(regrets.min())
        if regret >= before:
            return regret


def state_dependent(judge: Judge) -> Answer:
    """The best policy that sees state and limit, by dynamic programming over all places."""
    return Answer(_optimal(judge, any_split=False), True)


def bound(judge: Judge) -> Answer:
    """What no policy of any kind can beat: every split of a step's units is an action."""
    return Answer(_optimal(judge, any_split=True), True)


def _optimal(judge: Judge, any_split: bool) -> float:
    world = judge.world
    total = world.left.sum(axis=1)
    places = np.arange(len(total)) if any_split else judge.places
    levels = [places[total[places] == left] for left in range(int(total.max()) + 1)]
    splits = world.any_split()
    regrets = np.empty(len(judge.cases))
    for limit in judge.limits:
        over, ends = world.over(limit), world.value(limit)
        values = np.full(len(total), -np.inf)
        for level in levels:
            values[level] = ends[level]
            inner = level[~over[level]]
            if not inner.size:
                continue
            if not any_split:
                values[inner] = values[world.all_successors(inner)].max(axis=1)
                continue
            values[inner] = -np.inf
            for split in splits:
                taken = np.minimum(split, world.left[inner])
                fits = taken.sum(axis=1) == np.minimum(world.units, total[inner])
                after = inner[fits] - taken[fits] @ world.strides
                values[inner[fits]] = np.maximum(values[inner[fits]], values[after])
        own = [index for index, case in enumerate(judge.cases) if case.limit == limit]
        regrets[own] = world.regret(values[judge.starts[own]], limit)
    return float(regrets.mean())
