"""The recipe of the paper: arguments that make environment and agent what was published.

Wang and Kindratenko, "RL-Pruner" (arXiv 2411.06463). Only data: what an argument does is said where
it is an argument.
"""

from __future__ import annotations

from typing import Any

__all__ = ["published", "published_env"]


def published_env(sparsity: float = 0.4, alpha: float = 0.0, beta: float = 0.0) -> dict[str, Any]:
    """Arguments of the environment as the paper has it, for `published()`.

    `gym.make("CNNPrune-v0", task=..., **RLPruner.published_env(0.4))`. Steps of 1 %, a budget
    of filters and neurons, importance sum `|w * dL/dw|` on 100 images, candidates judged right
    after the cut, and the paper's score as the reward.

    What stays mended: accuracy is of search-val and not of the test split; a step removes an
    exact number of channels, and a coupled layer's filters go as one channel; importance is
    measured on the dense network, in eval mode, and so disturbs no statistics; dependencies
    are traced once and symbolically; a share that a floor refuses goes to other groups.

    What is missing: the training by distillation after every step, and ranking anew; train the
    network that was found.

    Args:
        sparsity: share of filters and neurons to remove, in [0, 1).
        alpha: weight of the MACs cut in the score; the paper's FLOPs-based reward has 0.25.
        beta: weight of the parameters cut; its parameter-based reward has 0.25.
    """
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity={sparsity!r} is not allowed; give a number in [0, 1)")
    return {
        "budget": {"filters": 1.0 - sparsity},
        "action": "distribution",
        # A share nearly 0, as the paper has it, needs logits far apart.
        "logit_scale": 6.0,
        "channels_per_step": 0.01,
        "constraint": "terminate",
        "reward": "rl_pruner",
        "reward_arguments": {"alpha": alpha, "beta": beta},
        "importance": "taylor_weights",
        "importance_images": 100,
        "recovery": "none",
    }


def published() -> dict[str, Any]:
    """Arguments that make this the algorithm of the paper: `RLPruner(..., **published())`.

    On an environment as of `published_env`. A search that has met no budget when its
    transitions are over follows its distribution to the end of the episode, so that there is a
    feasible network; the paper's run is long enough (100 candidates for each step of 1 %).

    What stays mended: counts are exact, and the reward is of search-val. What is missing: the
    valve by which a fall of more than 10 % resets the distribution.
    """
    return {
        "step_size": 0.1,
        "samples_per_epoch": 10,
        "epochs": 10,
        "patience": None,
        "lookahead": 1,
        "depth": 1,
        "discount": 0.9,
        "noise": "absolute",
        "noise_std": 0.04,
        "restart": False,
        "update": "best",
        "clip": 0.25,
        "buffer_size": 10,
        "epsilon": 0.4,
        "epsilon_fraction": 0.1,
    }
