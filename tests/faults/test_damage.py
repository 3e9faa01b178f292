"""Files that are damaged, altered, or made to harm whoever opens them."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pruning_agents.cli.main import main
from pruning_agents.comparison.rows import AgentRow, Anchors
from pruning_agents.search.checkpoints import Identity, load_checkpoint
from pruning_agents.search.rows import Provenance, ResultRow
from pruning_agents.stock.settings import read_settings
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tabular.table import load_table
from pruning_env.tasks.data import load_cifar10, load_mnist, load_npz
from pruning_env.tasks.models import load_state_file
from pruning_env.tasks.registry import Task, get_task, register_task
from pruning_env.tasks.storage import RECIPE_FILE, load_pruned, read_recipe, save_pruned
from pruning_env.tasks.storage import _checksum as checksum

ROOT = Path(__file__).parents[2]


class Bomb:
    """Unpickled by an unsafe reader, this makes a folder."""

    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.crater),)


@pytest.fixture
def crater(tmp_path: Path) -> Any:
    """Where a bomb that goes off leaves its mark; at the end there must be none."""
    path = tmp_path / "crater"
    yield path
    assert not path.exists(), "the file ran code"


def objects(crater: Path) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = Bomb(crater)
    return array


# Pickle bombs


def test_the_bomb_is_live(tmp_path: Path) -> None:
    np.savez(tmp_path / "bomb.npz", x=objects(tmp_path / "crater"))
    with np.load(tmp_path / "bomb.npz", allow_pickle=True) as archive:
        archive["x"]
    assert (tmp_path / "crater").is_dir()


def test_a_data_file_with_objects_is_refused(tmp_path: Path, crater: Path) -> None:
    bomb = objects(crater)
    np.savez(tmp_path / "mine.npz", x_train=bomb, y_train=bomb, x_test=bomb, y_test=bomb)
    with pytest.raises(ValueError, match=r"mine\.npz: not a readable \.npz file without objects"):
        load_npz("mine", tmp_path)


def test_a_table_with_objects_is_refused(tmp_path: Path, crater: Path) -> None:
    np.savez(tmp_path / "table.npz", provenance=objects(crater))
    with pytest.raises(ValueError, match=r"table\.npz' is no whole table"):
        load_table(tmp_path / "table.npz")


def test_cifar10_batches_that_are_not_the_published_ones_are_never_unpickled(
    tmp_path: Path, crater: Path
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps({"data": Bomb(crater), "labels": [0]}))
    with pytest.raises(ValueError, match=r"CIFAR-10.*incomplete or damaged"):
        load_cifar10(tmp_path)


def test_mnist_in_torchvisions_old_format_is_not_unpickled(tmp_path: Path, crater: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    folder = tmp_path / "MNIST" / "processed"
    folder.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((Bomb(crater), Bomb(crater)), folder / name)
    with pytest.raises(ValueError, match=r"MNIST.*incomplete or damaged"):
        load_mnist(tmp_path)


def test_settings_in_yaml_make_no_objects(tmp_path: Path, crater: Path) -> None:
    path = tmp_path / "ppo.yaml"
    path.write_text(f"default: !!python/object/apply:os.mkdir [{crater}]\n")
    with pytest.raises(ValueError, match=r"ppo\.yaml"):
        read_settings(path, "digits-resnet8", ())


UNPICKLERS = {"agents/pruning_agents/search/checkpoints.py", "benchmarks/cheaters.py"}
"""Modules that unpickle: the one what it reads, as its docstring and the command line's help say,
the other what it has pickled itself.
"""


def calls() -> Any:
    for package in ("pruning_env", "agents", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def test_no_reader_in_the_code_unpickles_but_those_that_say_so() -> None:
    found = set()
    for path, function, node in calls():
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        where = f"{path}:{node.lineno}"
        if function == "torch.load":
            assert options.get("weights_only") == "True", where
        if function in ("np.load", "numpy.load"):
            assert options.get("allow_pickle") == "False", where
        assert function not in ("eval", "exec", "yaml.load", "yaml.unsafe_load"), where
        if function in ("pickle.load", "pickle.loads"):
            found.add(path)
    assert found == UNPICKLERS


@pytest.mark.parametrize("command", ["train", "prune"])
def test_what_is_unpickled_is_said_to_be(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "you trust" in " ".join(capsys.readouterr().out.split())


def test_a_checkpoint_of_another_run_is_refused_before_anything_is_unpickled(
    tmp_path: Path, crater: Path
) -> None:
    path = tmp_path / "checkpoint.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("about.json", json.dumps({"format": 1, "agent": "other"}))
        file.writestr("rest.pkl", pickle.dumps(Bomb(crater)))
    with pytest.raises(ValueError, match="of another run"):
        load_checkpoint(path, Identity("ppo", 0, 10, "env", {}), None, None)  # type: ignore[arg-type]


# Damage, bit by bit


def flipped(content: bytes, seed: int) -> bytes:
    """The same bytes but for a few, drawn anew for each seed."""
    rng = np.random.default_rng(seed)
    damaged = bytearray(content)
    for place in rng.integers(len(content), size=int(rng.integers(1, 4))):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def test_a_compressed_data_file_with_any_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    labels = np.arange(40) % 4
    images = np.random.default_rng(0).integers(0, 255, (40, 4, 4), np.uint8)
    whole = io.BytesIO()
    np.savez_compressed(whole, x_train=images, y_train=labels, x_test=images, y_test=labels)
    path, refused = tmp_path / "mine.npz", 0
    for seed in range(300):
        path.write_bytes(flipped(whole.getvalue(), seed))
        try:
            splits = load_npz("mine", tmp_path)
        except ValueError as error:
            assert "mine.npz" in str(error)
            refused += 1
        else:  # the damage hit a time stamp or the like
            assert np.array_equal(splits.test.images[:, 0].numpy(), images)
    assert refused > 200


@pytest.mark.parametrize("suffix", [".safetensors", ".th"])
def test_a_weights_file_with_any_damage_is_refused_or_still_fits(
    tmp_path: Path, suffix: str
) -> None:
    from safetensors.torch import save

    model = torch.nn.Linear(3, 2)
    whole = io.BytesIO()
    if suffix == ".th":
        torch.save(model.state_dict(), whole)
    else:
        whole.write(save(model.state_dict()))
    path, refused = tmp_path / f"weights{suffix}", 0
    for seed in range(200):
        path.write_bytes(flipped(whole.getvalue(), seed))
        try:
            load_state_file(model, path)
        except ValueError as error:
            assert str(error).startswith("weights: ")
            refused += 1
    assert refused > 20


def test_a_checkpoint_with_any_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = io.BytesIO()
    identity = Identity("ppo", 0, 10, "env", {})
    with zipfile.ZipFile(whole, "w") as file:
        file.writestr("about.json", json.dumps({"format": 1, **dataclasses.asdict(identity)}))
        file.writestr("agent.zip", bytes(range(256)) * 4)
        file.writestr("rest.pkl", pickle.dumps(list(range(500))), zipfile.ZIP_DEFLATED, 1)

    class Agent:
        """Takes what was read; damage must have been found before."""

        @staticmethod
        def load(stream: io.BytesIO, **_: Any) -> str:
            assert stream.read() == bytes(range(256)) * 4
            return "agent"

    path, refused = tmp_path / "checkpoint.zip", 0
    for seed in range(300):
        path.write_bytes(flipped(whole.getvalue(), seed))
        try:
            _, checkpoint = load_checkpoint(path, identity, Agent, None)  # type: ignore[arg-type]
        except ValueError as error:
            assert "checkpoint.zip" in str(error)
            refused += 1
        else:
            assert checkpoint == list(range(500))
    assert refused > 200


# Recipes that ask for too much


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = get_task("digits-resnet8")
    model = task.model()
    graph = ChannelGraph.trace(model, task.example_input())
    folder = tmp_path_factory.mktemp("saved") / "pruned"
    return save_pruned(folder, model, graph, graph.full(), architecture=task.name)


def altered(saved: Path, folder: Path, **changes: Any) -> Path:
    """The saved network with a changed recipe whose checksum is right."""
    values = json.loads((saved / RECIPE_FILE).read_text()) | changes
    del values["checksum"]
    folder.mkdir()
    (folder / RECIPE_FILE).write_text(json.dumps(values | {"checksum": checksum(values)}))
    (folder / "weights.safetensors").write_bytes((saved / "weights.safetensors").read_bytes())
    return folder


@pytest.mark.parametrize("shape", [[1, 2**20, 2**20], [2**62, 2**62], [1] * 3 + [2**27]])
def test_a_recipe_may_not_ask_for_a_huge_input(
    saved: Path, tmp_path: Path, shape: list[int]
) -> None:
    folder = altered(saved, tmp_path / "pruned", input_shape=shape)
    with pytest.raises(ValueError, match=r"recipe\.json: input_shape=.*allowed: up to"):
        load_pruned(folder)


def test_a_recipe_may_not_be_nested_or_long_beyond_reason(tmp_path: Path) -> None:
    for content in ("[" * 200_000, '{"a":' * 100_000, " " * (2 << 20), "1" * 10_000):
        (tmp_path / RECIPE_FILE).write_text(content)
        with pytest.raises(ValueError, match=r"recipe\.json"):
            read_recipe(tmp_path)


@pytest.mark.parametrize("channels", [-8, 0, 10**9])
def test_a_recipe_of_another_number_of_channels_is_refused(
    saved: Path, tmp_path: Path, channels: int
) -> None:
    with pytest.raises(ValueError, match=r"recipe|weights and recipe"):
        load_pruned(altered(saved, tmp_path / "pruned", channels=channels))


@pytest.mark.parametrize("name", ["os:system", "builtins:exit", "pruning_agents.cli.main:main"])
def test_a_recipe_cannot_choose_what_is_imported(saved: Path, tmp_path: Path, name: str) -> None:
    folder = altered(saved, tmp_path / "pruned", architecture=name)
    with pytest.raises(ValueError, match="is no registered task; register it, or pass"):
        load_pruned(folder)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(folder)])
    assert stopped.value.code == 2


# Names that are paths

PATHS = ["", ".", "..", "../up", "/etc/passwd", "a/b", "a\\b", "a\0b"]


@pytest.mark.parametrize("name", PATHS)
def test_a_data_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be a file name without a folder"):
        load_npz(name, tmp_path)


@pytest.mark.parametrize("name", [*PATHS, "os:system", "a b", "-rf", "~", "ä"])
def test_a_task_name_is_no_path_and_no_import_path(name: str) -> None:
    task = dataclasses.replace(get_task("digits-resnet8"), name=name)
    assert isinstance(task, Task)
    with pytest.raises(ValueError, match=r"task\.name=.*not allowed"):
        register_task(task)


# Rows that were tampered with

ORIGIN = Provenance("cnnprune train", "now", {"python": "3"}, "a machine", None)


SEARCHED: tuple[Any, ...] = (
    *("rl-pruner", "digits-resnet8", 3, {"params": 0.25}, {}, 100, ((1, 0.5), (40, 0.75))),
    *(("conv1", "conv2"), (16, 32), (12, 4), 0.75, 0.99, False, 0.7, 0.98),
    *(2500, 0.25, 40_000, 0.4, 1.5, 3.0, 0.5, 256, 12.5, ORIGIN),
)
COMPARED: tuple[Any, ...] = (
    *("cem", "tabular", {"budget": {"params": 0.25}}, 0, True, 100, 90, ((1, 0.5), (40, 0.75))),
    *(True, (12, 4), 0.75, 2500, 0.25, 40_000, 0.4, None, Anchors(0.9, 0.4), "", 1.0, ORIGIN),
)


def result_row() -> dict[str, Any]:
    return json.loads(ResultRow(*SEARCHED).to_json())


def agent_row() -> dict[str, Any]:
    return json.loads(AgentRow(*COMPARED).to_json())


@pytest.mark.parametrize(
    "changes",
    [
        {"val_accuracy": 0.95},
        {"val_accuracy": "0.75"},
        {"val_accuracy": 7.5, "history": [[1, 7.5]]},
        {"history": [[1, 0.9], [40, 0.75]]},
        {"history": [[40, 0.5], [1, 0.75]]},
        {"history": [[1, 0.5], [400, 0.75]]},
        {"history": 3},
        {"history": [[1, None]]},
    ],
)
@pytest.mark.parametrize("made", [result_row, agent_row])
def test_a_row_that_contradicts_itself_is_refused(made: Any, changes: dict[str, Any]) -> None:
    kind = ResultRow if made is result_row else AgentRow
    kind.from_json(json.dumps(made()))
    with pytest.raises(ValueError, match=r"history|accuracy|row"):
        kind.from_json(json.dumps(made() | changes))


def test_a_row_better_than_the_optimum_is_refused() -> None:
    changes = {"val_accuracy": 0.91, "history": [[1, 0.91]]}
    with pytest.raises(ValueError, match=r"val_accuracy=0\.91; the optimum is 0\.9"):
        AgentRow.from_json(json.dumps(agent_row() | changes))


@pytest.mark.parametrize(
    "changes", [{"counts": [12, 0]}, {"counts": [12, 33]}, {"counts": [12]}, {"test_accuracy": 2}]
)
def test_a_row_with_impossible_widths_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"counts|argument|accuracy"):
        ResultRow.from_json(json.dumps(result_row() | changes))
