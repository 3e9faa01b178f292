"""A graph of which some groups stay whole against the whole graph with the same mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.selection import check_groups, chosen_groups
from pruning_env.graph.serialised import facts_from_json, facts_to_json
from pruning_env.process.filters import filters_at
from pruning_env.tasks.models import CifarResNet
from tests.helpers.small import small_model, small_splits


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return ChannelGraph.trace(small_model(), torch.zeros(1, 1, 8, 8))


def names(graph: ChannelGraph, groups: Any) -> list[str]:
    return [graph.groups[index].name for index in chosen_groups(graph, groups)]


# Which groups


def test_inner_groups_are_those_that_no_sum_couples(graph: ChannelGraph) -> None:
    assert names(graph, "all") == ["stem.0", "inner.0", "down.0"]
    assert names(graph, "inner") == ["inner.0", "down.0"]


def test_in_a_resnet_the_first_layer_of_each_block_is_inner() -> None:
    resnet = ChannelGraph.trace(CifarResNet(20, shortcut="A"), torch.zeros(1, 3, 32, 32))
    assert names(resnet, "inner") == [
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]


def test_a_product_of_two_layers_is_no_sum() -> None:
    """Squeeze-and-excitation scales the channels inside a block, of which two layers know."""
    model = torchvision.models.get_model("mobilenet_v3_small", weights=None).eval()
    mobile = ChannelGraph.trace(model, torch.zeros(1, 3, 64, 64), check=False)
    inner = names(mobile, "inner")
    assert "features.4.block.0.0" in inner  # the expansion
    assert not {"features.4.block.3.0", "features.5.block.3.0"} & set(inner)


class Residual(nn.Module):
    """Two layers that meet as `how` says, and one that reads what comes of it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.full((6, 1, 1), 0.5))
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = self.second(x)
        if self.how == "plain":
            x = x + y
        elif self.how == "in place":
            y += x
            x = y
        elif self.how == "addcmul":
            x = torch.addcmul(x, y, self.scale)
        elif self.how == "lerp":
            x = torch.lerp(x, y, 0.3)
        elif self.how == "stack":
            x = torch.stack([x, y]).sum(0)
        elif self.how == "difference":
            x = x - y
        elif self.how == "product":
            x = x * y
        elif self.how == "shift":
            x = y * self.scale + self.scale
        return self.last(x)


@pytest.mark.parametrize(
    ("how", "summed"),
    [
        *((how, True) for how in ("plain", "in place", "addcmul", "lerp", "stack", "difference")),
        ("product", False),
        ("shift", False),
    ],
)
def test_a_sum_is_recognised_however_it_is_written(how: str, summed: bool) -> None:
    traced = ChannelGraph.trace(Residual(how).eval(), torch.zeros(1, 3, 4, 4), check=False)
    assert any(group.summed for group in traced.groups) == summed


def test_patterns_include_and_leave_out(graph: ChannelGraph) -> None:
    assert names(graph, ["inner.*", "stem.1"]) == ["stem.0", "inner.0"]
    assert names(graph, ["!stem.*"]) == ["inner.0", "down.0"]
    assert names(graph, ["*.0", "!down.0"]) == ["stem.0", "inner.0"]


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("outer", "groups='outer' is not allowed; give 'all', 'inner'"),
        ([], r"groups=\[\] is not allowed"),
        ([""], r"groups=\[''\] is not allowed"),
        ([3], r"groups=\[3\] is not allowed"),
        ({"inner": 1}, "is not allowed"),
        (["nowhere.*"], "matches none of stem.0"),
        (["inner.*", "!*.0"], "leaves nothing to prune of stem.0, inner.0, down.0"),
    ],
)
def test_groups_that_mean_nothing_are_refused(graph: ChannelGraph, groups: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chosen_groups(graph, groups)


def test_form_is_checked_without_a_graph() -> None:
    check_groups(["anything.*"])
    with pytest.raises(ValueError, match="groups=None"):
        check_groups(None)  # type: ignore[arg-type]


def test_a_graph_that_was_stored_knows_its_sums(graph: ChannelGraph) -> None:
    stored = facts_to_json(graph.facts)
    assert facts_from_json(stored).groups == graph.groups
    for group in stored["groups"]:
        del group["summed"]  # as in files from before
    assert facts_from_json(stored).groups == graph.groups


# What a restricted graph does


@pytest.fixture(scope="module")
def restricted(graph: ChannelGraph) -> ChannelGraph:
    return graph.restrict(chosen_groups(graph, "inner"))


def masks(graph: ChannelGraph) -> list[Any]:
    rng = np.random.default_rng(0)
    return [graph.random_keep(share, rng) for share in (0.3, 0.6, 0.9)]


def test_costs_are_those_of_the_whole_network(
    graph: ChannelGraph, restricted: ChannelGraph
) -> None:
    for keep in masks(restricted):
        whole = restricted.whole_keep(keep)
        assert restricted.params(keep) == graph.params(whole)
        assert restricted.macs(keep) == graph.macs(whole)
        filters = [int(filters_at(g, g.counts(k))) for g, k in ((restricted, keep), (graph, whole))]
        assert filters[0] == filters[1]


def test_it_cuts_and_masks_what_the_whole_graph_does(
    graph: ChannelGraph, restricted: ChannelGraph
) -> None:
    model, images = small_model(), torch.randn(4, 1, 8, 8)
    for keep in masks(restricted):
        for one, other in (
            (restricted.prune(model, keep), graph.prune(model, restricted.whole_keep(keep))),
            (restricted.mask(model, keep), graph.mask(model, restricted.whole_keep(keep))),
        ):
            assert torch.equal(one.eval()(images), other.eval()(images))


@pytest.mark.parametrize("recovery", ["none", "bn", "reconstruct"])
@pytest.mark.parametrize("strategy", ["sliced", "masked", "batched"])
def test_evaluators_of_both_agree(
    graph: ChannelGraph, restricted: ChannelGraph, recovery: str, strategy: str
) -> None:
    one, other = (
        Evaluator(small_model(), g, small_splits(), recovery=recovery, strategy=strategy)
        for g in (restricted, graph)
    )
    keeps = masks(restricted)
    wholes = [restricted.whole_keep(keep) for keep in keeps]
    for a, b in zip(one.evaluate_many(keeps), other.evaluate_many(wholes), strict=True):
        assert a.accuracy == b.accuracy and a.loss == pytest.approx(b.loss, rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "taylor", "reconstruction", "bn_scale"])
def test_importance_of_the_channels_is_the_same(
    graph: ChannelGraph, restricted: ChannelGraph, kind: str
) -> None:
    one, other = (Evaluator(small_model(), g, small_splits()) for g in (restricted, graph))
    chosen = np.isin(graph.group_index, chosen_groups(graph, "inner"))
    np.testing.assert_allclose(one.scores(kind), other.scores(kind)[chosen], rtol=1e-5)


def test_layers_that_stay_whole_say_so(restricted: ChannelGraph) -> None:
    assert restricted.frozen["stem.0"] == "its group is left whole"
    assert "its group is left whole" in restricted.explain("stem.0")


def test_restricting_twice_leads_to_the_same_whole(
    graph: ChannelGraph, restricted: ChannelGraph
) -> None:
    twice = restricted.restrict([1])
    keep = twice.full()
    keep[0] = False
    assert twice.whole is graph
    assert graph.counts(twice.whole_keep(keep)).tolist() == [6, 10, 7]
    assert graph.restrict([0, 1, 2]).fingerprint == graph.fingerprint != twice.fingerprint


def test_an_index_of_no_group_is_refused(graph: ChannelGraph) -> None:
    with pytest.raises(ValueError, match=r"indices=\[3\]"):
        graph.restrict([3])
