"""Random networks: whatever is built from the blocks, pruning it is right.

`PRUNING_ENV_NETWORKS=3000 pytest tests/graph/test_random_networks.py` runs as many as it says,
other ones with every `PRUNING_ENV_SEED`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import check_pruning
from tests.helpers.random_networks import Case, cases

ASKED = os.environ.get("PRUNING_ENV_NETWORKS")
COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}


def check(case: Case) -> ChannelGraph:
    graph = ChannelGraph.trace(case.network, case.inputs)
    keep = graph.random_keep(case.ratio, np.random.default_rng(case.seed))
    check_pruning(graph, case.network, case.inputs, keep)
    return graph


@settings(max_examples=20, derandomize=True, **COMMON)
@given(cases())
def test_a_random_network_is_pruned_right(case: Case) -> None:
    check(case)


@pytest.mark.slow
@settings(max_examples=500, derandomize=True, **COMMON)
@given(cases())
def test_five_hundred_random_networks_are_pruned_right(case: Case) -> None:
    check(case)


@pytest.mark.skipif(ASKED is None, reason="PRUNING_ENV_NETWORKS is not set")
@seed(int(os.environ.get("PRUNING_ENV_SEED", "0")))
@settings(max_examples=int(ASKED or 1), **COMMON)
@given(cases())
def test_as_many_random_networks_as_asked_for_are_pruned_right(case: Case) -> None:
    check(case)
