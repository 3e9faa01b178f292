"""`python -m benchmarks constrained`: rows, what is concluded from them, and a run that resumes."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.constrained.command import ConstrainedSettings, plan, run_constrained
from benchmarks.constrained.findings import findings, frontier, upper_hull, wilson
from benchmarks.constrained.rows import (
    FIXED,
    LAGRANGIAN,
    ConstrainedRow,
    Outcome,
    Rollout,
    read_rows,
)
from benchmarks.constrained.table import to_markdown
from benchmarks.constrained.training import ENVIRONMENT, Priced, Run
from pruning_agents.search.rows import Provenance
from pruning_env.tabular.env import CNNPruneTabularEnv

ORIGIN = Provenance("python -m benchmarks constrained", "now", {"python": "3"}, "a machine", None)


def row(method, number, seed, usage, accuracy, optimum=0.8):
    policy = Outcome(1000, usage, accuracy, 0.5)
    return ConstrainedRow(
        method=method,
        number=number,
        seed=seed,
        settings={"environment": {"max_steps": 2}, "training": {"rollouts": 2}},
        history=(Rollout(128, 1.0, usage, -50.0), Rollout(256, 0.5, usage, -40.0)),
        policy=policy,
        mode=dataclasses.replace(policy, episodes=1),
        status="feasible" if method == LAGRANGIAN else "",
        price=70.0,
        optimum=optimum if method == LAGRANGIAN else None,
        evaluations=100,
        cpu_seconds=8.0,
        provenance=ORIGIN,
    )


PRICED = [row(FIXED, price, 0, usage, accuracy) for price, usage, accuracy in (
    (0.0, 0.8, 0.98),
    (50.0, 0.4, 0.9),
    (90.0, 0.3, 0.6),  # below the hull
    (200.0, 0.1, 0.4),
)]  # fmt: skip


def test_a_row_comes_back_from_its_line_and_a_torn_line_is_left_out(tmp_path):
    first = row(LAGRANGIAN, 0.2, 3, 0.19, 0.8)
    assert ConstrainedRow.from_json(first.to_json()) == first
    file = tmp_path / "rows.jsonl"
    file.write_text(first.to_json() + "\n" + first.to_json()[:50])
    with pytest.warns(UserWarning, match="rows.jsonl:2 is not complete"):
        assert read_rows(file) == {first.key: first}
    file.write_text(json.dumps({"method": "else"}) + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl:1: not a row"):
        read_rows(file)


def test_a_limit_is_kept_from_5_percent_below_up_to_it_and_not_beyond():
    usages = (0.189, 0.1901, 0.2, 0.2001)
    found = findings([row(LAGRANGIAN, 0.2, s, u, 0.77) for s, u in enumerate(usages)])[0]
    assert found.kept.tolist() == [False, True, True, False]
    assert found.near_best.all()  # 0.77 of 0.8
    assert np.isnan(found.gaps).all() and not found.on_frontier.any()


def test_the_frontier_is_the_upper_hull_of_the_fixed_prices():
    usage, accuracy = frontier(PRICED)
    assert usage.tolist() == [0.1, 0.4, 0.8]
    assert accuracy.tolist() == [0.4, 0.9, 0.98]
    on, off = findings(
        [*PRICED, row(LAGRANGIAN, 0.25, 0, 0.25, 0.66), row(LAGRANGIAN, 0.26, 0, 0.25, 0.6)]
    )
    assert on.gaps == pytest.approx([0.01]) and on.on_frontier.all()
    assert off.gaps == pytest.approx([-0.05]) and not off.on_frontier.any()


def test_the_hull_of_points_above_each_other_keeps_the_higher():
    assert upper_hull([(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.9)]) == [(0.0, 1.0), (1.0, 1.0)]
    assert upper_hull([]) == []


def test_wilsons_interval_is_the_textbooks():
    # Newcombe 1998, table I: 81 of 263.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(20, 20)[1] == 1.0


def test_the_table_says_what_was_met_and_what_was_missed():
    kept = [row(LAGRANGIAN, 0.1, seed, 0.098, 0.79) for seed in range(10)]
    broken = [row(LAGRANGIAN, 0.4, seed, 0.41, 0.91) for seed in range(10)]
    text = to_markdown([*kept, *broken, *PRICED], "constrained")
    assert "- params ≤ 0.1: missed: the end on the frontier." in text
    assert "- params ≤ 0.4: missed: the limit kept." in text
    assert "10 of 10 (72 to 100 %)" in text
    with pytest.raises(ValueError, match="rows is empty"):
        to_markdown([], "constrained")


def test_a_fixed_price_is_taken_off_the_reward_for_what_is_left():
    env = CNNPruneTabularEnv(budget={"params": 1.0}, **{**ENVIRONMENT, "max_steps": 1})
    priced = Priced(env.fork(), 30.0)
    action = np.zeros(6, np.float32)
    for each in (env, priced):
        each.reset(seed=0)
    _, reward, *_, info = env.step(action)
    assert priced.step(action)[1] == pytest.approx(reward - 30.0 * info["params"])


def test_a_run_is_reproducible_and_its_row_says_what_happened():
    run = Run(LAGRANGIAN, 0.3, 100, rollouts=3)
    first, second = run.execute(ORIGIN), run.execute(ORIGIN)
    assert dataclasses.replace(first, cpu_seconds=0.0) == dataclasses.replace(
        second, cpu_seconds=0.0
    )
    assert [rollout.episodes for rollout in first.history] == sorted(
        rollout.episodes for rollout in first.history
    )
    assert first.history[-1].multiplier > 0.0 or first.history[-1].usage < 0.3
    assert 0 < first.evaluations <= first.history[-1].episodes
    assert first.policy.episodes >= 1000 and first.mode.episodes == 1
    assert first.optimum == CNNPruneTabularEnv(budget={"params": 0.3}).optimum().accuracy


def test_what_has_a_row_is_not_run_again(tmp_path, monkeypatch):
    out = tmp_path / "constrained.jsonl"
    arguments = ["--budgets", "0.3", "--prices", "0,50", "--seeds", "2", "--price-seeds", "1"]
    monkeypatch.setattr(
        Run,
        "execute",
        lambda run, origin: dataclasses.replace(
            row(run.method, run.number, run.seed, 0.29, 0.8), settings=run.settings
        ),
    )
    assert main(["constrained", *arguments, "--out", str(out)]) == 0
    assert len(read_rows(out)) == 4
    for suffix in (".md", ".png", ".svg"):
        assert out.with_suffix(suffix).stat().st_size > 100
    monkeypatch.setattr(Run, "execute", lambda run, origin: pytest.fail("it had a row"))
    assert main(["constrained", *arguments, "--out", str(out)]) == 0


@pytest.mark.parametrize(
    ("settings", "message"), [({"budgets": (1.5,)}, "budgets: 1.5"), ({"prices": (-1.0,)}, "-1.0")]
)
def test_bad_limits_and_prices_are_refused_before_anything_runs(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_constrained(
            ConstrainedSettings(out=tmp_path / "x.jsonl", **settings),
            "",
            Console(file=io.StringIO()),
        )
    assert not (tmp_path / "x.jsonl").exists()


def test_seeds_are_planned_in_turn_so_that_a_run_cut_short_has_whole_ones():
    runs = plan(ConstrainedSettings(budgets=(0.1, 0.2), prices=(5.0,), seeds=3, price_seeds=1))
    assert [(run.method, run.number, run.seed) for run in runs[:3]] == [
        (LAGRANGIAN, 0.1, 0),
        (LAGRANGIAN, 0.2, 0),
        (FIXED, 5.0, 0),
    ]
    assert [run.seed for run in runs[3:]] == [1, 1, 2, 2]
