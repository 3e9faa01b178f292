"""`cnnprune train` with agents that learn: flags, checkpoints, and going on after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import gymnasium as gym
import pytest

from pruning_agents import RLPruner
from pruning_agents.cli.main import main
from pruning_agents.search.rows import ResultRow
from pruning_env.tasks.storage import load_pruned
from tests.helpers.learners import LEARNERS, learner_of, same_parameters
from tests.helpers.paths import ROOT

TABULAR = ["--env", "CNNPruneTabular-v0", "--no-progress"]


def train(out, *more, agent="ppo"):
    return main(["train", "--agent", agent, "--out", str(out), "--no-progress", *more])


def row_of(out):
    return ResultRow.from_json((out / "result.json").read_text())


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


def left_in(out):
    return {path.name for path in out.iterdir()}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_agent_that_learns_trains_and_can_be_followed(name, tmp_path):
    flags = ["--budget", "params=0.5", "--evaluations", "12"]
    environment = ["--round-to", "5", "--recovery", "none", "--reward", "final"]
    if name == "ppo-lagrangian":
        environment += ["--constraint", "cost", "--max-steps", "2", "--action", "ratio"]
    else:
        environment += ["--channels-per-step", "0.3"]
    assert train(tmp_path / "run", *flags, *environment, agent=name) == 0
    row = row_of(tmp_path / "run")
    assert (row.agent, row.evaluations, row.budget) == (name, 12, {"params": 0.5})
    assert row.settings["round_to"] == 5 and row.settings["recovery"] == "none"
    assert left_in(tmp_path / "run") == {"result.json", "pruned", "agent.zip"}
    followed = ["prune", "--agent", str(tmp_path / "run" / "agent.zip"), "--budget", "params=0.5"]
    code = main([*followed, *environment, "--out", str(tmp_path / "followed")])
    # What an agent that learns costs does at last may still be infeasible.
    assert code == 0 or name == "ppo-lagrangian"


def test_a_search_in_the_table_delivers_the_network_behind_it(tmp_path):
    assert train(tmp_path, *TABULAR, "--evaluations", "70", "--budget", "params=0.3") == 0
    row = row_of(tmp_path)
    assert row.task == "digits-resnet8" and row.settings["round_to"] == 5
    assert row.evaluations == 70 and row.params_ratio <= 0.3
    model = load_pruned(tmp_path / "pruned")
    assert sum(each.numel() for each in model.parameters()) == row.params


def test_tables_and_baselines_go_together(tmp_path):
    assert train(tmp_path, *TABULAR, "--evaluations", "5", agent="random-search") == 0
    assert row_of(tmp_path).evaluations == 5


LONG = ["--evaluations", "400", "--seed", "5", "--checkpoint-every", "64", *TABULAR]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of a run that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(out, *LONG) == 0
    return out


def killed_run(out):
    """Start the same run in a process of its own, and kill it after its first checkpoint."""
    command = [sys.executable, "-m", "pruning_agents", "train", "--agent", "ppo", "--out", str(out)]
    process = subprocess.Popen([*command, *LONG], cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoint.zip").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_a_run_that_is_killed_and_resumed_ends_in_the_same_result(whole, tmp_path, capsys):
    out = tmp_path / "run"
    killed_run(out)
    assert not (out / "result.json").exists()
    checkpoint = out / "checkpoint.zip"
    command = ["train", "--agent", "ppo", "--out", str(out), *LONG]
    message = refused(capsys, *command)
    assert "--resume" in message and "--force" in message and checkpoint.exists()
    other = refused(capsys, *command, "--resume", "--seed", "6")
    assert "seed is 5 there and 6 here" in other and checkpoint.exists()

    half_written = out / ".checkpoint-1-abcd.zip"
    half_written.write_bytes(b"half")
    assert main([*command, "--resume"]) == 0
    row, expected = row_of(out), row_of(whole)
    for name in ("counts", "history", "evaluations", "val_accuracy", "budget", "settings"):
        assert getattr(row, name) == getattr(expected, name)
    load = learner_of("ppo").algorithm.load
    agent, undisturbed = load(out / "agent.zip"), load(whole / "agent.zip")
    assert same_parameters(agent, undisturbed)
    assert agent.num_timesteps == undisturbed.num_timesteps
    assert left_in(out) == left_in(whole) == {"result.json", "pruned", "agent.zip"}


def test_resuming_what_is_finished_changes_nothing(whole, capsys):
    before = (whole / "result.json").read_bytes()
    command = ["train", "--agent", "ppo", "--out", str(whole), *LONG, "--resume"]
    assert main(command) == 0
    assert "finished already" in capsys.readouterr().out
    assert (whole / "result.json").read_bytes() == before
    assert "--force" in refused(capsys, *command, "--seed", "6")


def test_resuming_before_the_first_checkpoint_begins_anew(tmp_path):
    assert train(tmp_path, *TABULAR, "--evaluations", "30", "--resume") == 0
    assert row_of(tmp_path).evaluations == 30


def test_a_damaged_checkpoint_is_refused_and_force_begins_anew(tmp_path, capsys):
    (tmp_path / "checkpoint.zip").write_bytes(b"PK half of it")
    command = ["train", "--agent", "ppo", "--out", str(tmp_path), *TABULAR, "--evaluations", "30"]
    assert "delete it to begin anew" in refused(capsys, *command, "--resume")
    assert main([*command, "--force"]) == 0
    assert left_in(tmp_path) == {"result.json", "pruned", "agent.zip"}


def test_the_best_model_so_far_is_there_before_the_end(tmp_path, monkeypatch):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("pruning_agents.cli.train.deliver", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *TABULAR, "--evaluations", "150", "--checkpoint-every", "50")
    assert left_in(tmp_path) == {"checkpoint.zip", "pruned"}
    load_pruned(tmp_path / "pruned")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--agent", "cem", "--resume"], "--resume: agent 'cem' does not learn"),
        (["--agent", "cem", "--checkpoint-every", "5"], "--checkpoint-every"),
        (["--agent", "cem", "--tensorboard", "logs"], "--tensorboard"),
        (["--agent", "ppo", "--checkpoint-every", "0"], "--checkpoint-every"),
        (["--agent", "ppo-lagrangian"], "--constraint cost --max-steps 2 --action ratio"),
        (["--agent", "ppo", "--action", "ratio"], "max_steps=None"),
        (["--agent", "ppo", "--action", "jump"], "--action"),
        (["--agent", "ppo", "--max-steps", "0"], "--max-steps"),
        (["--agent", "ppo", "--channels-per-step", "much"], "--channels-per-step"),
        (["--agent", "ppo", "--channels-per-step", "3"], "channels_per_step=3"),
        (["--agent", "sac", "--action", "counts", "--max-steps", "1"], "continuous actions"),
        ([*TABULAR, "--agent", "ppo", "--importance", "l1"], "does not take --importance"),
        ([*TABULAR, "--agent", "ppo", "--task", "cifar10-resnet20"], "--task digits-resnet8"),
        ([*TABULAR, "--agent", "ppo", "--budget", "latency=0.5"], "latency"),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path, capsys, arguments, named):
    message = refused(capsys, "train", "--out", str(tmp_path / "run"), *arguments)
    assert named in " ".join(message.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("agent", ["ppo", "rl-pruner"])
def test_training_can_be_followed_in_tensorboard(agent, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logs = tmp_path / "logs"
    arguments = ("--evaluations", "200", "--tensorboard", str(logs))
    assert train(tmp_path, *TABULAR, *arguments, agent=agent) == 0
    (run,) = logs.iterdir()
    assert len(list(run.iterdir())) == 1
    events = accumulator.EventAccumulator(str(run)).Reload()
    spent = [event.value for event in events.Scalars("search/evaluations")]
    assert spent == sorted(spent) and 0 < spent[-1] <= 200
    assert {"search/incumbent_accuracy", "rollout/ep_rew_mean"} <= set(events.Tags()["scalars"])


def test_without_tensorboard_the_flag_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused(
        *[capsys, "train", "--agent", "ppo", *TABULAR, "--out", str(tmp_path / "run")],
        *["--tensorboard", str(tmp_path)],
    )
    assert "tensorboard is not installed" in message


def test_an_agent_file_without_a_name_is_taken_for_an_rl_pruner(tmp_path):
    agent = RLPruner("DistributionPolicy", gym.make("CNNPrune-v0"), seed=0)
    agent.save(tmp_path / "mine.zip")
    assert main(["prune", "--agent", str(tmp_path / "mine.zip"), "--out", str(tmp_path / "o")]) == 0
