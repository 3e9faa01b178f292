"""`CNNPruneTabular-v0`: `CNNPrune-v0` on a network of which everything is known.

A face of the same dynamics over a table of results; what a step does is in process.py, what can be
said of the best is in solution.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from pruning_env.arguments import check_choice
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.selection import Groups, check_groups, chosen_groups
from pruning_env.process.actions import make_action
from pruning_env.process.budgets import parse_budget
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.process.observations import Observation, make_observation, observation_names
from pruning_env.process.rewards import get_reward
from pruning_env.process.state import PruningState, Transition
from pruning_env.tabular.solution import Record, Regret, Solution
from pruning_env.tabular.table import RECOVERIES, Table, load_table
from pruning_env.tabular.table_dynamics import Place, TabularProcess
from pruning_env.tabular.table_evaluator import TableEvaluator
from pruning_env.tasks.registry import get_task

__all__ = ["CNNPruneTabularEnv"]

BUDGETS = ("params", "macs", "filters")
"""What the table knows of each configuration."""

ACTIONS = ("distribution", "ratio", "layerwise")
"""Action kinds that are vectors of numbers, so that many are parsed at once."""


class CNNPruneTabularEnv(CNNPruneEnv):
    """Structured pruning of a small CNN of which every configuration is known.

    ## Description

    `CNNPrune-v0` on the task `digits-resnet8` with `round_to=5`, answered from a table: all 132,496
    configurations were judged once, on search-val and on test, and come with the package. Same
    actions, observations, rewards, information and episodes, at microseconds a step and without
    images; and the optimum is known, so that an agent's result has a *regret*. Losses are stored as
    float32. The rest is described in `CNNPrune-v0`.

    ## Action Space

    `Box(-1, 1, (6,), float32)`, as in `CNNPrune-v0`.

    ## Observation Space

    `Box` of float32, `(65 + number of budgets,)`, as in `CNNPrune-v0`; one more with `max_steps`.
    With `observation="dict"` a `Dict` of `groups` `(6, 10)` and `globals`, as there.

    ## Rewards

    As in `CNNPrune-v0`; none reads the test columns.

    ## Starting State

    The dense network, or `options={"state": state}`, as in `CNNPrune-v0`; its states with
    `round_to=5` are states here.

    ## Episode End

    As in `CNNPrune-v0`.

    ## Information

    As in `CNNPrune-v0`.

    ## Arguments

    | Parameter           | Type  | Default             | Allowed                               |
    |---------------------|-------|---------------------|---------------------------------------|
    | `budget`            | dict  | `{"params": 0.25}`  | limits: `params`, `macs`, `filters`   |
    | `action`            | str   | `"distribution"`    | see `CNNPrune-v0`; not `counts`       |
    | `logit_scale`       | float | `3.0`               | above 0                               |
    | `channels_per_step` | float | `0.05`              | in (0, 1], of all channels            |
    | `max_steps`         | int   | `None`              | at least 1; `None`: no such end       |
    | `groups`            | str   | `"all"`             | as in `CNNPrune-v0`                   |
    | `reward`            | str   | `"accuracy_change"` | as in `CNNPrune-v0`                   |
    | `reward_arguments`  | dict  | `None`              | as in `CNNPrune-v0`                   |
    | `reward_scale`      | float | `1.0`               | above 0                               |
    | `observation`       | str   | `"flat"`            | `flat`, `dict`                        |
    | `rank_every`        | int   | `None`              | `None`: the ranking is the table's    |
    | `sensitivity_every` | int   | `None`              | `None`: the table holds no gradients  |
    | `recovery`          | str   | `"bn"`              | `none`, `bn`                          |
    | `constraint`        | str   | `"terminate"`       | as in `CNNPrune-v0`                   |
    | `render_mode`       | str   | `None`              | `human`, `ansi`, `rgb_array`          |

    Task, weights, importance (`taylor`) and `round_to` (5) are the table's.

    ```python
    >>> import gymnasium as gym
    >>> import pruning_env
    >>> env = gym.make("CNNPruneTabular-v0", budget={"params": 0.25})
    >>> observation, info = env.reset(seed=0)
    >>> best = env.unwrapped.optimum()

    ```

    `env.unwrapped` has what that of `CNNPrune-v0` has, but no `pruned_model()`, and adds `table`,
    `optimum(budget)`, `pareto_front(objective)` and `regret(result)`. `report()` gives the
    entries of the test columns, which `table` is without.

    ## Vectorized environment

    `gym.make_vec("CNNPruneTabular-v0", num_envs=1024)` steps N episodes in one array operation; its
    infos, `autoreset_mode` and `max_episode_steps` are those of `CNNPrune-v0`'s vector environment.

    ## Version History

    * v0: initial version.
    """

    def __init__(
        self,
        budget: Mapping[str, float] | None = None,
        action: str = "distribution",
        logit_scale: float = 3.0,
        channels_per_step: float = 0.05,
        max_steps: int | None = None,
        groups: Groups = "all",
        reward: str = "accuracy_change",
        reward_arguments: Mapping[str, float] | None = None,
        reward_scale: float = 1.0,
        observation: str = "flat",
        rank_every: int | None = None,
        sensitivity_every: int | None = None,
        recovery: str = "bn",
        constraint: str = "terminate",
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        budgets = parse_budget(budget)
        for known in budgets:
            check_choice("budget key", known.name, BUDGETS)
        check_choice("action", action, ACTIONS)
        check_groups(groups)
        check_choice("observation", observation, observation_names())
        reward_function = get_reward(reward, reward_arguments)
        if sensitivity_every is not None:
            raise ValueError(
                f"sensitivity_every={sensitivity_every!r} is not allowed; give None: the table has "
                "results and no gradients"
            )
        if rank_every is not None:
            raise ValueError(
                f"rank_every={rank_every!r} is not allowed; give None: the table holds one network "
                "per configuration, by the ranking of the dense one"
            )
        check_choice("recovery", recovery, RECOVERIES)

        table = load_table()
        whole = _graph_of(table)
        chosen = chosen_groups(whole, groups)
        self.graph = whole.restrict(chosen)
        table = table.restrict(chosen, self.graph)
        evaluator = TableEvaluator(table, self.graph, recovery)
        self.table: Table = evaluator.table  # without the test columns, which are sealed
        self._ledger = evaluator.ledger
        self.evaluator = evaluator  # type: ignore[assignment]
        self.dynamics = PruningDynamics(
            self.graph,
            evaluator,  # type: ignore[arg-type]
            budgets,
            make_action(action, self.graph.sizes, logit_scale),
            channels_per_step=channels_per_step,
            round_to=self.table.round_to,
            reward=reward_function,
            reward_scale=reward_scale,
            importance=self.table.provenance["importance"],
            constraint=constraint,
            max_steps=max_steps,
        )
        self._observation = make_observation(
            observation,
            self.graph,
            budgets,
            self.dynamics.sensitivity.by_default,
            self.dynamics.units.floors,
            max_steps,
            self.dynamics.action.turns,
        )
        self.process = TabularProcess(self.dynamics, self._observation)
        self.solution = Solution(self.process)
        self.action_space = self.dynamics.action.space()
        self.observation_space = self._observation.space()
        self.render_mode = render_mode
        self._places: tuple[Place, ...] = ()  # of this episode, oldest first
        self._dense = self.process.dense()
        self._terms = tuple(self.dynamics.no_reward_terms(self._dense.state()))
        self._arguments = {
            "budget": {b.name: b.limit for b in budgets},
            "action": action,
            "logit_scale": logit_scale,
            "channels_per_step": channels_per_step,
            "max_steps": max_steps,
            "groups": groups if isinstance(groups, str) else list(groups),
            "reward": reward,
            "reward_arguments": None if reward_arguments is None else dict(reward_arguments),
            "reward_scale": reward_scale,
            "observation": observation,
            "rank_every": rank_every,
            "sensitivity_every": sensitivity_every,
            "recovery": recovery,
            "constraint": constraint,
            "render_mode": render_mode,
        }

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Prune by one action; see the class for what comes back.

        Raises:
            ValueError: a bad action; the environment stays as it was.
            ResetNeeded: before the first reset, or after the end of an episode.
        """
        if not self._places or self._ended(self._places[-1]):
            self.running()  # says what is wrong
        before = self._places[-1]
        parsed = self.dynamics.action.parse(action, before.step)
        after = self.process.follow(before, parsed)
        terminated = self.process.over(after.index, after.step)
        terms = self.dynamics.reward_terms(before, after, terminated)  # type: ignore[arg-type]
        cost = self.process.cost(after.index) if terminated else 0.0
        self._places += (after,)
        self._show()
        return (
            self.process.observe(after),
            float(sum(terms.values())),
            terminated,
            False,
            self.process.info(after, cost, terms),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start from the dense network, or from `options={"state": state}`.

        Raises:
            ValueError: an unknown option, or a state that is not this environment's.
        """
        start = self.process.place(self._start(options)) if options else self._dense
        gym.Env.reset(self, seed=seed)
        self._places = (start,)
        self._show()
        terms = dict.fromkeys(self._terms, 0.0)
        return self.process.observe(start), self.process.info(start, 0.0, terms)

    def optimum(self, budget: Mapping[str, float] | None = None) -> Record:
        """The best configuration on search-val within `budget`; None: this environment's.

        Of all configurations in the table, whether or not an episode can end there: no result is
        better, and a policy may be unable to reach it. See `Solution.optimum`.
        """
        return self.solution.optimum(budget)

    def pareto_front(self, objective: str = "params") -> tuple[Record, ...]:
        """The configurations that none beats in search-val accuracy and `objective` at once."""
        return self.solution.pareto_front(objective)

    def regret(
        self,
        result: PruningState | Sequence[int] | np.ndarray,
        budget: Mapping[str, float] | None = None,
    ) -> Regret:
        """How far a result is from the optimum, raw and normalised; see `Solution.regret`.

        Args:
            result: a state, or the channels of each group.
            budget: as in `optimum`.

        Raises:
            ValueError: `result` is not in the table, or does not meet the budget.
        """
        return self.solution.regret(result, budget)

    @property
    def _history(self) -> tuple[PruningState, ...]:  # type: ignore[override]
        """States are made when somebody asks: a step needs none."""
        return tuple(place.state() for place in self._places)

    @_history.setter
    def _history(self, states: tuple[PruningState, ...]) -> None:
        self._places = tuple(self.process.place(state) for state in states)

    def state(self) -> PruningState:
        """Where the episode is; see `CNNPruneEnv.state`.

        Raises:
            ResetNeeded: before the first reset.
        """
        return self._places[-1].state() if self._places else super().state()

    def advance(
        self, transition: Transition
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Make a step whose outcome is known already; see `CNNPruneEnv.advance`."""
        self._places += (self.process.place(transition.state),)
        self._show()
        return (
            self._observation.observe(transition.state),
            transition.reward,
            transition.terminated,
            False,
            self._info(transition.state, transition.cost, dict(transition.reward_terms)),
        )

    def __getstate__(self) -> dict[str, Any]:
        """The arguments and the episode; the table is loaded again."""
        kept = {k: v for k, v in super().__getstate__().items() if k not in _REBUILT}
        return {**kept, "_episode": self._history}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Build anew from the arguments, then continue the episode."""
        CNNPruneTabularEnv.__init__(self, **saved["_arguments"])
        states = saved.pop("_episode")
        self.__dict__.update(saved)
        self.evaluator.share(self._ledger)
        self._history = states

    def _ended(self, place: Place) -> bool:
        return place.step > 0 and self.process.over(place.index, place.step)


_REBUILT = ("table", "process", "solution", "_places", "_dense")


def _graph_of(table: Table) -> ChannelGraph:
    """The graph that comes with a table; of an older one, traced: seconds, and torch's compiler."""
    if table.facts is not None:
        return ChannelGraph(table.facts)
    task = get_task(table.provenance["task"])
    # No weight is used: the graph is the architecture's.
    return ChannelGraph.trace(task.model(), task.example_input(), check=False)
