"""`CNNPruneWorlds-v0`: `CNNPrune-v0` on another network, and under another budget, at each reset.

A thin face: each network of the pool has a `CNNPruneEnv`, made when it is first met, and an episode
is one of its own. What is here is the drawing, and spaces that are the same for all networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from torch import nn

from pruning_env.arguments import check_choice, check_count
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.report import Report
from pruning_env.process.state import PruningState
from pruning_env.tasks.pools.storage import open_pool
from pruning_env.tasks.pools.tasks import task_name
from pruning_env.worlds.budgets import chosen_limits, draw_limits, parse_ranges
from pruning_env.worlds.observation import KINDS, Layout, NetworkView, group_feature_names

__all__ = ["ROWS", "CNNPruneWorldsEnv"]

ROWS = 48
"""Rows of the padded spaces: as many as the widest network of the generator's families has."""

_ACTIONS = ("distribution", "ratio")
_OURS = ("task", "weights", "data_root", "budget", "observation", "render_mode")


class CNNPruneWorldsEnv(gym.Env[Any, np.ndarray]):
    """Structured pruning of a trained CNN that is another one at each reset.

    ## Description

    Each episode is one of `CNNPrune-v0` on a network that is drawn from a pool, under a budget that
    is drawn from a range. A policy that is trained here can be asked about a network that it never
    saw: the pools `train` and `test` have no network in common, and the pool `unseen-families` has
    only families of networks that are in neither. By default an episode is one action, which says
    how everything that must go is spread over the groups, and costs one evaluation.

    The networks are small and classify scikit-learn's digits. They were trained on search-train:
    search-val, which rewards are from, has no part in the weights. `cnnprune pool` makes a pool of
    your own. Every network is also a task of `CNNPrune-v0`, `pool-train-0` and so on.

    ## Action Space

    `Box(-1, 1, (N,), float32)`, one number for each of N = `rows` rows. The network has L <= N
    groups, which are the first L rows; the other numbers do nothing. What they mean is said by
    `action`, `distribution` or `ratio`, as in `CNNPrune-v0`.

    ## Observation Space

    A flat `Box` of float32, bounded on both sides: a table of N rows, and the globals. Each row has
    the ten group features of `CNNPrune-v0`, those below, and `present`: 1 in the rows of the
    network's groups, and 0 in the others, in which everything is 0. What readers say is the mean
    over the layers that read a group, fitted anew to what is left of it. The first group features
    are of the network as it is now, those below of the dense one; they take one pass forward and
    back over `importance_images` of search-train when a network is first met, and no evaluation.

    | Group feature            | Min | Max | Meaning                                              |
    |--------------------------|-----|-----|------------------------------------------------------|
    | `log_width`              | 0   | 1   | log2 of the dense width / 10                         |
    | `kernel_size`            | 0   | 1   | kernel size / 7                                      |
    | `downsampling`           | 0   | 1   | whether its stride is above 1                        |
    | `residual`               | 0   | 1   | whether a sum couples its layers                     |
    | `producers`              | 0   | 1   | log2(1 + layers that lose outputs) / 5               |
    | `readers`                | 0   | 1   | log2(1 + layers that lose inputs) / 5                |
    | `relative_importance`    | -1  | 1   | log10 of mean Taylor importance / 3, less the mean   |
    | `importance_per_mac`     | -1  | 1   | the same, per MAC that a channel costs               |
    | `importance_lost_25`     | 0   | 1   | share of its importance in the least important 25 %  |
    | `importance_lost_50`     | 0   | 1   | share of its importance in the least important 50 %  |
    | `importance_lost_75`     | 0   | 1   | share of its importance in the least important 75 %  |
    | `reconstruction_lost_25` | 0   | 1   | share of what its readers say that is lost with 25 % |
    | `reconstruction_lost_50` | 0   | 1   | share of what its readers say that is lost with 50 % |
    | `reconstruction_lost_75` | 0   | 1   | share of what its readers say that is lost with 75 % |

    The globals are those of `CNNPrune-v0`, with `over_budget` for each budget that can be drawn and
    `steps_left`, and then:

    | Global feature | Min | Max | Meaning                           |
    |----------------|-----|-----|-----------------------------------|
    | `log_groups`   | 0   | 1   | log2 of the number of groups / 8  |
    | `log_params`   | 0   | 1   | log10 of the dense parameters / 9 |
    | `log_macs`     | 0   | 1   | log10 of the dense MACs / 12      |

    A limit is observed as `over_budget`, usage less the limit; of a budget that does not count in
    this episode it is 0 at reset. `env.unwrapped.observation_names` names every entry. With
    `observation="dict"` the same numbers come as a `Dict` of `groups` (N, 24), `mask` (N,), which
    is `present`, `globals` and `adjacency` (N, N): 1 where a layer of the column's group reads the
    row's.

    ## Rewards

    Those of `CNNPrune-v0`. By default the change of search-val accuracy from the dense network to
    the pruned one.

    ## Starting State

    A dense network of the pool and a budget: both uniformly drawn from `env.np_random`, so `seed`
    decides them. `options={"network": 3}` chooses the network, `options={"budget": {"macs": 0.5}}`
    the limits, of budgets that the environment was made with; limits that are not named are 1. The
    draws are made in any case, so that later episodes do not depend on options.

    ## Episode End

    As in `CNNPrune-v0`.

    ## Information

    That of `CNNPrune-v0`, the same keys at reset and step, and two more.

    | Key       | Type | Meaning                                       |
    |-----------|------|-----------------------------------------------|
    | `network` | int  | its number in the pool                        |
    | `limits`  | dict | the limit of each budget; 1.0: it is no limit |

    ## Arguments

    | Parameter         | Type | Default                | Allowed                               |
    |-------------------|------|------------------------|---------------------------------------|
    | `pool`            | str  | `"train"`              | see below                             |
    | `networks`        | list | `None`                 | numbers in the pool; `None`: all      |
    | `budget`          | dict | `{"macs": (0.2, 0.6)}` | limits or ranges in (0, 1]            |
    | `rows`            | int  | `48`                   | N, at least any network's groups      |
    | `action`          | str  | `"distribution"`       | `distribution`, `ratio`               |
    | `max_steps`       | int  | `1`                    | at least 1                            |
    | `constraint`      | str  | `"project"`            | see `CNNPrune-v0`                     |
    | `recovery`        | str  | `"reconstruct"`        | see `CNNPrune-v0`                     |
    | `recovery_images` | int  | `128`                  | at least 2                            |
    | `observation`     | str  | `"flat"`               | `flat`, `dict`                        |
    | `render_mode`     | str  | `None`                 | `ansi`, `rgb_array`                   |

    A `pool` is one that ships, `train`, `test` or `unseen-families`, or the path of a `.json` file.
    A `budget` has `macs`, `params` or both; then each episode has one, uniformly drawn. Further
    arguments of `CNNPrune-v0` are taken as they are there, but for those that say which network and
    data there are.

    ```python
    >>> import gymnasium as gym
    >>> import pruning_env
    >>> env = gym.make("CNNPruneWorlds-v0")
    >>> observation, info = env.reset(seed=0, options={"network": 2})
    >>> info["network"]
    2

    ```

    `env.unwrapped.episode` is the `CNNPruneEnv` of the running episode, with all that it has:
    `graph`, `dynamics`, `state()`, `transition(state, action)`, `fork()` and so on, unpadded.
    `env.unwrapped` adds `state()`, `pruned_model()`, `report()` and `evaluations`, those of all its
    networks together. `gym.make_vec` steps several of these environments one after the other, or
    with `vectorization_mode="async"` in processes.

    ## Version History

    * v0: initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it without ClassVar
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": CNNPruneEnv.metadata["render_fps"],
    }

    def __init__(
        self,
        pool: str = "train",
        networks: Sequence[int] | None = None,
        budget: Mapping[str, Any] | None = None,
        rows: int = ROWS,
        action: str = "distribution",
        max_steps: int = 1,
        constraint: str = "project",
        recovery: str = "reconstruct",
        recovery_images: int = 128,
        observation: str = "flat",
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in _NOT_ARGUMENTS}
        self._arguments = {**given, **arguments}
        unknown = sorted(set(arguments) & set(_OURS))
        if unknown:
            raise ValueError(f"{unknown[0]}={arguments[unknown[0]]!r} is not allowed; see pool=")
        self._pool = open_pool(pool)
        self._numbers = self._chosen(networks)
        self._ranges = parse_ranges(budget)
        check_count("rows", rows, self._pool.groups)
        check_choice("action", action, _ACTIONS)
        check_count("max_steps", max_steps)
        check_choice("observation", observation, KINDS)
        if render_mode is not None:
            check_choice("render_mode", render_mode, self.metadata["render_modes"])
        self._inner = {
            **arguments,
            "action": action,
            "max_steps": max_steps,
            "constraint": constraint,
            "recovery": recovery,
            "recovery_images": recovery_images,
            "render_mode": render_mode,
        }
        self.render_mode = render_mode
        self.rows = rows
        self._layout = Layout(observation, rows, tuple(sorted(self._ranges)))
        self.observation_space = self._layout.space()
        self.action_space = spaces.Box(-1.0, 1.0, (rows,), np.float32)
        self._envs: dict[int, CNNPruneEnv] = {}
        self._views: dict[int, NetworkView] = {}
        self._episode: CNNPruneEnv | None = None
        self._network = -1
        self._limits: dict[str, float] = {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Prune by one action (N,); see the class for what comes back.

        Raises:
            ValueError: a bad action; the environment stays as it was.
            ResetNeeded: before the first reset, or after the end of an episode.
        """
        episode = self.episode
        episode.running()
        given = np.asarray(action)
        if given.shape != (self.rows,):
            raise ValueError(
                f"action has shape {given.shape}; give a vector of {self.rows} real numbers"
            )
        _, reward, terminated, truncated, info = episode.step(given[: len(episode.graph.groups)])
        return self._observed(), reward, terminated, truncated, self._info(info)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draw a network and a budget, and start from the dense network.

        Raises:
            ValueError: an unknown option, no such network, or a budget that it cannot meet.
        """
        asked = self._options(options)
        super().reset(seed=seed)
        network = self._numbers[int(self.np_random.integers(len(self._numbers)))]
        limits = draw_limits(self._ranges, self.np_random)
        self._begin(asked.get("network", network), asked.get("budget", limits))
        _, info = self.episode.reset()
        return self._observed(), self._info(info)

    def render(self) -> str | np.ndarray | None:  # type: ignore[override]
        """As `CNNPrune-v0` renders the running episode."""
        return self.episode.render()

    @property
    def episode(self) -> CNNPruneEnv:
        """The environment of the running episode, unpadded.

        Raises:
            ResetNeeded: before the first reset.
        """
        if self._episode is None:
            raise ResetNeeded("there is no episode yet; call reset() first")
        return self._episode

    @property
    def observation_names(self) -> tuple[str, ...]:
        """What each entry of a flat observation is."""
        columns = (*group_feature_names(), "present")
        return (
            *(f"{row}/{name}" for row in range(self.rows) for name in columns),
            *self._layout.global_names,
        )

    @property
    def group_features(self) -> int:
        """Columns of the flat observation's table, `present` included."""
        return len(group_feature_names()) + 1

    @property
    def evaluations(self) -> int:
        """Evaluations spent on all networks together."""
        return sum(env.evaluations for env in self._envs.values())

    @property
    def networks(self) -> tuple[int, ...]:
        """Numbers of the networks that can be drawn."""
        return self._numbers

    @property
    def family(self) -> str:
        """Of the running episode's network; one of `FAMILIES`."""
        return self._pool.specification(self._network).family

    def state(self) -> PruningState:
        """Where the episode is."""
        return self.episode.state()

    def pruned_model(self) -> nn.Module:
        """The current network as a really smaller module, recovered, in eval mode."""
        return self.episode.pruned_model()

    def report(self) -> Report:
        """Judge the current network on the test split; every call counts as an opening."""
        return self.episode.report()

    def __getstate__(self) -> dict[str, Any]:
        """The arguments and the episode; networks are loaded again when they are met."""
        episode = None if self._episode is None else self._episode._history
        kept = {name: value for name, value in self.__dict__.items() if name not in _REBUILT}
        return {**kept, "_resumed": episode}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Build anew from the arguments, then continue the episode."""
        resumed = kept.pop("_resumed")
        CNNPruneWorldsEnv.__init__(self, **kept["_arguments"])
        self.__dict__.update(kept)
        if resumed is not None:
            self._begin(self._network, self._limits)
            self.episode._history = resumed

    def _begin(self, network: int, limits: dict[str, float]) -> None:
        """Let the episode be one of this network under these limits, before its reset."""
        if network not in self._envs:
            env = CNNPruneEnv(
                task=task_name(self._pool, network),
                budget=dict.fromkeys(self._ranges, 1.0),
                **self._inner,
            )
            self._envs[network] = env
            self._views[network] = NetworkView(env)
        self._episode = self._envs[network].with_budget(limits)
        self._network, self._limits = network, limits

    def _observed(self) -> Any:
        view = self._views[self._network]
        table, tail = view.numbers(self.episode, self.episode.state())
        return self._layout.arranged(table, tail, view.adjacency)

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "network": self._network, "limits": dict(self._limits)}

    def _chosen(self, networks: Sequence[int] | None) -> tuple[int, ...]:
        if networks is None:
            return tuple(range(len(self._pool)))
        numbers = tuple(networks)
        if not numbers or not all(self._is_number(number) for number in numbers):
            raise ValueError(
                f"networks={networks!r} is not allowed; give numbers from 0 to "
                f"{len(self._pool) - 1}"
            )
        return numbers

    def _is_number(self, number: Any) -> bool:
        integer = isinstance(number, int | np.integer) and not isinstance(number, bool)
        return integer and 0 <= number < len(self._pool)

    def _options(self, options: dict[str, Any] | None) -> dict[str, Any]:
        if not options:
            return {}
        if not isinstance(options, dict) or not set(options) <= {"network", "budget"}:
            raise ValueError(
                f'options={options!r} is not allowed; give None or some of {{"network": number, '
                f'"budget": {{name: limit}}}}'
            )
        asked: dict[str, Any] = {}
        if "network" in options:
            if not self._is_number(options["network"]):
                raise ValueError(
                    f'options["network"]={options["network"]!r} is not allowed; {self._pool.path} '
                    f"has networks 0 to {len(self._pool) - 1}"
                )
            asked["network"] = int(options["network"])
        if "budget" in options:
            asked["budget"] = chosen_limits(self._ranges, options["budget"])
        return asked


_NOT_ARGUMENTS = ("self", "arguments", "__class__")

# What a pickle leaves out: heavy, and determined by the arguments.
_REBUILT = ("_pool", "_layout", "_envs", "_views", "_episode")
