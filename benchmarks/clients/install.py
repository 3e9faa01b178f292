"""A virtual environment for a client, beside the packages of the one that runs this.

What is installed here already (torch, some gigabytes) is seen in there, behind what the client
brings itself, so that each keeps its own versions of the rest.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.clients.catalogue import Client
from pruning_env.files import atomic_write

__all__ = ["install"]

#: Not installed again: what every client would bring in its newest version, with gigabytes of CUDA.
SHARED = ("torch", "torchvision")


def install(client: Client, folder: Path) -> Path:
    """Make `folder` a virtual environment with what the client needs; return its interpreter.

    One that was made before for the same requirements is taken as it is.

    Raises:
        RuntimeError: the installation failed; the message is pip's.
    """
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join((sys.version, *client.requirements, "without", *client.without))
    if done.exists() and done.read_text() == wanted:
        return python
    _call("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(here)]
    site_packages = next(folder.glob("lib/python*/site-packages"))
    atomic_write(site_packages / "shared.pth", "\n".join(lines) + "\n")
    if client.requirements:
        excluded = folder / "excluded.txt"
        atomic_write(excluded, "\n".join((*SHARED, *client.without)) + "\n")
        where = ("--python", str(python), "--excludes", str(excluded))
        _call("uv", "pip", "install", "--quiet", *where, *client.requirements)
    atomic_write(done, wanted)
    return python


def _call(*command: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise RuntimeError(f"{' '.join(command)}: {found.stderr.strip()}")
