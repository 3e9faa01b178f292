"""The table and the figure of the speed benchmark, from rows only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.speed.networks import STEP_NETWORKS
from benchmarks.speed.rows import QUESTIONS, SpeedRow
from pruning_env.files import atomic_path

_TITLES = {
    "step": "env.step against its floor (a plain forward pass of the pruned network, and one in "
    "train mode of the calibration images)",
    "peer": "A candidate at 50 %, against Torch-Pruning (deep copy, graph, cut, same images)",
    "search": "RL-Pruner's search of 8,000 candidates",
    "vector": "gym.make_vec on digits-resnet8",
    "scaling": "How the cost of a candidate grows, and of N candidates of one call (slope of the "
    "log-log line)",
    "crossover": "One candidate at 50 %, by how it is run (batched: that many at once)",
}


def to_markdown(rows: Sequence[SpeedRow]) -> str:
    """One table per question.

    Raises:
        ValueError: When there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    parts = []
    for question in QUESTIONS:
        own = [row for row in rows if row.question == question]
        if own:
            parts.append(f"### {_TITLES[question]}\n\n{_table(own)}\n")
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first.provenance.versions.items())
    loads = [row.load for row in rows]
    rounds = [row.rounds for row in rows]
    smoke = " SMOKE RUN: sizes are tiny, the figures mean nothing." if first.smoke else ""
    parts.append(
        f"Medians over {min(rounds)} to {max(rounds)} rounds, contestants in turns "
        "within a round; ratios are "
        f"medians of ratios within a round. {first.provenance.hardware}; load average "
        f"{min(loads):.1f} to {max(loads):.1f}; seed {first.seed}; {versions}.{smoke}\n"
    )
    return "\n".join(parts)


def _table(rows: Sequence[SpeedRow]) -> str:
    times = list(dict.fromkeys(name for row in rows for name in row.seconds))
    ratios = list(dict.fromkeys(name for row in rows for name in row.ratios))
    if rows[0].question == "scaling":  # every axis has its own points
        times = []
    titles = [
        "",
        "images",
        "calibration",
        *(f"{name} ms" for name in times),
        *ratios,
        "target",
        "notes",
    ]
    targets = {network.name: network.target for network in STEP_NETWORKS}
    lines = [titles, ["---", *["---:"] * (len(titles) - 2), "---"]]
    for row in rows:
        target = targets.get(row.subject) if row.question == "step" else None
        notes = row.notes
        if row.question == "scaling":
            notes = ", ".join(f"{at}: {1e3 * s:.1f} ms" for at, s in row.seconds.items())
        lines.append(
            [
                row.subject,
                str(row.images),
                str(row.recovery_images),
                *(f"{1e3 * row.seconds[n]:.1f}" if n in row.seconds else "" for n in times),
                *(f"{row.ratios[n]:.2f}" if n in row.ratios else "" for n in ratios),
                f"≤ {target:g}" if target else "",
                notes,
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(rows: Sequence[SpeedRow], path: Path) -> None:
    """Bars of steps over floors and of peers over us, and steps per second over N."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for place, (question, ratio, title) in enumerate(
        (
            ("step", "step / floor", "env.step / floor"),
            ("peer", "peer / ours", "Torch-Pruning / ours, per candidate"),
            ("vector", "steps per second", "steps per second of make_vec"),
        )
    ):
        own = [row for row in rows if row.question == question and ratio in row.ratios]
        bars = axes[place].bar(
            [row.subject for row in own], [row.ratios[ratio] for row in own], color="#0072B2"
        )
        axes[place].bar_label(bars, fmt="%.2f", fontsize=8)
        axes[place].set_title(title, fontsize=10)
        axes[place].tick_params(axis="x", rotation=25, labelsize=8)
        if question == "step":
            axes[place].axhline(1.0, color="black", linewidth=1, linestyle=":")
        if question == "peer" and own:
            axes[place].set_yscale("log")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=160)
