"""What an environment is made of, from the arguments that users give.

Checks them, loads the network and its images, and puts graph, evaluator, process and observation
together. Knows nothing of episodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pruning_env.arguments import check_choice, check_count
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.execution import STRATEGIES
from pruning_env.evaluation.importance.scores import importance_kinds
from pruning_env.evaluation.precision import PRECISIONS
from pruning_env.evaluation.racing import check_race
from pruning_env.evaluation.recovery.batch_norm import RECOVERY_NAMES, RECOVERY_TIMES
from pruning_env.evaluation.recovery.finetuning import FineTuning
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.selection import check_groups, chosen_groups
from pruning_env.process.actions import action_names, make_action
from pruning_env.process.budgets import parse_budget
from pruning_env.process.constraints import make_constraint
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.process.latency_budget import LatencySettings
from pruning_env.process.observations import ObservationKind, make_observation, observation_names
from pruning_env.process.rewards import get_reward
from pruning_env.process.sensitivity import SENSITIVITIES
from pruning_env.tasks.loads import sealing
from pruning_env.tasks.registry import get_task

__all__ = ["Parts", "make_parts", "observation_of"]


@dataclass(frozen=True)
class Parts:
    """What an environment holds beside its episode.

    Attributes:
        graph: the dense network's channels, those that may go.
        evaluator: of that network.
        dynamics: of both.
        observation: of its states.
    """

    graph: ChannelGraph
    evaluator: Evaluator
    dynamics: PruningDynamics
    observation: ObservationKind


def make_parts(given: Mapping[str, Any]) -> Parts:
    """The parts that `CNNPruneEnv`'s arguments ask for.

    Args:
        given: all of them by name.

    Raises:
        ValueError: naming the argument that is bad.
    """
    # Names first: a typo should not cost the seconds that loading and tracing take.
    chosen = get_task(given["task"])
    budgets = parse_budget(given["budget"])
    latency = LatencySettings.of(given["latency_arguments"])
    check_choice("action", given["action"], action_names())
    check_groups(given["groups"])
    check_choice("observation", given["observation"], observation_names())
    reward_function = get_reward(given["reward"], given["reward_arguments"])
    check_choice("importance", given["importance"], importance_kinds())
    check_count("importance_images", given["importance_images"])
    for name in ("rank_every", "sensitivity_every", "val_images"):
        if given[name] is not None:
            check_count(name, given[name])
    check_choice("sensitivity", given["sensitivity"], SENSITIVITIES)
    check_choice("recovery", given["recovery"], RECOVERY_NAMES)
    check_choice("recover_when", given["recover_when"], RECOVERY_TIMES)
    check_count("recover_every", given["recover_every"])
    check_count("recovery_images", given["recovery_images"], 2)
    finetuning = FineTuning(given["finetune_steps"], given["finetune_lr"]).changed(
        given["finetune_arguments"]
    )
    check_race(given["race"], given["recovery"])
    make_constraint(given["constraint"], given["max_steps"])
    _check_device(given["device"])
    check_choice("strategy", given["strategy"], STRATEGIES)
    check_choice("precision", given["precision"], PRECISIONS)

    model = chosen.model(given["weights"], given["data_root"])
    traced = chosen.graph(model)
    graph = traced.restrict(chosen_groups(traced, given["groups"]))
    with sealing():
        splits = chosen.load_data(given["data_root"])
    if given["val_images"] is not None:
        few = splits.search_val.evenly_spaced(given["val_images"])
        splits = dataclasses.replace(splits, search_val=few)
    evaluator = Evaluator(
        model,
        graph,
        splits,
        recovery=given["recovery"],
        recover_when=given["recover_when"],
        recovery_images=given["recovery_images"],
        importance_images=given["importance_images"],
        device=given["device"],
        strategy=given["strategy"],
        precision=given["precision"],
        finetuning=finetuning,
        race=given["race"],
    )
    dynamics = PruningDynamics(
        graph,
        evaluator,
        budgets,
        make_action(given["action"], graph.sizes, given["logit_scale"], given["round_to"]),
        channels_per_step=given["channels_per_step"],
        filters_per_step=given["filters_per_step"],
        round_to=given["round_to"],
        reward=reward_function,
        reward_scale=given["reward_scale"],
        importance=given["importance"],
        rank_every=given["rank_every"],
        sensitivity=given["sensitivity"],
        sensitivity_every=given["sensitivity_every"],
        constraint=given["constraint"],
        max_steps=given["max_steps"],
        recover_every=given["recover_every"],
        latency=latency,
    )
    return Parts(graph, evaluator, dynamics, observation_of(dynamics, given["observation"]))


def observation_of(dynamics: PruningDynamics, kind: str) -> ObservationKind:
    """What is seen of the states of a process, by a registered kind of observation."""
    return make_observation(
        kind,
        dynamics.graph,
        dynamics.budgets,
        dynamics.sensitivity.by_default,
        dynamics.units.floors,
        dynamics.constraint.max_steps,
        dynamics.action.turns,
    )


def _check_device(device: str) -> None:
    """Raise `ValueError` unless a tensor can be made on `device`."""
    try:
        torch.empty(1, device=torch.device(device))
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not usable here; give 'cpu', or a device that torch has: {error}"
        ) from error
