"""The leaderboard: agents by task, from rows that replay and from no others. Writes Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pruning_agents.comparison.questions import Question, questions
from pruning_agents.comparison.replay import Verdict
from pruning_agents.comparison.rows import AgentRow, CellKey
from pruning_agents.comparison.statistics import bootstrap
from pruning_agents.comparison.suites import complete
from pruning_env.suites import SUITES, Suite

SUBMIT = """\
**To submit a row**, run `python -m benchmarks agents --agents yourmodule:YourAgent --suite
solved-v1 --out yours.jsonl` in a checkout of this repository, at a commit of it; see that
`cnnprune validate yours.jsonl` accepts it; append the lines to a file under
`benchmarks/results/`, make this page again with the command below, and open a pull request with
both, and with the agent's code or a link to it. Say how many evaluations its settings were tuned
with, and on which tasks. Rows are replayed from their channel counts: accuracy on search-val and
test, parameters, MACs, scores, hashes of weights and data, and that the pruned network says what
the masked one says. How a search came to them is not in a row: on the solved tier, where all
answers are published, searches of registered agents are run again when this page is made, and
every other by whoever reviews it. **Not prevented**: code that reads the data set's files or the
published answers itself, writes to private attributes, or evaluates in processes of its own."""


def to_markdown(verdicts: Sequence[Verdict], command: str) -> str:
    """A ranking per task and environment.

    Args:
        verdicts: of `replay`, or of `rerun` after it.
        command: that makes the page again.

    Raises:
        ValueError: no row replays.
    """
    good = [verdict.row for verdict in verdicts if verdict.replays]
    refused = [verdict for verdict in verdicts if verdict.problems]
    empty = [verdict.row for verdict in verdicts if verdict.row.failed]
    if not good:
        raise ValueError("no row replays; there is nothing to rank")
    parts = ["# Leaderboard"]
    parts.append(f"{len(good):,} rows, each of which was replayed when this page was made.")
    again = {verdict.row.key: verdict.again for verdict in verdicts if verdict.replays}
    asked = questions(good)
    for suite in SUITES.values():
        own = [question for question in asked if question.suite == suite.name]
        if own:
            parts += [f"## {suite.name}", *_together(suite, own)]
            for question in own:
                parts += [f"### {question.title}", _ranking(question, again)]
    for question in asked:
        if question.suite is None:
            parts += [f"## {question.title}", _ranking(question, again)]
    unpinned = {row.agent for row in good if row.origin is None}
    if unpinned:
        parts.append(
            f"‡ Rows without hashes of weights and data, from before there were any: "
            f"{', '.join(sorted(unpinned))}."
        )
    if refused:
        agents = ", ".join(dict.fromkeys(verdict.row.agent for verdict in refused))
        parts.append(f"Left out, because they do not replay: {len(refused)} rows of {agents}.")
    if empty:
        agents = ", ".join(dict.fromkeys(row.agent for row in empty))
        parts.append(f"Left out, because they hold no result: {len(empty)} rows of {agents}.")
    parts += [_caption(), SUBMIT, f"```bash\n{command}\n```"]
    return "\n\n".join(parts) + "\n"


def _together(suite: Suite, asked: Sequence[Question]) -> list[str]:
    """What the suite is, and the mean over its problems of the agents that have all rows."""
    parts = [
        f"{suite.summary[0].upper()}{suite.summary[1:]}. SHA-256 of the suite: `{suite.sha256}`."
    ]
    rows: dict[str, list[AgentRow]] = {}
    for question in asked:
        for agent, own in question.runs.items():
            rows.setdefault(agent, []).extend(own)
    whole = {agent for agent, own in rows.items() if complete(suite, own)}
    measure = "regret" if all(question.anchored for question in asked) else "error"
    lines: list[tuple[str, ...]] = [
        ("agent", "seeds", f"{measure} at the end, mean over {len(asked)} problems (95 %)"),
        ("---", "---:", "---:"),
    ]
    strata = {
        agent: [question.regrets(agent, question.longest) for question in asked] for agent in whole
    }
    for agent in sorted(whole, key=lambda each: float(np.mean(strata[each]))):
        seeds = strata[agent][0].size
        lines.append((agent, str(seeds), _shown(strata[agent])))
    if whole:
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if part := sorted(set(rows) - whole):
        told = ", ".join(f"{agent} ({len(rows[agent])} rows)" for agent in part)
        parts.append(f"Without all rows of the suite, and so without a mean: {told}.")
    return parts


def _shown(strata: Sequence[NDArray[np.float64]]) -> str:
    """The mean, with an interval where there are several seeds."""
    interval = bootstrap(strata)
    if strata[0].size == 1:
        return f"{interval.estimate:.4f}"
    return f"{interval.estimate:.4f} ({interval.low:.4f}–{interval.high:.4f})"


def _ranking(question: Question, again: Mapping[CellKey, bool | None]) -> str:
    measure = "regret" if question.anchored else "error"
    titles = (
        *("agent", "seeds", "evaluations", f"{measure} at the end, mean (95 %)"),
        *("search-val %", "test %", "params", "MACs", "run again"),
    )
    lines = [titles, ("---", *["---:"] * (len(titles) - 1))]
    ends = {
        agent: question.regrets(agent, rows[0].allowed) for agent, rows in question.runs.items()
    }
    for agent in sorted(ends, key=lambda each: float(ends[each].mean())):
        rows, regrets = question.runs[agent], ends[agent]
        mark = "" if all(row.origin for row in rows) else " ‡"
        lines.append(
            (
                f"{agent}{mark}",
                str(len(rows)),
                f"{rows[0].allowed:,}",
                _shown([regrets]),
                _mean(rows, "val_accuracy", 100.0, 1),
                _mean(rows, "test_accuracy", 100.0, 1),
                _mean(rows, "params_ratio", 1.0, 3),
                _mean(rows, "macs_ratio", 1.0, 3),
                _same(rows, again),
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(rows: Sequence[AgentRow], name: str, scale: float, digits: int) -> str:
    values = [getattr(row, name) for row in rows]
    if any(value is None for value in values):
        return "-"
    return f"{scale * float(np.mean(values)):.{digits}f}"


def _same(rows: Sequence[AgentRow], again: Mapping[CellKey, bool | None]) -> str:
    """How many came out again, of how many whose search was run again."""
    tried = [same for row in rows if (same := again[row.key]) is not None]
    return f"{sum(tried)} of {len(tried)}" if tried else "-"


def _caption() -> str:
    return (
        "Sorted by the mean over seeds of the incumbent's regret (0: optimum, 1: the random "
        "policy's mean) or, where no optimum is known, its error on search-val, after all "
        "evaluations that the agent was allowed; compare only agents with as many. A place is no "
        "claim: where intervals overlap, `cnnprune compare` says whether two are distinguishable. "
        "Seeds that found nothing count as an accuracy of 0. Test was opened once per row, when "
        'the search was over; "-": not opened, or nothing found by some seed. Run again: of how '
        "many rows the search was made once more, with its seed and by the code that made this "
        'page, and how many of them came out, evaluation by evaluation ("-": none was tried). '
        "What did not is of an earlier version of the agent, of another machine, or made up: a row "
        "does not say which."
    )
