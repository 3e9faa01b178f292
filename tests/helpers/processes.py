"""Scripts run by a fresh interpreter, always in the root of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.helpers.paths import ROOT


def run_python(script: str, **variables: str) -> str:
    """What `script` prints, run with extra environment variables; it must end well."""
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
