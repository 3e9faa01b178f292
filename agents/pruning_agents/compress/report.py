"""The page at the end: before and after, and how to repeat it; made of the files of the stages.

Every number in it stands in a row on disk, or follows from the traced network.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pruning_agents.compress import page
from pruning_agents.compress.rows import EvaluationRow, FineTuneRow, LatencyRow, rows_in
from pruning_agents.compress.running import seconds_taken
from pruning_agents.compress.sensitivity import Sensitivity
from pruning_agents.compress.stages import Stage, best_search
from pruning_agents.search.rows import ResultRow
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.explain import abbreviate

__all__ = ["LATENCY_FILE", "Findings", "report"]

#: In the folder of everything: one row per runtime.
LATENCY_FILE = "latency.jsonl"

_ALONE = "One stage alone; where --out holds a result already, with another one:"

#: Layers of a group that are named beside its bar.
_NAMED = 3


@dataclass(frozen=True)
class Findings:
    """What the stages have found.

    Attributes:
        searches: Rows of the rules and, where there was one, of the search.
        chosen: Which of them went on, by the name of its stage.
        tuned: Of the fine-tuning.
        pruned: Judgement of the network before it.
        trained: Judgement of the one after it.
        latencies: One per runtime.
        sensitivity: What each group costs alone.
    """

    searches: dict[str, ResultRow]
    chosen: str
    tuned: FineTuneRow
    pruned: EvaluationRow
    trained: EvaluationRow
    latencies: list[LatencyRow]
    sensitivity: Sensitivity

    @classmethod
    def read(cls, out: Path) -> Findings:
        """From the folder of everything.

        Raises:
            OSError: A stage has not left its file.
            ValueError: A file is damaged.
        """
        rows = {
            name: ResultRow.from_json(path.read_text())
            for name in ("rules", "search")
            if (path := out / name / "result.json").is_file()
        }
        (tuned,) = rows_in(out / "finetune" / "finetune.json", FineTuneRow)
        pruned, trained = rows_in(out / "certify" / "test.jsonl", EvaluationRow)
        text = (out / "sensitivity" / "sensitivity.json").read_text()
        return cls(
            searches=rows,
            chosen=best_search(out).name,
            tuned=tuned,
            pruned=pruned,
            trained=trained,
            latencies=rows_in(out / LATENCY_FILE, LatencyRow),
            sensitivity=Sensitivity.from_json(text),
        )


def report(
    out: Path, stages: Sequence[Stage], graph: ChannelGraph, dense_bytes: int, command: str
) -> str:
    """The page.

    Args:
        out: Folder of everything, with every stage done.
        stages: As they were run.
        graph: Of the dense network.
        dense_bytes: That its tensors take.
        command: With which all of it is repeated.
    """
    found = Findings.read(out)
    row = found.searches[found.chosen]
    budget = ", ".join(f"{name} at most {limit:g}" for name, limit in row.budget.items())
    return page.page(
        f"{row.task}: {budget} of dense",
        [
            page.paragraph(_lead(found), "lead"),
            page.section(
                "Before and after",
                _sizes(found, out, dense_bytes),
                _accuracies(found),
                columns=True,
            ),
            _latencies(found.latencies),
            page.section("Widths", _what_stays(graph), *_widths(row, graph), columns=False),
            page.section(
                "What each group costs alone",
                page.paragraph(
                    "Channels taken from one group, none from the others; "
                    f"{found.sensitivity.images} images of search-train, on which the dense "
                    f"network has {found.sensitivity.accuracy:.2%}."
                ),
                page.drawing(
                    (out / "sensitivity" / "sensitivity.svg").read_text(),
                    "a map of accuracy lost, groups by shares",
                ),
                page.folded(
                    "Which layers lose channels together",
                    page.drawing((out / "graph" / "graph.svg").read_text(), "the channel graph"),
                ),
            ),
            _searches(found),
            _commands(out, stages, command),
        ],
    )


def _lead(found: Findings) -> str:
    end = found.trained
    assert end.test_accuracy is not None and end.dense_test_accuracy is not None
    return (
        f"{end.macs / end.dense_macs:.1%} of the MACs and {end.params / end.dense_params:.1%} of "
        f"the parameters are left; {end.test_accuracy:.2%} of {end.test_images:,} test images are "
        f"classified correctly, {end.dense_test_accuracy:.2%} by the dense network."
    )


def _sizes(found: Findings, out: Path, dense_bytes: int) -> str:
    end = found.trained
    weights = (out / "finetune" / "pruned" / "weights.safetensors").stat().st_size
    rows = [
        _counted("MACs per image", end.macs, end.dense_macs),
        _counted("parameters", end.params, end.dense_params),
        ("weights", _megabytes(dense_bytes), _megabytes(weights), _ratio(weights, dense_bytes)),
    ]
    for file in sorted((out / "export").glob("*.onnx")):
        size = file.stat().st_size
        rows.append((file.name, "", _megabytes(size), _ratio(size, dense_bytes)))
    return page.table(("size", "dense", "small", "ratio"), rows)


def _accuracies(found: Findings) -> str:
    pruned, trained, tuned = found.pruned, found.trained, found.tuned
    seen = "search-val (seen in training)" if trained.val_seen else "search-val"
    rows = [
        (
            "test",
            _percent(trained.dense_test_accuracy),
            _percent(pruned.test_accuracy),
            _percent(trained.test_accuracy),
        ),
        (
            seen,
            _percent(trained.dense_val_accuracy),
            _percent(pruned.val_accuracy),
            _percent(trained.val_accuracy),
        ),
    ]
    kept = (
        f"the one after epoch {tuned.epoch} was the best on search-val"
        if tuned.epoch
        else "none was better on search-val than the network as it came, which is kept"
    )
    return page.table(("accuracy", "dense", "pruned", "trained"), rows) + page.paragraph(
        f"Trained with the dense network as teacher, epochs: {tuned.recipe['epochs']}; {kept}. "
        "Test was opened once, for these three networks, when nothing was to be chosen any more.",
        "small",
    )


def _latencies(rows: Sequence[LatencyRow]) -> str:
    named = {"eager": "PyTorch, eager", "onnxruntime": "ONNX Runtime"}
    lines = [
        (
            f"{named.get(row.runtime, row.runtime)}, batch {row.batch}",
            f"{row.dense_ms:.2f} ms",
            f"{row.ms:.2f} ms",
            f"{row.ratio:.3f} ({row.interval[0]:.3f} to {row.interval[1]:.3f})",
        )
        for row in rows
    ]
    hardware = rows[0].provenance.hardware
    missing = "" if len(rows) > 1 else " ONNX Runtime is not installed here (pruning-env[export])."
    return page.section(
        "Latency",
        page.table(("one pass", "dense", "small", "ratio"), lines),
        page.paragraph(
            f"Medians of {rows[0].rounds} passes in which both networks take turns, and the 95 % "
            f"interval of the ratio, on {hardware}.{missing}",
            "small",
        ),
    )


def _what_stays(graph: ChannelGraph) -> str:
    reasons: dict[str, list[str]] = {}
    for layer, reason in graph.frozen.items():
        reasons.setdefault(reason, []).append(layer)
    lines = "\n".join(f"{reason}: {' '.join(abbreviate(each))}" for reason, each in reasons.items())
    return page.paragraph(
        f"{len(graph.groups)} groups of {graph.num_channels:,} channels can lose some; layers of a "
        "group lose the same ones."
    ) + (page.folded("What cannot go, and why", page.code(lines)) if lines else "")


def _widths(row: ResultRow, graph: ChannelGraph) -> list[str]:
    layers = {group.name: abbreviate(group.layers) for group in graph.groups}
    lines = []
    for name, size, count in zip(row.groups, row.sizes, row.counts, strict=True):
        told = layers.get(name, [name])
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        lines.append((", ".join(told[:_NAMED]) + more, count, size))
    half = (len(lines) + 1) // 2
    columns = "".join(f"<div>\n{page.bars(part)}</div>\n" for part in (lines[:half], lines[half:]))
    return [f'<div class="two">\n{columns}</div>\n']


def _searches(found: Findings) -> str:
    rows = [
        (
            f"{name}: {row.agent}" + (" (chosen)" if name == found.chosen else ""),
            f"{row.evaluations:,}",
            _percent(row.val_accuracy),
            f"{row.macs_ratio:.3f}",
            _time(row.wall_seconds),
        )
        for name, row in found.searches.items()
    ]
    recovery = found.searches[found.chosen].settings.get("recovery", "")
    return page.section(
        "Search",
        page.table(("who", "evaluations", "search-val", "MACs", "time"), rows),
        page.paragraph(
            f"Every candidate was judged on search-val after the recovery {recovery!r}, untrained.",
            "small",
        ),
    )


def _commands(out: Path, stages: Sequence[Stage], command: str) -> str:
    took = seconds_taken(out)
    parts = [page.paragraph("All of it:"), page.code(command), page.paragraph(_ALONE)]
    for number, stage in enumerate(stages, start=1):
        time = f", {_time(took[stage.name])}" if stage.name in took else ""
        parts.append(page.paragraph(f"{number}. {stage.name}: {stage.what}{time}"))
        parts.append(page.code(shlex.join(["cnnprune", *stage.words()])))
    made = Findings.read(out).trained.provenance
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    commit = f", commit {made.commit[:12]}" if made.commit else ""
    parts.append(page.paragraph(f"{made.created}, {versions}{commit}.", "small"))
    return page.section("To repeat it", *parts)


def _counted(name: str, small: int, dense: int) -> tuple[str, ...]:
    return name, f"{dense:,}", f"{small:,}", _ratio(small, dense)


def _ratio(small: int, dense: int) -> str:
    return f"{small / dense:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
