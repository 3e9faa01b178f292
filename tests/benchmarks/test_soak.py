"""The soak: many steps in one process; nothing grows and nothing drifts."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import soak
from benchmarks.__main__ import main
from benchmarks.soak import BOUND_MIB, SoakRow, digest_of, slope_of, to_markdown
from pruning_agents.search.rows import Provenance

ORIGIN = Provenance("python -m benchmarks soak", "now", {"python": "3"}, "a machine", None)

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="Linux counts memory so"
)


@pytest.fixture(scope="module")
def row() -> SoakRow:
    return soak.soak("CNNPruneTabular-v0", 1_000, 0, ORIGIN, samples=5)


def test_a_row_counts_what_was_done_and_survives_the_file(row: SoakRow) -> None:
    assert row.steps == row.replayed == 1_000 and row.same
    assert 0 < row.episodes < 1_000 and row.evaluations > row.episodes
    assert len(row.memory_mib) == 6 and all(each > 0 for each in row.memory_mib)
    assert SoakRow.from_json(row.to_json()) == row


def test_the_digest_is_that_of_the_steps_and_depends_on_the_seed(row: SoakRow) -> None:
    env = gym.make("CNNPruneTabular-v0", disable_env_checker=True)
    assert digest_of(env, 0) == row.digest != digest_of(env, 1)
    assert row.digest != hashlib.sha256().hexdigest()


def test_an_environment_that_drifts_or_grows_does_not_pass(row: SoakRow) -> None:
    assert dataclasses.replace(row, same=True, grown_mib=BOUND_MIB).passed
    assert not dataclasses.replace(row, same=False, grown_mib=0.0).passed
    assert not dataclasses.replace(row, same=True, grown_mib=BOUND_MIB + 0.1).passed


def test_an_environment_whose_rewards_drift_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from pruning_env.tabular.env import CNNPruneTabularEnv

    step, count = CNNPruneTabularEnv.step, iter(range(10**9))

    def drifting(self: Any, action: Any) -> Any:
        observation, reward, *rest = step(self, action)
        return (observation, reward + 1e-12 * (next(count) > 900), *rest)

    monkeypatch.setattr(CNNPruneTabularEnv, "step", drifting)
    assert not soak.soak("CNNPruneTabular-v0", 1_000, 0, ORIGIN, samples=5).same


def test_the_slope_is_of_what_follows_the_filling_of_the_caches() -> None:
    steps = np.linspace(0, 1e5, 51)
    flat = np.where(steps < 2e4, steps, 2e4)
    assert slope_of(list(flat), 100_000) == pytest.approx(0.0, abs=1e-9)
    assert slope_of(list(flat + 3e-4 * steps), 100_000) == pytest.approx(3e-4)


def test_the_table_has_a_line_per_environment(row: SoakRow) -> None:
    other = dataclasses.replace(row, environment="CNNPrune-v0", same=False)
    text = to_markdown([row, other])
    assert text.count("| CNNPrune") == 2 and "NOT the same" in text and "a machine" in text


def test_too_few_steps_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["soak", "--steps", "10", "--out", str(tmp_path / "soak.jsonl")])
    assert "steps=10; at least 1000 are needed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ten_thousand_steps_of_each_environment_pass(tmp_path: Path) -> None:
    out = tmp_path / "soak.jsonl"
    assert main(["soak", "--steps", "10000", "--out", str(out)]) == 0
    rows = [SoakRow.from_json(line) for line in out.read_text().splitlines()]
    assert {row.environment for row in rows} == set(soak.ENVIRONMENTS)
    assert all(row.passed and row.steps == 10_000 for row in rows)
    assert out.with_suffix(".md").exists()
