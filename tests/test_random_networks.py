"""Random networks: whatever is built from the blocks, pruning it is right.

`PRUNING_ENV_NETWORKS=3000 pytest tests/test_random_networks.py` runs as many networks as it says,
other ones with every `PRUNING_ENV_SEED`.
"""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from torch.utils.flop_counter import FlopCounterMode

from pruning_env.channels import ChannelGraph
from tests.networks import leaves, worst
from tests.random_networks import Case, cases

ASKED = os.environ.get("PRUNING_ENV_NETWORKS")
COMMON = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}


def check(case: Case) -> ChannelGraph:
    """All that must hold of any network."""
    network, inputs = case.network, case.inputs
    before = copy.deepcopy(network.state_dict())
    graph = ChannelGraph.trace(network, inputs)
    for reason in graph.frozen.values():
        assert reason and "no rule for" not in reason and "failed" not in reason, reason
    keep = graph.random_keep(case.ratio, np.random.default_rng(case.seed))
    pruned, masked = graph.prune(network, keep), graph.mask(network, keep)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        given_outputs = pruned(*inputs)
    with torch.no_grad():
        error = worst(given_outputs, masked(*inputs))
        assert error <= 1e-10, f"pruned and masked differ by {error:.1e}"
        same = graph.prune(network, graph.full())(*inputs)
        assert all(map(torch.equal, leaves(same), leaves(network(*inputs))))
    assert graph.params(keep) == sum(p.numel() for p in pruned.parameters())
    # An einsum over a single channel left is a plain product, which the counter does not see.
    if not any(getattr(m, "how", "") == "einsum" for m in network.modules()):
        assert graph.macs(keep) * 2 * len(inputs[0]) == counter.get_total_flops()
    outputs = pruned.train()(*(torch.cat([x, x, x]) for x in inputs))
    sum(leaf.square().mean() for leaf in leaves(outputs)).backward()  # type: ignore[union-attr]
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    return graph


@settings(max_examples=60, derandomize=True, **COMMON)
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
