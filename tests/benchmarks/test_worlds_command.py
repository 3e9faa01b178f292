"""The benchmark of networks never seen: small, killed and gone on; what its table says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks.worlds.rows import WorldRow, read_rows
from benchmarks.worlds.run import run
from benchmarks.worlds.specification import POLICIES, RULES, Study, questions
from benchmarks.worlds.table import to_markdown
from pruning_agents.search.result import Search
from pruning_agents.search.rows import provenance
from pruning_agents.zero_shot.demonstrations import Question
from pruning_env.tasks.pools.storage import open_pool

SMALL = Study(
    train=1,
    judged=1,
    limits=(0.5,),
    demonstrations=2,
    demonstrator="random-search",
    episodes=2,
    searches=("random-search",),
    evaluations=(2,),
    seeds=1,
)
ORIGIN = provenance("a test")


def test_a_run_that_was_killed_goes_on_and_answers_everything_once(tmp_path: Path) -> None:
    out = tmp_path / "worlds.jsonl"
    rules = dataclasses.replace(SMALL, train=0, searches=())
    first = next(run(rules, out, ORIGIN))
    assert [*read_rows(out)] == [first.key]
    rows = list(run(rules, out, ORIGIN))
    assert first.key not in {row.key for row in rows}
    assert {row.method for row in (first, *rows)} == set(RULES)
    assert {row.question.pool for row in rows} == {"test", "unseen-families"}
    assert all(row.macs <= 0.5 and 0 <= row.test_accuracy <= 1 for row in rows)
    assert not list(run(rules, out, ORIGIN))


@pytest.mark.slow
def test_policies_and_searches_are_judged_beside_the_rules(tmp_path: Path) -> None:
    rows = list(run(SMALL, tmp_path / "worlds.jsonl", ORIGIN))
    assert {row.method for row in rows} == {*RULES, *POLICIES, "random-search"}
    assert len(list((tmp_path / "worlds").glob("*.safetensors"))) == len(POLICIES)
    assert not list(run(SMALL, tmp_path / "worlds.jsonl", ORIGIN))
    assert "imitation, 1 networks" in to_markdown(rows)


def test_a_search_pays_for_what_others_have_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[int] = []

    class Watched:
        @staticmethod
        def search(env: Any, evaluations: int, seed: int, progress: bool) -> Search:
            spent.append(env.evaluations)
            return Search(None)

    monkeypatch.setattr("benchmarks.worlds.run.get_agent", lambda name: Watched)
    study = dataclasses.replace(SMALL, train=0, evaluations=(2, 4))
    assert {row.method for row in run(study, tmp_path / "worlds.jsonl", ORIGIN)} == set(RULES)
    assert spent == [0] * 4  # two numbers of evaluations on a network of each pool


def test_a_policy_that_learned_otherwise_is_not_taken_for_the_one_that_is_asked_for(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "worlds"
    folder.mkdir()
    (folder / "imitation-1-0.json").write_text('{"study": {"demonstrations": 3}}')
    with pytest.raises(ValueError, match=r"imitation-1-0\.json is a policy that learned from"):
        next(run(SMALL, tmp_path / "worlds.jsonl", ORIGIN))


def test_policies_learn_on_as_many_networks_as_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Study] = []

    def note(study: Study, *_: object) -> list:
        asked.append(study)
        return []

    monkeypatch.setattr("benchmarks.worlds.run._policies", note)
    more = dataclasses.replace(SMALL, train=10**6, searches=())
    next(run(more, tmp_path / "worlds.jsonl", ORIGIN))
    assert asked[0].train == len(open_pool("train"))


def row(network: int, method: str, accuracy: float, limit: float = 0.5) -> WorldRow:
    question = Question("test", network, (("macs", limit),))
    return WorldRow(
        question, "plain", method, 0, 0, 0, (1,), accuracy, accuracy, 0.98, limit, ORIGIN
    )


def test_a_row_is_read_as_it_was_written() -> None:
    one = row(3, "lamp", 0.5)
    assert WorldRow.from_json(one.to_json()) == one
    with pytest.raises(ValueError, match="not a row of worlds"):
        WorldRow.from_json("{}")


def test_differences_are_paired_and_questions_that_somebody_left_open_do_not_count() -> None:
    rows = [
        *(row(n, "uniform", 0.6 + n / 10) for n in range(3)),
        *(row(n, "lamp", 0.7 + n / 10) for n in range(2)),
    ]
    text = to_markdown(rows)
    assert "| lamp | 0 | 75.0 | 75.0 |  |" in text
    assert "| uniform | 0 | 65.0 | 65.0 | -10.0 [-10.0, -10.0] |" in text
    assert "less lamp" in text and "2 of test" in text
    with pytest.raises(ValueError, match="rows is empty"):
        to_markdown([])


def test_questions_are_of_the_networks_that_there_are() -> None:
    asked = list(questions("test", 10**6, (0.3, 0.5)))
    assert len(asked) == len(set(asked)) and len(asked) % 2 == 0
    assert asked[0].options == {"network": 0, "budget": {"macs": 0.3}}
