"""`CNNPrune-v0`: structured pruning of a trained CNN as a Gymnasium environment.

A thin face of `dynamics.PruningDynamics`: it holds the current state and speaks Gymnasium. No rule
of pruning lives here.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from torch import nn

from pruning_env.arguments import check_choice
from pruning_env.envs.parts import make_parts, observation_of
from pruning_env.envs.rendering import Painter, render_ansi
from pruning_env.envs.report import Report
from pruning_env.envs.viewer import Window
from pruning_env.graph.selection import Groups
from pruning_env.process.budgets import parse_budget
from pruning_env.process.dynamics import PruningState, Transition
from pruning_env.process.observations import Observation


class CNNPruneEnv(gym.Env[Observation, np.ndarray]):
    """Structured pruning of a trained CNN, a few channels at a time.

    ## Description

    A trained convolutional network loses whole channels, step by step, until it fits a budget. A
    *channel* is the smallest unit that can be removed: all slices of all tensors that must go
    together. A *group* is a set of channels that live in the same tensors (a layer, or layers
    coupled by a skip connection). Each step removes a fixed number of channels, and the action says
    how they are spread over the `L` groups; `action` and `constraint` can change that. Inside a
    group the least important channels go first; importance is measured once, on the dense network,
    or with `rank_every` again on pruned ones.
    Every group keeps at least one channel; with `round_to=8`, say, it keeps its dense width or a
    multiple of 8, and never less than 8.

    After each step the pruned network is judged on *search-val* images. The test split is opened by
    `report()` only.

    ## Action Space

    `Box(-1, 1, (L,), float32)`, or by `counts` `MultiDiscrete`: one number per group.

    | `action`       | Meaning of a group's number                                                 |
    |----------------|-----------------------------------------------------------------------------|
    | `distribution` | logit of its share of the step's channels (default)                         |
    | `ratio`        | -1 removes nothing, +1 all above the floor, 0 half of it; needs `max_steps` |
    | `counts`       | units of `round_to` it keeps above its floor at most; needs `max_steps`     |
    | `layerwise`    | as `ratio`, for the group whose turn it is; `max_steps` must be L           |

    By `distribution`, group `l` gives the share `p_l ∝ size_l * exp(logit_scale * action_l)` of the
    step's channels, so the zero action prunes all groups by the same ratio. Shares are rounded to
    whole channels, up for the groups that are furthest behind what this action would have taken
    from the start. What a group cannot give because it is at its floor is offered to the others, so
    that the total is exact.

    By `ratio`, group `l` loses the fraction `(1 + action_l) / 2` of what it still holds above its
    floor, and `channels_per_step` does not matter. The sum is rounded to whole channels, which go
    to the largest remainders. With `max_steps=1` it prunes in one shot. Where a constraint wants
    more or less removed, all fractions grow or shrink together, up to 1. `counts` says the same by
    whole numbers: a group loses what it holds beyond its number.

    By `layerwise` the space is `Box(-1, 1, (1,), float32)`: the k-th step is the k-th group's, as
    in AMC. Each group has one more feature, `turn`, which marks the group that is next. By `wall`,
    a group loses at least what those after it could not make up for; `project` is not allowed.

    Numbers outside the box, ±inf included, are clipped. NaN, a wrong shape, a non-numeric dtype or
    a number outside `MultiDiscrete` raises `ValueError` and leaves the environment as it was.

    ## Observation Space

    A flat `Box` of float32, `(10 * L + 5 + number of budgets,)`, bounded on both sides: the table
    of group features row by row (10 numbers for the first group, 10 for the second, ...), then the
    global features. `env.unwrapped.observation_names` names every entry. With `observation="dict"`
    the same numbers come as a `Dict` of two bounded boxes, `groups` `(L, 10)` and `globals`.

    | Group feature  | Min | Max | Meaning                                         |
    |----------------|-----|-----|-------------------------------------------------|
    | `sparsity`     | 0   | 1   | share of the group's channels removed           |
    | `sensitivity`  | 0   | 1   | share of the mean importance of kept channels   |
    | `params_share` | 0   | 1   | parameters that shrinking it to its floor saves |
    | `macs_share`   | 0   | 1   | MACs that shrinking it to its floor saves       |
    | `width`        | 0   | 1   | channels kept / widest group                    |
    | `dense_width`  | 0   | 1   | channels in the dense network / widest group    |
    | `kernel`       | 0   | 1   | kernel size / largest                           |
    | `stride`       | 0   | 1   | stride / largest                                |
    | `depth`        | 0   | 1   | position in execution order / last              |
    | `last_action`  | -1  | 1   | the action that led here, clipped; 0 at reset   |

    The two shares are of the network as it is now. The sensitivity is of the importance that ranks,
    measured on the dense network; with `sensitivity_every=n` it is the Taylor importance of the
    network as it was at the last step that n divides, at reset of the dense one. That takes one
    pass forward and back over `importance_images` images, and no evaluation. The ranking does not
    change with it. With `sensitivity="probe"` it is measured by trial instead: by how much accuracy
    on the `importance_images` falls, in [0, 1], when a tenth of the group's channels goes, L
    networks each time.

    | Global feature | Min | Max | Meaning                                |
    |----------------|-----|-----|----------------------------------------|
    | `accuracy`     | 0   | 1   | search-val top-1 accuracy              |
    | `likelihood`   | 0   | 1   | exp(-search-val cross-entropy)         |
    | `params`       | 0   | 1   | parameters / dense                     |
    | `macs`         | 0   | 1   | MACs / dense                           |
    | `progress`     | 0   | 1   | removed / removable channels           |
    | `over_budget`  | -1  | 1   | usage - limit, clipped, one per budget |

    Where `max_steps` is given, one more global comes last, `steps_left`: the share of `max_steps`
    that is left, from 1 to 0.

    ## Rewards

    The sum of the terms in `info["reward_terms"]`, each multiplied by `reward_scale`. Accuracies
    are of search-val, in [0, 1].

    | `reward`          | Paid                                                                     |
    |-------------------|--------------------------------------------------------------------------|
    | `accuracy_change` | each step: change of accuracy (default)                                  |
    | `accuracy`        | at the end: accuracy                                                     |
    | `rl_pruner`       | each step: change of accuracy + `alpha` * MACs cut + `beta` * params cut |
    | `amc`             | at the end: -error * ln(MACs per image) / ln(MACs of the dense network)  |
    | `final`           | at the end: accuracy - dense accuracy                                    |

    So what an episode earns depends on where it ends, not on the way or its length. Cuts are shares
    of the dense network's. `reward_arguments` sets `alpha` and `beta`, 0 by default: RL-Pruner has
    (0, 0), (0.25, 0) and (0, 0.25).

    The last term, `unmet`, is 0 unless the episode ends with a budget unmet; then it is
    `-(1 + budget_excess)`, which is more than any accuracy is worth. So doing nothing never pays,
    also where actions may remove nothing. By `constraint="cost"` there is no such term: there the
    reward alone would have an agent prune nothing, and `info["cost"]` is for the rest.

    Rewards paid at the end are lazy: only an episode's last state is judged, so an episode costs
    one evaluation at most. Until then, observation and info carry the accuracy and loss known last,
    those of the state that the episode started from; with `recovery="finetune"`, nothing is trained
    until then.

    ## Starting State

    The dense network with its trained weights, always the same: `seed` changes nothing but
    `env.np_random`. `options={"state": state}` starts from a `PruningState` of this environment
    instead; other options raise `ValueError`.

    ## Episode End

    Terminated when, after a step, every budget is met (not by `constraint="cost"`), or every group
    is at its floor, or `max_steps` steps were made. Never truncated: every step removes at least
    one channel, or `max_steps` must be given, so an episode ends by itself; without `max_steps`
    after about `1 / channels_per_step` steps at most. A step after the end raises
    `gymnasium.error.ResetNeeded`.

    | `constraint` | What a step removes                                                          |
    |--------------|------------------------------------------------------------------------------|
    | `terminate`  | what the action asks for, also beyond what the budgets need (default)        |
    | `project`    | no more than the budgets need; the last of `max_steps` all that they need    |
    | `wall`       | at least what later steps could not make up for; needs `max_steps`           |
    | `cost`       | what the action asks for, also when all budgets are met; needs `max_steps`   |

    By `project` and `wall` an episode ends feasible, whatever the actions: a limit that even the
    floors exceed is refused at once. Only `latency` may end unmet, where noise alone would have the
    network cut to pieces: it is never left with fewer than a quarter of the MACs that its limit
    would need, were time to fall in a straight line with them; a warning says so. What the budgets
    need is the number of units along the step's own action that meets all of them while one unit
    less does not. With `constraint="project", max_steps=1`, an episode is one action that says how
    everything that must go is spread over the groups. `pruning_env/process/constraints.py` has the
    exact rules.

    ## Information

    The same keys at reset and step.

    | Key             | Type  | Meaning                                             |
    |-----------------|-------|-----------------------------------------------------|
    | `accuracy`      | float | search-val top-1 accuracy, in [0, 1]                |
    | `loss`          | float | search-val cross-entropy, mean per image, >= 0      |
    | `params`        | float | parameters / dense                                  |
    | `macs`          | float | multiply-accumulates per image / dense              |
    | `cost`          | float | at an episode's last step (**), else 0.0            |
    | `budget_excess` | float | how far usage is above the limits, summed; >= 0     |
    | `requested`     | int   | channels that the last step announced; 0 if dense   |
    | `removed`       | int   | channels that it removed; fewer if `exhausted` (*)  |
    | `exhausted`     | bool  | whether every group is at its floor                 |
    | `is_success`    | bool  | whether every budget is met                         |
    | `usage`         | dict  | what is limited / dense, by the name of each budget |
    | `reward_terms`  | dict  | the reward's summands by name, scaled; 0.0 at reset |

    (*) or unless a group's dense width was no multiple of `round_to`: its partial unit goes first.

    (**) `budget_excess`; by `constraint="cost"` the largest of usage / limit over the budgets, so
    that 1.0 is the limit of the cost.

    ## Arguments

    | Parameter           | Type  | Default             | Allowed                               |
    |---------------------|-------|---------------------|---------------------------------------|
    | `task`              | str   | `"digits-resnet8"`  | a registered task                     |
    | `weights`           | str   | `None`              | a file; `None`: the task's own        |
    | `data_root`         | str   | `None`              | a folder; `None`: `$PRUNING_ENV_DATA` |
    | `budget`            | dict  | `{"params": 0.25}`  | limits in (0, 1] by budget name       |
    | `action`            | str   | `"distribution"`    | see Action Space                      |
    | `logit_scale`       | float | `3.0`               | above 0                               |
    | `channels_per_step` | float | `0.05`              | in (0, 1], of all channels            |
    | `filters_per_step`  | float | `None`              | in (0, 1], of all filters; see below  |
    | `max_steps`         | int   | `None`              | at least 1; `None`: no such end       |
    | `round_to`          | int   | `1`                 | widths stay dense or a multiple of it |
    | `groups`            | str   | `"all"`             | `all`, `inner`, a list of patterns    |
    | `reward`            | str   | `"accuracy_change"` | see Rewards                           |
    | `reward_arguments`  | dict  | `None`              | numbers by name; `None`: the defaults |
    | `reward_scale`      | float | `1.0`               | above 0                               |
    | `observation`       | str   | `"flat"`            | `flat`, `dict`                        |
    | `importance`        | str   | `"taylor"`          | a registered importance               |
    | `importance_images` | int   | `512`               | at least 1                            |
    | `rank_every`        | int   | `None`              | at least 1; `None`: dense network's   |
    | `sensitivity`       | str   | `"importance"`      | `importance`, `probe`                 |
    | `sensitivity_every` | int   | `None`              | at least 1; `None`: dense network's   |
    | `recovery`          | str   | `"bn"`              | see below                             |
    | `recover_when`      | str   | `"candidate"`       | `candidate`, `commit`; see below      |
    | `recover_every`     | int   | `1`                 | at least 1; of `commit` only          |
    | `recovery_images`   | int   | `512`               | at least 2                            |
    | `finetune_steps`    | int   | `20`                | at least 1                            |
    | `finetune_lr`       | float | `0.001`             | above 0                               |
    | `finetune_arguments`| dict  | `None`              | settings by name; see below           |
    | `val_images`        | int   | `None`              | at least 1; `None`: all of search-val |
    | `race`              | float | `None`              | in (0, 1); `None`: no races           |
    | `constraint`        | str   | `"terminate"`       | see Episode End                       |
    | `latency_arguments` | dict  | `None`              | how `latency` is measured; see below  |
    | `device`            | str   | `"cpu"`             | a torch device                        |
    | `strategy`          | str   | `"auto"`            | see below                             |
    | `precision`         | str   | `"float32"`         | `float32`, `bfloat16` (autocast)      |
    | `render_mode`       | str   | `None`              | `human`, `ansi`, `rgb_array`          |

    After a cut, `recovery` does nothing (`none`), re-estimates the batch-norm statistics (`bn`),
    fits each layer by least squares to what it says in the dense network (`reconstruct`, closed
    form, one forward pass: He et al. 2017), or trains for `finetune_steps` SGD steps with the dense
    network as teacher (`finetune`), on search-train images in each case. What `bn` and
    `reconstruct` make of a network depends on the dense one and on the channels kept alone.
    Trained weights are part of the state: the next step continues from them, and `restore`,
    `fork()` and `transition` start from the weights of the state they are given.

    With `recovery="finetune"`, `recover_when` says which networks are trained: `candidate` all that
    are judged, `commit` only those that `step` or `advance` goes on with, as RL-Pruner does it.
    What `transition` gives is then judged right after the cut, with the weights trained last, and
    a step trains its network where `recover_every` divides the number of the step or the episode
    ends; a trained network is judged, which is one evaluation, by a lazy reward, too. It teaches
    the next ones if it is better on search-val than who taught it. `finetune_arguments` has, by
    name, `epochs` (instead of `finetune_steps`), `distillation` (share of the soft loss, 0.75),
    `temperature` (2), `schedule` (`cosine`, `linear`, `constant`), `warmup` (of them, 0),
    `batch_size` (128), `momentum` (0.9), `weight_decay` (0.0005), `nesterov` (`False`) and `start`:
    what training begins with in a network without trained weights, `cut` or `reconstruct`.

    With `rank_every=n` the channels of a group are ranked anew in each state whose step n divides,
    by `importance` of the network as it is there, with its weights: one look at
    `importance_images`, no evaluation. `filters_per_step` counts a step in filters and neurons
    instead of channels, as nearly as whole channels can: a share of those that can be removed.

    Fewer
    `val_images`, at equal distances in search-val, make steps cheaper and accuracies coarser.
    With `race=0.25`, searches that judge many networks at once first compare them on a quarter of
    these images, and only the better half on the rest; steps, and accuracies that count, are of all
    images as ever. What is saved are not evaluations but images, of which `image_passes` counts
    those that pruned networks were shown.
    Likewise `recovery_images` and `importance_images` are taken from search-train: the former by
    `bn` and `reconstruct`, at every evaluation, the latter by the ranking, once, and by the
    sensitivity.

    `groups` says which groups there are to prune; the others keep their width, and actions and
    observations are without them, while budgets count the whole network. `inner` are those that no
    sum couples, in a ResNet the first layers of each block. A list of patterns such as
    `["layer3.*", "!*.conv2"]` takes the groups with a layer whose name matches one (`fnmatch`; all,
    where there is none), without those with a layer that matches one behind `!`.

    Several budgets must all be met. Their names are `params`, `macs`, `filters`, `latency` and
    those of registered functions of the pruned model. `filters` is the share of removable filters
    and neurons that is left, a layer's own each, also where layers lose channels together:
    RL-Pruner's sparsity, 1 - `filters`. `latency` is the time of the pruned model over the time of
    the dense one for a batch of images, both timed in turns on this machine, by the clock (wall or
    processor time) that flatters the pruned one less. What counts is the upper end of the 95 %
    interval of its median, so a limit is met only as far as the noise lets one say so. Neither
    transitions nor the vectorized environment are reproducible with it, whatever the seed.
    `latency_arguments` has, by name, `runtime` (`eager`, `compiled` or `onnxruntime`), `batch` (1),
    `threads` (`None`: torch's) and `table` (`None`), the file of a latency table. With one, steps
    time nothing: 90 random prunings are timed when the file is not there yet, and what counts is
    what they predict and a margin, which 9 of 10 networks keep; it is the same each time.
    Budgets without a closed form build the pruned model to measure it, also where
    `project` and `wall` look for the step that meets the budgets.

    How candidates are run changes no result but by rounding. `strategy` is `sliced` (each is really
    smaller), `masked` (one network of full size, with zeros), `batched` (several of those in one
    forward pass), `compiled` (`masked`, compiled by `torch.compile`, on CUDA with CUDA graphs) or
    `auto`: on a CPU `sliced`, elsewhere the fastest of the first three, measured once.

    The importances are `l1`, `l2`, `taylor`, `taylor_weights` (RL-Pruner's), `reconstruction` (what
    fitted layers lose with the channel), `bn_scale` and `random`, one fixed random ranking.
    Tasks, budgets, rewards and importances can be registered.

    ```python
    >>> import gymnasium as gym
    >>> import pruning_env
    >>> env = gym.make("CNNPrune-v0", budget={"macs": 0.5})
    >>> observation, info = env.reset(seed=0)

    ```

    `env.unwrapped` adds `graph`, `evaluator`, `evaluations`, `dynamics`, `state()`,
    `restore(state)`, `fork()`, `with_budget(budget)`, `transition(state, action)`,
    `advance(transition)`, `pruned_model()` and `report()`.

    ## Vectorized environment

    `gym.make_vec("CNNPrune-v0", num_envs=64)` makes a `CNNPruneVectorEnv`: N episodes that share
    network, data and cache on one device, and whose new networks are judged together. It takes the
    arguments above and some more.

    | Parameter           | Type | Default      | Allowed                                         |
    |---------------------|------|--------------|-------------------------------------------------|
    | `num_envs`          | int  | `1`          | at least 1                                      |
    | `autoreset_mode`    | str  | `'NextStep'` | `NextStep`, `SameStep`, `Disabled`              |
    | `max_episode_steps` | int  | `None`       | at least 1; truncates as Gymnasium's `TimeLimit` |

    Episodes restart as everywhere in Gymnasium: by `NextStep` in the step after their last, which
    ignores the action, costs no evaluation and pays 0; by `SameStep` in their last, whose
    observation and info are then in `info["final_obs"]` and `info["final_info"]`; by `Disabled` by
    `reset(options={"reset_mask": mask})`. With episodes of one step (`max_steps=1`), `NextStep`
    makes every second step a restart: take `SameStep` there. `state(slot)`, `states()` and
    `restore(slot, state)` reach each slot's episode; `transition_many(states, actions)` tries many
    actions, in one state or several, and moves no episode.

    ```python
    >>> envs = gym.make_vec("CNNPrune-v0", num_envs=4)
    >>> observations, infos = envs.reset(seed=0)
    >>> from pruning_env import CNNPruneVecEnv  # Stable-Baselines3's interface to it
    >>> sb3_envs = CNNPruneVecEnv(envs)

    ```

    ## Version History

    * v0: initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it without ClassVar
        "render_modes": ["human", "ansi", "rgb_array"],
        "render_fps": 2,
    }

    _window: Window | None = None

    def __init__(
        self,
        task: str = "digits-resnet8",
        weights: str | None = None,
        data_root: str | None = None,
        budget: Mapping[str, float] | None = None,
        action: str = "distribution",
        logit_scale: float = 3.0,
        channels_per_step: float = 0.05,
        filters_per_step: float | None = None,
        max_steps: int | None = None,
        round_to: int = 1,
        groups: Groups = "all",
        reward: str = "accuracy_change",
        reward_arguments: Mapping[str, float] | None = None,
        reward_scale: float = 1.0,
        observation: str = "flat",
        importance: str = "taylor",
        importance_images: int = 512,
        rank_every: int | None = None,
        sensitivity: str = "importance",
        sensitivity_every: int | None = None,
        recovery: str = "bn",
        recover_when: str = "candidate",
        recover_every: int = 1,
        recovery_images: int = 512,
        finetune_steps: int = 20,
        finetune_lr: float = 1e-3,
        finetune_arguments: Mapping[str, Any] | None = None,
        val_images: int | None = None,
        race: float | None = None,
        constraint: str = "terminate",
        latency_arguments: Mapping[str, Any] | None = None,
        device: str = "cpu",
        strategy: str = "auto",
        precision: str = "float32",
        render_mode: str | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        parts = make_parts(given)
        self.graph = parts.graph
        self.evaluator = parts.evaluator
        self.dynamics = parts.dynamics
        self._observation = parts.observation
        self.action_space = self.dynamics.action.space()
        self.observation_space = self._observation.space()
        self.render_mode = render_mode
        self._ledger = self.evaluator.ledger  # pickled, so that copies count in the same one
        self._history: tuple[PruningState, ...] = ()  # of this episode, oldest first
        # Copies of what the caller may change, of kinds that a spec can hold.
        self._arguments = {
            **given,
            "budget": {b.name: b.limit for b in self.dynamics.budgets},
            "groups": groups if isinstance(groups, str) else list(groups),
            "reward_arguments": None if reward_arguments is None else dict(reward_arguments),
            "latency_arguments": None if latency_arguments is None else dict(latency_arguments),
            "finetune_arguments": None if finetune_arguments is None else dict(finetune_arguments),
        }

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Prune by one action; see the class for what comes back.

        Raises:
            ValueError: a bad action; the environment stays as it was.
            ResetNeeded: before the first reset, or after the end of an episode.
        """
        return self.advance(self.dynamics.commit(self.running(), action))

    def advance(
        self, transition: Transition
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Make a step whose outcome is known already, from `transition(env.state(), action)`.

        Nothing is pruned or judged again, unless only commits are trained: then its network is, as
        `step` would. What comes back is what `step(action)` would give.
        """
        transition = self.dynamics.committed(self.state(), transition)
        self._history += (transition.state,)
        self._show()
        return (
            self._observation.observe(transition.state),
            transition.reward,
            transition.terminated,
            False,  # `max_steps` is part of the task; a time limit is a wrapper's business
            self._info(transition.state, transition.cost, dict(transition.reward_terms)),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start from the dense network, or from `options={"state": state}`.

        Raises:
            ValueError: an unknown option, or a state that is not this environment's.
        """
        start = self._start(options)
        super().reset(seed=seed)
        self._history = (start,)
        self._show()
        terms = self.dynamics.no_reward_terms(start)
        return self._observation.observe(start), self._info(start, 0.0, terms)

    def render(self) -> str | np.ndarray | None:  # type: ignore[override]
        """The episode so far: text in mode `ansi`, (H, W, 3) uint8 in mode `rgb_array`.

        In mode `human` it is shown in a window, after each step and reset by itself.
        """
        self.state()
        if self.render_mode == "human":
            self._show()
            return None
        if self.render_mode == "ansi":
            return render_ansi(self.graph, self.dynamics.budgets, self._history)
        if self.render_mode == "rgb_array":
            return self._painter.frame(self._history)
        gym.logger.warn(
            "render() does nothing without a render mode; "
            f"make the environment with render_mode= one of {self.metadata['render_modes']}"
        )
        return None

    def close(self) -> None:
        """Close the window of mode `human`, if there is one."""
        if self._window is not None:
            self._window.close()
        super().close()

    def _show(self) -> None:
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window("CNNPrune", self.metadata["render_fps"])
            self._window.show(self._painter.frame(self._history))

    @functools.cached_property
    def _painter(self) -> Painter:
        return Painter(self.graph, self.dynamics.budgets)

    @property
    def task_name(self) -> str:
        """Name of the task that this environment was made with."""
        return str(self._arguments["task"])

    @property
    def evaluations(self) -> int:
        """Evaluations that this environment, its forks and copies have spent; the cache's are free.

        Forks share the cache; a copy begins with an empty one.
        """
        return self.evaluator.evaluations

    @property
    def image_passes(self) -> int:
        """Images that pruned networks were shown by this environment, its forks and copies."""
        return self.evaluator.image_passes

    @property
    def observation_names(self) -> tuple[str, ...]:
        """What each entry of an observation is."""
        return self._observation.names

    def state(self) -> PruningState:
        """Where the episode is. Immutable: keep it, `restore` it, or `transition` from it.

        Raises:
            ResetNeeded: before the first reset.
        """
        if not self._history:
            raise ResetNeeded("there is no episode yet; call reset() first")
        return self._history[-1]

    def running(self) -> PruningState:
        """The state, if a step is possible.

        Raises:
            ResetNeeded: before the first reset, or after the end of an episode.
        """
        state = self.state()
        if self.dynamics.terminal(state):
            raise ResetNeeded("the episode is over; call reset() before step()")
        return state

    def restore(self, state: PruningState) -> None:
        """Continue from `state`, which came from this environment or one like it.

        Raises:
            ValueError: `state` is not one of this environment's.
        """
        self._history = (self.dynamics.check(state),)

    def fork(self) -> CNNPruneEnv:
        """An independent environment in the same state, sharing network, data and cache."""
        # Not copy.copy: that goes through __getstate__, which leaves the shared parts out.
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._window = None  # it opens one of its own
        for name in ("action_space", "observation_space", "_np_random"):  # they hold generators
            setattr(twin, name, copy.deepcopy(getattr(self, name)))
        return twin

    def with_budget(self, budget: Mapping[str, float]) -> CNNPruneEnv:
        """An environment of the same network under another budget, before its first reset.

        Network, data, ranking and cache are shared, as by `fork`.

        Args:
            budget: limits in (0, 1] by budget name.

        Raises:
            ValueError: no such budget, or one that cannot be met.
        """
        twin = self.fork()
        twin.dynamics = self.dynamics.within(parse_budget(budget))
        twin._observation = observation_of(twin.dynamics, self._arguments["observation"])
        twin.observation_space = twin._observation.space()
        twin._arguments = {
            **self._arguments,
            "budget": {b.name: b.limit for b in twin.dynamics.budgets},
        }
        twin._history = ()
        twin.__dict__.pop("_painter", None)  # it knows the budgets
        return twin

    def transition(self, state: PruningState, action: np.ndarray) -> Transition:
        """What `step(action)` would give in `state`; this environment's episode does not move.

        With `recover_when="commit"`, with its network as it was cut, not trained.

        Raises:
            ValueError: a bad action, or a state that is terminal or not this environment's.
        """
        return self.dynamics.transition(self.dynamics.check(state), action)

    def observe(self, state: PruningState) -> Observation:
        """The observation of `state`, which must be one of this environment's."""
        return self._observation.observe(self.dynamics.check(state))

    def pruned_model(self) -> nn.Module:
        """The current network as a really smaller module, recovered, in eval mode."""
        state = self.state()
        if self.evaluator.trains:  # an unjudged state has no trained weights yet
            state = self.dynamics.judge(state)
        return self.evaluator.pruned_model(state.keep, state.weights)

    def report(self) -> Report:
        """Judge the current network on the test split; every call counts as an opening.

        A network that a lazy reward left unjudged is judged on search-val too: one evaluation.
        """
        state = self.dynamics.judge(self.state())
        assert state.metrics is not None
        test = self.evaluator.certify(state.keep, state.weights)
        return Report(
            accuracy=test.accuracy,
            loss=test.loss,
            val_accuracy=state.metrics.accuracy,
            params=state.params,
            macs=state.macs,
            counts=tuple(state.counts.tolist()),
            feasible=self.dynamics.feasible(state),
            test_openings=self.evaluator.test_openings,
        )

    def __getstate__(self) -> dict[str, Any]:
        """The arguments and the episode; network and data are loaded again from the arguments."""
        return {name: value for name, value in self.__dict__.items() if name not in _REBUILT}

    def __setstate__(self, episode: dict[str, Any]) -> None:
        """Build anew from the arguments, then continue the episode."""
        CNNPruneEnv.__init__(self, **episode["_arguments"])
        self.__dict__.update(episode)
        self.evaluator.share(self._ledger)

    def _start(self, options: dict[str, Any] | None) -> PruningState:
        if not options:
            return self.dynamics.initial()
        if not isinstance(options, dict) or set(options) != {"state"}:
            raise ValueError(f'options={options!r} is not allowed; give None or {{"state": state}}')
        return self.dynamics.check(options["state"])

    def _info(
        self, state: PruningState, cost: float, reward_terms: dict[str, float]
    ) -> dict[str, Any]:
        """A pure function of the episode: no clocks, counters or cache statistics."""
        return {
            "accuracy": state.latest.accuracy,
            "loss": state.latest.loss,
            "params": state.params,
            "macs": state.macs,
            "cost": cost,
            "budget_excess": self.dynamics.excess(state),
            "requested": state.requested,
            "removed": state.removed,
            "exhausted": self.dynamics.exhausted(state),
            "is_success": self.dynamics.feasible(state),
            "usage": {
                budget.name: float(usage)
                for budget, usage in zip(self.dynamics.budgets, state.usage, strict=True)
            },
            "reward_terms": reward_terms,
        }


# What a pickle leaves out: heavy, and determined by the arguments.
_REBUILT = ("graph", "evaluator", "dynamics", "_observation", "_window", "_painter")
