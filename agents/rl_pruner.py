"""RLPruner: a persistent pruning distribution, improved by following its best noisy copies.

The replay-buffer distribution policy of Wang and Kindratenko, "RL-Pruner" (arXiv 2411.06463), as a
Stable-Baselines3 algorithm. It knows the environment by its spaces and by `state()` and
`transition()`, and so nothing of networks, images or splits; what it maximises is the
environment's reward, which is judged on search-val.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, PyTorchObs, Schedule
from stable_baselines3.common.utils import safe_mean

from agents.distribution import (
    NOISE_KINDS,
    normalise,
    perturb,
    representable,
    to_action,
    width_proportional,
)
from agents.result import IncumbentTracker, SearchResult
from agents.rollout import approach, feasible_end
from pruning_env.actions import DistributionAction
from pruning_env.dynamics import PruningDynamics, PruningState, Transition

SelfRLPruner = TypeVar("SelfRLPruner", bound="RLPruner")

#: What the environment must offer beside the Gymnasium interface.
_REQUIRED = ("dynamics", "evaluator", "state", "transition")

_DEFAULT_NOISE_STD = {"multiplicative": 1.0, "absolute": 0.04}


class DistributionPolicy(BasePolicy):
    """A policy that is one distribution over groups, whatever the observation says.

    Args:
        observation_space: space of the environment; only its batch dimension is used.
        action_space: Box(-1, 1, (L,)).
        lr_schedule: unused; every SB3 policy takes one.
        sizes: (L,) channels of each group.
        logit_scale: width of the environment's softmax.
        noise: kind of noise of a stochastic prediction, see `agents.distribution.perturb`.
        noise_std: scale of that noise.
        rng: generator of stochastic predictions.
    """

    probabilities: torch.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        *,
        sizes: NDArray[np.int64],
        logit_scale: float,
        noise: str = "multiplicative",
        noise_std: float = _DEFAULT_NOISE_STD["multiplicative"],
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.logit_scale = float(logit_scale)
        self.noise = noise
        self.noise_std = noise_std
        self.rng = np.random.default_rng() if rng is None else rng
        # A buffer, because it is saved with the policy and no gradient ever reaches it.
        self.register_buffer("probabilities", torch.from_numpy(width_proportional(self.sizes)))

    @property
    def distribution(self) -> NDArray[np.float64]:
        """(L,) the current distribution, a copy."""
        return self.probabilities.cpu().numpy().astype(np.float64)

    @distribution.setter
    def distribution(self, probabilities: NDArray[np.float64]) -> None:
        self.probabilities.copy_(torch.from_numpy(normalise(probabilities)))

    def sample(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(L,) a noisy copy of the distribution, one that an action can express."""
        noisy = perturb(self.distribution, self.noise, self.noise_std, rng)
        return representable(noisy, self.sizes, self.logit_scale)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        """(N, L) actions for a batch of N observations."""
        return self._predict(observation, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        actions = [
            to_action(
                self.distribution if deterministic else self.sample(self.rng),
                self.sizes,
                self.logit_scale,
            )
            for _ in range(len(first))
        ]
        return torch.from_numpy(np.stack(actions))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "sizes": self.sizes,
            "logit_scale": self.logit_scale,
            "noise": self.noise,
            "noise_std": self.noise_std,
        }


@dataclass(frozen=True)
class Candidate:
    """One judged candidate: its distribution (L,), its action (L,) and the Q it earned."""

    q: float
    probabilities: NDArray[np.float64]
    action: NDArray[np.float32]


class RLPruner(BaseAlgorithm):
    r"""Search a pruning distribution by noise, a small replay buffer and clipped steps.

    From the current state s of an episode and the persistent distribution p:

    1. `epochs` times, draw `samples_per_epoch` noisy copies a of p and judge each from s by the
       environment's pure transition: Q(s, a) is the reward of keeping a for `lookahead` steps, of
       which only the last is judged. The best `buffer_size` stay in the replay buffer, which lives
       for one pruning step.
    2. After an epoch whose best Q beats the step's best so far, with a* the best in the buffer:
       p_new = p + step_size · (a* - p), each ratio p_new / p clipped to 1 ± clip, renormalised.
    3. Commit: the real environment is stepped with a*, or with probability ε by a random member
       of the buffer. ε falls from `epsilon` to 0 on a cosine over the first `epsilon_fraction` of
       training.

    p is kept from step to step and from episode to episode, and starts width-proportional (the
    zero action: the same fraction of every group).

    What is counted. `num_timesteps` counts transitions, each of which costs one evaluation unless
    it was seen before: every candidate, and every commit (which with `lookahead=1` repeats a
    candidate). `callback.on_step` is called once for each; `rewards`, `dones` and `infos` in its
    locals are the environment's own at a commit, and empty for candidates, so that Monitor, SB3's
    callbacks and the rollout statistics see ordinary episodes.

    Args:
        policy: "DistributionPolicy" or a subclass of it.
        env: environment with `action="distribution"`; wrapped in Monitor and a VecEnv if needed.
            Exactly one environment, since candidates branch from one state.
        step_size: λ of the update, or a schedule of the remaining progress. Spec: lambda, 0.1.
        samples_per_epoch: candidates per epoch. Spec: 10 samples.
        epochs: epochs per pruning step. Spec: 10 epochs.
        lookahead: steps for which a candidate is kept before it is judged, or None for the rest of
            the episode. Spec: depth 1. A pruning step is often harmless although what it leads to
            is not; to the end, every candidate is a finished pruning, and costs one evaluation
            just the same.
        noise: "multiplicative" (log space), or the published "absolute".
        noise_std: scale of the noise, a cap on its standard deviation; None takes 1.0 for
            multiplicative and the published 0.04 ("variance") for absolute noise.
        clip: largest relative change of a share in one update. Spec: the "PPO" clip, 0.25.
        buffer_size: slots of the replay buffer. Spec: 10.
        epsilon: first probability of committing a random buffer member. Spec: 0.4.
        epsilon_fraction: part of training after which it is 0. Spec: the first 10 % of steps.
        policy_kwargs: further arguments of the policy.
        stats_window_size: episodes over which rollout statistics are averaged.
        tensorboard_log: folder for TensorBoard, None for none.
        verbose: 0 for silence, 1 for SB3's table on the standard output.
        seed: seeds this agent's own generators and the environment, nothing global.
        device: where L numbers live; the default is right.
        _init_setup_model: whether to build the policy at once; `load` says no.

    Raises:
        ValueError: naming the argument, for a value out of range or an environment without
            `state()`, `transition()` or a distribution action.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "DistributionPolicy": DistributionPolicy
    }
    policy: DistributionPolicy
    _dynamics: PruningDynamics

    def __init__(
        self,
        policy: str | type[DistributionPolicy],
        env: GymEnv | str | None,
        *,
        step_size: float | Schedule = 0.1,
        samples_per_epoch: int = 10,
        epochs: int = 10,
        lookahead: int | None = None,
        noise: str = "multiplicative",
        noise_std: float | None = None,
        clip: float = 0.25,
        buffer_size: int = 10,
        epsilon: float = 0.4,
        epsilon_fraction: float = 0.1,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        _init_setup_model: bool = True,
    ) -> None:
        if noise not in NOISE_KINDS:
            raise ValueError(f"noise={noise!r} is not known; allowed: {', '.join(NOISE_KINDS)}")
        std = _DEFAULT_NOISE_STD[noise] if noise_std is None else noise_std
        for name, value in (
            ("samples_per_epoch", samples_per_epoch),
            ("epochs", epochs),
            ("buffer_size", buffer_size),
            ("lookahead", 1 if lookahead is None else lookahead),
        ):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name, number, low, high in (
            ("noise_std", std, 0.0, np.inf),
            ("clip", clip, 0.0, 1.0),
            ("epsilon", epsilon, 0.0, 1.0),
            ("epsilon_fraction", epsilon_fraction, 0.0, 1.0),
        ):
            if not low <= number <= high:
                raise ValueError(f"{name}={number} must be between {low:g} and {high:g}")

        super().__init__(
            policy,
            env,
            learning_rate=step_size,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )
        self.samples_per_epoch = samples_per_epoch
        self.epochs = epochs
        self.lookahead = lookahead
        self.noise = noise
        self.noise_std = float(std)
        self.clip = clip
        self.buffer_size = buffer_size
        self.epsilon = epsilon
        self.epsilon_fraction = epsilon_fraction
        self._tracker = IncumbentTracker("rl-pruner")
        self._evaluations = 0
        if self.env is not None:
            kind = self._read_env()
            self.sizes, self.logit_scale = kind.sizes, kind.logit_scale
        # Not in _setup_model: a loaded agent goes on with the generators it was saved with.
        self.set_random_seed(seed)
        if _init_setup_model:
            self._setup_model()

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

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            sizes=self.sizes,
            logit_scale=self.logit_scale,
            noise=self.noise,
            noise_std=self.noise_std,
            rng=self._prediction_rng,
            **self.policy_kwargs,
        ).to(self.device)

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
        return self.policy.distribution

    @property
    def incumbent(self) -> SearchResult | None:
        """The best feasible candidate judged so far on search-val; None while there is none.

        Candidates count, not only committed ones. One is feasible when it ended its episode within
        every budget, so with a short `lookahead` there is none before the last steps of an episode.
        """
        return self._tracker.result(self._evaluations)

    def learn(
        self: SelfRLPruner,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RLPruner",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRLPruner:
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
        while self.num_timesteps < total_timesteps:
            if not self._pruning_step(total_timesteps, callback):
                break
            pruning_steps += 1
            if log_interval and pruning_steps % log_interval == 0:
                self._dump_logs()
        callback.on_training_end()
        return self

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

    def _pruning_step(self, total_timesteps: int, callback: BaseCallback) -> bool:
        """Search from the current state, update p, commit. False when a callback says stop."""
        assert self.env is not None
        state = self.env.env_method("state")[0]
        remaining = total_timesteps - self.num_timesteps
        candidates = min(self.epochs * self.samples_per_epoch, max(1, remaining - 1))
        buffer: list[Candidate] = []
        step_best = -np.inf
        callback.on_rollout_start()
        for first in range(0, candidates, self.samples_per_epoch):
            epoch_best = -np.inf
            for _ in range(first, min(first + self.samples_per_epoch, candidates)):
                candidate = self._judge(state)
                epoch_best = max(epoch_best, candidate.q)
                buffer = remember(buffer, candidate, self.buffer_size)
                if not self._count([candidate.q], [False], [{}], total_timesteps, callback):
                    return False
            if epoch_best > step_best:
                step_best = epoch_best
                self._follow(buffer[0].probabilities)
        if candidates < remaining:
            rewards, dones, infos = self._commit(buffer)
            if not self._count(rewards, dones, infos, total_timesteps, callback):
                return False
        callback.on_rollout_end()
        self._record(buffer[0].q)
        return True

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

    def _judge(self, state: PruningState) -> Candidate:
        """Draw a candidate and judge it from `state`; nothing in the environment moves."""
        assert self.env is not None
        probabilities = self.policy.sample(self.rng)
        action = to_action(probabilities, self.sizes, self.logit_scale)
        before = self._evaluations_of_env()
        ahead = approach(self._dynamics, state, action, self.lookahead)
        transition: Transition = self.env.env_method("transition", ahead, action)[0]
        self._evaluations += self._evaluations_of_env() - before
        if feasible_end(transition):
            self._tracker.offer(transition.state, self._evaluations)
        return Candidate(transition.reward, probabilities, action)

    def _evaluations_of_env(self) -> int:
        assert self.env is not None
        return int(self.env.get_attr("evaluator")[0].evaluations)

    def _follow(self, target: NDArray[np.float64]) -> None:
        """Step p <- p + step_size · (a* - p), no share changing by more than the clip."""
        p = self.policy.distribution
        step_size = self.lr_schedule(self._current_progress_remaining)
        ratio = 1.0 + step_size * (target - p) / p
        self.policy.distribution = p * np.clip(ratio, 1.0 - self.clip, 1.0 + self.clip)
        self._n_updates += 1

    def _commit(
        self, buffer: list[Candidate]
    ) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step the real environment with the best candidate, or with ε by any in the buffer."""
        assert self.env is not None
        explore = self.rng.uniform() < self.exploration_rate
        chosen = buffer[self.rng.integers(len(buffer))] if explore else buffer[0]
        before = self._evaluations_of_env()
        observations, rewards, dones, infos = self.env.step(chosen.action[None])
        self._evaluations += self._evaluations_of_env() - before
        self._last_obs = observations  # type: ignore[assignment]
        self._last_episode_starts = dones
        self._episode_num += int(dones.sum())
        self._update_info_buffer(infos, dones)
        return rewards, dones, infos

    @property
    def exploration_rate(self) -> float:
        """ε at the current progress: the chance to commit a random member of the buffer."""
        progress = 1.0 - self._current_progress_remaining
        if progress >= self.epsilon_fraction:
            return 0.0
        return self.epsilon * 0.5 * (1.0 + float(np.cos(np.pi * progress / self.epsilon_fraction)))

    def _record(self, best_q: float) -> None:
        p = self.policy.distribution
        self.logger.record("train/best_q", best_q)
        self.logger.record("train/epsilon", self.exploration_rate)
        self.logger.record("train/n_updates", self._n_updates)
        self.logger.record("train/entropy", float(-(p * np.log(p)).sum()))
        self.logger.record("search/evaluations", self._evaluations)
        if self._tracker.history:
            self.logger.record("search/incumbent_accuracy", self._tracker.history[-1][1])

    def _dump_logs(self) -> None:
        assert self.ep_info_buffer is not None and self.ep_success_buffer is not None
        if self.ep_info_buffer:
            for key, name in (("r", "ep_rew_mean"), ("l", "ep_len_mean")):
                mean = safe_mean([info[key] for info in self.ep_info_buffer])
                self.logger.record(f"rollout/{name}", mean)
        if self.ep_success_buffer:
            self.logger.record("rollout/success_rate", safe_mean(self.ep_success_buffer))
        seconds = max((time.time_ns() - self.start_time) / 1e9, 1e-9)
        fps = int((self.num_timesteps - self._num_timesteps_at_start) / seconds)
        self.logger.record("time/episodes", self._episode_num, exclude="tensorboard")
        self.logger.record("time/fps", fps)
        self.logger.record("time/time_elapsed", int(seconds), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)


def remember(buffer: list[Candidate], candidate: Candidate, size: int) -> list[Candidate]:
    """Return the `size` best of the buffer and `candidate`, best first; the newest wins a tie."""
    return sorted([candidate, *buffer], key=lambda kept: -kept.q)[:size]
