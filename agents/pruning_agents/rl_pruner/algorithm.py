"""RLPruner: a pruning distribution, improved by following its best noisy copies.

The replay-buffer distribution policy of Wang and Kindratenko, "RL-Pruner" (arXiv 2411.06463), as a
Stable-Baselines3 algorithm. It knows the environment by its spaces and by `state()` and
`transition()`, and so nothing of networks, images or splits; what it maximises is the
environment's reward, which is judged on search-val.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from pruning_agents.proposals.start import check_warm_start, start_actions
from pruning_agents.rl_pruner.candidates import Candidate, best_alone, rank_weighted, remember
from pruning_agents.rl_pruner.distribution_policy import (
    DEFAULT_NOISE_STD,
    DistributionPolicy,
    PruningPolicy,
)
from pruning_agents.rl_pruner.groupwise_policy import GroupwisePolicy
from pruning_agents.rl_pruner.lookahead import Lookahead, look_ahead
from pruning_agents.rl_pruner.published import published, published_env
from pruning_agents.rl_pruner.transition_search import TransitionSearch
from pruning_agents.search.distribution import NOISE_KINDS
from pruning_agents.search.racing import race
from pruning_agents.search.ranges import check_counts, check_range
from pruning_agents.search.result import IncumbentTracker
from pruning_agents.search.rollout import approach
from pruning_env.process.allocation import distribution
from pruning_env.process.dynamics import PruningState

_UPDATES = {"elite": rank_weighted, "best": best_alone}


class RLPruner(TransitionSearch):
    r"""Search a pruning distribution by noise, a small replay buffer and steps towards its best.

    From the current state s of an episode and the persistent distribution p:

    1. Up to `epochs` times, draw `samples_per_epoch` noisy copies a of p and judge them together
       from s by the environment's pure transition. R is the reward of keeping a for `lookahead`
       steps, of which only the last is judged; Q(s, a) = R, or at `depth` 2 and more
       R + discount · max Q(s', a') over as many copies a' from where a led. The best `buffer_size`
       stay in the replay buffer, which lives for one pruning step.
    2. After an epoch, p follows the buffer. With `update="best"`, if the epoch's best Q beats the
       step's best so far and a* is the best in the buffer: p_new = p + step_size · (a* - p), each
       ratio p_new / p clipped to 1 ± clip, renormalised. With `update="elite"`: the logits of p,
       log(p / sizes), go `step_size` of the way to the mean of the buffer's, weighted by rank as in
       CMA-ES, and the scale of "adaptive" noise, one per group, to their standard deviation.
    3. Commit: the real environment is stepped with a*, or with probability ε by a random member
       of the buffer. ε falls from `epsilon` to 0 on a cosine over the first `epsilon_fraction` of
       training. With `reset_below`, a step whose best candidate falls too far in accuracy is
       searched once more first, from the width-proportional p.

    The published algorithm is `RLPruner(..., **RLPruner.published())`. The defaults differ from it
    where that helps: whole prunings are judged, one per evaluation, and an elite is followed with
    noise that narrows as it agrees.

    p is kept from step to step and from episode to episode, and starts width-proportional (the
    zero action: the same fraction of every group). What `warm_start` says is judged before the
    first noisy copy, and p goes to the best of it.

    What is counted. `num_timesteps` counts transitions, each of which costs one evaluation unless
    it was seen before: every candidate, and every commit (which with `lookahead=1` repeats a
    candidate). Where the environment trains commits only, these are offered as incumbents, too.
    `callback.on_step` is called once for each; `rewards`, `dones` and `infos` in its
    locals are the environment's own at a commit, and empty for candidates, so that Monitor, SB3's
    callbacks and the rollout statistics see ordinary episodes.

    Args:
        policy: "DistributionPolicy"; "GroupwisePolicy", which reads p off the observation; or a
            subclass of `PruningPolicy`.
        env: environment with `action="distribution"`; wrapped in Monitor and a VecEnv if needed.
            Exactly one environment, since candidates branch from one state.
        step_size: λ of the update, or a schedule of the remaining progress. Spec: lambda, 0.1.
        samples_per_epoch: candidates per epoch, and per state below the first of a deeper look.
            Spec: 10 samples.
        epochs: epochs per pruning step, at most. Spec: 10 epochs.
        patience: epochs in a row in which every candidate was a repeat visit, after which the step
            is committed early; None for never. Spec: never.
        lookahead: steps for which a candidate is kept before it is judged, or None for the rest of
            the episode. Spec: 1. A pruning step is often harmless although what it leads to is not;
            to the end, every candidate is a finished pruning, and costs one evaluation just the
            same.
        depth: candidates in a row that Q adds up; has no effect where an episode is over, as it is
            with `lookahead=None`. Candidates below the first are drawn for the observation of the
            first. Spec: depth 1; costs grow as samples_per_epoch to that power.
        discount: γ of a deeper look. Spec: 0.9.
        noise: "adaptive" or "multiplicative" (both in log space), or the published "absolute"; see
            `pruning_agents.search.distribution.perturb`.
        noise_std: scale of the noise; None takes 1.2 for adaptive noise, which starts there, 1.0
            for multiplicative and the published 0.04 ("variance") for absolute noise.
        minimum_std: smallest scale of adaptive noise, above 0.
        restart_std: at the end of an episode, scales of adaptive noise grow to at least this, so
            that the next one searches afresh.
        restart: whether to begin again elsewhere after a stale episode: around a distribution drawn
            at random, with the first noise. Without it, most of a long search is repeat visits,
            which cost time although no evaluation. Spec: no.
        stale_below: an episode is stale when less than this share of what was tried in it was new
            and not a repeat visit.
        update: "elite", or the published "best".
        clip: largest relative change of a share in one update, None for any. Spec: the "PPO" clip,
            0.25.
        buffer_size: slots of the replay buffer. Spec: 10.
        warm_start: what is judged first, and p starts at the best of: "none", so that noisy copies
            of the width-proportional p come first; "uniform", that p itself; or "rules", what the
            rules of thumb propose, of which that is one. Spec: none.
        epsilon: first probability of committing a random buffer member. Spec: 0.4.
        epsilon_fraction: part of training after which it is 0. Spec: the first 10 % of steps.
        reset_below: p is reset, and the pruning step searched once more, where the accuracy of its
            best candidate is below (1 - this) times that of the state it came from; None for never.
            Spec: 0.1; there the step is drawn once more, and not judged.
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
        "DistributionPolicy": DistributionPolicy,
        "GroupwisePolicy": GroupwisePolicy,
    }
    published = staticmethod(published)
    published_env = staticmethod(published_env)

    def __init__(
        self,
        policy: str | type[PruningPolicy],
        env: GymEnv | str | None,
        *,
        step_size: float | Schedule = 0.5,
        samples_per_epoch: int = 10,
        epochs: int = 20,
        patience: int | None = 1,
        lookahead: int | None = None,
        depth: int = 1,
        discount: float = 0.9,
        noise: str = "adaptive",
        noise_std: float | None = None,
        minimum_std: float = 0.1,
        restart_std: float = 1.0,
        restart: bool = True,
        stale_below: float = 0.25,
        update: str = "elite",
        clip: float | None = None,
        buffer_size: int = 10,
        warm_start: str = "uniform",
        epsilon: float = 0.4,
        epsilon_fraction: float = 0.1,
        reset_below: float | None = None,
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
        if update not in _UPDATES:
            raise ValueError(f"update={update!r} is not known; allowed: {', '.join(_UPDATES)}")
        check_warm_start(warm_start)
        std = DEFAULT_NOISE_STD[noise] if noise_std is None else noise_std
        check_counts(
            samples_per_epoch=samples_per_epoch,
            epochs=epochs,
            buffer_size=buffer_size,
            lookahead=lookahead,
            patience=patience,
            depth=depth,
        )
        check_range(0.0, np.inf, noise_std=std, restart_std=restart_std)
        check_range(0.001, np.inf, minimum_std=minimum_std)
        check_range(0.0, 1.0, discount=discount, clip=clip, epsilon=epsilon)
        check_range(0.0, 1.0, epsilon_fraction=epsilon_fraction, stale_below=stale_below)
        check_range(0.0, 1.0, reset_below=reset_below)

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
        self.patience = patience
        self.stale_below = stale_below
        self.lookahead = lookahead
        self.depth = depth
        self.discount = discount
        self.noise = noise
        self.noise_std = float(std)
        self.minimum_std = minimum_std
        self.restart_std = restart_std
        self.restart = restart
        self.update = update
        self.clip = clip
        self.buffer_size = buffer_size
        self.warm_start = warm_start
        self.epsilon = epsilon
        self.epsilon_fraction = epsilon_fraction
        self.reset_below = reset_below
        self._tracker = IncumbentTracker("rl-pruner")
        self._evaluations = 0
        self._visits = 0
        self._episode_start = (0, 0)  # evaluations and visits before it
        self._judged: list[float] = []
        self._path = []
        self._kept: Candidate | None = None  # committed last, if in this episode
        self._taught = -np.inf  # accuracy of the episode that the policy was taught last
        if self.env is not None:
            kind = self._read_env()
            self.sizes, self.logit_scale = kind.sizes, kind.logit_scale
            self.progress_entry = self._progress_entry()
        # Not in _setup_model: a loaded agent goes on with the generators it was saved with.
        self.set_random_seed(seed)
        if _init_setup_model:
            self._setup_model()

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
            minimum_std=self.minimum_std,
            rng=self._prediction_rng,
            progress=self.progress_entry,
            **self.policy_kwargs,
        ).to(self.device)

    def _pruning_step(self, total_timesteps: int, callback: BaseCallback) -> bool:
        """Search from the current state, update p, commit. False when a callback says stop."""
        assert self.env is not None
        state = self.env.env_method("state")[0]
        if state.step == 0:
            self._path, self._kept = [], None
        callback.on_rollout_start()
        buffer = self._search(state, total_timesteps, callback)
        if buffer and self._fell(state, buffer[0]) and total_timesteps - self.num_timesteps > 1:
            self.policy.reset()
            buffer = self._search(state, total_timesteps, callback)
        if not buffer:
            return False
        if self.num_timesteps < total_timesteps:
            rewards, dones, infos = self._commit(buffer)
            if not self._count(rewards, dones, infos, total_timesteps, callback):
                return False
        callback.on_rollout_end()
        self._record(buffer[0].q)
        return True

    def _fell(self, state: PruningState, best: Candidate) -> bool:
        """Whether too much of a state's accuracy is gone with a candidate."""
        if self.reset_below is None:
            return False
        return best.accuracy < (1.0 - self.reset_below) * state.latest.accuracy

    def _search(
        self, state: PruningState, total_timesteps: int, callback: BaseCallback
    ) -> list[Candidate]:
        """Judge candidates from a state and let p follow; the best of them, best first.

        Empty when a callback says stop.
        """
        buffer: list[Candidate] = []
        step_best = -np.inf
        idle = 0
        for _ in range(self.epochs):
            # The last transition is the commit's, unless there is only one.
            room = max(total_timesteps - self.num_timesteps - 1, 0 if buffer else 1)
            if room == 0 or idle == self.patience:
                break
            before = self._tried
            start = self._start()
            if start:
                candidates = self._judge(state, start[:room], room)
            else:
                kept = None if buffer or self.lookahead is not None else self._kept
                drawn = self._draw(min(self.samples_per_epoch, room), kept)
                candidates = self._judge(state, drawn, room)
            for candidate in candidates:
                buffer = remember(buffer, candidate, self.buffer_size)
            for q in self._judged:
                if not self._count([q], [False], [{}], total_timesteps, callback):
                    return []
            if start:
                buffer = buffer[:1]  # a mean of rules that disagree is none of them
                self.policy.begin(self._observation, buffer[0].probabilities)
                step_best = buffer[0].q
                continue
            improved = buffer[0].q > step_best
            step_best = buffer[0].q
            idle = idle + 1 if self._evaluations == before[0] else 0
            # Repeat visits say nothing new: an elite of them would only make p drift.
            if improved if self.update == "best" else idle == 0:
                self._follow(buffer)
        return buffer

    def _start(self) -> list[NDArray[np.float64]]:
        """The distributions that a search begins with; none once anything was judged."""
        if self._visits:
            return []
        kind = self._read_env()
        return [
            distribution(action, kind.sizes, kind.logit_scale)
            for action in start_actions(self._dynamics, self.warm_start)
        ]

    def _draw(self, count: int, kept: Candidate | None) -> list[NDArray[np.float64]]:
        """Noisy copies, `count` of them with `kept`.

        `kept` is the last commit, whose outcome at the end of the episode is known: with it among
        the candidates, a commit never leads to less than the one before it has promised.
        """
        # Not alone: a search that has one evaluation left must spend it on something new.
        drawn = [] if kept is None or count == 1 else [kept.probabilities]
        while len(drawn) < count:
            drawn.append(self.policy.sample(self._observation, self.rng))
        return drawn

    def _judge(
        self, state: PruningState, drawn: list[NDArray[np.float64]], room: int
    ) -> list[Candidate]:
        """Judge distributions as candidates; nothing in the environment moves.

        Finished prunings in a race, where the environment has races.
        """
        actions = [self._to_action(probabilities) for probabilities in drawn]
        before = self._evaluations_of_env()
        if self._dynamics.evaluator.race is None or self.lookahead is not None:
            rule = Lookahead(self.lookahead, self.depth, self.discount, self.samples_per_epoch)
            values, transitions = look_ahead(
                self._dynamics,
                [state] * len(drawn),
                actions,
                rule,
                lambda: self._to_action(self.policy.sample(self._observation, self.rng)),
                room,
            )
            self._judged = [transition.reward for transition in transitions]
            judged = list(zip(transitions, actions, strict=False))
            raced = False
        else:
            ahead = [approach(self._dynamics, state, action) for action in actions]
            values, judged = race(self._dynamics, ahead, actions)
            self._judged = values.tolist()
            raced = True
        self._offer(state, judged, self._evaluations_of_env() - before, raced=raced)
        self._visits += len(self._judged)
        # Of those that fell out of a race nothing is known for certain.
        reached = {id(action): end.state.latest.accuracy for end, action in judged}
        return [
            Candidate(float(q), probabilities, action, reached.get(id(action), np.nan))
            for q, probabilities, action in zip(values, drawn, actions, strict=False)
        ]

    def _follow(self, buffer: list[Candidate]) -> None:
        step_size = self.lr_schedule(self._current_progress_remaining)
        self.policy.follow(self._observation, _UPDATES[self.update](buffer), step_size, self.clip)
        self._n_updates += 1

    def _commit(
        self, buffer: list[Candidate]
    ) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step the real environment with the best candidate, or with ε by any in the buffer."""
        assert self.env is not None
        explore = self.rng.uniform() < self.exploration_rate
        chosen = buffer[self.rng.integers(len(buffer))] if explore else buffer[0]
        if self._dynamics.evaluator.trains_commits:
            # What it trains was no candidate. The environment finds it remembered.
            before = self._evaluations_of_env()
            state = self.env.env_method("state")[0]
            end = self._dynamics.commit(state, chosen.action)
            self._offer(state, [(end, chosen.action)], self._evaluations_of_env() - before)
        before = self._evaluations_of_env()
        self._path.append((self._observation.copy(), chosen.action))
        self._kept = chosen
        observations, rewards, dones, infos = self.env.step(chosen.action[None])
        self._evaluations += self._evaluations_of_env() - before
        self._last_obs = observations  # type: ignore[assignment]
        self._last_episode_starts = dones
        self._episode_num += int(dones.sum())
        if dones[0]:
            self._kept = None
            self._teach(infos[0])
            self._go_on_or_restart()
        self._update_info_buffer(infos, dones)
        return rewards, dones, infos

    def _teach(self, info: dict[str, Any]) -> None:
        """At the end of an episode that is the best so far: let the policy imitate it."""
        best = self._tracker.state
        if best is None or not info["is_success"]:
            return
        accuracy = info["accuracy"]
        if accuracy >= best.latest.accuracy and accuracy > self._taught:
            self._taught = accuracy
            self.policy.imitate(*zip(*self._path, strict=True))

    def _go_on_or_restart(self) -> None:
        """At the end of an episode: search on around the same distribution, or elsewhere."""
        stale = self._stale(self._episode_start)
        self._episode_start = self._tried
        if stale and self.restart:
            self.policy.restart(self.rng)
        else:
            self.policy.widen(self.restart_std)

    def _stale(self, before: tuple[int, int]) -> bool:
        """Whether since then there was little that was new."""
        fresh, visits = np.subtract(self._tried, before)
        return bool(fresh < self.stale_below * visits)

    @property
    def exploration_rate(self) -> float:
        """ε at the current progress: the chance to commit a random member of the buffer."""
        progress = 1.0 - self._current_progress_remaining
        if progress >= self.epsilon_fraction:
            return 0.0
        return self.epsilon * 0.5 * (1.0 + float(np.cos(np.pi * progress / self.epsilon_fraction)))
