"""Rows made again from their channel counts: does what they say still come out?

Nothing that a row says is taken as given but the counts. What cannot be seen from them is not
checked: how the search came there, what it spent, how long it took. Knows no agents.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from pruning_agents.comparison.cells import SAME_ACCURACY, anchors_of, core, cost_of, make_env
from pruning_agents.comparison.origin import Origin, origin_of
from pruning_agents.comparison.rows import AgentRow, settings_text
from pruning_agents.comparison.suites import objections
from pruning_agents.search.judge import with_networks
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.process.state import PruningState
from pruning_env.process.usage import NetworkUsage
from pruning_env.tasks.registry import get_task

#: Images whose logits are compared between the pruned and the masked network.
_IMAGES = 64

#: Largest difference of such logits, relative to the largest of them: float32 rounds.
_SAME_LOGITS = 1e-4

#: Images that other kernels may turn between a table and the network that it was made from.
_TURNED = 2.5


@dataclass(frozen=True)
class Verdict:
    """What became of a row.

    Attributes:
        row: that was replayed.
        problems: what did not come out; empty where all did.
        note: what could not be checked, "" if nothing.
        again: whether the search, made once more, found the same; None where that was not tried.
    """

    row: AgentRow
    problems: tuple[str, ...]
    note: str = ""
    again: bool | None = None

    @property
    def replays(self) -> bool:
        """Whether the row holds a result and all of it came out."""
        return not self.problems and not self.row.failed


def replay(rows: Iterable[AgentRow]) -> Iterator[Verdict]:
    """Replay rows one by one; those of one task and environment share what they are replayed in."""
    benches: dict[tuple[str, str], _Bench | str] = {}
    for row in rows:
        place = row.task, settings_text(row.settings)
        if place not in benches:
            try:
                benches[place] = _Bench(row)
            except (ValueError, OSError) as error:
                benches[place] = f"its environment cannot be made: {error}"
        bench = benches[place]
        if row.failed:
            yield Verdict(row, (), "holds no result")
        elif isinstance(bench, str):
            yield Verdict(row, (bench,))
        else:
            yield bench.verdict(row)


def replay_with_progress(rows: Sequence[AgentRow]) -> list[Verdict]:
    """Replay all rows beside a progress bar."""
    return list(tqdm(replay(rows), total=len(rows), desc="replay", unit="row"))


class _Bench:
    """The environment of a row's task and settings, and the networks behind it."""

    def __init__(self, row: AgentRow) -> None:
        self.env = core(make_env(row.task, row.settings))
        self.real, behind = with_networks(self.env, dict(row.settings))
        task = self.real.task_name
        self.dense = get_task(task).model(behind.get("weights"), behind.get("data_root"))
        self.origin = origin_of(self.env, row.settings)
        self.images = self.real.evaluator.images("search-val")[0]

    @functools.cached_property
    def anchors(self) -> object:
        """Worth a second, so only once."""
        return anchors_of(self.env)

    def verdict(self, row: AgentRow) -> Verdict:
        problems = _contradictions(row)
        if row.origin is not None:
            problems += _strange_origin(row.origin, self.origin)
        if row.anchors != self.anchors:
            problems.append(f"scores are measured by {row.anchors}, not by {self.anchors}")
        note = "" if row.origin else "says nothing of weights and data"
        if self.env.dynamics.ranking.every is not None:
            problems.append("its channels are ranked anew, and a row does not say which are left")
        elif self.env.evaluator.trains or self.env.evaluator.trains_commits:
            problems.append("its recovery trains, and a row does not hold the trained weights")
        else:
            if row.counts is not None:
                problems += self._incumbent(row, row.counts)
            if row.final is not None:
                problems += self._final(row)
        return Verdict(row, tuple(problems), note)

    def _incumbent(self, row: AgentRow, counts: tuple[int, ...]) -> list[str]:
        try:
            state = state_of(self.env, counts)
        except ValueError as error:
            return [f"counts: {error}"]
        env, keep = self.env, state.keep
        said = {
            "params": (row.params, int(env.graph.params(keep)), 0.0),
            "macs": (row.macs, int(env.graph.macs(keep)), 0.0),
            "params_ratio": (row.params_ratio, state.params, 1e-12),
            "macs_ratio": (row.macs_ratio, state.macs, 1e-12),
            "val_accuracy": (row.val_accuracy, state.latest.accuracy, self._turned),
            "cost": (row.cost, cost_of(env, state), 1e-12),
        }
        if row.origin is None:
            del said["cost"]  # rows were without both
        if row.test_accuracy is not None:
            tested = env.evaluator.certify(keep).accuracy
            said["test_accuracy"] = (row.test_accuracy, tested, self._turned)
        problems = [_difference(name, *values) for name, values in said.items()]
        closed = all(budget.closed_form for budget in env.dynamics.budgets)
        if closed and not env.dynamics.feasible(state):
            problems.append(f"its network uses {state.usage}, which does not meet the budget")
        problems += self._surgery(state)
        return [problem for problem in problems if problem]

    def _final(self, row: AgentRow) -> list[str]:
        assert row.final is not None
        try:
            state = state_of(self.env, row.final.counts)
        except ValueError as error:
            return [f"final policy: counts: {error}"]
        accuracy = state.latest.accuracy
        problem = _difference("final accuracy", row.final.accuracy, accuracy, self._turned)
        problems = [problem] * bool(problem)
        closed = all(budget.closed_form for budget in self.env.dynamics.budgets)
        if closed and row.final.feasible != self.env.dynamics.feasible(state):
            problems.append(f"final policy is said to be feasible={row.final.feasible}")
        return problems

    @property
    def _turned(self) -> float:
        """By how much an accuracy may differ; a table always says the same."""
        return 0.0 if self.env is not self.real else SAME_ACCURACY

    def _surgery(self, state: PruningState) -> list[str]:
        """Whether the pruned network says what the masked one says, and a table what both say."""
        graph, problems = self.real.graph, []
        with torch.inference_mode():
            images = self.images[:_IMAGES]
            device = images.device
            pruned = graph.prune(self.dense, state.keep).eval().to(device)(images)
            masked = graph.mask(self.dense, state.keep).eval().to(device)(images)
        apart = float((pruned - masked).abs().max() / masked.abs().max())
        if not apart <= _SAME_LOGITS:
            problems.append(f"logits of the pruned and the masked network differ by {apart:.1e}")
        if self.env is not self.real:
            found = self.real.evaluator.evaluate(state.keep).accuracy
            allowed = _TURNED / len(self.images)
            problems.append(_difference("network", state.latest.accuracy, found, allowed))
        return problems


def state_of(env: CNNPruneEnv, counts: tuple[int, ...]) -> PruningState:
    """The judged state that keeps so many channels of each group, the most important ones.

    Raises:
        ValueError: there is none.
    """
    graph, dynamics = env.graph, env.dynamics
    numbers = np.asarray(counts)
    keep = graph.keep_top(dynamics.rank, numbers)
    full = graph.full()
    state = PruningState(
        keep=keep,
        counts=numbers,
        step=1,
        metrics=None,
        usage=NetworkUsage(dynamics.usage_meter, keep).usage,
        params=float(graph.params(keep) / graph.params(full)),
        macs=float(graph.macs(keep) / graph.macs(full)),
        last_action=np.zeros(len(graph.groups)),
        requested=0,
        removed=0,
    )
    return dynamics.judge(dynamics.check(state))


def _contradictions(row: AgentRow) -> list[str]:
    """What a row says against itself."""
    problems = objections(row)
    accuracies = [accuracy for _, accuracy in row.history]
    numbers = [number for number, _ in row.history]
    if row.spent > row.allowed:
        problems.append(f"spent {row.spent} of {row.allowed} evaluations")
    if row.feasible != (row.counts is not None) or row.feasible != bool(row.history):
        problems.append("feasible, counts and history do not say the same")
    elif row.feasible and accuracies[-1] != row.val_accuracy:
        problems.append(f"history ends at {accuracies[-1]}, val_accuracy is {row.val_accuracy}")
    if numbers != sorted(numbers) or accuracies != sorted(accuracies):
        problems.append("history does not rise")
    if numbers and not 0 < numbers[0] <= numbers[-1] <= row.spent:
        problems.append(f"history is at {numbers}, of {row.spent} evaluations")
    if row.test_openings is not None and row.test_openings > 1:
        problems.append(f"the search looked at test: {row.test_openings} openings")
    if row.test_loads:
        problems.append(f"the search loaded the test split itself: {row.test_loads} loads")
    return problems


def _strange_origin(said: Origin, here: Origin) -> list[str]:
    return [
        f"{what} differ: the row says {theirs[:12]}..., here it is {ours[:12]}..."
        for what, theirs, ours in (
            ("channel graphs", said.graph, here.graph),
            ("weights", said.weights_sha256, here.weights_sha256),
            ("data", said.data_sha256, here.data_sha256),
        )
        if theirs != ours
    ]


def _difference(name: str, said: float | None, found: float | None, allowed: float) -> str:
    """What to say of a number that is another one; "" if it is the same."""
    if said is None or found is None:
        same = said is found
    else:
        same = abs(said - found) <= allowed
    return "" if same else f"{name} is {found}, not {said}"
