"""Figures from rows and episodes, and the report: one file, the same each time, also browsed."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks.__main__ import main
from benchmarks.agents.episode import Episode, Moment, play_episode, read_episodes
from benchmarks.agents.episode_figure import plot_probes, plot_sensitivity, plot_sparsity
from benchmarks.agents.tradeoff import pareto_front
from benchmarks.report.command import RESULTS, report_of_results, report_of_rows
from benchmarks.report.page import Page, requests_of, to_html
from pruning_agents.comparison.cells import Cell, make_env, run_cell
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.search.rows import Provenance, append_row

ORIGIN = Provenance("python -m benchmarks episode", "now", {"python": "3"}, "a machine", None)
SETTINGS: dict[str, Any] = {"budget": {"params": 0.6}, "val_images": 40, "channels_per_step": 0.1}


@functools.cache
def rows() -> tuple[AgentRow, ...]:
    settings = {"budget": {"params": 0.25}}
    cells = [Cell("tabular", settings, "uniform", 0, 5)]
    cells += [Cell("tabular", settings, "random-search", seed, 5) for seed in range(2)]
    return tuple(run_cell(cell, ORIGIN) for cell in cells)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "mine.jsonl"
    for row in rows():
        append_row(path, row)
    return path


def made_episode(steps: int = 3, groups: int = 4) -> Episode:
    """An episode that takes a channel from each group at each step."""
    moments = tuple(
        Moment((8 - step,) * groups, (1 / groups,) * groups, 0.9, 1 - step / 8, 1 - step / 8)
        for step in range(steps + 1)
    )
    names = tuple(f"layer{number}" for number in range(groups))
    settings = {"budget": {"params": 0.5}}
    sizes = (8,) * groups
    return Episode("me", "digits-resnet8", settings, 0, 5, names, sizes, moments, ORIGIN)


# Figures


def test_a_front_holds_what_nothing_beats() -> None:
    costs, values = [3.0, 1.0, 2.0, 2.0, 1.0, 4.0], [0.8, 0.5, 0.7, 0.6, 0.5, 0.8]
    assert pareto_front(costs, values).tolist() == [1, 2, 0]
    assert pareto_front([], []).size == 0


def test_fronts_are_those_found_by_looking_at_all_pairs() -> None:
    rng = np.random.default_rng(0)
    costs, values = rng.integers(0, 6, (2, 200))
    beaten = (costs[:, None] >= costs) & (values[:, None] <= values)
    beaten &= (costs[:, None] > costs) | (values[:, None] < values)
    best = {(int(costs[i]), int(values[i])) for i in np.flatnonzero(~beaten.any(axis=1))}
    front = pareto_front(costs, values)
    assert {(int(costs[i]), int(values[i])) for i in front} == best and len(front) == len(best)


def test_rows_make_a_table_and_three_figures_the_same_each_time(
    rows_file: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        assert main(["figures", str(rows_file), "--out", str(tmp_path / folder)]) == 0
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    stems = ("mine-profiles", "mine-tradeoff", "mine")
    assert written == sorted(
        ["mine.md", *(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))]
    )
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_policy_plays_in_the_environment_that_it_knows() -> None:
    episode = play_episode(
        "rl-pruner", "digits-resnet8", SETTINGS, evaluations=3, seed=0, command="typed"
    )
    env: Any = make_env("digits-resnet8", SETTINGS).unwrapped
    assert episode.sizes == tuple(group.size for group in env.graph.groups)
    first, *_, last = episode.moments
    assert first.counts == episode.sizes and (first.params, first.macs) == (1.0, 1.0)
    assert last.params <= 0.6 < episode.moments[-2].params
    counts = np.array([moment.counts for moment in episode.moments])
    assert (np.diff(counts, axis=0) <= 0).all() and (np.diff(counts.sum(axis=1)) < 0).all()
    shares = np.array([moment.sensitivity for moment in episode.moments])
    assert np.allclose(shares.sum(axis=1), 1.0)
    assert np.abs(np.diff(shares, axis=0)).max() > 0.01, "sensitivities do not change"
    assert Episode.from_json(episode.to_json()) == episode


def test_three_networks_of_an_episode_are_probed_group_by_group(tmp_path: Path) -> None:
    rows = tmp_path / "probed.jsonl"
    command = ["episode", "--evaluations", "2", "--budget", "params=0.6", "--probe"]
    for name, value in SETTINGS.items():
        if name != "budget":
            command += ["--set", f"{name}={json.dumps(value)}"]
    assert main([*command, "--out", str(rows)]) == 0
    (episode,) = read_episodes(rows)
    last = len(episode.moments) - 1
    assert [probe.step for probe in episode.probes] == [0, last // 2, last]
    env: Any = make_env("digits-resnet8", SETTINGS).unwrapped
    dense = env.evaluator.dense.accuracy
    for group, drop in enumerate(episode.probes[0].drops):
        counts = np.array(episode.sizes)
        counts[group] -= max(1, round(0.1 * counts[group]))
        smaller = env.evaluator.evaluate(env.graph.keep_top(env.dynamics.rank, counts))
        assert drop == pytest.approx(max(0.0, dense - smaller.accuracy))
    assert Episode.from_json(episode.to_json()) == episode
    assert imread(tmp_path / "probed-probe.png").std() > 0.05
    assert "probed-probe.png" in rows.with_suffix(".md").read_text()
    with pytest.raises(ValueError, match="--probe"):
        plot_probes(made_episode(), tmp_path / "none")


def test_agents_without_a_policy_cannot_play() -> None:
    with pytest.raises(ValueError, match="agent='uniform' leaves no policy"):
        play_episode("uniform", "digits-resnet8", SETTINGS, evaluations=1, seed=0, command="")


def test_an_episode_is_drawn_group_by_group_and_step_by_step(tmp_path: Path) -> None:
    for draw in (plot_sparsity, plot_sensitivity):
        png, svg = draw(made_episode(), tmp_path / "two.words")
        assert png.name == "two.words.png" and imread(png).std() > 0.05
        again = draw(made_episode(), tmp_path / "again" / "two.words")[1]
        assert svg.read_bytes() == again.read_bytes()
        other = draw(made_episode(steps=4), tmp_path / "other" / "two.words")[1]
        assert svg.read_bytes() != other.read_bytes()
        many = draw(made_episode(groups=60), tmp_path / "many")[0]
        assert many.stat().st_size > 0
        with pytest.raises(ValueError, match="no step"):
            draw(made_episode(steps=0), tmp_path / "none")


def test_files_that_hold_neither_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.jsonl").write_text('{"agent":')
    (tmp_path / "odd.jsonl").write_text('{"moments": 3}\n')
    for name, said in (("torn", "1 is not JSON"), ("odd", "not an episode"), ("none", "no file")):
        with pytest.raises(SystemExit) as stopped:
            main(["figures", str(tmp_path / f"{name}.jsonl")])
        assert stopped.value.code == 2 and said in capsys.readouterr().err
    good = made_episode()
    (tmp_path / "two.jsonl").write_text(2 * (good.to_json() + "\n"))
    assert read_episodes(tmp_path / "two.jsonl") == (good, good)


# The report


def test_the_results_that_are_kept_become_one_file_that_asks_for_nothing() -> None:
    text = report_of_results(RESULTS)
    assert requests_of(text) == [] and "<script" not in text
    assert text == report_of_results(RESULTS)
    pages = sorted(RESULTS.glob("*.md"))
    assert text.count("<section") == len(pages)
    pictures = sum(page.read_text().count("![") for page in pages)
    assert text.count('src="data:image/') == pictures > 0
    rows = sum(line.startswith("| ") for page in pages for line in page.read_text().splitlines())
    assert text.count("<tr>") == rows - text.count("<thead>")  # each has a ruler


def test_rows_become_a_report_without_a_file_left_behind(rows_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(made_episode().to_json() + "\n")
    text = report_of_rows([rows_file, tmp_path / "mine.jsonl"])
    assert requests_of(text) == [] and text.count('src="data:image/svg+xml') == 5
    assert "<td>random-search</td>" in text and "Episodes, step by step" in text
    assert text == report_of_rows([rows_file, tmp_path / "mine.jsonl"])
    assert [path.name for path in rows_file.parent.iterdir()] == ["mine.jsonl"]


def test_the_file_is_html(rows_file: Path) -> None:
    parser = pytest.importorskip("html5lib").HTMLParser(strict=True)
    parser.parse(report_of_rows([rows_file]))
    parser.parse(report_of_results(RESULTS))


def test_what_is_written_in_results_is_shown_and_not_run() -> None:
    page = Page(
        "name", "# A <b>title</b>\n\n<script>alert(1)</script>\n\n| a |\n| --- |\n| <i> |\n", Path()
    )
    text = to_html("T & T", [page])
    assert "<script>" not in text and "&lt;script&gt;" in text and "<i>" not in text
    assert "<title>T &amp; T</title>" in text
    assert "<h2>a &amp; b</h2>\n<p>words" in to_html("x", [Page("a & b", "words", Path())])
    assert '<a href="#s1">A &lt;b&gt;title&lt;/b&gt;</a>' in text


@pytest.mark.parametrize(
    "outside",
    [
        '<img src="x.png">',
        '<link rel="stylesheet" href="x.css">',
        "<style>a { background: url(x.png) }</style>",
        "<script>1</script>",
    ],
)
def test_a_request_would_be_seen(outside: str) -> None:
    assert requests_of(f"<p>{outside}</p>")


def test_pages_that_cannot_be_put_into_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        to_html("x", [])
    with pytest.raises(ValueError, match=r"x.png is missing"):
        to_html("x", [Page("x", "# t\n\n![x](x.png)", tmp_path)])
    with pytest.raises(ValueError, match=r"x.exe: allowed are .svg"):
        to_html("x", [Page("x", "# t\n\n![x](x.exe)", tmp_path)])
    with pytest.raises(ValueError, match="holds no page"):
        report_of_results(tmp_path)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no headless browser here")
@pytest.mark.slow
def test_a_browser_shows_headings_tables_and_pictures(rows_file: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert main(["report", "--rows", str(rows_file), "--out", str(report)]) == 0

    def browse(text: str, *options: str) -> str:
        page = tmp_path / "page.html"
        page.write_text(text)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,2400"]
        command = [str(BROWSER), *flags, f"--user-data-dir={tmp_path / 'user'}", *options]
        ended = subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    text = report.read_text()
    seen = browse(text, "--dump-dom")
    assert "<td>random-search</td>" in seen and seen.count("<img") == 3
    # Pictures are decoded: without their data, the same page looks different.
    browse(text, f"--screenshot={tmp_path / 'with.png'}")
    browse(
        text.replace("data:image/svg+xml;base64,", "data:,"), f"--screenshot={tmp_path / 'o.png'}"
    )
    shown, hidden = imread(tmp_path / "with.png"), imread(tmp_path / "o.png")
    assert shown.shape == hidden.shape and (np.abs(shown - hidden).max(axis=2) > 0.2).mean() > 0.01
