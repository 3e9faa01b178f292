"""Latency tables: what they predict where time is a known function of widths, and their file."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env import ChannelGraph
from pruning_env.evaluation import latency, latency_table
from pruning_env.evaluation.latency_model import fit_latency
from pruning_env.evaluation.latency_table import CHECKED, FITTED, random_counts
from pruning_env.evaluation.runtimes import Runtime


class Clocked(nn.Module):
    """A network that says how long it takes: a constant, its MACs, and what odd widths cost."""

    now = np.zeros(2)
    runs = 0

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 24, 1), nn.Conv2d(24, 32, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        if not torch.compiler.is_exporting():
            Clocked.runs += 1
            Clocked.now += seconds(len(self.first.weight), len(self.second.weight))
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def seconds(first, second):
    odd = first % 4 != 0 or second % 4 != 0
    return 1.0 + 0.002 * (first + first * second + second * 4) * (2 if odd else 1)


@pytest.fixture(scope="module")
def images():
    return torch.zeros(2, 1, 1, 1)


@pytest.fixture(scope="module")
def network():
    return Clocked().eval()


@pytest.fixture(scope="module")
def graph(network, images):
    return ChannelGraph.trace(network, images)


@pytest.fixture(autouse=True)
def fake_clock(monkeypatch):
    monkeypatch.setattr(latency, "_clocks", Clocked.now.copy)
    Clocked.runs = 0


def table_at(path, graph, network, images, runtime=Runtime(), **changes):  # noqa: B008  frozen
    settings = {"floors": np.ones_like(graph.sizes), "progress": False} | changes
    return latency_table.latency_table(path, graph, network, images, runtime, **settings)


@pytest.fixture
def make(tmp_path, graph, network, images):
    """The table in `tmp_path`, with changes to what is asked for."""
    return partial(table_at, tmp_path / "table.jsonl", graph, network, images)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, graph, network, images):
    """The text of a finished table."""
    path = tmp_path_factory.mktemp("table") / "table.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "_clocks", Clocked.now.copy)
        table_at(path, graph, network, images)
    return path.read_text()


@pytest.fixture
def path(tmp_path, measured):
    """Where `make` looks, with a finished table."""
    (tmp_path / "table.jsonl").write_text(measured)
    return tmp_path / "table.jsonl"


def true_ratio(counts):
    return seconds(*counts) / seconds(24, 32)


def test_a_table_predicts_networks_it_has_not_seen_and_says_how_well(make, path):
    table = make()
    assert table.model.block == 4 and 0 < table.error < 0.1
    rng = np.random.default_rng(1)
    counts = np.stack([rng.integers(1, 25, 40), rng.integers(1, 33, 40)], 1)
    true = np.array([true_ratio(each) for each in counts])
    assert np.median(np.abs(table.ratio(counts) / true - 1)) < 0.1
    assert (table.at_most(counts) >= table.ratio(counts)).all()
    assert (table.at_most(counts) >= true).mean() > 0.8


def test_the_stated_error_is_that_of_the_networks_the_formula_was_not_fitted_to(
    make, graph, tmp_path
):
    table = make()
    entries = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()[1:]]
    assert len(entries) == FITTED + CHECKED
    unseen = entries[FITTED:]
    assert [each["ratio"] for each in unseen] == pytest.approx(
        [true_ratio(each["counts"]) for each in unseen]
    )
    off = [abs(table.ratio(np.array(e["counts"])) / e["ratio"] - 1) for e in unseen]
    assert table.error == pytest.approx(np.median(off))


def test_a_formula_finds_prices_that_made_the_times(graph):
    counts = random_counts(graph.sizes, np.ones_like(graph.sizes), 1, 80)
    macs, params = (f(counts) / f(graph.sizes) for f in (graph.macs_at, graph.params_at))
    ratios = 0.25 + 0.5 * macs + 0.25 * params
    model = fit_latency(graph, counts, ratios)
    assert model.ratio(counts) == pytest.approx(ratios, rel=0.03)
    assert model.ratio(graph.sizes) == pytest.approx(1.0, rel=0.03)


def test_a_price_is_never_negative_so_that_fewer_channels_are_never_slower(make, graph):
    table = make(round_to=4, floors=np.full_like(graph.sizes, 4))
    assert (table.model.prices >= 0).all()
    assert table.ratio(np.array([8, 8])) < table.ratio(np.array([16, 8])) < table.ratio(graph.sizes)


def test_a_table_that_is_there_is_read_and_nothing_is_timed(make, path, measured):
    make()
    assert Clocked.runs == 0 and path.read_text() == measured


def test_what_a_kill_left_is_continued_and_ends_alike(make, path):
    whole = make()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:85]) + lines[85][:15])  # in the middle of a line
    again = make()
    assert Clocked.runs > 0 and again.error == pytest.approx(whole.error)
    Clocked.runs = 0
    assert make().error == again.error and Clocked.runs == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processor": "another, 8 cores"}, "it is of processor 'another, 8 cores', not"),
        ({"torch": "1.0"}, "it is of torch '1.0'"),
        ({"network": "another"}, "it is of network 'another'"),
        ({"more": 1}, "it is of more 1, not None"),
    ],
)
def test_a_table_of_something_else_is_refused_and_stays(make, path, change, message):
    head, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(head) | change), *rest]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        make()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtime": Runtime(batch=2)}, "it is of batch 1, not 2"),
        ({"runtime": Runtime(threads=7)}, "it is of threads"),
        ({"runtime": Runtime("compiled")}, "it is of runtime 'eager', not 'compiled'"),
        ({"round_to": 4}, "it is of round_to 1, not 4"),
    ],
)
def test_a_table_of_other_settings_is_refused(make, path, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json\n", "it is no latency table"),
        ("[1, 2]\n", "it is no latency table"),
        ('{"agent": "uniform"}\n', "it is no latency table"),
    ],
)
def test_a_file_that_is_no_table_is_refused_and_stays(make, tmp_path, text, message):
    (tmp_path / "table.jsonl").write_text(text)
    with pytest.raises(ValueError, match=rf"table=.*{message}.*another file"):
        make()
    assert (tmp_path / "table.jsonl").read_text() == text


@pytest.mark.parametrize("damage", ['{"counts": [1], "ratio": 0.5}', '{"ratio": -1.0}', "3"])
def test_a_damaged_entry_is_refused_with_its_number(make, path, damage):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], damage, *lines[6:]]))
    with pytest.raises(ValueError, match="entry 6 is damaged"):
        make()


def test_random_prunings_have_widths_that_can_be_and_begin_with_the_smallest():
    sizes, floors = np.array([16, 20, 6]), np.array([8, 8, 6])
    counts = random_counts(sizes, floors, 8, 50)
    assert counts.shape == (50, 3) and (counts[0] == floors).all()
    assert ((counts % 8 == 0) | (counts == sizes)).all()
    assert (counts >= floors).all() and (counts <= sizes).all()
    assert len(np.unique(counts, axis=0)) > 4


def test_a_runtime_that_reads_files_quickly_computes_the_same(images, network):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Runtime("onnxruntime").ready([network], images, many=True) as ((forward,), batch):
            with torch.inference_mode():
                assert torch.allclose(forward(batch), network(batch), atol=1e-6)
