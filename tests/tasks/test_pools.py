"""Pools of networks: drawn, built, stored and read again; what ships is what it says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pruning_env import ChannelGraph
from pruning_env.graph.serialised import facts_to_json
from pruning_env.tasks.data import load_digits8
from pruning_env.tasks.pools.making import PARAMETERS, PoolSettings, make_pool
from pruning_env.tasks.pools.network import INPUT_SHAPE, build
from pruning_env.tasks.pools.specification import FAMILIES, Specification, draw
from pruning_env.tasks.pools.storage import POOLS, SHIPPED, Pool, open_pool
from pruning_env.tasks.registry import get_task
from pruning_env.tasks.train import evaluate

SMALL = PoolSettings(networks=1, families=("plain",), epochs=6, seed=7)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "mine.json"
    make_pool(path, SMALL, "a test")
    return path


def test_a_specification_is_json_and_makes_the_same_network_again() -> None:
    for family in FAMILIES:
        spec = draw(np.random.default_rng(3), [family])
        again = Specification.from_json(json.loads(json.dumps(spec.to_json())))
        assert again == spec
        first, second = build(spec).state_dict(), build(again).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert build(spec).eval()(torch.zeros(2, *INPUT_SHAPE)).shape == (2, 10)


def test_building_leaves_the_callers_random_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build(draw(np.random.default_rng(0)))
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "odd"}, "family='odd' is unknown"),
        ({"widths": (7, 8)}, "give even numbers"),
        ({"kernels": (2, 3)}, "give odd numbers"),
        ({"blocks": (1,)}, "one number for each stage"),
        ({"family": "residual-a", "widths": (8, 6)}, "must not shrink"),
    ],
)
def test_a_bad_specification_is_refused(change: dict, message: str) -> None:
    spec = Specification("plain", (6, 8), (1, 1), (3, 3))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(spec, **change)


def test_a_pool_is_read_as_it_was_made(made: Path) -> None:
    pool = Pool(made)
    task = get_task(f"pool-{open_pool(str(made)).name}-0")
    model = task.model()
    row, splits = pool.rows[0], load_digits8()
    for name in ("train", "val", "test"):
        split = getattr(splits, {"train": "search_train", "val": "search_val"}.get(name, name))
        assert evaluate(model, splits, split)[0] == pytest.approx(row[f"{name}_accuracy"], abs=3e-3)
    traced = ChannelGraph.trace(model, task.example_input())
    assert facts_to_json(traced.facts) == facts_to_json(task.graph(model).facts)


def test_a_pool_that_was_begun_goes_on_and_one_of_other_settings_is_refused(
    made: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    for suffix in (".json", ".safetensors"):
        path.with_suffix(suffix).write_bytes(made.with_suffix(suffix).read_bytes())
    more = make_pool(path, dataclasses.replace(SMALL, networks=2), "a test")
    assert len(more) == 2 and more.rows[0] == Pool(made).rows[0]
    with pytest.raises(ValueError, match="holds a pool of other settings"):
        make_pool(path, dataclasses.replace(SMALL, seed=8), "a test")


def test_a_damaged_pool_is_refused_and_says_which_file(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    text, weights = made.read_text(), made.with_suffix(".safetensors").read_bytes()
    path.write_text(text)
    with pytest.raises(FileNotFoundError, match=r"mine\.safetensors"):
        Pool(path)
    flipped = bytearray(weights)
    flipped[-20] ^= 1
    for content in (weights[:-50], bytes(flipped)):
        path.with_suffix(".safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"network 0 of .*mine\.safetensors is damaged"):
            Pool(path).fill(0, build(Pool(path).specification(0)))
    path.with_suffix(".safetensors").write_bytes(weights)
    other = build(dataclasses.replace(Pool(made).specification(0), hidden=48))
    with pytest.raises(ValueError, match="other names or shapes"):
        Pool(path).fill(0, other)
    for broken in (text[:-40], "[]", text.replace("plain", "odd")):
        path.write_text(broken)
        with pytest.raises(ValueError, match="damaged, or no pool"):
            Pool(path)


def test_unknown_networks_are_refused() -> None:
    for name in ("pool-train-100000", "pool-train-x", "pool-nothing-0"):
        with pytest.raises(ValueError, match=r"network=100000|unknown"):
            get_task(name)


@pytest.mark.parametrize("name", POOLS)
def test_shipped_networks_are_whole_and_as_accurate_as_their_rows_say(name: str) -> None:
    pool, splits = open_pool(name), load_digits8()
    for index, row in enumerate(pool.rows):
        assert PARAMETERS[0] <= row["parameters"] <= PARAMETERS[1]
        pool.stored(index)  # of the right hash
    first = build(pool.specification(0)).eval()
    pool.fill(0, first)
    accuracy, _ = evaluate(first, splits, splits.test)
    assert accuracy == pytest.approx(pool.rows[0]["test_accuracy"], abs=3e-3)
    assert accuracy > 0.9


def test_shipped_pools_share_no_network_and_the_third_no_family() -> None:
    hashes = [row["sha256"] for name in POOLS for row in open_pool(name).rows]
    assert len(hashes) == len(set(hashes))
    families = [{row["specification"]["family"] for row in open_pool(name).rows} for name in POOLS]
    assert not families[2] & (families[0] | families[1])


def test_shipped_pools_are_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 4_000_000
