"""The command line, run in this process on the embedded task."""

import json
import runpy
import sys

import pytest

from pruning_agents import RLPruner, agent_names
from pruning_agents.cli.main import main
from pruning_agents.search.rows import ResultRow
from pruning_env.tasks.registry import task_names
from pruning_env.tasks.storage import load_pruned, read_recipe

QUICK = ["--task", "digits-resnet8", "--no-progress"]


def train(out, *more, agent="uniform"):
    return main(["train", "--agent", agent, *QUICK, "--out", str(out), *more])


def refused(capsys, *arguments):
    """The message with which a command line is refused; 2 is the exit code of bad input."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A search by the one agent that leaves everything: row, model and agent."""
    out = tmp_path_factory.mktemp("runs") / "rl"
    arguments = ("--evaluations", "12", "--seed", "4", "--budget", "params=0.5", "--test")
    assert train(out, *arguments, agent="rl-pruner") == 0
    return out


def test_train_writes_a_row_a_model_and_an_agent(trained):
    row = ResultRow.from_json((trained / "result.json").read_text())
    assert (row.agent, row.seed, row.evaluations) == ("rl-pruner", 4, 12)
    assert row.budget == {"params": 0.5} and row.params_ratio <= 0.5
    assert row.provenance.command.startswith("cnnprune train --agent rl-pruner")
    assert row.test_accuracy is not None
    model = load_pruned(trained / "pruned")
    assert sum(each.numel() for each in model.parameters()) == row.params
    assert tuple(read_recipe(trained / "pruned").counts.values()) == row.counts
    incumbent = RLPruner.load(trained / "agent.zip").incumbent
    assert incumbent is not None and incumbent.accuracy == row.val_accuracy


def test_train_leaves_nothing_else_behind(trained):
    assert {path.name for path in trained.iterdir()} == {"result.json", "pruned", "agent.zip"}


def test_train_opens_test_only_when_asked(tmp_path):
    assert train(tmp_path / "run") == 0
    row = ResultRow.from_json((tmp_path / "run" / "result.json").read_text())
    assert row.test_accuracy is None and row.dense_test_accuracy is None


def test_an_agent_without_memory_leaves_no_agent(tmp_path):
    assert train(tmp_path, "--evaluations", "3", agent="random-search") == 0
    assert not (tmp_path / "agent.zip").exists()


def test_train_accepts_several_budgets(tmp_path):
    assert train(tmp_path, "--budget", "params=0.6", "--budget", "macs=0.5") == 0
    row = ResultRow.from_json((tmp_path / "result.json").read_text())
    assert row.budget == {"params": 0.6, "macs": 0.5}
    assert row.params_ratio <= 0.6 and row.macs_ratio <= 0.5


def test_an_earlier_result_is_replaced_only_by_force(tmp_path, capsys):
    assert train(tmp_path, "--evaluations", "12", agent="rl-pruner") == 0
    before = (tmp_path / "result.json").read_text()
    capsys.readouterr()
    message = refused(capsys, "train", "--agent", "uniform", *QUICK, "--out", str(tmp_path))
    assert "--out" in message and "--force" in message
    assert (tmp_path / "result.json").read_text() == before
    assert train(tmp_path, "--force") == 0
    assert json.loads((tmp_path / "result.json").read_text())["agent"] == "uniform"
    assert not (tmp_path / "agent.zip").exists()


def test_a_budget_that_no_pruning_meets_ends_with_1_and_writes_nothing(tmp_path, capsys):
    assert train(tmp_path / "run", "--budget", "params=0.0001") == 1
    assert "Nothing feasible" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_prune_is_uniform_by_default(tmp_path):
    assert main(["prune", "--out", str(tmp_path), "--budget", "params=0.5"]) == 0
    row = ResultRow.from_json((tmp_path / "result.json").read_text())
    assert row.agent == "uniform" and row.evaluations == 1
    kept = [count / size for count, size in zip(row.counts, row.sizes, strict=True)]
    assert max(kept) - min(kept) < 0.1


def test_prune_follows_a_saved_agent(trained, tmp_path):
    agent = str(trained / "agent.zip")
    out = str(tmp_path)
    assert main(["prune", "--agent", agent, "--budget", "params=0.5", "--out", out]) == 0
    row = ResultRow.from_json((tmp_path / "result.json").read_text())
    assert row.agent == "saved-agent" and row.params_ratio <= 0.5


def test_evaluate_finds_on_disk_what_train_reported(trained, capsys):
    row = ResultRow.from_json((trained / "result.json").read_text())
    for path in (trained, trained / "pruned"):
        assert main(["evaluate", str(path), "--test"]) == 0
        shown = capsys.readouterr().out
        for expected in (
            f"{row.val_accuracy:.2%}",
            f"{row.test_accuracy:.2%}",
            f"{row.dense_test_accuracy:.2%}",
            f"{row.params:,}",
            f"{row.macs:,}",
            "latency",
        ):
            assert expected in shown


def test_evaluate_shows_no_test_accuracy_unless_asked(trained, capsys):
    assert main(["evaluate", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "search-val accuracy" in shown and "test accuracy" not in shown


def test_tasks_and_agents_are_listed(capsys):
    assert main(["tasks"]) == 0
    assert all(name in capsys.readouterr().out for name in task_names()[:1])
    assert main(["agents"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in agent_names())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--agent", "nobody"], "--agent"),
        (["--task", "nothing"], "--task"),
        (["--budget", "params"], "--budget"),
        (["--budget", "params=much"], "--budget"),
        (["--budget", "=0.5"], "--budget"),
        (["--budget", "weight=0.5"], "budget key='weight'"),
        (["--budget", "params=1.5"], "budget['params']=1.5"),
        (["--budget", "params=-0.5"], "budget['params']=-0.5"),
        (["--budget", "params=nan"], "budget['params']=nan"),
        (["--evaluations", "0"], "--evaluations"),
        (["--evaluations", "many"], "--evaluations"),
        (["--seed", "-1"], "--seed"),
        (["--device", "abacus"], "--device"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path, capsys, arguments, named):
    message = refused(
        capsys, "train", "--agent", "uniform", "--out", str(tmp_path / "run"), *arguments
    )
    assert named in message
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    message = refused(capsys, "prune", "--out", str(tmp_path / "file"))
    assert "--out" in message and "is a file" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_an_agent_file_that_is_none_is_refused(tmp_path, capsys):
    for name, content in (("missing.zip", None), ("text.zip", b"not a zip file")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        message = refused(
            capsys, "prune", "--agent", str(tmp_path / name), "--out", str(tmp_path / "out")
        )
        assert "--agent" in message and name in message


def test_a_model_that_is_not_there_or_damaged_is_refused(trained, tmp_path, capsys):
    assert "recipe.json" in refused(capsys, "evaluate", str(tmp_path))
    for file in (trained / "pruned").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-20])
    assert "recipe.json" in refused(capsys, "evaluate", str(tmp_path))


def test_missing_data_is_refused_with_the_way_to_give_it(tmp_path, capsys):
    message = refused(
        capsys,
        *["prune", "--task", "cifar10-resnet20", "--out", str(tmp_path / "run")],
        *["--data-root", str(tmp_path), "--weights", str(tmp_path / "none.th")],
    )
    assert "none.th" in message


def test_no_command_is_refused(capsys):
    assert "COMMAND" in refused(capsys)


def test_python_m_agents_is_the_same_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cnnprune", "agents"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("pruning_agents", run_name="__main__")
    assert stopped.value.code == 0
    assert "rl-pruner" in capsys.readouterr().out
