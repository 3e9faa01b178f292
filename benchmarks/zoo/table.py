"""The rows of the zoo as a Markdown table and a summary. Reads rows only."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.zoo.rows import (
    HEAD,
    MUCH,
    ROUNDING_FACTOR,
    SIGNAL_FACTOR,
    SMALLEST_EFFECT,
    TOLERANCE,
    Measurement,
    Peer,
    ZooRow,
)

_TITLES = (
    "model",
    "input",
    "groups",
    "prunable %",
    "frozen",
    "trace s",
    "prune ms",
    "params left %",
    "pruned = masked",
    "effect",
    "signal",
    "trains",
    "params",
    "MACs",
    "verdict",
)
_PEER_TITLES = ("Torch-Pruning", "its ms", "ours ms", "times faster")


def to_markdown(rows: Sequence[ZooRow]) -> str:
    """The summary, one table per family, and a caption.

    Raises:
        ValueError: When there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    peers = any(row.peer for row in rows)
    titles = _TITLES + (_PEER_TITLES if peers else ())
    parts = ["# The zoo", summary(rows)]
    for family in dict.fromkeys(row.family for row in rows):
        lines = [titles, ("---", "---", *["---:"] * (len(titles) - 2))]
        own = sorted((row for row in rows if row.family == family), key=lambda row: row.model)
        for row in own:
            cells = _cells(row)
            lines.append(cells + (_peer_cells(row.peer) if peers else ()))
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {family}\n\n{body}")
    if lossy := _lossy(rows):
        parts.append(_losses(lossy))
    return "\n\n".join([*parts, _caption(rows, peers)]) + "\n"


def summary(rows: Sequence[ZooRow]) -> str:
    """Models, failures, what was not measured, and how the peer did."""
    failed = [row for row in rows if row.failures()]
    skipped = [row for row in rows if row.skipped]
    text = f"{len(rows)} models: {len(rows) - len(failed) - len(skipped)} without a failure, "
    text += f"{len(failed)} failed" + (
        ": " + ", ".join(row.model for row in failed) + ", " if failed else ", "
    )
    text += f"{len(skipped)} not measured"
    text += (": " + ", ".join(f"{row.model} ({row.skipped})" for row in skipped)) if skipped else ""
    told = [row for row in rows if row.ours and row.ours.stays]
    if told:
        text += (
            f". {len(_lossy(rows))} of {len(told)} networks keep more than {MUCH:.0%} of their "
            "parameters for other reasons than the head".replace("%", " %")
        )
    asked = [row.peer for row in rows if row.peer]
    if asked:
        text += f". Torch-Pruning: {sum(not peer.failure for peer in asked)} of {len(asked)} run"
        ratios = sorted(
            row.peer.prune.cpu_ms / row.peer.ours.cpu_ms
            for row in rows
            if row.peer and row.peer.prune and row.peer.ours
        )
        if ratios:
            text += (
                f"; ours is {ratios[0]:.1f} to {ratios[-1]:.0f} times as fast "
                f"(median {ratios[len(ratios) // 2]:.1f})"
            )
    return text + "."


def _lossy(rows: Sequence[ZooRow]) -> list[ZooRow]:
    return [row for row in rows if row.ours and row.ours.lost > MUCH]


def _losses(rows: Sequence[ZooRow]) -> str:
    """Who keeps much for other reasons than the head, and for which; most first."""
    lines = ["| model | prunable % | head % | other reasons |", "| --- | ---: | ---: | --- |"]
    for row in sorted(rows, key=lambda row: -row.ours.lost if row.ours else 0.0):
        assert row.ours is not None
        others = [(why, share) for why, share in row.ours.stays.items() if why != HEAD]
        others.sort(key=lambda each: -each[1])
        reasons = "; ".join(
            f"{_plain(why)}: {100 * share:.1f} %" for why, share in others if share >= _LEAST
        )
        head = 100 * row.ours.stays.get(HEAD, 0.0)
        lines.append(
            f"| {row.model} | {100 * row.ours.prunable_share:.1f} | {head:.1f} | {reasons} |"
        )
    return "## What else stays\n\n" + "\n".join(lines)


#: A reason for less than this share of the parameters is not worth a place in the table.
_LEAST = 0.005


def _cells(row: ZooRow) -> tuple[str, ...]:
    shapes = " + ".join("x".join(map(str, shape[1:])) for shape in row.shapes)
    ours = row.ours
    if ours is None:
        return (row.model, shapes, *["-"] * 12, row.skipped or f"FAILED: {_plain(row.crashed)}")
    return (
        row.model,
        shapes,
        str(ours.groups),
        f"{100 * ours.prunable_share:.1f}",
        str(len(ours.frozen)),
        f"{ours.trace.cpu_ms / 1e3:.2f}",
        f"{ours.prune.cpu_ms:.1f}",
        f"{100 * ours.params_left:.1f}",
        _error(ours),
        f"{ours.effect:.2g}",
        f"{ours.signal:.2g}",
        _yes(not ours.trains),
        _yes(ours.params_counted),
        _yes(ours.macs_counted),
        "ok" if not row.failures() else "FAILED: " + _plain("; ".join(row.failures())),
    )


def _error(ours: Measurement) -> str:
    precision = "" if ours.dtype == "float64" else f" ({ours.dtype})"
    return f"{ours.error:.0e}{precision}"


def _peer_cells(peer: Peer | None) -> tuple[str, ...]:
    if peer is None:
        return ("-",) * len(_PEER_TITLES)
    verdict = _plain(peer.failure) or "ok"
    if peer.prune is None or peer.ours is None:
        return (verdict, "-", "-", "-")
    return (
        verdict,
        f"{peer.prune.cpu_ms:.1f}",
        f"{peer.ours.cpu_ms:.1f}",
        f"{peer.prune.cpu_ms / peer.ours.cpu_ms:.1f}",
    )


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _caption(rows: Sequence[ZooRow], peers: bool) -> str:
    first = rows[0].provenance
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    double, single = (f"{TOLERANCE[name]:.0e}" for name in ("float64", "float32"))
    text = f"""\
**groups**: entries of an action. **prunable %**: share of the parameters that goes when every
group is cut to one channel. **frozen**: layers some or all of whose outputs stay; the rows have the
reason for each. **trace s**: one trace, in a process that has traced another network before.
**prune ms**: a fresh random mask that keeps half of the channels, and the surgery; median.
**params left %**: under such a mask. **What else stays**: the networks that keep more than
{MUCH:.0%} of their parameters, when every group is cut to one channel, for other reasons than that
the head is an output.

**pruned = masked**: largest difference between the outputs of the pruned model and of the full-size
model with the removed channels masked, relative to the largest output, over masks that keep 50 %
and 10 %; in float64 (at most {double} is allowed, or where a deep network magnifies rounding beyond
that, {ROUNDING_FACTOR} times what a change in the last digit of the input does), and in float32
(at most {single}) for models with more than 300 M parameters and for RAFT, whose code makes float32
coordinates. Where a
LayerNorm or GroupNorm takes its statistics over removable channels, the masked model takes them
over the channels that are kept: the pruned model is defined so. Weights are random, constant ones
are jittered so that no wrong index cancels; so that signals do not fade, weights are scaled to unit
variance and batch norms have the statistics that they see under the mask. **effect**: smallest
difference between masked and dense outputs on the same scale (at least {SMALLEST_EFFECT:g} is asked
for). **signal**: smallest difference between a pruned model's outputs for two inputs on that scale
(at least {SIGNAL_FACTOR} times the error allowed): without it, wrong channels would not show.

**trains**: forward and backward of two images in train mode. **params**, **MACs**: `graph.params`
and `graph.macs` are what counting parameters and `FlopCounterMode` / 2 give on the pruned model.
Detection: backbone, feature pyramid and dense heads; choosing boxes branches on values and cannot
be exported. Quantization: the float networks with their stubs.
"""
    if peers:
        text += """
**Torch-Pruning**: `deepcopy`, `BasePruner` with random importance at 50 %, and one step, told which
layers are outputs; "ok" when its model is smaller and runs in eval mode and forward and backward in
train mode (its outputs are not compared). It and **ours** are timed in turns in the same process;
**times faster** is the ratio of the medians.
"""
    return f"""{text}
All times are processor time (wall times are in the rows), on {first.hardware}; {versions};
seed {rows[0].seed}."""
