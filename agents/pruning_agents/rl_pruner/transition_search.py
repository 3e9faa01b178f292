"""What `RLPruner` is as an algorithm of Stable-Baselines3: its environment, its counts, its best.

Holds on to an environment by its pure transition, checks that it is one, counts what is judged and
keeps the best of it. Knows neither how candidates are drawn nor what is learned of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from pruning_agents.rl_pruner.distribution_policy import PruningPolicy
from pruning_agents.search.distribution import to_action
from pruning_agents.search.result import IncumbentTracker, SearchResult
from pruning_agents.search.rollout import approach
from pruning_agents.search.rollout_logs import dump_rollout_logs
from pruning_env.process.actions import DistributionAction
from pruning_env.process.dynamics import PruningDynamics, PruningState, Transition

__all__ = ["TransitionSearch"]

SelfTransitionSearch = TypeVar("SelfTransitionSearch", bound="TransitionSearch")

#: What the environment must offer beside the Gymnasium interface.
_REQUIRED = ("dynamics", "evaluator", "state", "transition")


class TransitionSearch(BaseAlgorithm):
    """A search over distributions that judges by `transition` and steps only to commit.

    Attributes:
        sizes: (L,) channels of each group.
        logit_scale: width of the environment's softmax.
    """

    policy: PruningPolicy
    sizes: NDArray[np.int64]
    logit_scale: float
    lookahead: int | None
    _dynamics: PruningDynamics
    _tracker: IncumbentTracker
    _evaluations: int
    _visits: int
    #: What was seen and done in this episode.
    _path: list[tuple[NDArray[np.float32], NDArray[np.float32]]]

    def _read_env(self) -> DistributionAction:
        """Keep hold of the environment's dynamics; return its action kind, or say what is wrong."""
        assert self.env is not None
        missing = [name for name in _REQUIRED if not self.env.has_attr(name)]
        if missing:
            raise ValueError(
                f"env must be a pruning environment such as CNNPrune-v0; it has no "
                f"{', '.join(missing)}"
            )
        self._dynamics = self.env.get_attr("dynamics")[0]
        kind = self._dynamics.action
        if not isinstance(kind, DistributionAction):
            raise ValueError(
                f"env must be made with action='distribution'; its actions are a "
                f"{type(kind).__name__} on {self.env.action_space}"
            )
        return kind

    def _excluded_save_params(self) -> list[str]:
        """Network and images belong to the environment."""
        return [*super()._excluded_save_params(), "_dynamics"]

    def _progress_entry(self) -> int | None:
        """Which entry of the observation is the episode's progress."""
        assert self.env is not None
        flat = isinstance(self.observation_space, spaces.Box)
        if not flat or not self.env.has_attr("observation_names"):
            return None
        names = self.env.get_attr("observation_names")[0]
        return names.index("progress") if "progress" in names else None

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed this agent's generators, the action space and the environment.

        Unlike SB3's, it leaves the generators of Python, NumPy and torch alone. Candidates and
        stochastic predictions draw from two streams, so that predicting does not disturb training.
        """
        streams = np.random.SeedSequence(seed).spawn(2)
        self.rng, self._prediction_rng = (np.random.default_rng(stream) for stream in streams)
        if seed is not None and self.env is not None:
            self.action_space.seed(seed)
            self.env.seed(seed)

    @property
    def distribution(self) -> NDArray[np.float64]:
        """(L,) the current distribution over groups."""
        return self.policy.shares(self._observation)

    @property
    def incumbent(self) -> SearchResult | None:
        """The best feasible candidate judged so far on search-val; None while there is none.

        Candidates count, not only committed ones. One is feasible when it ended its episode within
        every budget, so with a short `lookahead` there is none before the last steps of an episode.
        """
        return self._tracker.result(self._evaluations)

    def learn(
        self: SelfTransitionSearch,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RLPruner",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfTransitionSearch:
        """Make `total_timesteps` transitions, pruning step after pruning step.

        Args:
            total_timesteps: transitions, candidates and commits together; never exceeded. A pruning
                step that they cut short is committed with the candidates it has.
            callback: as in SB3; called once per transition.
            log_interval: pruning steps between two dumps of the logger.
            tb_log_name: name of the TensorBoard run.
            reset_num_timesteps: False to continue counting, and the episode, where they stopped.
            progress_bar: whether to show SB3's progress bar.
        """
        self._check_env_matches()
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        pruning_steps = 0
        stopped = False
        while self.num_timesteps < total_timesteps - self._reserved:
            if not self._pruning_step(total_timesteps - self._reserved, callback):
                stopped = True
                break
            pruning_steps += 1
            if log_interval and pruning_steps % log_interval == 0:
                dump_rollout_logs(self)
        if not stopped and self._reserved and self.num_timesteps < total_timesteps:
            self._finish(total_timesteps, callback)
        callback.on_training_end()
        return self

    @property
    def _reserved(self) -> int:
        """Transitions that are kept for `_finish`: one while a short look has met no budget."""
        return int(self.lookahead is not None and self._tracker.state is None)

    @abstractmethod
    def _pruning_step(self, total_timesteps: int, callback: BaseCallback) -> bool:
        """Search from the current state and commit. False when a callback says stop."""

    @property
    @abstractmethod
    def exploration_rate(self) -> float:
        """The chance to commit another candidate than the best."""

    def _finish(self, total_timesteps: int, callback: BaseCallback) -> None:
        """Follow p from the current state to the end of the episode, for a feasible network.

        A look of one step sees the budgets met at the end of an episode only, and transitions may
        be over long before. The environment does not move.
        """
        assert self.env is not None
        state = self.env.env_method("state")[0]
        action = self._to_action(self.policy.shares(self._observation))
        before = self._evaluations_of_env()
        ahead = approach(self._dynamics, state, action)
        end = self._dynamics.commit(ahead, action)
        spent = self._evaluations_of_env() - before
        self._tracker.offer_ends([end], self._evaluations, self._evaluations + spent)
        self._evaluations += spent
        self._visits += 1
        self._count([end.reward], [False], [{}], total_timesteps, callback)

    def _offer(
        self,
        state: PruningState,
        ends: list[tuple[Transition, NDArray[np.float32]]],
        spent: int,
        *,
        raced: bool = False,
    ) -> None:
        """Take the feasible ends into account, which cost `spent` evaluations from `state`."""
        incumbent = self._tracker.state
        transitions = [end for end, _ in ends]
        if raced:  # known when the race was over
            self._tracker.offer_raced(transitions, self._evaluations + spent)
        else:
            self._tracker.offer_ends(transitions, self._evaluations, self._evaluations + spent)
        if self._tracker.state is not incumbent:
            self._play(state, ends)
        self._evaluations += spent

    def _play(
        self,
        state: PruningState,
        candidates: Iterable[tuple[Transition, NDArray[np.float32]]],
    ) -> None:
        """Tell the policy the way to a new incumbent, if one action leads there from `state`."""
        for transition, action in candidates:
            known = transition.state is self._tracker.state and len(self._path) == state.step
            entry = self.policy.progress
            if known and entry is not None:
                seen, actions = zip(*self._path, (self._observation, action), strict=True)
                self.policy.play([each[entry].item() for each in seen], actions)

    def _check_env_matches(self) -> None:
        if self.env is None:
            raise ValueError("env is missing: load(path, env=...) or set_env(...) before learn()")
        kind = self._read_env()
        if not np.array_equal(kind.sizes, self.sizes) or kind.logit_scale != self.logit_scale:
            raise ValueError(
                f"env has groups of sizes {kind.sizes.tolist()} and logit_scale="
                f"{kind.logit_scale:g}; this agent was made for {self.sizes.tolist()} and "
                f"{self.logit_scale:g}"
            )

    def _count(
        self,
        rewards: ArrayLike,
        dones: ArrayLike,
        infos: list[dict[str, Any]],
        total_timesteps: int,
        callback: BaseCallback,
    ) -> bool:
        """Count one transition and tell the callback; False when it says stop."""
        self.num_timesteps += 1
        self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
        callback.update_locals(
            {"rewards": np.asarray(rewards), "dones": np.asarray(dones), "infos": infos}
        )
        return callback.on_step()

    def _to_action(self, probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
        return to_action(probabilities, self.sizes, self.logit_scale)

    @property
    def _observation(self) -> NDArray[np.float32]:
        """(D,) what is seen of the current state; zeros before the first reset."""
        seen = self._last_obs
        if isinstance(seen, dict):
            seen = next(iter(seen.values()))
        blank = np.zeros(self.observation_space.shape or (0,), np.float32)
        return blank if seen is None else seen[0]

    def _evaluations_of_env(self) -> int:
        assert self.env is not None
        return int(self.env.get_attr("evaluations")[0])

    @property
    def _tried(self) -> tuple[int, int]:
        """Evaluations and visits, of which the former are a part."""
        return self._evaluations, self._visits

    def _record(self, best_q: float) -> None:
        p = self.distribution
        self.logger.record("train/best_q", best_q)
        self.logger.record("train/epsilon", self.exploration_rate)
        self.logger.record("train/n_updates", self._n_updates)
        self.logger.record("train/entropy", float(-(p * np.log(p)).sum()))
        self.logger.record("search/evaluations", self._evaluations)
        if self._tracker.history:
            self.logger.record("search/incumbent_accuracy", self._tracker.history[-1][1])
