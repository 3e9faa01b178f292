"""One function per question: what is timed against what, side by side."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import gymnasium as gym
import numpy as np
import torch

import pruning_env
from benchmarks.peers.torch_pruning_env import TorchPruningCandidates
from benchmarks.speed.floor import Floor, timed
from benchmarks.speed.growth import SCALING_AXES, crossover, scaling
from benchmarks.speed.networks import PEER_NETWORKS, STEP_NETWORKS, Network, register
from benchmarks.speed.settings import Figures, SpeedSettings
from benchmarks.zoo.peer import peer_version
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.registry import get_task

CANDIDATES = 8_000  # of RL-Pruner's default search at 80 %: 80 steps, 10 epochs of 10 samples
TEST_IMAGES = 10_000  # that it judges each of them on
RL_PRUNER_SURGERY = 2.4  # s per candidate, VGG-19 on 2 CPU cores (6.2 for ResNet-50)


Job = tuple[str, Callable[[], Figures]]


def jobs(question: str, settings: SpeedSettings) -> Iterator[Job]:
    """(subject, measurement) of one question."""
    if question == "step":
        for network in STEP_NETWORKS[:1] if settings.smoke else STEP_NETWORKS:
            yield network.name, partial(step, network, settings)
    elif question == "peer":
        for network in PEER_NETWORKS[:1] if settings.smoke else PEER_NETWORKS:
            yield network.name, partial(peer, network, settings)
    elif question == "search":
        for network in STEP_NETWORKS[:1] if settings.smoke else STEP_NETWORKS[1:3]:
            yield network.name, partial(search, network, settings)
    elif question == "vector":
        for slots in (1, 2) if settings.smoke else (1, 4, 16, 64):
            yield f"N={slots}", partial(vector, slots, settings)
    elif question == "scaling":
        for axis in SCALING_AXES:
            yield axis, partial(scaling, axis, settings)
    elif question == "crossover":
        on_cpu = torch.device(settings.device).type == "cpu"
        for network in STEP_NETWORKS[: 1 if settings.smoke else 3 if on_cpu else None]:
            yield network.name, partial(crossover, network, settings)
    else:
        raise ValueError(f"question {question!r} is unknown")


def step(network: Network, settings: SpeedSettings) -> Figures:
    """`env.step` against its floor, and the sensitivity refresh against three forward passes."""
    env = _environment(network, settings)
    evaluator = env.evaluator
    rng = np.random.default_rng(settings.seed)
    start = _halfway(env)
    calibration, labels = evaluator.images("search-train")
    floor = Floor(evaluator.images("search-val")[0], calibration)
    floor.choose(evaluator.pruned_model(start.keep), 1)
    plan = evaluator.plan
    spent: dict[str, list[float]] = {"step": [], "floor": [], "sensitivity": [], "3 forwards": []}
    forward = Floor(calibration, None)
    dense = copy.deepcopy(get_task(_task(network, settings)).model()).to(evaluator.device)
    forward.choose(dense, 1)
    for turn in range(settings.turns + 1):
        env.restore(start)
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        seen = evaluator.evaluations
        stepping = timed(partial(env.step, action), evaluator.device)
        if evaluator.evaluations == seen:
            continue  # answered from the cache: nothing was timed
        bare = floor.seconds(evaluator.pruned_model(env.state().keep))
        if not turn:
            continue  # warming up
        spent["step"].append(stepping)
        spent["floor"].append(bare)
        if turn <= max(1, settings.turns // 3):
            spent["sensitivity"].append(timed(lambda: evaluator.scores("taylor"), evaluator.device))
            spent["3 forwards"].append(3 * forward.seconds(dense))
    ratios = {
        "step / floor": _paired(spent["step"], spent["floor"]),
        "sensitivity / 3 forwards": _paired(spent["sensitivity"], spent["3 forwards"]),
    }
    notes = (
        f"{plan.strategy}, batch {plan.batch_size} (floor: {floor.batch_size}), "
        f"{env.graph.params(start.keep) / env.graph.params(env.graph.full()):.2f} of the parameters"
    )
    return Figures(
        len(evaluator.images("search-val")[0]), len(labels), _medians(spent), ratios, notes
    )


def peer(network: Network, settings: SpeedSettings) -> Figures:
    """One candidate at 50 % everywhere, ours and Torch-Pruning's: cut and judge the same images."""
    if peer_version() is None:
        raise ModuleNotFoundError("torch-pruning is not installed; question 'peer' needs it")
    task = get_task(_task(network, settings))
    model, example = task.model(), task.example_input()
    graph = ChannelGraph.trace(model, example)
    device = torch.device(settings.device)
    evaluator = Evaluator(
        model, graph, task.load_data(None), recovery="none", device=device, cache_size=0
    )
    outputs = tuple(name for name, why in graph.frozen.items() if why == "an output of the model")
    theirs = TorchPruningCandidates(
        model.to(device),
        example.to(device),
        outputs,
        *evaluator.images("search-val"),
        evaluator.batch_size,
    )
    counts = np.maximum(graph.sizes - graph.sizes // 2, 1)
    rng = np.random.default_rng(settings.seed)
    spent: dict[str, list[float]] = {"ours": [], "peer": [], "our surgery": [], "peer surgery": []}
    slow = 0.0
    for turn in range(settings.turns + 1):
        keep = graph.keep_top(graph.rank(rng.random(graph.num_channels)), counts)
        took = [
            timed(partial(evaluator.evaluate, keep), device),
            timed(partial(theirs.evaluate, 0.5), device),
            timed(partial(graph.prune, model, keep), device),
            timed(partial(theirs.cut, 0.5), device),
        ]
        slow += sum(took)
        if turn:
            for name, seconds in zip(spent, took, strict=True):
                spent[name].append(seconds)
            if slow > 45:
                break  # Torch-Pruning takes seconds for some networks
    params = sum(p.numel() for p in theirs.cut(0.5).parameters())
    full = graph.params(graph.full())
    ratios = {
        "peer / ours": _paired(spent["peer"], spent["ours"]),
        "surgery, peer / ours": _paired(spent["peer surgery"], spent["our surgery"]),
    }
    notes = f"parameters left: ours {graph.params(keep) / full:.3f}, peer {params / full:.3f}"
    return Figures(settings.images(network), 0, _medians(spent), ratios, notes)


def search(network: Network, settings: SpeedSettings) -> Figures:
    """Evaluations per second without recovery, and what RL-Pruner's search would take at the rate.

    The time per image of candidates with half of the channels, times 10,000 images, times 8,000
    candidates. Its own surgery alone, at the published pace, stands beside it.
    """
    task = get_task(_task(network, settings))
    model = task.model()
    graph = ChannelGraph.trace(model, task.example_input())
    evaluator = Evaluator(
        model,
        graph,
        task.load_data(None),
        recovery="none",
        device=settings.device,
        cache_size=0,
    )
    rng = np.random.default_rng(settings.seed)
    taken = [
        timed(partial(evaluator.evaluate, graph.random_keep(0.5, rng)), evaluator.device)
        for _ in range(settings.turns + 1)
    ][1:]
    seconds = statistics.median(taken)
    images = settings.images(network)
    hours = CANDIDATES * seconds * TEST_IMAGES / images / 3600
    return Figures(
        images,
        0,
        {"candidate": seconds},
        {
            "candidates per second": 1 / seconds,
            "hours for 8,000 candidates": hours,
            "hours of RL-Pruner's surgery": CANDIDATES * RL_PRUNER_SURGERY / 3600,
        },
        f"{CANDIDATES:,} candidates x {TEST_IMAGES:,} images, scaled from {images} images; "
        f"RL-Pruner's surgery at {RL_PRUNER_SURGERY} s per candidate (VGG-19, 2 CPU cores)",
    )


def vector(slots: int, settings: SpeedSettings) -> Figures:
    """Steps per second of `gym.make_vec` with random actions."""
    network = STEP_NETWORKS[0]
    images = settings.images(network)
    envs = gym.make_vec(
        "CNNPrune-v0",
        num_envs=slots,
        autoreset_mode="SameStep",  # no step that only restarts is counted
        task=_task(network, settings),
        device=settings.device,
    )
    envs.reset(seed=settings.seed)
    rng = np.random.default_rng(settings.seed)
    shape = envs.action_space.shape
    assert shape is not None

    def act() -> None:
        envs.step(rng.uniform(-1, 1, shape).astype(np.float32))

    device = torch.device(settings.device)
    act()
    taken = [timed(act, device) for _ in range(max(1, settings.turns // (1 if slots < 64 else 3)))]
    seconds = statistics.median(taken)
    return Figures(
        images, settings.calibration, {"step": seconds}, {"steps per second": slots / seconds}
    )


def _task(network: Network, settings: SpeedSettings) -> str:
    return register(network, settings.images(network), settings.calibration, settings.seed)


def _environment(network: Network, settings: SpeedSettings) -> CNNPruneEnv:
    env = gym.make(
        "CNNPrune-v0",
        task=_task(network, settings),
        budget={"params": 1e-6},  # no episode ends while it is timed
        channels_per_step=0.05,
        device=settings.device,
    ).unwrapped
    assert isinstance(env, CNNPruneEnv)
    env.reset(seed=settings.seed)
    return env


def _halfway(env: CNNPruneEnv) -> pruning_env.PruningState:
    """The state from which steps are timed: half of the channels are gone, evenly."""
    state = env.state()
    still = np.zeros(len(env.graph.groups))
    while state.counts.sum() > 0.5 * env.graph.num_channels:
        state = env.dynamics.apply(state, still)
    return env.dynamics.judge(state)


def _medians(spent: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in spent.items() if times}


def _paired(first: list[float], second: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(first, second, strict=True))
