"""The pages: what they say is what the code does, what they show runs, where they point exists."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import pruning_agents.search.registry
from benchmarks.__main__ import main as benchmarks
from docs.generated import filled
from docs.pictures import draw_block
from pruning_agents.cli.main import parser_of
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.sb3 import CNNPruneVecEnv
from pruning_env.evaluation.importance import scores as importance
from pruning_env.graph.tracing.rules import RULES
from pruning_env.process import budgets, rewards
from pruning_env.process.observations import GLOBAL_FEATURES, GROUP_FEATURES
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tasks import registry as tasks
from tests.helpers.pages import DOCS, PAGES, WRITTEN, blocks, name_of
from tests.helpers.paths import ROOT

#: Needs what is not installed for the tests; tests/benchmarks/test_ray.py runs it where it is.
RLLIB = DOCS / "agents" / "rllib.md"
#: A block for each library, none of which need be installed.
OTHERS = DOCS / "other-libraries.md"
REGISTRIES: dict[str, tuple[Any, str]] = {
    "tasks": (tasks, "_TASKS"),
    "budgets": (budgets, "_MEASURED"),
    "rewards": (rewards, "_REWARDS"),
    "importance": (importance, "_KINDS"),
    "agents": (pruning_agents.search.registry, "_AGENTS"),
}


@pytest.fixture
def a_readers_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder to work in, from which modules are imported; what is registered there is theirs."""
    for module, name in REGISTRIES.values():
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    before, known = dict(RULES), set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    RULES.clear()
    RULES.update(before)
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == tmp_path:
            del sys.modules[name]


# What the code has to say


def table(environment: type, header: str) -> list[list[str]]:
    """Rows of the table in an environment's docstring whose first header cell is `header`."""
    lines = (inspect.getdoc(environment) or "").splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(rf"\| {header} +\|", line))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("environment", [CNNPruneEnv, CNNPruneTabularEnv])
def test_the_arguments_of_an_environments_page_are_those_of_its_constructor(
    environment: type,
) -> None:
    parameters = list(inspect.signature(environment).parameters.values())
    rows = {row[0].strip("`"): row[2].strip("`") for row in table(environment, "Parameter")}
    assert list(rows) == [parameter.name for parameter in parameters]
    for parameter in parameters:
        is_budget = parameter.name == "budget"
        default = budgets.DEFAULT_BUDGET if is_budget else parameter.default
        assert rows[parameter.name].replace('"', "'") == repr(default)


def test_the_tabular_page_gives_the_spaces_that_the_code_has() -> None:
    text = inspect.getdoc(CNNPruneTabularEnv) or ""
    for budget in ({"params": 0.3}, {"params": 0.3, "macs": 0.3}):
        env = gym.make("CNNPruneTabular-v0", budget=budget)
        groups, size = env.action_space.shape[0], env.observation_space.shape[0]  # type: ignore[index]
        assert f"Box(-1, 1, ({groups},), float32)" in text
        assert f"`({size - len(budget)} + number of budgets,)`" in text


def test_the_flat_observation_is_as_long_as_the_page_says_and_named_by_its_tables() -> None:
    env: Any = gym.make("CNNPruneTabular-v0", budget={"params": 0.3, "macs": 0.3}).unwrapped
    groups = env.action_space.shape[0]
    features = [row[0].strip("`") for row in table(CNNPruneEnv, "Group feature")]
    of_all = [row[0].strip("`") for row in table(CNNPruneEnv, "Global feature")]
    assert len(features) == len(GROUP_FEATURES) and len(of_all) == len(GLOBAL_FEATURES)
    assert f"`({len(features)} * L + 5 + number of budgets,)`" in (
        inspect.getdoc(CNNPruneEnv) or ""
    )
    assert env.observation_space.shape == (len(features) * groups + 5 + 2,)
    names = env.observation_names
    assert all(feature in name for feature, name in zip(features, names, strict=False))
    ends = [name for name in names if "over_budget" in name]
    assert len(ends) == 2 and len(names) == env.observation_space.shape[0]
    low, high = env.observation_space.low, env.observation_space.high
    bounds = [(float(row[1]), float(row[2])) for row in table(CNNPruneEnv, "Group feature")]
    assert list(zip(low[: len(bounds)], high[: len(bounds)], strict=True)) == bounds


@pytest.mark.parametrize("env_id", ["CNNPrune-v0", "CNNPruneTabular-v0"])
def test_the_information_tables_keys_and_types_are_those_of_reset_and_step(env_id: str) -> None:
    env = gym.make(env_id)
    _, first = env.reset(seed=0)
    *_, then = env.step(np.zeros(env.action_space.shape or (), np.float32))
    rows = {row[0].strip("`"): row[1] for row in table(CNNPruneEnv, "Key")}
    for info in (first, then):
        assert {key: type(value).__name__ for key, value in info.items()} == rows


def test_a_page_of_an_environment_is_its_docstring_under_faramas_headings() -> None:
    for name, environment in (
        ("cnnprune", CNNPruneEnv),
        ("cnnprune-tabular", CNNPruneTabularEnv),
    ):
        source = (DOCS / "environments" / f"{name}.md").read_text()
        page, docstring = filled(source), inspect.getdoc(environment) or ""
        assert docstring.split("\n", 1)[1] in page and len(source) < 200
        assert docstring.split("\n", 1)[0] in page  # as the summary
        assert "Box(-1.0, 1.0, (6,), float32)" in page
    with pytest.raises(ValueError, match="Farama"):
        filled("{docstring of pruning_env.graph.channel_graph:ChannelGraph}")


def test_every_agent_that_is_registered_has_a_word_on_a_page() -> None:
    words = " ".join(page.read_text() for page in (DOCS / "agents").glob("*.md"))
    for name in pruning_agents.search.registry.agent_names():
        assert name in words or name.replace("-", "_") in words, name


# What they show


@pytest.mark.parametrize("page", [p for p in WRITTEN[1:] if p not in (RLLIB, OTHERS)], ids=name_of)
def test_the_python_blocks_of_a_page_run_one_after_another(
    page: Path, a_readers_folder: Path
) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        if file := re.match(r"# (\w+\.py)\n", block):  # "write this to ..."
            (a_readers_folder / file[1]).write_text(block)
        else:
            exec(compile(block, name_of(page), "exec"), namespace)


@pytest.mark.parametrize(
    ("library", "block"),
    list(
        zip(["wandb", "mlflow", "torchrl", "mo_gymnasium"], blocks(OTHERS, "python"), strict=True)
    ),
)
def test_the_block_of_another_library_runs_where_that_is_installed(
    library: str, block: str, a_readers_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile(block, name_of(OTHERS), "exec")
    assert f"from {library}" in block or f"import {library}" in block
    pytest.importorskip(library)
    monkeypatch.setenv("WANDB_SILENT", "true")
    exec(compile(block, name_of(OTHERS), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("environment", [CNNPruneEnv, CNNPruneTabularEnv, CNNPruneVecEnv])
def test_the_examples_in_docstrings_run(environment: type) -> None:
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    for example in finder.find(environment, environment.__name__, globs={}):
        runner.run(example)
    assert runner.summarize().failed == 0
    if environment is not CNNPruneVecEnv:
        assert runner.summarize().attempted > 3


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_commands_of_a_page_are_understood(page: Path) -> None:
    for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["cnnprune"]:
            parser_of(words[1]).parse_args(words[1:])
        elif words[:1] == ["make"]:
            makefile = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]) is not None, line


@pytest.mark.slow
def test_the_tutorials_agent_gets_its_row(a_readers_folder: Path) -> None:
    """Its own command, with fewer seeds, evaluations and agents."""
    source = next(b for b in blocks(DOCS / "tutorial.md", "python") if "# my_agent.py" in b)
    learner = next(b for b in blocks(DOCS / "tutorial.md", "python") if "# my_learner.py" in b)
    (a_readers_folder / "my_agent.py").write_text(source)
    (a_readers_folder / "my_learner.py").write_text(learner)
    commands = "".join(blocks(DOCS / "tutorial.md", "sh")).splitlines()
    command = next(line for line in commands if line.startswith("python -m benchmarks agents"))
    few = {
        "--agents": "my_agent:search,my_learner:search",
        "--seeds": "1",
        "--evaluations": "20",
    }
    words = shlex.split(command)[3:]
    for option, value in few.items():
        words[words.index(option) + 1] = value
    assert benchmarks(words) == 0
    written = (a_readers_folder / "runs" / "mine.md").read_text()
    assert "my_agent:search" in written and "my_learner:search" in written
    assert "failed" not in written


def test_what_the_tutorial_says_is_printed_is_printed(a_readers_folder: Path) -> None:
    page = DOCS / "tutorial.md"
    namespace: dict[str, Any] = {}
    exec(blocks(page, "python")[0].replace("print(env.render())", ""), namespace)
    (printed,) = blocks(page, "text")
    assert namespace["env"].render() == printed


def test_the_drawing_of_the_block_says_what_the_text_says() -> None:
    figure = draw_block()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "group 0, stem: 4 channels\noutputs of stem, conv2; inputs of conv1, head" in texts
    assert "group 1, conv1: 4 channels\noutputs of conv1, bn1; inputs of conv2" in texts
    assert "the sum merges\n1=9, 2=10,\n3=11, 4=12" in texts
    colours = {
        text.get_text(): circle.get_facecolor()
        for axes in figure.axes[:1]
        for text, circle in zip(
            [t for t in axes.texts if t.get_text().isdigit()],
            [p for p in axes.patches if type(p).__name__ == "Circle"],
            strict=True,
        )
    }
    assert colours["1"] == colours["4"] == colours["9"] == colours["12"]
    assert colours["1"] != colours["5"] == colours["8"] and colours["0"] == colours["13"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_the_reference_documents_is_there(page: Path) -> None:
    for path in re.findall(r"^\.\. auto(?:class|function):: (\S+)$", page.read_text(), re.M):
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name)), path


# Where they point


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link."""
    text = re.sub(r"^```.*?^```", "", filled(page.read_text()), flags=re.DOTALL | re.MULTILINE)
    if page == DOCS / "contributing.md":
        text = (ROOT / "CONTRIBUTING.md").read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_internal_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```(?!\{).*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or "_generated/" in target:  # made by the build
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{name_of(page)} points to {target}"
        if anchor:
            assert anchor in anchors(file.resolve()), f"{name_of(page)} points to {target}"


def test_every_page_is_in_a_table_of_contents() -> None:
    toctrees = "".join(re.findall(r"```\{toctree\}(.*?)```", (DOCS / "index.md").read_text(), re.S))
    listed = set(toctrees.split())
    assert {p.relative_to(DOCS).with_suffix("").as_posix() for p in PAGES} - {"index"} <= listed


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    for needed in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(needed)
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "environments" / "cnnprune.html").is_file()
    page = (tmp_path / "agents" / "rl-pruner.html").read_text()
    assert "samples_per_epoch" in page and "problematic" not in page
