"""The recipe of the paper: arguments that make environment and agent what was published.

Wang and Kindratenko, "RL-Pruner" (arXiv 2411.06463). Only data: what an argument does is said where
it is an argument.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

__all__ = ["REWARDS", "published", "published_env"]

REWARDS = MappingProxyType(
    {
        "accuracy": {"alpha": 0.0, "beta": 0.0},
        "flops": {"alpha": 0.25, "beta": 0.0},
        "parameters": {"alpha": 0.0, "beta": 0.25},
    }
)
"""The paper's three rewards, as arguments of `reward="rl_pruner"` and of `published_env`."""


def published_env(
    sparsity: float = 0.4, alpha: float = 0.0, beta: float = 0.0, epochs: int = 20
) -> dict[str, Any]:
    """Arguments of the environment as the paper has it, for `published()`.

    `gym.make("CNNPrune-v0", task=..., **RLPruner.published_env(0.4))`. A budget of filters and
    neurons, steps of 1 % of them, channels ranked anew before each by the sum of `|w * dL/dw|` on
    100 images, candidates judged right after the cut by accuracy + alpha * MACs cut + beta *
    parameters cut, and each committed network trained by distillation, its weights carried on,
    with the dense network as the teacher until a student is better.

    What stays mended:

    - Accuracy is of search-val and not of the test split: of candidates, and where a student
      becomes the teacher.
    - A step removes the number of channels whose filters come nearest to 1 %, and a coupled
      layer's filters go as one channel; in the paper rounding loses or adds some, and what a
      layer's floor refuses is lost. Here other groups give it.
    - Importance is measured in eval mode, and so disturbs neither batch norm nor dropout.
    - Dependencies are traced once and symbolically, not by comparing all pairs of outputs.
    - Shares of nearly 0 are as far from the largest as `logit_scale` can say.
    - What is trained is kept as it is after the last epoch; in the paper, after the epoch that is
      best on the test split, or untrained if none is better.

    Args:
        sparsity: share of filters and neurons to remove, in [0, 1).
        alpha: weight of the MACs cut in the score; the paper's FLOPs-based reward has 0.25.
        beta: weight of the parameters cut; its parameter-based reward has 0.25.
        epochs: of training after each step; at least 1. The paper has 20, of which 2 warm up.
    """
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity={sparsity!r} is not allowed; give a number in [0, 1)")
    return {
        "budget": {"filters": 1.0 - sparsity},
        "action": "distribution",
        # A share nearly 0, as the paper has it, needs logits far apart.
        "logit_scale": 6.0,
        "filters_per_step": 0.01,
        "constraint": "terminate",
        "reward": "rl_pruner",
        "reward_arguments": {"alpha": alpha, "beta": beta},
        "importance": "taylor_weights",
        "importance_images": 100,
        "rank_every": 1,
        "recovery": "finetune",
        "recover_when": "commit",
        "recover_every": 1,
        "finetune_lr": 1e-3,
        "finetune_arguments": {
            "epochs": epochs,
            "warmup": epochs // 10,
            "schedule": "cosine",
            "distillation": 0.75,
            "temperature": 2.0,
            "batch_size": 256,
            "momentum": 0.9,
            "weight_decay": 5e-4,
        },
    }


def published() -> dict[str, Any]:
    """Arguments that make this the algorithm of the paper: `RLPruner(..., **published())`.

    On an environment as of `published_env`. A search that has met no budget when its
    transitions are over follows its distribution to the end of the episode, so that there is a
    feasible network; the paper's run is long enough (100 candidates for each step of 1 %).

    What stays mended: counts are exact, the reward is of search-val, and where a fall of more than
    10 % resets the distribution, the step is searched anew; in the paper it is drawn once more and
    not judged.
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
        "warm_start": "none",
        "epsilon": 0.4,
        "epsilon_fraction": 0.1,
        "reset_below": 0.1,
    }
