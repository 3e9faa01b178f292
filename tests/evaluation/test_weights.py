"""Snapshots of trained weights: what they keep, what they are cut to, what may move them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from pruning_env.evaluation.weights import Weights
from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import jitter
from tests.helpers.small import small_model

MODEL = small_model()
GRAPH = ChannelGraph.trace(MODEL, torch.zeros(1, 1, 8, 8))


def keeps():
    """A mask, and one with fewer of its channels."""
    rng = np.random.default_rng(1)
    keep = GRAPH.random_keep(0.7, rng)
    scores = np.where(keep, rng.random(keep.size), -1)
    fewer = GRAPH.keep_top(GRAPH.rank(scores), np.maximum(1, GRAPH.counts(keep) // 2))
    assert not (fewer & ~keep).any() and fewer.sum() < keep.sum()
    return keep, fewer


def trained():
    """A dense network with weights of its own, so that every tensor tells its origin."""
    model = small_model()
    jitter(model)
    return model


def tensors(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def equal(first, second):
    one, other = tensors(first), tensors(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_loading_into_a_further_pruned_network_gives_what_pruning_the_trained_one_would():
    model = trained()
    keep, fewer = keeps()
    weights = Weights(GRAPH.prune(model, keep), keep)
    for target in (keep, fewer):
        blank = GRAPH.prune(MODEL, target)
        weights.load(GRAPH, blank, target)
        assert equal(blank, GRAPH.prune(model, target)) and not equal(
            blank, GRAPH.prune(MODEL, target)
        )


def test_a_snapshot_does_not_follow_the_network_it_was_taken_of_or_loaded_into():
    model, (keep, _) = trained(), keeps()
    small = GRAPH.prune(model, keep)
    weights = Weights(small, keep)
    loaded = GRAPH.prune(MODEL, keep)
    weights.load(GRAPH, loaded, keep)
    with torch.no_grad():
        for changed in (small, loaded):
            for parameter in changed.parameters():
                parameter.zero_()
    again = GRAPH.prune(MODEL, keep)
    weights.load(GRAPH, again, keep)
    assert equal(again, GRAPH.prune(model, keep))
    with pytest.raises(ValueError, match="read-only"):
        weights.keep[0] = False


def test_snapshots_are_equal_exactly_if_mask_and_every_bit_are():
    keep, fewer = keeps()
    small = GRAPH.prune(MODEL, keep)
    one, same = Weights(small, keep), Weights(small, keep)
    assert one == same and hash(one) == hash(same) and one.fingerprint == same.fingerprint
    assert one != Weights(GRAPH.prune(MODEL, fewer), fewer) and one != "weights"
    with torch.no_grad():
        small.get_parameter("head.bias")[0] += 1e-6
    assert one != Weights(small, keep)
    assert one.fingerprint.hex()[:12] in repr(one)


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))]
)
def test_copies_and_pickles_are_equal_and_load_alike(clone):
    keep, _ = keeps()
    model = trained()
    twin = clone(Weights(GRAPH.prune(model, keep), keep))
    assert twin == Weights(GRAPH.prune(model, keep), keep) and not twin.keep.flags.writeable
    blank = GRAPH.prune(MODEL, keep)
    twin.load(GRAPH, blank, keep)
    assert equal(blank, GRAPH.prune(model, keep))


def test_weights_without_the_channels_or_of_another_network_are_refused():
    keep, fewer = keeps()
    with pytest.raises(ValueError, match="keep has channels"):
        Weights(GRAPH.prune(MODEL, fewer), fewer).load(GRAPH, GRAPH.prune(MODEL, keep), keep)
    other = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="another network"):
        Weights(other, keep).load(GRAPH, GRAPH.prune(MODEL, keep), keep)
    with pytest.raises(ValueError, match="another network"):
        Weights(GRAPH.prune(MODEL, keep), keep).load(GRAPH, GRAPH.prune(MODEL, fewer), keep)
