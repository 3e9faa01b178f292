"""Constraints: how many channels a step removes, when an episode ends, and its cost.

An action says from which groups a step takes channels, in units of `round_to`. How many units is
what the action asks for, unless the constraint wants the budgets met: then it looks at what would
be left after more or fewer units. Knows nothing of networks, of how an action is split over the
groups, or of rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pruning_env.arguments import check_choice, check_count
from pruning_env.process.budgets import Budget

__all__ = ["Constraint", "StepPath", "constraint_names", "make_constraint"]


@dataclass(frozen=True)
class StepPath:
    """Where one action leads from one state, by the number of units that go along it.

    Attributes:
        asked: units that the action asks for; may be more than are left.
        later: most units that all later steps of an episode of `max_steps` can take.
        left: units above the floors that this step and the later ones can take.
        meets: whether all budgets are met after so many units, 0 to `left`, or a measured one that
            is not must be by now. May be expensive.
    """

    asked: int
    later: int
    left: int
    meets: Callable[[int], bool]

    def fewest(self, least: int, most: int) -> int:
        """A number of units in (least, most] that meets all budgets while one unit less does not.

        Found by bisection, so `meets` is called about log2(most - least) times. Were it monotone,
        there would be only one such number. Rounding to whole units can make it not quite so, and
        noise as well; the one returned has been seen to meet the budgets even then.

        Args:
            least: units that do not meet all budgets; taken for granted.
            most: where to stop; returned if not even so many units meet them.
        """
        if most - least <= 1 or not self.meets(most):
            return most
        low, high = least, most
        while high - low > 1:
            middle = (low + high) // 2
            if self.meets(middle):
                high = middle
            else:
                low = middle
        return high


class Constraint:
    """`constraint="terminate"`: steps of the size that the actions ask for, until all is met.

    An episode ends when all budgets are met, when nothing more can be removed, or after
    `max_steps`, then perhaps with too much left. Its last step may remove more than was needed.
    The cost is the sum over the budgets of how far usage is above the limit.

    Args:
        max_steps: steps of an episode at most; None for no such end.

    Raises:
        ValueError: `max_steps` is neither None nor an integer of at least 1, or None where the
            constraint needs it.
    """

    name: ClassVar[str] = "terminate"
    needs_max_steps: ClassVar[bool] = False
    #: Whether an episode that ends with a budget unmet has failed, and pays for it in its reward.
    binding: ClassVar[bool] = True
    #: Whether a step may go another number of units than its action asks for.
    steers: ClassVar[bool] = False

    def __init__(self, max_steps: int | None = None) -> None:
        if max_steps is None and self.needs_max_steps:
            raise ValueError(
                f"max_steps=None is not allowed with constraint={self.name!r}; "
                "give an integer of at least 1"
            )
        self.max_steps = None if max_steps is None else check_count("max_steps", max_steps)

    def units(self, path: StepPath, step: int) -> int:
        """How many units the step goes along its path; more than are left means all.

        Args:
            path: where the action leads.
            step: of the episode; the first is 1.
        """
        del step
        return path.asked

    def over(self, step: int, feasible: bool, exhausted: bool) -> bool:
        """Whether an episode ends after its `step`-th step."""
        return feasible or exhausted or self._out_of_steps(step)

    def cost(self, usage: Sequence[float], budgets: Sequence[Budget]) -> float:
        """What an episode that ends with `usage`, one ratio per budget, pays; at least 0."""
        return float(sum(b.excess(u) for u, b in zip(usage, budgets, strict=True)))

    def _out_of_steps(self, step: int) -> bool:
        return self.max_steps is not None and step >= self.max_steps


class Project(Constraint):
    """`constraint="project"`: like `terminate`, but what ends an episode lands on the budgets.

    The step that would meet all budgets removes only as many units along its action as are needed:
    it meets them, and one unit less would not. The last of `max_steps` goes on along its action
    until they are met, however far that is. So an episode ends feasible. With `max_steps=1` it is a
    bandit: one action says how all that must go is spread over the groups.
    """

    name = "project"
    steers = True

    def units(self, path: StepPath, step: int) -> int:
        """As many as asked, but no more than are needed; in the last step as many as needed."""
        if self._out_of_steps(step):
            return path.fewest(0, path.left)
        return path.fewest(0, min(path.asked, path.left))


class Wall(Constraint):
    """`constraint="wall"`: like `terminate`, but no step may put the budgets out of reach.

    AMC's bound on actions (arXiv 1802.03494), where a layer may keep only what the layers after it
    can make up for. Here steps take the layers' place. With at most m units in all steps after this
    one (see `StepPath.later`), a step removes the units that its action asks for, or, if that is
    more, n - m, where n are the fewest that meet all budgets along this action. In the last step m
    is 0. Later steps may go other ways than this one, so the bound is judged anew in each. An
    episode ends when all budgets are met, so after at most `max_steps`, and it ends feasible
    whatever the actions were. Where actions ask for enough, this is `terminate`; a step never
    removes less than asked.
    """

    name = "wall"
    steers = True
    needs_max_steps = True

    def units(self, path: StepPath, step: int) -> int:
        """As many as asked, or more where the later steps could not make up for it."""
        del step
        reach = path.asked + path.later
        if reach >= path.left or path.meets(reach):
            return path.asked
        return path.fewest(reach, path.left) - path.later


class Cost(Constraint):
    """`constraint="cost"`: a fixed horizon, and nothing enforced; for agents of constrained MDPs.

    An episode ends after `max_steps`, or when nothing more can be removed, whether or not the
    budgets are met, and its reward is the same in both cases: alone, it would have an agent prune
    nothing. The cost is the largest of usage / limit over the budgets: it is met with a
    limit of 1.0 on the cost, whatever and however many the budgets are.
    """

    name = "cost"
    needs_max_steps = True
    binding = False

    def over(self, step: int, feasible: bool, exhausted: bool) -> bool:
        """Whether the horizon is reached, or nothing is left."""
        del feasible
        return exhausted or self._out_of_steps(step)

    def cost(self, usage: Sequence[float], budgets: Sequence[Budget]) -> float:
        """The largest usage / limit."""
        return float(max(u / b.limit for u, b in zip(usage, budgets, strict=True)))


_CONSTRAINTS: dict[str, type[Constraint]] = {
    kind.name: kind for kind in (Constraint, Project, Wall, Cost)
}


def constraint_names() -> tuple[str, ...]:
    """The values that `constraint=` accepts."""
    return tuple(_CONSTRAINTS)


def make_constraint(name: Any, max_steps: Any) -> Constraint:
    """The constraint `name`, with episodes of at most `max_steps` steps.

    Raises:
        ValueError: no such constraint, or a bad `max_steps`.
    """
    check_choice("constraint", name, _CONSTRAINTS)
    return _CONSTRAINTS[name](max_steps)
