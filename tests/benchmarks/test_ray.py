"""`--ray`: the same cells as tasks of a cluster, of which workers die. Runs where Ray is."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.agents.ray_tasks import RayTasks
from benchmarks.agents.run import AgentsSettings, plan, run_agents
from pruning_agents.comparison.cells import run_cell
from pruning_agents.comparison.rows import AgentRow, read_rows
from pruning_agents.search.rows import Provenance, append_row
from tests.helpers.dying_agents import DEATHS
from tests.helpers.paths import ROOT

DYING = "tests.helpers.dying_agents"


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deaths")


@pytest.fixture(scope="module")
def cluster(deaths: Path) -> Iterator[str]:
    """The address of a cluster with room for three workers; they know the folder of deaths."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DEATHS, str(deaths))
        made = Cluster(True, head_node_args={"num_cpus": 3, "object_store_memory": 100 * 2**20})
        yield made.address
        made.shutdown()


def said(row: AgentRow) -> dict[str, Any]:
    """A row without what differs from run to run."""
    fields = dataclasses.asdict(row)
    del fields["wall_seconds"], fields["provenance"]
    return fields


@pytest.mark.slow
def test_all_rows_arrive_once_when_a_worker_is_killed(
    cluster: str, deaths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (f"{DYING}:dies_once", "uniform")
    settings = AgentsSettings(agents=names, seeds=5, evaluations=20)
    # Here no death is due, for the folder has a grave.
    monkeypatch.setenv(DEATHS, str(tmp_path))
    (tmp_path / "grave").touch()
    origin = Provenance("here", "now", {}, "a machine", None)
    here = {cell.key: run_cell(cell, origin) for cell in plan(settings)}
    # One of the rows is there before the cluster begins.
    (first,) = [row for row in here.values() if row.agent == "uniform"]
    out = tmp_path / "rows.jsonl"
    append_row(out, first)

    arguments = ["--agents", ",".join(names), "--seeds", "5", "--evaluations", "20"]
    assert main(["agents", *arguments, "--out", str(out), "--ray", cluster]) == 0
    assert len(list(deaths.iterdir())) == 1, "no worker has died"
    rows = read_rows(out)
    assert len(out.read_text().splitlines()) == 6
    assert {key: said(row) for key, row in rows.items()} == {
        key: said(row) for key, row in here.items()
    }
    new = [row for row in rows.values() if row.agent != "uniform"]
    assert len(new) == 5 and not any(row.failed for row in new)
    assert all("1 threads" in row.provenance.hardware for row in new)
    assert all(cluster in row.provenance.command for row in new)
    assert rows[first.key].provenance == first.provenance


@pytest.mark.slow
def test_a_cell_whose_workers_always_die_is_named_and_the_others_have_rows(
    cluster: str, tmp_path: Path
) -> None:
    settings = AgentsSettings(
        agents=(f"{DYING}:always_dies",),
        seeds=3,
        evaluations=5,
        executor=RayTasks(cluster, retries=0),
        out=tmp_path / "rows.jsonl",
    )
    with pytest.raises(RuntimeError, match=r"died 1 times at .*always_dies, tabular, seed 1;"):
        run_agents(settings, "command", Console(file=io.StringIO()))
    assert {row.seed for row in read_rows(settings.out).values()} == {0, 2}


@pytest.mark.slow
def test_a_cell_waits_for_the_share_of_a_gpu_that_it_needs(cluster: str) -> None:
    ray = pytest.importorskip("ray")
    ray.init(cluster, log_to_driver=False)
    try:
        asked = RayTasks(gpus_per_cell=0.25).task().remote(None, "", "cpu")
        assert ray.wait([asked], timeout=3.0) == ([], [asked])
        ray.cancel(asked)
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_rllib_trains_on_it_as_its_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray.rllib.algorithms.ppo", exc_type=ImportError)
    import ray

    page = ROOT / "docs" / "agents" / "rllib.md"
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.M))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        ray.init("local", num_cpus=2, log_to_driver=False, object_store_memory=100 * 2**20)
        exec(compile(code, str(page), "exec"), namespace)
    finally:
        ray.shutdown()
    assert namespace["info"]["is_success"] and namespace["info"]["params"] <= 0.25
    assert 0.0 < namespace["episodes"]["accuracy"] <= 1.0
    assert len(re.findall("of images right", capsys.readouterr().out)) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--ray", "--gpus-per-cell", "-1"], "gpus_per_cell=-1"),
        (["--ray", "--gpus-per-cell", "1.5"], "gpus_per_cell=1.5"),
        (["--ray", "--workers", "2"], "--workers=2"),
        (["--gpus-per-cell", "0.5"], "--gpus-per-cell=0.5"),
    ],
)
def test_what_no_cluster_can_give_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["agents", "--agents", "uniform", *arguments])
    assert stopped.value.code == 2 and named in capsys.readouterr().err


def test_cells_on_a_gpu_say_how_much_of_one_they_need() -> None:
    with pytest.raises(ValueError, match="gpus_per_cell=0 with device='cuda'"):
        RayTasks().check("cuda")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'pruning-env\[ray\]'"):
        RayTasks().check("cpu")
