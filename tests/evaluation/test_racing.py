"""Races: who goes through has the accuracy that all images give, and fewer images are shown."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from pruning_agents import cem, random_search
from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.replay import replay
from pruning_agents.search.rows import Provenance
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.ledger import Ledger, Meter
from tests.helpers.small import small_dynamics, small_evaluator

VAL, CALIBRATION = 50, 64


def masks(evaluator: Any, count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    drawn: dict[bytes, Any] = {}
    while len(drawn) < count:
        keep = evaluator.graph.random_keep(0.6, rng)
        drawn[keep.tobytes()] = keep
    return list(drawn.values())


@pytest.mark.parametrize("recovery", ["none", "bn", "reconstruct"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_better_half_is_judged_as_ever(recovery: str, share: float) -> None:
    racing, plain = (small_evaluator(recovery=recovery, race=r) for r in (share, None))
    keeps = masks(racing, 7)
    raced, full = racing.race_many(keeps), plain.evaluate_many(keeps)
    assert sum(each.complete for each in raced) == 4
    for each, metrics in zip(raced, full, strict=True):
        if each.complete:
            assert each.metrics.accuracy == metrics.accuracy
            assert each.metrics.loss == pytest.approx(metrics.loss, rel=1e-6)


def test_those_ahead_on_the_first_part_go_through() -> None:
    evaluator = small_evaluator(race=0.3)
    keeps = masks(evaluator, 6)
    raced = evaluator.race_many(keeps)
    first = np.linspace(0, VAL - 1, 15).round().astype(int)
    images, labels = evaluator.images("search-val")
    ahead = [
        evaluator.execution.measure(evaluator.pruned_model(keep), images[first], labels[first])
        for keep in keeps
    ]
    worst = min((a.accuracy, -a.loss) for a, r in zip(ahead, raced, strict=True) if r.complete)
    for before, each in zip(ahead, raced, strict=True):
        if not each.complete:
            assert each.metrics == before and (before.accuracy, -before.loss) < worst


def test_a_race_saves_images_and_no_evaluations() -> None:
    racing, plain = small_evaluator(race=0.2), small_evaluator()
    keeps = masks(racing, 6)
    with Meter() as meter:
        racing.race_many(keeps)
    plain.evaluate_many(keeps)
    assert racing.evaluations == plain.evaluations == meter.evaluations == 6
    assert plain.image_passes == 6 * (CALIBRATION + VAL)
    assert racing.image_passes == 6 * (CALIBRATION + 10) + 3 * 40
    assert meter.image_passes == racing.image_passes


def test_who_was_seen_before_costs_nothing() -> None:
    evaluator = small_evaluator(race=0.2)
    keeps = masks(evaluator, 6)
    first = evaluator.race_many(keeps)
    shown = evaluator.image_passes
    assert evaluator.race_many(keeps[::-1]) == first[::-1]
    assert (evaluator.evaluations, evaluator.image_passes) == (6, shown)
    whole = next(keep for keep, each in zip(keeps, first, strict=True) if each.complete)
    fallen = next(keep for keep, each in zip(keeps, first, strict=True) if not each.complete)
    evaluator.evaluate(whole)
    assert evaluator.evaluations == 6
    evaluator.evaluate(fallen)  # all images now, which is an evaluation of its own
    assert evaluator.evaluations == 7


def test_a_memory_without_races_is_still_read() -> None:
    evaluator = small_evaluator(race=0.2)
    memory = evaluator.memory()
    del memory["_fallen"]
    evaluator.recall(memory)
    assert len(evaluator.race_many(masks(evaluator, 4))) == 4


def test_without_a_race_and_for_one_alone_all_images_count() -> None:
    for evaluator, count in ((small_evaluator(), 4), (small_evaluator(race=0.2), 1)):
        assert all(each.complete for each in evaluator.race_many(masks(evaluator, count)))


@pytest.mark.parametrize("race", [0.0, 1.0, -0.5, "half", True, float("nan")])
def test_a_share_that_is_none_is_refused(race: Any) -> None:
    with pytest.raises(ValueError, match="race="):
        CNNPruneEnv(race=race, weights="no such file")


def test_networks_that_are_trained_do_not_race() -> None:
    with pytest.raises(ValueError, match="not allowed with recovery='finetune'"):
        CNNPruneEnv(race=0.5, recovery="finetune", weights="no such file")


def test_what_was_shown_is_counted_whatever_it_was_for() -> None:
    evaluator = small_evaluator(recovery="none")
    keeps = masks(evaluator, 2)
    evaluator.rehearse_many(keeps)
    assert evaluator.image_passes == 2 * 64
    evaluator.sensitivity(keeps[0])
    assert evaluator.image_passes == 3 * 64
    trained = small_evaluator(recovery="finetune")
    trained.evaluate(keeps[0])
    assert trained.image_passes == 20 * 64 + VAL


def test_a_pickled_ledger_goes_on_counting() -> None:
    ledger = Ledger()
    ledger.showed(5)
    text = pickle.dumps(ledger)
    assert pickle.loads(text) is ledger
    make, (_, *counts) = ledger.__reduce__()
    assert make("another key", *counts).image_passes == 5
    assert make("an older one", *counts[:2]).image_passes == 0


# Searches


class SmallEnv(gym.Env):
    """What a baseline needs of an environment."""

    def __init__(self, race: float | None) -> None:
        self.dynamics = small_dynamics(
            small_evaluator(race=race), {"macs": 0.5}, constraint="project", max_steps=1
        )


@pytest.mark.parametrize("search", [cem, random_search])
def test_a_search_that_races_ends_with_an_accuracy_on_all_images(search: Any) -> None:
    racing, plain = SmallEnv(0.2), SmallEnv(None)
    result = search(racing, 30, 0)
    search(plain, 30, 0)
    shown = racing.dynamics.evaluator.image_passes
    assert result.evaluations == racing.dynamics.evaluator.evaluations == 30
    (again,) = small_evaluator().evaluate_many([result.state.keep])
    assert result.accuracy == again.accuracy
    assert shown < 0.95 * plain.dynamics.evaluator.image_passes


def test_rl_pruner_races_and_its_row_replays() -> None:
    settings = {"budget": {"macs": 0.5}, "race": 0.25, "constraint": "project", "max_steps": 1}
    origin = Provenance("typed", "now", {"python": "3"}, "a machine", None)
    row = run_cell(Cell("digits-resnet8", settings, "rl-pruner", 0, 24), origin)
    assert not row.failed and row.image_passes is not None
    assert row.spent * (512 + 100) <= row.image_passes < row.spent * (512 + 320)
    (verdict,) = replay([row])
    assert verdict.replays, verdict.problems
