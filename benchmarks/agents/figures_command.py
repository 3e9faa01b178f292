"""The arguments of `figures` and `episode`; the work is done elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.agents.command import add_environment_arguments, environment_settings, positive
from benchmarks.agents.episode import Episode, play_episode, read_episodes
from benchmarks.agents.episode_figure import plot_probes, plot_sensitivity, plot_sparsity
from benchmarks.agents.results import write_results
from pruning_agents.comparison.rows import read_rows
from pruning_env.files import atomic_write


def add_figures_commands(commands: Any) -> None:
    """Add them to the subcommands of a parser; each sets `run(options, command, console)`."""
    figures = commands.add_parser(
        "figures",
        help="tables and figures anew from rows and episodes on file; runs nothing",
        description="Write table and figures of rows of `agents`, or of episodes of `episode`: "
        "regret over evaluations, accuracy over MACs and parameters, performance profiles; "
        "sparsity and sensitivity over the steps. PNG and SVG, the same from the same rows.",
    )
    figures.add_argument("rows", type=Path, nargs="+", metavar="ROWS.jsonl")
    figures.add_argument("--out", type=Path, help="folder (default: beside the rows)")
    figures.set_defaults(run=_figures)

    episode = commands.add_parser(
        "episode", help="what an agent's policy removes step by step, and how sensitive the rest is"
    )
    episode.add_argument("--agent", default="rl-pruner", help="default: %(default)s")
    episode.add_argument("--task", default="digits-resnet8", help="default: %(default)s")
    episode.add_argument("--evaluations", type=positive, default=500, help="default: %(default)s")
    episode.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    episode.add_argument(
        "--probe",
        action="store_true",
        help="also by how much the error rises when a tenth of each group goes, from the dense "
        "network and two pruned ones",
    )
    add_environment_arguments(episode)
    episode.add_argument(
        "--out", type=Path, default=Path("runs/episode.jsonl"), help="default: %(default)s"
    )
    episode.set_defaults(run=_episode)


def _figures(options: dict[str, Any], command: str, console: Console) -> int:
    for path in options["rows"]:
        stem = (options["out"] or path.parent) / path.stem
        for written in write_figures(path, stem):
            console.print(str(written), highlight=False, markup=False, soft_wrap=True)
    return 0


def _episode(options: dict[str, Any], command: str, console: Console) -> int:
    found = play_episode(
        options["agent"],
        options["task"],
        environment_settings(options),
        evaluations=options["evaluations"],
        seed=options["seed"],
        command=command,
        probe=options["probe"],
    )
    out = options["out"]
    atomic_write(out, found.to_json() + "\n")
    write_figures(out, out.with_suffix(""))
    end = found.moments[-1]
    console.print(
        f"{len(found.moments) - 1} steps, accuracy {end.accuracy:.3f} at {end.params:.3f} of the "
        f"parameters; figures beside {out}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def write_figures(path: Path, stem: Path) -> tuple[Path, ...]:
    """Write what there is to see of a file of rows or of episodes.

    Args:
        path: of the file.
        stem: path of what is written, without suffix.

    Returns:
        The paths of what was written; the first is a page that shows the others.

    Raises:
        ValueError: there is no such file, or it holds neither.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    first = path.read_text().partition("\n")[0]
    try:
        fields = json.loads(first)
    except json.JSONDecodeError:
        raise ValueError(f"{path}:1 is not JSON") from None
    if isinstance(fields, dict) and "moments" in fields:
        return _write_episodes(read_episodes(path), stem)
    rows = tuple(read_rows(path).values())
    return write_results(rows, stem)


def _write_episodes(episodes: Sequence[Episode], stem: Path) -> tuple[Path, ...]:
    parts = ["# Episodes, step by step"]
    written: list[Path] = []
    for place, episode in enumerate(episodes):
        number = f"-{place + 1}" if len(episodes) > 1 else ""
        limits = ", ".join(f"{k} ≤ {v:g}" for k, v in episode.settings.get("budget", {}).items())
        parts.append(
            f"## {episode.agent}, {episode.task}, {limits}\n\nThe deterministic policy after "
            f"{episode.evaluations:,} evaluations, seed {episode.seed}. The sensitivities were "
            "measured on the network of each step, and were not shown to the policy."
        )
        figures = [
            ("sparsity", plot_sparsity, "Channels removed of each group over the steps"),
            ("sensitivity", plot_sensitivity, "Sensitivity of each group over the steps"),
        ]
        if episode.probes:
            title = "Rise of the error when a tenth of one group goes"
            figures.append(("probe", plot_probes, title))
        for kind, draw, title in figures:
            paths = draw(episode, stem.with_name(f"{stem.name}{number}-{kind}"))
            parts.append(f"![{title}]({paths[0].name})")
            written += paths
        about = episode.provenance
        parts.append(f"```bash\n{about.command}\n```\n\n{about.hardware}; commit {about.commit}.")
    page = stem.with_name(f"{stem.name}.md")
    atomic_write(page, "\n\n".join(parts) + "\n")
    return (page, *written)
