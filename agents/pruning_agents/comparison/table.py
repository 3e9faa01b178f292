"""Rows as Markdown: regrets with their intervals, and differences in words. Reads rows only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pruning_agents.comparison.questions import EVALUATIONS, Question, questions
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.comparison.statistics import (
    RESAMPLES,
    Interval,
    bootstrap,
    interquartile_mean,
    mean,
    median,
    paired_difference,
    probability_of_improvement,
)

#: First agent, second agent, evaluations: what is put to the test. Those with random search and CEM
#: were chosen before any run; random actions were added when they turned out to be the stronger
#: chance.
COMPARISONS = tuple(
    (agent, *other)
    for agent in ("rl-pruner", "rl-pruner-groupwise")
    for other in (
        ("random-search", 200),
        ("random-search", 500),
        ("random-search", 1000),
        ("cem", 500),
        ("cem", 1000),
        ("random-policy", 200),
        ("random-policy", 500),
    )
)

#: What every agent that searches is compared with besides, at every number of evaluations and on
#: test: the best of the rules of thumb, which need one evaluation each.
RULES = "best-of-rules"

#: What every agent is compared with, and after how many evaluations.
REFERENCE = "random-search"
REFERENCE_AT = 500

#: With fewer seeds a bootstrap interval is too narrow to build a sentence on.
FEWEST_PAIRS = 5

#: Endings of the figures beside the table, and what they show.
PICTURES = {
    "": "Regret over evaluations",
    "-tradeoff": "Accuracy over MACs and parameters",
    "-profiles": "Share of runs with less than each regret",
}

NOT_DISTINGUISHABLE = "not distinguishable"


def to_markdown(rows: Sequence[AgentRow], stem: str) -> str:
    """A section per question, what the numbers are, and the commands.

    Args:
        rows: of any tasks, agents and seeds.
        stem: beginning of the names of the figures beside the table; see `PICTURES`.

    Raises:
        ValueError: when there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    asked = questions(rows)
    parts = ["# Agents at equal evaluations"]
    parts += [f"![{title}]({stem}{suffix}.png)" for suffix, title in PICTURES.items()]
    for question in asked:
        parts.append(f"## {question.title}")
        if question.runs:
            parts += [_regrets(question), *_differences(question), *_estimates(question)]
        parts += [
            f"No result from {agent}: {_plain(why)}" for agent, why in question.failures.items()
        ]
    parts += [_caption(asked), _origin(rows)]
    return "\n\n".join(parts) + "\n"


def _regrets(question: Question) -> str:
    numbers = _numbers(question)
    counted = any(row.image_passes for rows in question.runs.values() for row in rows)
    titles = (
        "agent",
        "seeds",
        "evaluations allowed",
        "spent",
        *(["image passes"] * counted),
        *(f"at {number:,}" for number in numbers),
        "final policy",
        "test %",
        "test openings",
    )
    lines = [titles, _ruler(len(titles))]
    for agent, rows in question.runs.items():
        cells = [agent, str(len(rows)), f"{rows[0].allowed:,}"]
        cells.append(f"{np.mean([row.spent for row in rows]):,.0f}")
        cells += [_mean_of([row.image_passes for row in rows])] * counted
        for number in numbers:
            nothing = sum(not row.found_at(number) for row in rows)
            cells.append(_cell(question.regrets(agent, number), nothing))
        infeasible = sum(row.final is not None and not row.final.feasible for row in rows)
        cells.append(_cell(question.final_regrets(agent), infeasible))
        cells += _tests(rows)
        lines.append(tuple(cells))
    measure = (
        "Normalised regret on search-val (0: optimum, 1: the random policy's mean)"
        if question.anchored
        else "Error on search-val (1 - accuracy)"
    )
    return (
        f"{measure} of the incumbent after so many evaluations, and of the final policy at the "
        f"end; mean (95 % interval).\n\n{_table(lines)}"
    )


def _numbers(question: Question) -> list[int]:
    """Evaluations at which incumbents are looked at, the most that were allowed the last."""
    return [number for number in EVALUATIONS if number < question.longest] + [question.longest]


def _mean_of(numbers: Sequence[int | None]) -> str:
    """The mean, or "-" where there is none."""
    known = [number for number in numbers if number is not None]
    return f"{np.mean(known):,.0f}" if known and len(known) == len(numbers) else "-"


def _tests(rows: Sequence[AgentRow]) -> tuple[str, str]:
    """Mean test accuracy of the incumbents, and the most looks at test that a row took."""
    accuracies = [row.test_accuracy for row in rows if row.test_accuracy is not None]
    openings = [row.test_openings for row in rows if row.test_openings is not None]
    mean = f"{100 * np.mean(accuracies):.1f}" if len(accuracies) == len(rows) else "-"
    return mean, str(max(openings)) if len(openings) == len(rows) else "-"


def _differences(question: Question) -> list[str]:
    lines: list[tuple[str, ...]] = [
        ("difference of regrets", "at", "pairs", "mean (95 % interval)", "in words"),
        _ruler(5),
    ]
    searching = [a for a in question.runs if a != RULES and question.seeded(a)]
    asked = COMPARISONS + tuple(
        (agent, RULES, number) for agent in searching for number in _numbers(question)
    )
    for first, second, number in asked:
        pairs = question.pairs(first, second, number)
        lines += _difference(first, second, f"{number:,}", pairs)
    for agent in searching:
        lines += _difference(agent, RULES, "end, test error", question.test_pairs(agent, RULES))
    return [f"Paired by seed; negative: the first is better.\n\n{_table(lines)}"] * (len(lines) > 2)


def _difference(
    first: str, second: str, at: str, pairs: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> list[tuple[str, ...]]:
    """The line of a difference; none with fewer than two pairs."""
    ours, theirs = pairs
    if ours.size < 2:
        return []
    interval = paired_difference([ours], [theirs])
    said = verdict(first, second, interval) if ours.size >= FEWEST_PAIRS else "too few seeds"
    return [(f"{first} − {second}", at, str(ours.size), _signed(interval), said)]


def verdict(first: str, second: str, interval: Interval) -> str:
    """What may be said of a difference of regrets, first - second: less is better."""
    if not interval.excludes_zero:
        return NOT_DISTINGUISHABLE
    better, worse = (first, second) if interval.high < 0 else (second, first)
    return f"{better} is better than {worse}"


def _estimates(question: Question) -> list[str]:
    lines: list[tuple[str, ...]] = [
        ("agent", "mean", "IQM", "median", f"P(better than {REFERENCE})"),
        _ruler(5),
    ]
    known = REFERENCE in question.runs
    reference = question.regrets(REFERENCE, REFERENCE_AT) if known else np.array([])
    for agent in question.runs:
        values = question.regrets(agent, REFERENCE_AT)
        if values.size < 2:
            continue
        chance = "-"
        if agent != REFERENCE and reference.size:
            chance = _interval(probability_of_improvement([-values], [-reference]))
        estimates = [
            _interval(bootstrap([values], statistic))
            for statistic in (mean, interquartile_mean, median)
        ]
        lines.append((agent, *estimates, chance))
    return [
        f"After {REFERENCE_AT:,} evaluations, agents with several seeds.\n\n{_table(lines)}"
    ] * (len(lines) > 2)


def _cell(values: NDArray[np.float64], nothing: int) -> str:
    if not values.size:
        return "-"
    text = f"{values[0]:.3f}" if values.size == 1 else _interval(bootstrap([values]))
    return text + (f" †{nothing}" if nothing else "")


def _interval(interval: Interval) -> str:
    return f"{interval.estimate:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def _signed(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ruler(columns: int) -> tuple[str, ...]:
    return ("---", *["---:"] * (columns - 1))


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _caption(asked: Sequence[Question]) -> str:
    text = """\
**Evaluations** are pruned networks judged on search-val, each counted once, by the environment's
own counter. Each search is run once with all the evaluations that it is allowed and looked at on
the way; one that stops earlier keeps what it has, and "-" is beyond what was allowed. Agents are
allowed fewer than others only where they themselves take long. An incumbent is judged again by
another environment before it enters. The optimum is the best of all configurations in the table; an
episode may be unable to end there.

**Image passes**, where they were counted: images that pruned networks were shown by the search, to
recover or to be judged; with `race` an evaluation takes fewer.

**†k**: in k of the runs there was nothing within the budget yet (for the final policy: its episode
ended outside the budget). That counts as an accuracy of 0, which is worse than the random policy:
"""
    text += "; ".join(_nothing(question) for question in asked if question.runs)
    text += f""".

**Final policy**: the end of one episode of the deterministic policy, in an environment of its own,
neither counted nor offered as incumbent; "-" for methods that leave no policy behind. Agents that
no seed changes are run once and have no interval. **Test**: mean accuracy of the incumbents on
images that no search sees; opened once per row, when its search is over, and never used to choose
anything. "-": rows from before it was looked at, or a seed that found nothing. **Intervals**: 95 %
percentile bootstrap over seeds, {RESAMPLES:,} resamples, seeded; with 20 seeds they cover about
94 % of the time, with 5 about 87 %.
Differences are of partners with the same seed. An interval that includes 0 is called
"{NOT_DISTINGUISHABLE}", which does not mean equal; nothing is corrected for several comparisons.
P(better): Mann-Whitney, ties count half. **IQM**: mean of the middle half."""
    return text


def _nothing(question: Question) -> str:
    row = next(iter(question.runs.values()))[0]
    shown = f"{float(row.regret(0.0)):.2f} for {question.title}"
    if row.anchors is None:
        return shown
    return (
        f"{shown} (optimum {100 * row.anchors.optimum:.1f} %, "
        f"random policy {100 * row.anchors.random:.1f} %)"
    )


def _origin(rows: Sequence[AgentRow]) -> str:
    commands = list(dict.fromkeys(row.provenance.command for row in rows))
    first = rows[0].provenance
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    hardware = "; ".join(dict.fromkeys(row.provenance.hardware for row in rows))
    commits = ", ".join(dict.fromkeys(str(row.provenance.commit) for row in rows))
    hours = sum(row.wall_seconds for row in rows) / 3600
    shell = "\n".join(commands)
    return (
        f"```bash\n{shell}\n```\n\n{hours:.1f} hours in all, on {hardware}; {versions}; "
        f"commit {commits}. What has a row is not run again, so any command also makes table and "
        "figure anew from the rows."
    )
