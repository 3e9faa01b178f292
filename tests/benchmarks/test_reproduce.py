"""The published tables: their cells, what a cell does with the splits, and what it leaves."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.reproduce.cell import RunContext, replay, run_cell
from benchmarks.reproduce.cells import TABLES, plan, smoke_cells
from benchmarks.reproduce.estimate import cell_minutes, train_minutes
from benchmarks.reproduce.published import RL_PRUNER, RL_PRUNER_DENSE
from benchmarks.reproduce.recover import draw_anew, filters_cut, recover, round_to_half
from benchmarks.reproduce.rows import ReproduceRow, read_rows
from benchmarks.reproduce.run import RunSettings, run_cells
from benchmarks.reproduce.specification import Cell, Recovery
from benchmarks.reproduce.table import to_markdown
from benchmarks.training.recipes import BaseRecipe
from pruning_agents.search.rows import provenance
from pruning_env.evaluation.metrics import Metrics
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import load_digits8
from pruning_env.tasks.models import CifarMobileNetV3, CifarVGG
from pruning_env.tasks.registry import get_task
from pruning_env.tasks.storage import load_pruned, read_recipe
from tests.helpers.paths import ROOT

#: A cell of real data and weights that takes a second or two.
DIGITS = Cell(
    "cpu",
    "digits-resnet8",
    "25 %",
    {"params": 0.25},
    "random-search",
    0,
    3,
    {"constraint": "project", "max_steps": 1, "reward": "final"},
    Recovery(epochs=3, lr=0.02, batch_size=64, warmup_epochs=1),
)
CONTEXT = RunContext(progress=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A row, and the folder of its network."""
    folder = tmp_path_factory.mktemp("cell") / "network"
    return run_cell(DIGITS, CONTEXT, folder, provenance("a test")), folder


def test_recovery_brings_back_what_pruning_cost_within_the_budget(done):
    row, _ = done
    assert row.failed == "" and row.evaluations == 3
    assert row.pruned.params_share <= 0.25
    assert row.pruned.val_accuracy > row.pruned.before_val + 0.05
    assert 1 <= row.pruned.epoch <= 3
    assert row.pruned.test_accuracy > 0.8 and row.dense_test > 0.97
    assert 0.2 < row.pruned.filters_cut < 1


def test_test_is_opened_by_the_dense_and_by_the_pruned_network_and_no_more(done):
    assert done[0].test_openings == 2


def test_the_stored_network_is_the_one_that_was_judged(done):
    row, folder = done
    assert replay(row, folder, CONTEXT) == row.pruned.test_accuracy
    model = load_pruned(folder)
    assert model.get_parameter("conv1.weight").dtype == torch.float16
    assert model.get_buffer("bn1.running_var").dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == row.pruned.params
    assert read_recipe(folder).extra["cell"]["budget"] == {"params": 0.25}


def test_a_network_that_is_not_the_rows_is_refused(done):
    row, folder = done
    other = dataclasses.replace(row.pruned, weights_sha256="0" * 64)
    with pytest.raises(ValueError, match="the row has another network's"):
        replay(dataclasses.replace(row, pruned=other), folder, CONTEXT)


def test_rows_survive_the_file_and_equal_cells_are_not_run_again(done, tmp_path, monkeypatch):
    row, _ = done
    assert ReproduceRow.from_json(row.to_json()) == row
    (tmp_path / "cpu.jsonl").write_text(row.to_json() + "\n" + row.to_json()[:50])
    with pytest.warns(UserWarning, match="not complete"):
        assert read_rows(tmp_path / "cpu.jsonl") == {DIGITS.key: row}
    (tmp_path / "cpu.jsonl").write_text(row.to_json() + "\n")
    ran = []

    def fake(cell, *rest):
        ran.append(cell)
        return dataclasses.replace(row, cell=cell)

    monkeypatch.setattr("benchmarks.reproduce.run.run_cell", fake)
    other = dataclasses.replace(DIGITS, seed=1)
    settings = RunSettings(tmp_path, CONTEXT)
    rows = run_cells("cpu", [DIGITS, other], settings, "", Console(quiet=True))
    assert ran == [other] and [each.cell for each in rows] == [DIGITS, other]
    assert "random-search | 2 |" in (tmp_path / "cpu.md").read_text()
    (tmp_path / "cpu.md").unlink()
    run_cells("cpu", [DIGITS, other], settings, "", Console(quiet=True))
    assert ran == [other]
    assert "random-search | 2 |" in (tmp_path / "cpu.md").read_text(), "made anew from the rows"
    late = RunSettings(tmp_path, CONTEXT, minutes=0)
    run_cells("cpu", [dataclasses.replace(DIGITS, seed=2)], late, "", Console(quiet=True))
    assert ran == [other]
    (tmp_path / "cpu.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"cpu\.jsonl:1: not a row"):
        read_rows(tmp_path / "cpu.jsonl")


def test_recovery_goes_on_from_its_last_epoch(tmp_path):
    splits, task = load_digits8(), get_task("digits-resnet8")
    teacher, path = task.model(), tmp_path / "checkpoint"
    settings = Recovery(epochs=3, lr=0.01, batch_size=50, warmup_epochs=0, images=100)
    seen: list[int] = []

    class Stopped(Exception):
        pass

    def judge(network, stop_at=None):
        seen.append(len(seen))
        if len(seen) == stop_at:
            raise Stopped
        return Metrics(0.5, 1 / len(seen))  # later is better

    whole = task.model()
    assert recover(whole, teacher, splits, settings, judge, seed=0).epoch == 3
    seen.clear()
    with pytest.raises(Stopped):
        recover(
            task.model(),
            teacher,
            splits,
            settings,
            lambda network: judge(network, 4),
            seed=0,
            checkpoint=path,
        )
    assert path.is_file()
    model = task.model()
    kept = recover(model, teacher, splits, settings, judge, seed=0, checkpoint=path)
    assert kept.epoch == 3 and len(seen) == 5  # one epoch was left
    pairs = zip(whole.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_rounding_leaves_vectors_and_what_half_precision_holds():
    model = CifarVGG(11)
    bias = model.get_parameter("features.0.bias").clone()
    round_to_half(model)
    weight = model.get_parameter("features.0.weight").clone()
    assert torch.equal(weight, weight.half().float())
    assert torch.equal(model.get_parameter("features.0.bias"), bias)
    round_to_half(model)
    assert torch.equal(model.get_parameter("features.0.weight"), weight)


def test_filters_are_counted_as_rl_pruner_does():
    model = CifarVGG(19, num_classes=100, hidden=64).eval()
    graph = ChannelGraph.trace(model, torch.zeros(1, 3, 32, 32))
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    # 5,504 filters and 2 x 64 neurons; every channel is one of them.
    assert graph.num_channels == 5_504 + 128
    cut = filters_cut(model, graph.prune(model, keep))
    assert cut == pytest.approx(1 - keep.sum() / graph.num_channels)
    mobile = CifarMobileNetV3().eval()
    assert filters_cut(mobile, mobile) == 0


def test_the_published_figure_is_read_whole():
    assert {len(levels) for levels in RL_PRUNER.values()} == {4} and len(RL_PRUNER) == 5
    assert set(RL_PRUNER_DENSE) == set(RL_PRUNER)
    vgg = RL_PRUNER["cifar100-vgg19"][80]
    assert [(row.accuracy, row.macs_cut, row.params_cut) for row in vgg] == [
        (71.25, 55.71, 89.34),
        (71.51, 53.96, 90.38),
        (71.67, 56.84, 91.44),
    ]
    mobile = RL_PRUNER["cifar100-mobilenetv3"][20][2]
    assert (mobile.accuracy, mobile.macs_cut, mobile.params_cut) == (56.76, 33.12, 36.51)


def test_a_cell_keeps_the_share_of_filters_that_its_row_names():
    cells = plan("rl-pruner", seeds=(0,), methods=("rl-pruner",))
    assert len(cells) == 20
    for cell in cells:
        assert cell.budget == {"filters": pytest.approx(1 - int(cell.label.split()[0]) / 100)}


def test_the_papers_own_method_runs_its_own_recipe_with_each_of_its_rewards():
    cells = plan("rl-pruner", seeds=(0,), tasks=("cifar100-resnet56",))
    own = [cell for cell in cells if cell.method == "rl-pruner-published"]
    assert own == cells[: len(own)] and len(own) == 12
    rewards = {tuple(cell.settings["reward_arguments"].values()) for cell in own}
    assert rewards == {(0.0, 0.0), (0.25, 0.0), (0.0, 0.25)}
    for cell in own:
        assert cell.settings["filters_per_step"] == 0.01
        assert (cell.settings["recovery"], cell.settings["recover_when"]) == ("finetune", "commit")
        # 100 candidates for each step of 1 %.
        assert cell.evaluations > 100 * int(cell.label.split()[0])
    assert cell_minutes(own, "cuda") > 0


def test_the_tables_begin_with_what_they_are_about():
    first = plan("constrained-rl")[0]
    assert (first.task, first.budget) == ("cifar10-vgg16", {"params": 0.07})
    assert first.method == "ppo-lagrangian" and first.settings["constraint"] == "cost"
    amc = plan("amc")
    assert {(cell.task, cell.budget["macs"]) for cell in amc} == {("cifar10-resnet56", 0.5)}
    assert [cell.seed for cell in amc[:4]] == [0, 1, 2, 0]
    every = [cell for table in TABLES for cell in plan(table)]
    assert len({cell.key for cell in every}) == len(every)
    assert len({(cell.table, cell.slug) for cell in every}) == len(every)


def test_trained_networks_are_compared_with_the_best_rule_seed_by_seed():
    cells = plan("after-training")
    assert (cells[0].task, cells[0].method) == ("cifar10-resnet20", "best-of-rules")
    groups = {(cell.task, cell.label, cell.seed) for cell in cells}
    rules = {(cell.task, cell.label, cell.seed) for cell in cells if cell.method == "best-of-rules"}
    assert groups == rules
    assert {cell.seed for cell in plan("after-training", seeds=range(20))} == set(range(10))
    of_one = plan("after-training", tasks=("cifar10-resnet20",))
    assert of_one == [cell for cell in cells if cell.task == "cifar10-resnet20"]
    epochs = [cell.recovery.epochs for cell in of_one]
    assert epochs == sorted(epochs), "what more epochs give is asked when all seeds have few"
    inner = [cell for cell in cells if cell.who == "uniform-inner"]
    assert inner and all(cell.settings["groups"] == "inner" for cell in inner)
    trained = [cell for cell in cells if cell.who.endswith("-20-steps")]
    assert {cell.method for cell in trained} == {"best-of-rules", "rl-pruner"}
    assert all(cell.settings["recovery"] == "finetune" for cell in trained)
    assert not any(cell.who.endswith("steps") for cell in plan("constrained-rl"))
    half = next(cell for cell in cells if cell.task.endswith("56") and cell.budget["macs"] == 0.5)
    assert "CHIP, Sui et al. 2021" in {row.method for row in half.published}
    assert all(row.macs_cut == 50 for row in half.published)
    with pytest.raises(ValueError, match=r"methods=\['cem'\]: table after-training has best-of"):
        plan("after-training", methods=("cem",))


def test_the_table_of_trained_networks_says_what_is_left_of_a_gain(done):
    row = done[0]
    cell = dataclasses.replace(DIGITS, table="after-training", label="params 25 %, 3 epochs")
    rows = []
    for seed, gain in enumerate((0.01, 0.02, 0.03)):
        for method, more in (("best-of-rules", 0.0), ("rl-pruner", gain)):
            pruned = dataclasses.replace(row.pruned, test_accuracy=0.9 + more, before_val=0.5)
            own = dataclasses.replace(cell, method=method, seed=seed)
            rows.append(dataclasses.replace(row, cell=own, pruned=pruned))
    text = to_markdown("after-training", rows)
    assert "| rl-pruner | 3 | +0.00 (+0.00 to +0.00) | +2.00 (+1.00 to +3.00) |" in text
    few = to_markdown("after-training", rows[:2])
    assert "| rl-pruner | 1 | +0.00 | +1.00 |" in few


def test_a_cell_that_was_killed_while_it_trained_is_not_searched_again(tmp_path, monkeypatch):
    cell = dataclasses.replace(DIGITS, recovery=dataclasses.replace(DIGITS.recovery, epochs=2))
    whole = run_cell(cell, CONTEXT, tmp_path / "whole", provenance("a test"))

    class Stopped(Exception):
        pass

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.reproduce.cell.recover", stop)
        with pytest.raises(Stopped):
            run_cell(cell, CONTEXT, tmp_path / "cut", provenance("a test"))
    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.reproduce.cell.get_agent", stop)
        row = run_cell(cell, CONTEXT, tmp_path / "cut", provenance("a test"))
        with pytest.raises(Stopped):  # what was kept is of another question
            other = dataclasses.replace(cell, seed=1)
            run_cell(other, CONTEXT, tmp_path / "cut", provenance("a test"))
    assert row.pruned == whole.pruned and row.evaluations == whole.evaluations
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "cut", "answers"}


def test_weights_drawn_anew_are_those_of_an_untrained_network_of_the_same_shape():
    model = get_task("digits-resnet8").model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draw_anew(model, 3)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not torch.equal(first["conv1.weight"], before["conv1.weight"])
    assert torch.equal(first["bn1.running_mean"], torch.zeros_like(first["bn1.running_mean"]))
    draw_anew(model, 3)
    assert all(torch.equal(tensor, first[name]) for name, tensor in model.state_dict().items())


def test_what_a_table_does_not_have_is_named():
    with pytest.raises(ValueError, match="table='imagenet' is not known"):
        plan("imagenet")
    with pytest.raises(ValueError, match=r"tasks=\['digits'\]: table amc has cifar10-resnet56"):
        plan("amc", tasks=("digits",))
    with pytest.raises(ValueError, match="agent='nobody' is not known"):
        plan("amc", methods=("nobody",))


def test_smoke_has_every_method_and_every_network_of_each_table():
    for table in TABLES:
        whole, smoke = plan(table), smoke_cells(table)
        assert {cell.method for cell in smoke} == {cell.method for cell in whole}
        assert {cell.task for cell in smoke} == {f"smoke-{cell.task}" for cell in whole}


def test_estimates_grow_with_the_work():
    small = dataclasses.replace(DIGITS, task="cifar10-resnet20", budget={"macs": 0.5})
    minutes = cell_minutes([small], "cuda")
    assert cell_minutes([small, small], "cuda") == pytest.approx(2 * minutes)
    more = dataclasses.replace(small, recovery=dataclasses.replace(small.recovery, epochs=6))
    assert minutes < cell_minutes([more], "cuda") < 2 * minutes + 1
    assert cell_minutes([small], "cpu") > minutes > 0
    # 200 epochs of 351 steps of 128 images; 3 x 40.8 million each; 15e9 a second.
    recipe = BaseRecipe(epochs=200, batch_size=128)
    expected = 200 * 351 * 128 * 3 * 40.81e6 / 1.5e10 / 60
    assert train_minutes("cifar10-resnet20", recipe, "cpu") == pytest.approx(expected, rel=0.01)


def test_estimate_of_the_command_runs_nothing(tmp_path, capsys):
    command = ["reproduce", "rl-pruner", "--device", "cuda", "--estimate", "--out", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "cifar100-googlenet rl-pruner: 12 cells" in said and "nothing was measured" in said
    assert not any(tmp_path.iterdir())


def test_missing_weights_name_the_command_that_makes_them(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "constrained-rl", "--out", str(tmp_path), "--data-root", str(tmp_path)])
    assert stopped.value.code == 2
    assert "benchmarks train --task cifar10-vgg16" in capsys.readouterr().err


def test_the_table_has_the_published_numbers_and_says_whose_they_are(done):
    row = done[0]
    cell = dataclasses.replace(DIGITS, table="rl-pruner", task="cifar100-resnet56", label="60 %")
    text = to_markdown("rl-pruner", [dataclasses.replace(row, cell=cell)])
    assert "| *RL-Pruner (acc reward)* | 1 | 72.25 | - | 59.65 | 89.32 | 87.02 |" in text
    assert f"| random-search | 1 | {100 * row.dense_test:.2f} |" in text
    assert "published numbers, not ours" in text and "mean nothing" not in text
    smoke = dataclasses.replace(cell, task="smoke-cifar100-resnet56")
    assert "mean nothing" in to_markdown("rl-pruner", [dataclasses.replace(row, cell=smoke)])


def test_the_script_of_all_tables_is_valid_bash():
    script = ROOT / "benchmarks" / "gpu_reproduce.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_every_kind_of_cell_runs_small(table, tmp_path, capsys):
    command = ["reproduce", table, "--smoke", "--out", str(tmp_path)]
    assert main(command) == 0
    rows = [json.loads(line) for line in (tmp_path / f"{table}.jsonl").read_text().splitlines()]
    assert len(rows) == len(smoke_cells(table))
    assert all(row["failed"] == "" for row in rows if row["cell"]["method"] != "ppo-lagrangian")
    assert main([*command[:2], "--replay", "--out", str(tmp_path)]) == 0
    assert "DIFFERS" not in capsys.readouterr().out
