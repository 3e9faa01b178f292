"""`python -m benchmarks agents`: cells check what agents say, rows last, tables are honest."""

from __future__ import annotations

import dataclasses
import functools
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.agents.figure import LINEAR, plot_agents, tick_regrets
from benchmarks.agents.run import AgentsSettings, plan, run_agents
from pruning_agents.baselines import random_search
from pruning_agents.comparison.cells import Cell, final_policy, make_env, run_cell
from pruning_agents.comparison.questions import questions
from pruning_agents.comparison.rows import AgentRow, Anchors, FinalPolicy, read_rows
from pruning_agents.comparison.statistics import Interval
from pruning_agents.comparison.table import FEWEST_PAIRS, to_markdown, verdict
from pruning_agents.search.import_path import resolve_agent
from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import Provenance, append_row
from tests.helpers.paths import ROOT

HERE = "tests.benchmarks.test_agents_command"
ORIGIN = Provenance("python -m benchmarks agents", "now", {"python": "3"}, "a machine", None)
SETTINGS = {"budget": {"params": 0.25}}


def cell(agent: str, seed: int = 0, evaluations: int = 20) -> Cell:
    return Cell("tabular", SETTINGS, agent, seed, evaluations)


@functools.cache
def row_of(agent: str, seed: int = 0, evaluations: int = 20) -> Any:
    return run_cell(cell(agent, seed, evaluations), ORIGIN)


def made_row(
    agent: str,
    seed: int,
    history: tuple[tuple[int, float], ...],
    *,
    allowed: int = 2000,
    seeded: bool = True,
    final: FinalPolicy | None = None,
) -> AgentRow:
    """A row with a given history, between an optimum of 90 % and a random policy of 40 %."""
    return dataclasses.replace(
        row_of("uniform"),
        agent=agent,
        seed=seed,
        seeded=seeded,
        allowed=allowed,
        spent=allowed,
        history=history,
        anchors=Anchors(0.9, 0.4),
        final=final,
    )


def searched(env: Any, evaluations: int, seed: int) -> Any:
    """What random search finds."""
    return random_search(env, evaluations, seed)


# Guests: agents by import path.


def guest(env, evaluations, seed, *, progress_bar=False):
    return random_search(env, evaluations, seed, progress_bar=progress_bar)


def guest_with_policy(env, evaluations, seed, *, progress_bar=False):
    return get_agent("rl-pruner").search(env, evaluations, seed, progress_bar)


def finds_nothing(env, evaluations, seed, *, progress_bar=False):
    env.reset(seed=seed)
    env.step(np.zeros(6, np.float32))


def spends_too_much(env, evaluations, seed, *, progress_bar=False):
    return random_search(env, evaluations + 1, seed)


def boasts(env, evaluations, seed, *, progress_bar=False):
    found = searched(env, evaluations, seed)
    metrics = dataclasses.replace(found.state.metrics, accuracy=1.0)
    state = dataclasses.replace(found.state, metrics=metrics)
    return dataclasses.replace(found, state=state, history=((1, 1.0),))


def predates(env, evaluations, seed, *, progress_bar=False):
    found = searched(env, evaluations, seed)
    return dataclasses.replace(found, history=((0, found.accuracy),))


def embellishes_its_history(env, evaluations, seed, *, progress_bar=False):
    found = searched(env, evaluations, seed)
    return dataclasses.replace(found, history=((1, 0.99), found.history[-1]))


def ignores_the_budget(env, evaluations, seed, *, progress_bar=False):
    found = searched(env, evaluations, seed)
    dense = env.unwrapped.dynamics.initial()
    return dataclasses.replace(found, state=dense, history=((1, dense.metrics.accuracy),))


def raises(env, evaluations, seed, *, progress_bar=False):
    raise RuntimeError("no idea")


def answers_42(env, evaluations, seed, *, progress_bar=False):
    return 42


def takes_long(env, evaluations, seed, *, progress_bar=False):
    time.sleep(0.0 if seed == 0 else 600.0)
    return random_search(env, evaluations, seed)


NOT_AN_AGENT = 3


def test_a_row_holds_what_the_search_found_and_the_environment_counted():
    row = row_of("random-search")
    env: Any = make_env("tabular", SETTINGS)
    found = searched(env, 20, 0)
    assert (row.spent, row.allowed, row.history) == (20, 20, found.history)
    assert row.counts == tuple(found.state.counts) and row.val_accuracy == found.accuracy
    assert row.feasible and row.params_ratio <= 0.25
    assert row.params == env.unwrapped.graph.params(found.state.keep)
    assert row.anchors.optimum == env.unwrapped.optimum().accuracy
    assert row.final is None and not row.failed
    regret = env.unwrapped.regret(found.state).normalised
    assert row.regret_at(20)[0] == pytest.approx(regret)


def test_the_final_policy_is_judged_but_neither_counted_nor_offered():
    row = row_of("rl-pruner")
    env: Any = make_env("tabular", SETTINGS)
    search: Any = get_agent("rl-pruner").search(env, 20, 0, False)
    assert row.spent == env.unwrapped.evaluations == 20
    assert row.history == search.result.history

    other: Any = make_env("tabular", SETTINGS)
    observation, _ = other.reset(seed=0)
    over = False
    while not over:
        action, _ = search.algorithm.predict(observation, deterministic=True)
        observation, _, over, _, info = other.step(action)
    assert row.final == FinalPolicy(info["accuracy"], True, tuple(other.unwrapped.state().counts))
    # It is judged where it stands; the searched environment has not seen all of the way.
    assert final_policy(other.unwrapped, search.algorithm, 0) == row.final
    assert env.unwrapped.evaluations == 20


def test_a_guest_by_import_path_gets_the_row_of_its_registered_twin():
    twin = dataclasses.replace(row_of("random-search"), agent=f"{HERE}:guest")
    row = row_of(f"{HERE}:guest")
    its_own = {"wall_seconds": twin.wall_seconds, "provenance": twin.provenance}
    assert dataclasses.replace(row, **its_own) == twin
    assert row_of(f"{HERE}:guest_with_policy").final == row_of("rl-pruner").final


def test_a_search_without_a_result_has_a_row_that_says_so():
    row = row_of(f"{HERE}:finds_nothing")
    assert not row.failed and not row.feasible and row.history == ()
    assert row.spent == 1 and row.counts is row.val_accuracy is None
    worst = row.anchors.optimum / (row.anchors.optimum - row.anchors.random)
    assert row.regret_at([1, 20]) == pytest.approx([worst, worst])
    assert worst > 1


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("spends_too_much", "spent 21 of 20"),
        ("boasts", "not 1.0"),
        ("predates", "history is at"),
        ("embellishes_its_history", "does not rise"),
        ("ignores_the_budget", "does not meet the budget"),
        ("raises", "RuntimeError: no idea"),
        ("answers_42", "returned a int"),
    ],
)
def test_what_an_agent_says_of_itself_is_not_believed(agent, said):
    row = row_of(f"{HERE}:{agent}")
    assert said in row.failed
    assert not row.feasible and row.history == () and row.final is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "registered: uniform"),
        ("nomodule:search", "cannot be imported"),
        (f"{HERE}:nothing", "cannot be imported"),
        (f"{HERE}:NOT_AN_AGENT", "cannot be called"),
    ],
)
def test_unknown_agents_are_refused(name, said):
    with pytest.raises(ValueError, match=said):
        resolve_agent(name)


def test_unknown_tasks_and_settings_are_refused():
    with pytest.raises(ValueError, match="known: tabular, digits-resnet8"):
        make_env("mnist", {})
    with pytest.raises(ValueError, match="colour"):
        make_env("tabular", {"colour": 1})
    with pytest.raises(ValueError, match="budget key"):
        make_env("tabular", {"budget": {"taste": 0.1}})


def test_a_registered_task_is_judged_on_its_network():
    task = Cell("digits-resnet8", SETTINGS, "random-search", 0, 2)
    row: Any = run_cell(task, ORIGIN)
    assert not row.failed and row.spent == 2 and row.anchors is None
    assert row.regret_at(2)[0] == pytest.approx(1 - row.val_accuracy)
    assert "Error on search-val" in to_markdown([row], "x")


def test_rows_survive_the_file():
    for agent in ("rl-pruner", "uniform", f"{HERE}:finds_nothing", f"{HERE}:raises"):
        row = row_of(agent)
        assert AgentRow.from_json(row.to_json()) == row


def test_a_torn_line_is_said_and_left_out_and_the_next_row_is_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    first, second = row_of("uniform"), row_of("random-search")
    append_row(path, first)
    with path.open("a") as file:
        file.write(second.to_json()[:100])
    append_row(path, second)
    with pytest.warns(UserWarning, match=r"rows.jsonl:2 is not complete"):
        assert list(read_rows(path).values()) == [first, second]
    path.write_text('{"agent": "x"}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl:1: not a row"):
        read_rows(path)
    assert read_rows(tmp_path / "none.jsonl") == {}


def test_of_two_rows_of_a_cell_the_later_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = row_of("uniform")
    append_row(path, dataclasses.replace(row, failed="once"))
    append_row(path, row)
    assert list(read_rows(path).values()) == [row]


def _write_rows(path: Path, writer: int) -> None:
    row = made_row("random-search", writer, ())
    for number in range(100):
        append_row(path, dataclasses.replace(row, seed=1000 * writer + number))


def test_several_writers_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    row_of("uniform")  # inherited by the writers
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_rows, args=(path, each)) for each in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    seeds = {row.seed for row in read_rows(path).values()}
    assert seeds == {1000 * writer + number for writer in range(4) for number in range(100)}
    assert len(path.read_text().splitlines()) == 400


def test_cells_are_paired_and_agents_without_chance_run_once():
    settings = AgentsSettings(
        agents=("uniform", "cem", f"{HERE}:guest"),
        seeds=2,
        seed=5,
        evaluations=100,
        limits={"cem": 50},
    )
    assert [(each.agent, each.seed, each.evaluations) for each in plan(settings)] == [
        ("uniform", 5, 100),
        ("cem", 5, 50),
        (f"{HERE}:guest", 5, 100),
        ("cem", 6, 50),
        (f"{HERE}:guest", 6, 100),
    ]
    with pytest.raises(ValueError, match="sac"):
        plan(dataclasses.replace(settings, limits={"sac": 3}))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Where the command has left its files."""
    out = tmp_path_factory.mktemp("agents") / "rows.jsonl"
    agents = f"uniform,random-search,{HERE}:raises"
    arguments = ["--agents", agents, "--seeds", "2", "--evaluations", "20", "--workers", "2"]
    assert main(["agents", *arguments, "--budget", "params=0.25", "--out", str(out)]) == 0
    return out


def test_the_command_writes_a_row_per_cell_and_table_and_figures(written):
    rows = list(read_rows(written).values())
    assert {(row.agent, row.seed) for row in rows} == {
        ("uniform", 0),
        ("random-search", 0),
        ("random-search", 1),
        (f"{HERE}:raises", 0),
        (f"{HERE}:raises", 1),
    }
    for row in rows:
        assert "1 threads" in row.provenance.hardware
        here = row_of(row.agent, row.seed)
        assert (row.history, row.counts, row.failed) == (here.history, here.counts, here.failed)
    table = written.with_suffix(".md").read_text()
    assert "| random-search | 2 | 20 | 20 |" in table
    assert f"No result from {HERE}:raises: RuntimeError: no idea" in table
    assert "python -m benchmarks agents --agents uniform" in table
    assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in written.with_suffix(".svg").read_bytes()


def test_a_second_run_adds_what_is_missing_and_a_third_changes_nothing(tmp_path):
    out = tmp_path / "rows.jsonl"
    agents = ("uniform", "random-search", f"{HERE}:raises")
    missing = row_of("random-search", 1)
    for row in (*map(row_of, agents), row_of(f"{HERE}:raises", 1)):
        append_row(out, row)
    with out.open("a") as file:
        file.write(missing.to_json()[:50])
    settings = AgentsSettings(agents=agents, seeds=2, evaluations=20, out=out)
    printed = io.StringIO()
    with pytest.warns(UserWarning, match="not complete"):
        run_agents(settings, "again", Console(file=printed, width=200))
    # What failed is tried again.
    assert "5 cells, 2 of them" in printed.getvalue()
    assert "raises, tabular, seed 1: RuntimeError: no idea" in printed.getvalue()
    files = [out, out.with_suffix(".md")]
    before = [file.read_text() for file in files]
    with pytest.warns(UserWarning, match="not complete"):
        assert read_rows(out)[missing.key].history == missing.history
        run_agents(settings, "again", Console(file=io.StringIO()))
    assert [file.read_text() for file in files] == before
    assert len(before[0].splitlines()) == 6


@pytest.mark.slow
def test_a_killed_run_leaves_its_rows_and_no_process(tmp_path):
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "benchmarks", "agents", "--out", str(out), "--seeds", "2"]
    command += ["--evaluations", "5", "--agents", f"{HERE}:takes_long"]
    root = ROOT
    run = subprocess.Popen(command, cwd=root, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (out.exists() and out.read_text().endswith("\n")):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1.0)  # the second cell has begun
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        deadline = time.monotonic() + 30
        while _alive(run.pid):
            assert time.monotonic() < deadline, "a worker outlives its run"
            time.sleep(0.1)
    finally:
        if _alive(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
    (row,) = read_rows(out).values()
    assert row.seed == 0 and not row.failed


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_incumbent_is_the_best_so_far_and_unknown_beyond_the_limit():
    row = made_row("x", 0, ((3, 0.4), (10, 0.65)), allowed=100)
    assert row.regret_at([1, 2, 3, 9, 10, 100]) == pytest.approx([1.8, 1.8, 1.0, 1.0, 0.5, 0.5])
    assert np.isnan(row.regret_at(101)[0])
    assert [row.found_at(number) for number in (2, 3)] == [False, True]


def test_a_final_policy_outside_the_budget_counts_as_never_right():
    inside = made_row("x", 0, (), final=FinalPolicy(0.65, True, (1,)))
    outside = made_row("x", 0, (), final=FinalPolicy(0.99, False, (1,)))
    assert inside.final_regret() == pytest.approx(0.5)
    assert outside.final_regret() == pytest.approx(1.8)
    assert made_row("x", 0, ()).final_regret() is None


def many(agent, accuracies, **options):
    """Rows of consecutive seeds that find their accuracy at once."""
    return [
        made_row(agent, seed, ((1, accuracy),), **options)
        for seed, accuracy in enumerate(accuracies)
    ]


def test_the_table_shows_regrets_and_what_is_missing():
    rows = [
        *many("rl-pruner", [0.65] * 6, final=FinalPolicy(0.4, True, (1,))),
        made_row("cem", 0, ((150, 0.4),), allowed=200),
        made_row("uniform", 0, ((1, 0.4),), seeded=False),
    ]
    lines = to_markdown(rows, "x").splitlines()
    shown = {line.split(" | ")[0][2:]: line for line in lines if line.startswith("| ")}
    half, whole = "0.500 (0.500–0.500)", "1.000 (1.000–1.000)"
    tested = f"{100 * rows[0].test_accuracy:.1f}"  # type: ignore[operator]
    assert (
        f"| rl-pruner | 6 | 2,000 | 2,000 | {' | '.join([half] * 5)} | {whole} | {tested} | 1 |"
        in lines
    )
    assert "1.800 †1 | 1.800 †1 | 1.000 | - | - | - | " in shown["cem"]
    assert "| 1.000 | 1.000 | 1.000 | 1.000 | 1.000 | - | " in shown["uniform"]
    assert "at 10,000" not in "".join(lines)


def test_test_is_shown_as_a_mean_and_rows_of_before_with_a_dash():
    def shown(*found: tuple[float | None, int | None]) -> str:
        rows = [
            dataclasses.replace(row, test_accuracy=accuracy, test_openings=openings)
            for row, (accuracy, openings) in zip(many("a", [0.5] * 5), found, strict=False)
        ]
        (line,) = [x for x in to_markdown(rows, "x").splitlines() if x.startswith("| a | 2 |")]
        return line

    assert shown((0.5, 1), (0.6, 1)).endswith("| - | 55.0 | 1 |")
    assert shown((0.5, 1), (0.6, 3)).endswith("| - | 55.0 | 3 |")
    assert shown((0.5, 1), (None, None)).endswith("| - | - | - |")
    assert shown((0.5, 1), (None, 1)).endswith("| - | - | 1 |")


def test_differences_are_put_into_words():
    noise = np.array([0.3, -0.3, 0.2, -0.2, 0.1, -0.1]) / 10
    rows = [
        *many("rl-pruner", 0.65 + noise),
        *many("cem", 0.65 - noise),
        *many("random-search", 0.6 + noise),
    ]
    table = to_markdown(rows, "x")
    (ahead,) = [line for line in table.splitlines() if "rl-pruner − random-search | 500" in line]
    assert "| 6 | -0.100 (-0.100 to -0.100) | rl-pruner is better than random-search |" in ahead
    (level,) = [line for line in table.splitlines() if "rl-pruner − cem | 500" in line]
    assert "| not distinguishable |" in level

    few = [row for row in rows if row.seed < FEWEST_PAIRS - 1]
    assert "is better than" not in to_markdown(few, "x")
    assert "| too few seeds |" in to_markdown(few, "x")


def test_less_regret_is_better():
    assert verdict("a", "b", Interval(-0.2, -0.3, -0.1)) == "a is better than b"
    assert verdict("a", "b", Interval(0.2, 0.1, 0.3)) == "b is better than a"
    assert verdict("a", "b", Interval(0.2, -0.1, 0.3)) == "not distinguishable"


def test_partners_are_found_by_seed_and_agents_without_chance_at_every_seed():
    rows = [
        *many("a", [0.4, 0.5, 0.6]),
        *many("b", [0.9, 0.8])[1:],
        made_row("c", 0, ((1, 0.9),), seeded=False),
    ]
    (question,) = questions(rows)
    ours, theirs = question.pairs("a", "b", 500)
    assert ours == pytest.approx([0.8]) and theirs == pytest.approx([0.2])
    ours, theirs = question.pairs("c", "a", 500)
    assert ours == pytest.approx([0, 0, 0]) and theirs == pytest.approx([1.0, 0.8, 0.6])
    assert not question.pairs("a", "b", 10_000)[0].size
    assert not question.pairs("a", "nobody", 500)[0].size


def test_of_several_numbers_of_evaluations_the_one_with_most_seeds_is_shown():
    rows = [
        *many("a", [0.4, 0.5], allowed=500),
        *many("a", [0.4], allowed=2000),
        *many("b", [0.4], allowed=500),
        *many("b", [0.4], allowed=2000),
    ]
    (question,) = questions(rows)
    assert {agent: (len(own), own[0].allowed) for agent, own in question.runs.items()} == {
        "a": (2, 500),
        "b": (1, 2000),
    }


def test_questions_are_told_apart_by_task_and_settings(tmp_path):
    rows = many("a", [0.4, 0.5])
    rows.append(dataclasses.replace(rows[0], settings={"budget": {"macs": 0.5}}))
    assert [question.title for question in questions(rows)] == [
        "tabular, params ≤ 0.25 of dense",
        "tabular, macs ≤ 0.5 of dense",
    ]
    for path in plot_agents(rows, tmp_path / "figure"):
        assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("values", "scale", "lowest"),
    [([0.0, 0.5], "symlog", -0.01), ([0.04, 0.9], "symlog", -0.01), ([0.1, 0.5], "linear", 0.05)],
)
def test_an_axis_has_room_near_0_only_where_something_comes_near(values, scale, lowest):
    axes = Figure().subplots()
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.plot([0, 1], values)
    tick_regrets(axes, "y")
    bottom, top = axes.get_ylim()
    assert axes.get_yscale() == scale
    assert lowest <= bottom <= values[0] < values[1] <= top


def test_nothing_makes_no_table_and_no_figure(tmp_path):
    with pytest.raises(ValueError, match="rows is empty"):
        to_markdown([], "x")
    with pytest.raises(ValueError, match="no result to draw"):
        plot_agents([row_of(f"{HERE}:raises")], tmp_path / "figure")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--evaluations", "0"], "--evaluations"),
        (["--limit", "cem"], "--limit"),
        (["--budget", "params=few"], "--budget"),
        (["--set", "reward"], "--set"),
        (["--agents", "nobody"], "agent='nobody'"),
        (["--tasks", "nothing"], "task='nothing'"),
        (["--set", "reward=applause"], "reward"),
    ],
)
def test_bad_input_is_refused_by_name(capsys, arguments, named):
    with pytest.raises(SystemExit) as stopped:
        main(["agents", *arguments])
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
