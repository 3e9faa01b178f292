"""Training an agent that learns, from a seed or a checkpoint, until its evaluations are spent.

What is common to all Stable-Baselines3 algorithms is here: counting, stopping, progress and
checkpoints. It knows no algorithm by name; what it must know of one is a `Learner`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from pruning_agents.search.budgeted_search import MAX_VISITS_PER_EVALUATION
from pruning_agents.search.checkpoints import (
    Checkpoint,
    Identity,
    load_checkpoint,
    restore_environment,
    take_environment,
    write_checkpoint,
)
from pruning_agents.search.result import Search, SearchResult, ending
from pruning_agents.search.rng_state import restore_generators, take_generators

#: Transitions that an algorithm is told to make when only evaluations are to stop it.
_WITHOUT_END = 2**40


@dataclass(frozen=True)
class Learner:
    """How an agent that learns is made, and where it keeps the best it has found.

    Attributes:
        name: registered name.
        algorithm: class that saved agents are loaded with.
        make: (environment, seed, folder for TensorBoard or None) -> a new agent that has it.
        wrap: puts around an environment what the agent needs; `make` does so, too.
        incumbent: the best feasible pruning an agent has found, None while there is none.
        paced: whether the agent's schedules go by the number of transitions that `learn` is told.
            It is told the evaluations that are left, again and again until none are, and each of
            its transitions counts as a judgement.
    """

    name: str
    algorithm: type[BaseAlgorithm]
    make: Callable[[gym.Env, int, str | None], BaseAlgorithm]
    wrap: Callable[[gym.Env], gym.Env]
    incumbent: Callable[[BaseAlgorithm], SearchResult | None]
    paced: bool = False


@dataclass(frozen=True)
class Checkpoints:
    """Where and when training is saved.

    Attributes:
        path: one file, replaced by each new checkpoint.
        every: transitions between two, None to write none. Each is written before the next rollout
            begins (of an off-policy algorithm: before its next step), when nothing is half done.
        identity: what must be equal for a run to continue it.
        improved: called after a checkpoint with the incumbent if it is a new one.
    """

    path: Path
    every: int | None
    identity: Identity
    improved: Callable[[SearchResult], None] = lambda result: None


class StopAtEvaluations(BaseCallback):
    """End training once `limit` evaluations were spent since the callback's first training start.

    Evaluations are what the environment's evaluator counts: repeat visits are free. A step of N
    environments may spend N, so with several it ends where fewer are left than that.

    Args:
        limit: evaluations to spend.
        bar: progress bar, moved by what is spent.
        spent: evaluations that were spent before.
        visits: judgements that were made before.
        most_visits: end training after so many judgements of networks, repeat visits included; None
            for never. With a reward that judges an episode's last state only, one for each episode,
            else one for each transition.

    Attributes:
        spent: evaluations spent so far.
        visits: judgements so far.
    """

    def __init__(
        self,
        limit: int,
        bar: tqdm | None = None,
        *,
        spent: int = 0,
        visits: int = 0,
        most_visits: int | None = None,
    ) -> None:
        super().__init__()
        self.limit = limit
        self.bar = bar
        self.spent = spent
        self.visits = visits
        self.most_visits = most_visits
        self._before: int | None = None
        self._lazy = False
        self._width = 1

    @property
    def done(self) -> bool:
        """Whether training is over."""
        tired = self.most_visits is not None and self.visits >= self.most_visits
        return tired or self.left <= 0

    @property
    def left(self) -> int:
        """Evaluations that may still be spent; 0 where one more step could spend too many."""
        left = self.limit - self.spent
        return left if left >= self._width else 0

    def _evaluations(self) -> int:
        return int(self.training_env.get_attr("evaluations")[0])

    def _on_training_start(self) -> None:
        self._width = self.training_env.num_envs
        if self._before is None:
            self._before = self._evaluations() - self.spent
            if self.most_visits is not None:
                self._lazy = self.training_env.get_attr("dynamics")[0].lazy

    def _on_step(self) -> bool:
        assert self._before is not None
        spent = self._evaluations() - self._before
        if self.bar is not None:
            self.bar.update(spent - self.spent)
        self.spent = spent
        dones = self.locals["dones"]
        self.visits += int(dones.sum()) if self._lazy else len(dones)
        return not self.done


class _SearchLog(BaseCallback):
    """Puts evaluations and the incumbent's accuracy into the agent's log."""

    def __init__(self, learner: Learner, stop: StopAtEvaluations) -> None:
        super().__init__()
        self._learner, self._stop = learner, stop

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.logger.record("search/evaluations", self._stop.spent)
        if (found := self._learner.incumbent(self.model)) is not None:
            self.logger.record("search/incumbent_accuracy", found.accuracy)


class _WriteCheckpoints(BaseCallback):
    """Saves training between two rollouts, and leaves everything as it was."""

    def __init__(
        self, learner: Learner, checkpoints: Checkpoints, stop: StopAtEvaluations, seconds: float
    ) -> None:
        super().__init__()
        self._learner, self._checkpoints, self._stop = learner, checkpoints, stop
        self._start = time.perf_counter() - seconds
        self._next: int | None = None
        self._known: SearchResult | None = None

    def _on_training_start(self) -> None:
        if self._next is None:
            self._next = self._after(self.num_timesteps)
            self._known = self._learner.incumbent(self.model)

    def _after(self, transitions: int) -> int:
        every = self._checkpoints.every
        assert every is not None
        return (transitions // every + 1) * every

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        assert self._next is not None
        if self.num_timesteps < self._next:
            return
        self._next = self._after(self.num_timesteps)
        generators = take_generators()
        checkpoint = Checkpoint(
            spent=self._stop.spent,
            visits=self._stop.visits,
            seconds=time.perf_counter() - self._start,
            environment=take_environment(self.training_env),
            generators=generators,
        )
        write_checkpoint(self._checkpoints.path, self._checkpoints.identity, checkpoint, self.model)
        found = self._learner.incumbent(self.model)
        if found is not None and (self._known is None or found.state != self._known.state):
            self._known = found
            self._checkpoints.improved(found)
            # Whoever builds a network draws the weights that it begins with.
            restore_generators(generators)


@dataclass(frozen=True)
class Start:
    """An agent that is ready to be trained.

    Attributes:
        learner: who it is.
        agent: new, or from a checkpoint; it has its environment.
        saved: the checkpoint it comes from, if it does.
    """

    learner: Learner
    agent: BaseAlgorithm
    saved: Checkpoint | None = None


def begin(learner: Learner, env: gym.Env, seed: int, tensorboard_log: str | None = None) -> Start:
    """A new agent for an environment.

    Raises:
        ValueError: the environment does not suit the agent.
    """
    return Start(learner, learner.make(env, seed, tensorboard_log))


def resume(
    learner: Learner, env: gym.Env, checkpoints: Checkpoints, tensorboard_log: str | None = None
) -> Start:
    """An agent as it was when a checkpoint was written. Unpickles: load only what you trust.

    Trained on at once, it ends as it would have without the interruption, with the same incumbent
    and the same parameters, where the environment judges reproducibly: on a CPU of the same kind,
    without measured latency. This sets the global random generators.

    Args:
        learner: who learns.
        env: made anew, with the arguments of the interrupted run.
        checkpoints: as in the interrupted run.
        tensorboard_log: folder for TensorBoard.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is damaged, or of another run.
    """
    agent, saved = load_checkpoint(
        checkpoints.path, checkpoints.identity, learner.algorithm, learner.wrap(env)
    )
    agent.tensorboard_log = tensorboard_log
    assert agent.env is not None
    restore_environment(agent.env, saved.environment)
    # Last, for loading an agent seeds the global generators.
    restore_generators(saved.generators)
    return Start(learner, agent, saved)


def train(
    start: Start,
    evaluations: int,
    progress_bar: bool = False,
    checkpoints: Checkpoints | None = None,
) -> tuple[Search, float]:
    """Train an agent until the evaluations are spent.

    Transitions answered from the evaluator's cache spend nothing, so training goes on until the
    evaluations are spent. It gives up after `MAX_VISITS_PER_EVALUATION` times as many judgements;
    `Search.why` says which of the two it was.

    Args:
        start: from `begin` or `resume`.
        evaluations: to spend at most, those before an interruption included.
        progress_bar: whether to show evaluations spent on the standard error stream.
        checkpoints: where and when to save, None for never; they do not change the outcome.

    Returns:
        What was found, and the seconds it took, those before an interruption included.
    """
    learner, agent, saved = start.learner, start.agent, start.saved
    spent, visits, before = (0, 0, 0.0) if saved is None else saved.counts
    clock = time.perf_counter()
    most = MAX_VISITS_PER_EVALUATION * evaluations
    with tqdm(total=evaluations, initial=spent, desc=learner.name, disable=not progress_bar) as bar:
        stop = StopAtEvaluations(
            evaluations,
            bar,
            spent=spent,
            visits=visits,
            most_visits=None if learner.paced else most,
        )
        callbacks: list[BaseCallback] = [stop, _SearchLog(learner, stop)]
        if checkpoints is not None and checkpoints.every is not None:
            callbacks.append(_WriteCheckpoints(learner, checkpoints, stop, before))
        # What `learn` was told when the checkpoint was written is told again.
        goal = 0 if saved is None else agent._total_timesteps
        while not stop.done:
            if agent.num_timesteps >= goal:
                if learner.paced and agent.num_timesteps >= most:
                    break
                left = evaluations - stop.spent
                goal = agent.num_timesteps + (left if learner.paced else _WITHOUT_END)
            agent.learn(
                goal - agent.num_timesteps,
                callback=callbacks,
                tb_log_name=learner.name,
                reset_num_timesteps=agent.num_timesteps == 0,
            )
            agent.set_logger(agent.logger)  # or each call would begin a file of its own
    seconds = before + time.perf_counter() - clock
    tired = max(stop.visits, agent.num_timesteps if learner.paced else 0) >= most
    why = ending(stop.left, tired)
    return Search(learner.incumbent(agent), agent, why), seconds
