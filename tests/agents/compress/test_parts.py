"""Parts of the way alone: what groups cost, times from measurements, and escaped text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gymnasium as gym
import numpy as np
import pytest

from pruning_agents.cli.main import main
from pruning_agents.compress import page
from pruning_agents.compress.estimate import Measured
from pruning_agents.compress.rows import EvaluationRow, rows_in
from pruning_agents.compress.running import differing
from pruning_agents.compress.sensitivity import Sensitivity, draw_sensitivity
from pruning_agents.compress.stages import Request, stages_of

TIMES = Measured(
    trace=1.0,
    forward=0.01,
    pruned_forward=0.005,
    candidate=2.0,
    step=0.03,
    onnx=4.0,
    groups=6,
    train_images=1000,
    val_images=200,
    test_images=100,
)


def request(out: Path, **changes: Any) -> Request:
    asked = Request(
        out=out,
        pruned=("--task", "digits-resnet8"),
        saved=(),
        traced=("digits-resnet8",),
        environment=("--budget", "macs=0.5"),
        agent="rl-pruner-from-rules",
        evaluations=50,
        seed=0,
        training=("--epochs", "3"),
        probe_images=100,
        device="cpu",
        onnx=False,
        int8=False,
        progress=True,
    )
    return dataclasses.replace(asked, **changes)


def test_times_are_sums_of_what_was_measured(tmp_path):
    assert TIMES.evaluation == 2.0 + 200 * 0.005
    assert TIMES.evaluations_in(60) == 20 and TIMES.evaluations_in(1) == 1
    seconds = TIMES.seconds(request(tmp_path), epochs=3)
    assert seconds["rules"] == 8 * 3.0 and seconds["search"] == 42 * 3.0
    assert seconds["finetune"] == pytest.approx(3 * (1000 * 0.03 + 200 * 0.005))
    assert seconds["certify"] == pytest.approx(300 * 0.02)
    assert seconds["sensitivity"] == pytest.approx(6 * 4 * 100 * 0.01)
    assert set(seconds) >= {stage.name for stage in stages_of(request(tmp_path))}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["rules", "search", "finetune", "certify"]),
        ({"evaluations": 8}, ["rules", "finetune", "certify"]),
        ({"agent": "best-of-rules"}, ["rules", "finetune", "certify"]),
        ({"onnx": True}, ["rules", "search", "finetune", "certify", "export"]),
    ],
)
def test_stages_that_are_not_asked_for_are_left_out(changes, names, tmp_path):
    stages = stages_of(request(tmp_path, **changes))
    assert [stage.name for stage in stages] == ["graph", "sensitivity", *names]


def test_a_search_that_learns_is_resumed_and_another_is_begun_anew(tmp_path):
    words = {
        agent: next(s for s in stages_of(request(tmp_path, agent=agent)) if s.name == "search")
        for agent in ("rl-pruner", "random-search")
    }
    assert "--resume" in words["rl-pruner"].words()
    assert "--resume" not in words["random-search"].words()


def test_arguments_that_differ_are_named_in_their_order():
    before = {"epochs": 3, "mean": [0.5], "seed": 0}
    assert differing(before, {"mean": (0.5,), "epochs": 4, "seed": 0, "int8": True}) == [
        "epochs",
        "int8",
    ]


def test_text_cannot_become_markup():
    made = page.page("<b>", [page.paragraph("a<c>"), page.table(["<d>"], [["<e>"]])])
    made += page.bars([("<f>", 1, 2)]) + page.code("<g>") + page.section("<h>")
    assert not any(f"<{letter}>" in made for letter in "bcdefgh")


def test_what_a_group_costs_alone_is_what_pruning_it_costs(tmp_path):
    arguments = ["--out", str(tmp_path), "--probe-images", "100", "--no-progress"]
    assert main(["sensitivity", *arguments]) == 0
    found = Sensitivity.from_json((tmp_path / "sensitivity.json").read_text())
    env: Any = gym.make("CNNPrune-v0", recovery="none", importance_images=100).unwrapped
    dynamics, graph = env.dynamics, env.graph
    for group, drops in enumerate(found.drops):
        counts = graph.sizes.copy()
        counts[group] -= dynamics.units.left(graph.sizes)[group]
        keep = graph.keep_top(dynamics.rank, counts)
        dense, pruned = env.evaluator.rehearse_many([graph.full(), keep])
        assert found.accuracy == dense.accuracy and found.images == 100
        assert drops[-1] >= dense.accuracy - pruned.accuracy - 1e-12  # never falling
        assert list(drops) == sorted(drops)
    assert any(drops[-1] > 0.3 for drops in found.drops)
    root = ElementTree.fromstring((tmp_path / "sensitivity.svg").read_text())
    assert root.tag.endswith("svg")


def test_the_map_has_a_number_for_each_group_and_share():
    drops = ((0.01, 0.02), (0.25, 0.5), (0.1, 0.3))
    names = ("a", "b", "a.very.long.name.of.a.layer.in.some.block")
    found = Sensitivity("task", 10, 0.9, "none", names, (0.5, 1.0), drops)
    axes = draw_sensitivity(found).axes[0]
    written = [text.get_text() for text in axes.texts]
    assert written == [f"{100 * each:.0f}" for row in drops for each in row]
    assert np.array(axes.images[0].get_array()).shape == (3, 2)
    assert max(len(label.get_text()) for label in axes.get_yticklabels()) <= 26


def test_a_file_of_other_rows_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="holds no EvaluationRow"):
        rows_in(tmp_path / "rows.jsonl", EvaluationRow)
