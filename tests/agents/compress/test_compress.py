"""`cnnprune compress`: the whole way, killed after each stage, and the page against its rows."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from pruning_agents.cli import compress
from pruning_agents.cli.main import main
from pruning_agents.compress import runtimes
from pruning_agents.compress.report import Findings
from pruning_env.tasks.storage import load_pruned, read_recipe

ARGUMENTS = [
    *("--task", "digits-resnet8", "--budget", "macs=0.5", "--recovery", "bn"),
    *("--agent", "random-search", "--evaluations", "10", "--epochs", "1", "--no-progress"),
]
#: The commands of the stages. An export takes seconds: test_story.py makes them.
STAGES = ["graph", "sensitivity", "train", "train", "finetune", "evaluate"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["compress", *arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """The folder of a way that was killed after each of its stages, and the commands that ran."""
    out = tmp_path_factory.mktemp("compress") / "small"
    ran: list[str | None] = []
    run_command = compress.run_command

    def one(words, console):
        if ran and ran[-1] is None:
            raise KeyboardInterrupt
        code = run_command(words, console)
        ran[-1:] = [*ran[-1:], words[0], None]
        return code

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compress, "run_command", one)
        patch.setattr(runtimes, "_ONNX", ("no_such_package",))
        for _ in STAGES[:-1]:
            ran.append("begun")
            with pytest.raises(KeyboardInterrupt):
                main(["compress", *ARGUMENTS, "--out", str(out)])
            assert not (out / compress.REPORT_FILE).exists()
        ran.append("begun")
        assert main(["compress", *ARGUMENTS, "--out", str(out)]) == 0
    return out, [name for name in ran if name not in ("begun", None)]


def test_a_way_that_is_killed_after_each_stage_goes_on_and_repeats_none(way):
    out, ran = way
    assert ran == STAGES
    lines = [json.loads(line) for line in (out / "stages.jsonl").read_text().splitlines()]
    assert [line["command"].split()[1] for line in lines] == STAGES


def test_each_stage_leaves_what_its_command_leaves(way):
    out, _ = way
    found = Findings.read(out)
    assert found.searches["rules"].agent == "best-of-rules"
    assert found.searches["search"].agent == "random-search"
    evaluations = [row.allowed for row in found.searches.values()]
    assert sum(each or 0 for each in evaluations) == 10
    assert all(row.macs_ratio <= 0.5 for row in found.searches.values())
    # Test was opened at the end, and nowhere else.
    assert all(row.test_accuracy is None for row in found.searches.values())
    assert found.tuned.test_accuracy is None and found.trained.test_accuracy is not None
    small = load_pruned(out / "finetune" / "pruned")
    assert sum(each.numel() for each in small.parameters()) == found.trained.params
    sha = read_recipe(out / "finetune" / "pruned").weights_sha256
    assert sha == found.trained.weights_sha256
    assert found.pruned.val_accuracy == found.searches[found.chosen].val_accuracy
    assert found.trained.val_accuracy == found.tuned.val_accuracy
    assert found.trained.test_images == 397
    best = max(row.val_accuracy for row in found.searches.values())
    assert found.searches[found.chosen].val_accuracy == best == found.tuned.before_val


def test_what_is_finished_is_not_done_again_and_the_page_is_the_same(way, monkeypatch):
    out, _ = way
    before = (out / compress.REPORT_FILE).read_text()

    def none(words, console):
        raise AssertionError(words)

    monkeypatch.setattr(compress, "run_command", none)
    assert main(["compress", *ARGUMENTS, "--out", str(out)]) == 0
    assert (out / compress.REPORT_FILE).read_text() == before


class Tables(HTMLParser):
    """The cells of all tables, by the first of their row, and whatever is asked for elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.sources: list[str] = []
        self.commands: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._open = tag
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "pre":
            self.commands.append("")

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open in ("td", "th"):
            self.rows[-1][-1] += data
        if self._open == "pre":
            self.commands[-1] += data

    def row(self, name: str) -> list[str]:
        (found,) = [cells[1:] for cells in self.rows if cells[0] == name]
        return found


def test_the_page_says_what_the_rows_say(way):
    out, _ = way
    found, page = Findings.read(out), Tables((out / compress.REPORT_FILE).read_text())
    end, before = found.trained, found.pruned
    accuracies = (end.dense_test_accuracy, before.test_accuracy, end.test_accuracy)
    assert page.row("test") == [f"{each:.2%}" for each in accuracies]
    accuracies = (end.dense_val_accuracy, before.val_accuracy, end.val_accuracy)
    assert page.row("search-val") == [f"{each:.2%}" for each in accuracies]
    ratio = f"{end.macs / end.dense_macs:.3f}"
    assert page.row("MACs per image") == [f"{end.dense_macs:,}", f"{end.macs:,}", ratio]
    assert page.row("parameters")[:2] == [f"{end.dense_params:,}", f"{end.params:,}"]
    weights = (out / "finetune" / "pruned" / "weights.safetensors").stat().st_size
    assert page.row("weights")[1] == f"{weights / 1e6:.2f} MB"
    (row,) = found.latencies
    low, high = row.interval
    ratio = f"{row.ratio:.3f} ({low:.3f} to {high:.3f})"
    shown = [f"{row.dense_ms:.2f} ms", f"{row.ms:.2f} ms", ratio]
    assert page.row("PyTorch, eager, batch 1") == shown
    text = (out / compress.REPORT_FILE).read_text()
    assert "ONNX Runtime is not installed here" in text
    chosen = found.searches[found.chosen]
    for size, count in zip(chosen.sizes, chosen.counts, strict=True):
        assert f"{count} of {size}" in text


def test_the_page_has_the_commands_and_asks_nobody_for_anything(way):
    out, _ = way
    page = Tables((out / compress.REPORT_FILE).read_text())
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    typed = [text.split()[1] for text in page.commands if text.startswith("cnnprune ")]
    assert typed == ["compress", *STAGES]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--epochs", "2"], "argument --epochs: "),
        (["--budget", "params=0.9"], "argument --budget: "),
        (["--seed", "1"], "argument --seed: "),
        (["--weights", "WEIGHTS"], "argument --weights, --contents of weights: "),
    ],
)
def test_other_arguments_are_refused_by_name(changed, named, way, capsys, tmp_path):
    out, _ = way
    if "WEIGHTS" in changed:
        weights = load_pruned_dense(tmp_path)
        changed = ["--weights", weights]
    message = refused(capsys, *ARGUMENTS, *changed, "--out", str(out))
    assert named in message and "was begun with" in message


def load_pruned_dense(folder: Path) -> str:
    """A file of weights for the task's network."""
    from pruning_env.tasks.registry import get_task

    path = folder / "w.pth"
    torch.save(get_task("digits-resnet8").model().state_dict(), path)
    return str(path)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["compress", *ARGUMENTS, "--out", str(out), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for stage in ("graph", "sensitivity", "rules", "search", "finetune", "certify", "report"):
        assert f" {stage} " in shown
    assert "Nothing was written." in shown and list(tmp_path.iterdir()) == []


def test_what_cannot_be_done_is_refused_before_anything_is(tmp_path, capsys):
    out = ["--out", str(tmp_path / "small")]
    assert "--int8: needs --onnx" in refused(capsys, "--budget", "macs=0.5", "--int8", *out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    message = refused(capsys, "--budget", "macs=0.5", "--out", str(tmp_path / "mine"))
    assert "holds files, but no plan.json" in message
    message = refused(capsys, "--budget", "macs=0.5", "--batch-size", "100000", *out)
    assert "batch_size=100000" in message
    assert not (tmp_path / "small").exists()
