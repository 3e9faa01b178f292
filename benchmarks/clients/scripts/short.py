"""What all programs begin with: the id that was asked for, and arguments that make it quick."""

from __future__ import annotations

import sys
from typing import Any

import pruning_env  # noqa: F401  (registers the environments)

ENV_ID = sys.argv[1] if len(sys.argv) > 1 else "CNNPruneTabular-v0"

#: Fewer images, where there are any.
QUICK: dict[str, Any] = {"val_images": 50} if ENV_ID == "CNNPrune-v0" else {}

#: One action that spreads the whole budget: what optimisers without states can be asked for.
ONE_STEP: dict[str, Any] = {**QUICK, "constraint": "project", "max_steps": 1}
