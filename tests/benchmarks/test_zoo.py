"""The zoo: what is in it, when a row is a failure, and that a run survives what a network does."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from rich.console import Console
from torch import nn

from benchmarks.zoo.catalogue import (
    FAMILIES,
    DetectorCore,
    buildable_families,
    example_input,
    zoo_models,
)
from benchmarks.zoo.rows import Measurement, Peer, Timing, ZooRow, read_rows, write_rows
from benchmarks.zoo.run import ZooSettings, run_zoo
from benchmarks.zoo.surgery import SurgerySettings, run_surgery, slicer
from benchmarks.zoo.table import summary, to_markdown
from benchmarks.zoo.timing import interleaved
from benchmarks.zoo.worker import difference, keep_signals_alive, staying, trains_a_step
from pruning_agents.search.rows import Provenance
from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.paths import ROOT
from tests.helpers.small import SmallNet

TIMING = Timing(2.0, 1.0, 5)
GOOD = Measurement(
    groups=3,
    channels=30,
    frozen={"head": "an output of the model"},
    params=1000,
    macs=2000,
    prunable_share=0.9,
    trace=TIMING,
    prune=TIMING,
    params_left=0.3,
    macs_left=0.25,
    ratios=(0.5, 0.1),
    dtype="float64",
    error=1e-15,
    effect=0.5,
    signal=0.1,
    params_counted=True,
    macs_counted=True,
    trains="",
)
ROW = ZooRow(
    model="lenet5",
    family="cifar",
    shapes=((1, 1, 28, 28),),
    seed=0,
    skipped="",
    crashed="",
    ours=GOOD,
    peer=Peer("1.6.1", "", Timing(20.0, 10.0, 5), TIMING, 0.25),
    provenance=Provenance("command", "today", {"torch": "2"}, "a machine", None),
)


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_the_catalogue_has_all_of_torchvision_and_small_models_first() -> None:
    models = zoo_models()
    for module in (torchvision.models, torchvision.models.segmentation, torchvision.models.video):
        assert set(torchvision.models.list_models(module=module)) <= set(models)
    assert len(models) >= 90
    assert {model.family for model in models.values()} == set(FAMILIES)
    sizes = [model.size for model in models.values()]
    assert sizes == sorted(sizes)


def test_the_catalogue_has_150_networks_of_timm_whether_it_is_installed_or_not() -> None:
    names = [name for name, model in zoo_models().items() if model.family == "timm"]
    assert len(names) >= 150
    assert all(name.startswith("timm/") for name in names)


def test_networks_of_timm_are_refused_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.zoo.catalogue.find_spec", lambda name: None)
    assert buildable_families() == FAMILIES[:-1]
    settings = ZooSettings(models=("timm/lcnet_035",), out=tmp_path / "zoo.jsonl")
    with pytest.raises(ValueError, match="need timm, which is not installed"):
        run_zoo(settings, "command", quiet())


def test_every_network_of_timm_is_one_that_timm_has() -> None:
    timm = pytest.importorskip("timm")
    names = [model.name for model in zoo_models().values() if model.family == "timm"]
    assert {name.removeprefix("timm/") for name in names} <= set(timm.list_models())


def test_a_network_of_timm_is_measured_and_says_its_version(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    settings = ZooSettings(models=("timm/lcnet_035",), out=tmp_path / "zoo.jsonl", repetitions=1)
    (row,) = run_zoo(settings, "command", quiet())
    assert row.failures() == () and row.ours is not None
    assert row.provenance.versions["timm"] != "not installed"
    assert sum(row.ours.stays.values()) == pytest.approx(1 - row.ours.prunable_share)
    assert "## timm" in (tmp_path / "zoo.md").read_text()


def test_what_stays_is_told_by_its_reason() -> None:
    """Of 8 + 64 + 16 weights and 8 + 8 + 2 biases: the head's two rows of one column each."""

    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.c(self.b(x[:, [1, 0, 2, 3, 4, 5, 6, 7]]))

    model = Picking().eval()
    stays = staying(model, ChannelGraph.trace(model, torch.randn(1, 1, 4, 4)))
    whole = 106
    assert stays == pytest.approx(
        {
            "index picks channels by number": 16 / whole,
            "an output of the model": 4 / whole,
            "inputs of what stays": 9 / whole,
        }
    )


def test_the_table_names_the_networks_that_keep_much_for_other_reasons_than_their_head() -> None:
    lossy = dataclasses.replace(
        GOOD,
        prunable_share=0.8,
        stays={"an output of the model": 0.12, "picks channels": 0.06, "else": 0.02},
    )
    headed = dataclasses.replace(
        GOOD, prunable_share=0.8, stays={"an output of the model": 0.17, "else": 0.03}
    )
    rows = [
        dataclasses.replace(ROW, model="lossy", ours=lossy),
        dataclasses.replace(ROW, model="headed", ours=headed),
    ]
    assert "1 of 2 networks keep more than 5 % of their parameters" in summary(rows)
    text = to_markdown(rows)
    assert "| lossy | 80.0 | 12.0 | picks channels: 6.0 %; else: 2.0 % |" in text
    assert "| headed | 80.0 | 17.0" not in text


def test_a_detector_without_its_boxes_runs_on_a_tensor() -> None:
    entry = zoo_models()["ssdlite320_mobilenet_v3_large"]
    core = entry.build().eval()
    assert isinstance(core, DetectorCore) and not core.two_stages
    with torch.no_grad():
        (answers,) = core(*example_input(entry, 1, 0))
    assert answers["cls_logits"].shape[0] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": 1e-9}, "pruned differs from masked by 1.0e-09 in float64"),
        ({"error": math.nan}, "pruned differs from masked"),
        ({"dtype": "float32", "error": 1e-3}, "in float32"),
        ({"effect": 1e-4}, "the mask changes the output"),
        ({"signal": 1e-10}, "two inputs change"),
        ({"params_counted": False}, "params differ"),
        ({"macs_counted": False}, "macs differ"),
        ({"trains": "RuntimeError: sizes"}, "train mode: RuntimeError"),
    ],
)
def test_each_thing_that_can_be_wrong_is_a_failure(change: dict, message: str) -> None:
    assert ROW.failures() == ()
    (failure,) = dataclasses.replace(ROW, ours=dataclasses.replace(GOOD, **change)).failures()
    assert message in failure


def test_rows_survive_the_file_and_undefined_numbers_stay_failures(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lost = dataclasses.replace(GOOD, error=math.nan)
    crashed = dataclasses.replace(ROW, model="b", ours=None, peer=None, crashed="it died")
    write_rows(path, [ROW, dataclasses.replace(ROW, model="a", ours=lost), crashed])
    rows = read_rows(path)
    assert rows["lenet5"] == ROW
    assert rows["b"] == crashed
    assert "differs" in rows["a"].failures()[0]
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:1"):
        read_rows(path)


def test_the_table_tells_failures_and_what_was_not_measured() -> None:
    rows = [
        ROW,
        dataclasses.replace(ROW, model="bad", ours=None, peer=None, crashed="it | died"),
        dataclasses.replace(ROW, model="big", ours=None, peer=None, skipped="stopped: memory"),
    ]
    assert summary(rows).startswith("3 models: 1 without a failure, 1 failed: bad, 1 not measured")
    assert "Torch-Pruning: 1 of 1 run; ours is 10.0 to 10 times as fast" in summary(rows)
    text = to_markdown(rows)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert len({line.count("|") for line in table}) == 1
    assert "FAILED: it / died" in text and "stopped: memory" in text
    with pytest.raises(ValueError, match="rows is empty"):
        to_markdown([])


def test_a_difference_is_relative_and_never_hides_what_is_not_finite() -> None:
    one, ten = torch.ones(2), torch.full((2,), 10.0)
    assert difference([ten + 1, one], [ten, one]) == pytest.approx(0.1)
    assert math.isnan(difference([torch.tensor([math.nan])], [one[:1]]))
    assert math.isnan(difference([one], [ten[:1]]))
    assert math.isnan(difference([one], [one, one]))


class Gated(nn.Module):
    """A gate that runs cut to the mask also in the masked network (ECA, Wang et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.gate = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        gates = self.gate(y.mean((2, 3)).unsqueeze(1)).sigmoid()
        return self.b(y * gates.view(len(y), -1, 1, 1))


@torch.no_grad()
def test_signals_are_kept_alive_where_a_masked_network_holds_cut_modules() -> None:
    model, x = Gated().eval(), torch.randn(4, 3, 8, 8)
    model.a.weight.mul_(1e-3)
    graph = ChannelGraph.trace(model, x)
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    gate = model.gate.weight.clone()
    keep_signals_alive(model, graph, keep, (x,))
    assert torch.equal(model.gate.weight, gate)
    kept = graph.prune(model, keep).get_submodule("a")
    assert isinstance(kept, nn.Conv2d) and kept.bias is not None
    assert float((kept(x) - kept.bias.view(-1, 1, 1)).std()) == pytest.approx(1, rel=0.5)


def test_a_model_that_cannot_train_says_why() -> None:
    assert trains_a_step(nn.Linear(3, 2), (torch.randn(2, 3),)) == ""
    assert "mat1 and mat2" in trains_a_step(nn.Linear(4, 2), (torch.randn(2, 3),))
    broken = nn.Linear(3, 2)
    broken.bias.data.fill_(math.inf)
    assert "loss is inf" in trains_a_step(broken, (torch.randn(2, 3),))


def test_timing_takes_turns_and_stops_at_its_limit() -> None:
    calls: list[str] = []
    timings = interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 3, 60.0)
    assert calls == ["a", "b"] * 4  # once for warming up
    assert [timing.repetitions for timing in timings] == [3, 3]
    (short,) = interleaved([lambda: calls.append("c")], 3, 0.0)
    assert short.repetitions == 1 and calls.count("c") == 1


def test_the_slices_are_those_of_the_pruned_model() -> None:
    model = SmallNet().eval()
    graph = ChannelGraph.trace(model, torch.randn(1, 1, 8, 8))
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    pruned = graph.prune(model, keep)
    expected = [*pruned.parameters(), *pruned.buffers()]
    assert all(map(torch.equal, slicer(graph, model, keep)(), expected))


@pytest.mark.slow
def test_surgery_takes_less_than_three_times_the_copies_it_cannot_do_without() -> None:
    entry = zoo_models()["resnet50"]
    model = entry.build().eval()
    graph = ChannelGraph.trace(model, example_input(entry, 1, 0), check=False)
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    ours, floor = interleaved(
        [lambda: graph.prune(model, keep), slicer(graph, model, keep)], 15, 20
    )
    assert ours.cpu_ms < 3 * floor.cpu_ms


def test_a_run_measures_a_network_in_its_process_and_resumes(tmp_path: Path) -> None:
    settings = ZooSettings(models=("lenet5",), out=tmp_path / "zoo.jsonl", repetitions=1)
    (row,) = run_zoo(settings, "command", quiet())
    assert row.failures() == () and row.ours is not None
    assert row.ours.frozen and row.ours.error < 1e-12 < row.ours.effect
    assert "lenet5" in (tmp_path / "zoo.md").read_text()
    again = run_zoo(dataclasses.replace(settings, resume=True, seed=1), "other", quiet())
    assert again == (row,), "a good row is not measured again"


def test_a_peer_is_measured_beside_a_row_that_has_none(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    settings = ZooSettings(models=("lenet5",), out=tmp_path / "zoo.jsonl", repetitions=1)
    write_rows(settings.out, [dataclasses.replace(ROW, peer=None)])
    (row,) = run_zoo(dataclasses.replace(settings, peers=True, resume=True), "command", quiet())
    assert row.peer is not None and row.peer.failure == ""
    assert row.peer.prune is not None and row.peer.prune.cpu_ms > 0


def test_a_network_that_takes_too_much_is_stopped_and_said_so(tmp_path: Path) -> None:
    settings = ZooSettings(models=("lenet5",), out=tmp_path / "zoo.jsonl", seconds=0.0)
    (row,) = run_zoo(settings, "command", quiet())
    assert row.skipped == "stopped: more than 0 s" and row.failures() == ()


@pytest.mark.slow
def test_a_worker_does_not_outlive_the_run_that_watches_it(tmp_path: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("children are found through /proc")
    command = ["zoo", "--models", "regnet_y_16gf", "--out", str(tmp_path / "zoo.jsonl")]
    run = subprocess.Popen([sys.executable, "-m", "benchmarks", *command], cwd=ROOT)
    try:
        server = _wait_for(lambda: next(iter(_children(run.pid, "forkserver")), None))
        worker = _wait_for(lambda: next(iter(_children(server)), None))
    finally:
        run.kill()
        run.wait()
    _wait_for(lambda: not Path(f"/proc/{worker}").exists(), 10.0)  # it would take a minute


def _children(process: int, named: str = "") -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may be gone by now
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and named in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return found


def _wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What `condition` says once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("nothing happened")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    for settings in (ZooSettings(models=("nothing",)), ZooSettings(families=("nothing",))):
        with pytest.raises(ValueError, match="nothing unknown"):
            run_zoo(dataclasses.replace(settings, out=tmp_path / "x"), "command", quiet())
    with pytest.raises(ValueError, match="nothing unknown"):
        run_surgery(SurgerySettings(models=("nothing",)), "command", quiet())


def test_surgery_is_timed_and_tabled(tmp_path: Path) -> None:
    settings = SurgerySettings(
        models=("lenet5",), threads=(1,), repetitions=2, out=tmp_path / "surgery.jsonl"
    )
    (row,) = run_surgery(settings, "command", quiet())
    assert row.ours.wall_ms > 0 < row.floor.wall_ms
    assert "| lenet5 | 1 |" in (tmp_path / "surgery.md").read_text()


def test_a_network_that_magnifies_rounding_is_allowed_more() -> None:
    beyond = dataclasses.replace(GOOD, error=5e-10)
    assert "pruned differs" in dataclasses.replace(ROW, ours=beyond).failures()[0]
    chaotic = dataclasses.replace(beyond, rounding=1e-10)
    assert dataclasses.replace(ROW, ours=chaotic).failures() == ()
    worse = dataclasses.replace(chaotic, error=2e-9)
    assert "pruned differs" in dataclasses.replace(ROW, ours=worse).failures()[0]
