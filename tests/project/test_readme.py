"""The README's examples run as they stand, one after another, as a reader would paste them."""

from __future__ import annotations

import re

import pytest

from pruning_env.tasks import registry as tasks
from tests.helpers.paths import ROOT

README = ROOT / "README.md"
MOST_WORDS = 900


def test_every_python_block_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))  # what they register is theirs
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    assert "of the parameters" in printed
    assert "rl-pruner: search-val accuracy" in printed
    assert "[('0', 32), ('2', 64)]" in printed


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= MOST_WORDS


def test_the_readme_says_what_is_left_of_a_lead_after_training() -> None:
    """Its numbers are those of the table of trained networks."""
    caveat = README.read_text().partition("## Results")[2].partition("\n## ")[0]
    assert "gone" in caveat and 'recovery="finetune"' in caveat
    table = (ROOT / "benchmarks/results/reproduce/after-training.md").read_text()
    for limit in ("10 %", "5 %"):
        found = re.search(
            rf"params {limit}, 30 epochs \| rl-pruner \| 10 \| \+([\d.]+) \(.*?\) \| "
            r"(-[\d.]+) \((-[\d.]+) to ([+-][\d.]+)\) \|",
            table,
        )
        assert found is not None
        before, *after = map(float, found.groups())
        assert f"{before:.1f}" in caveat
        assert all(f"{abs(number):.2f}" in caveat for number in after)


def test_every_file_that_the_readme_links_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [link for link in links if "://" not in link]
    assert local
    missing = [link for link in local if not (README.parent / link).exists()]
    assert not missing
