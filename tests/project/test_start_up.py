"""What a process imports before it is needed: nothing heavy. By names; seconds are noisy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

HEAVY = (
    *("torch", "torchvision", "stable_baselines3", "sklearn", "scipy", "matplotlib", "pandas"),
    *("sympy", "onnx", "ray", "PIL"),
)


def imported(code: str) -> set[str]:
    """The heavy ones of the modules that a fresh process has imported after `code`."""
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n', *sys.modules, sep='\\n')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {name for name in (*HEAVY, "torch._dynamo", "torch.export._trace") if name in found}


@pytest.mark.parametrize("arguments", [["--help"], ["tasks"], ["agents"]], ids=" ".join)
def test_help_and_listings_of_the_command_line_import_nothing_heavy(arguments: list[str]) -> None:
    code = "\n".join(
        [
            "from pruning_agents.cli.main import main",
            "try:",
            f"    main({arguments!r})",
            "except SystemExit:",
            "    pass",
        ]
    )
    assert imported(code) == set()


def test_importing_either_package_imports_nothing_heavy() -> None:
    assert imported("import pruning_env, pruning_agents") == set()


def test_making_and_resetting_the_solved_tier_imports_torch_and_little_else() -> None:
    code = """
import gymnasium as gym, pruning_env
gym.make("CNNPruneTabular-v0").reset(seed=0)
"""
    assert imported(code) == {"torch"}
