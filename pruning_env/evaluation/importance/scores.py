"""How much each channel matters: one score per removable channel, all groups at once.

Kinds of importance are functions in a registry. Each makes one pass over the tensors of the model
and adds up what belongs to a channel by the graph's slots; there is no loop over channels. Knows
nothing of keep masks being searched, rewards or environments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_env.arguments import check_choice, check_new_name
from pruning_env.evaluation.gradients import computing_gradients, laid_out
from pruning_env.evaluation.importance.gate_gradients import (
    NotFiniteError,
    channel_sums,
    gate_gradients,
    reading,
    rows_of,
)
from pruning_env.evaluation.importance.residuals import residuals
from pruning_env.graph.channel_graph import ChannelGraph, Slot
from pruning_env.graph.functional import call_with
from pruning_env.plugins import load_plugins

__all__ = [
    "TAYLOR_BATCH",
    "Evidence",
    "group_sensitivity",
    "importance_kinds",
    "importance_scores",
    "normalise",
    "register_importance",
    "taylor_scores",
]

Scores = NDArray[np.float64]

TAYLOR_BATCH = 8
"""Images whose gradients are added up before the absolute value is taken (see `taylor`)."""

TAYLOR_TEMPERATURE = 4.0
"""What `taylor` divides the logits by, so that images fitted perfectly still have a gradient."""


@dataclass(frozen=True)
class Evidence:
    """What a kind of importance may look at.

    Attributes:
        graph: Channel graph of `model`.
        model: Read only; its training flags may be anything.
        images: (N, ...) normalised, on the model's device, or None.
        labels: (N,) int64, or None.
        rng: Source of randomness, or None.
    """

    graph: ChannelGraph
    model: nn.Module
    images: torch.Tensor | None
    labels: torch.Tensor | None
    rng: np.random.Generator | None


class ImportanceFunction(Protocol):
    """How much each channel matters; see `register_importance`."""

    def __call__(self, evidence: Evidence, /) -> NDArray[np.float64]:
        """(C,) finite scores, one per channel of `evidence.graph`; the lowest go first."""
        ...


KindT = TypeVar("KindT", bound=ImportanceFunction)
_KINDS: dict[str, ImportanceFunction] = {}


def register_importance(name: str) -> Callable[[KindT], KindT]:
    """Decorator: let `importance=name` choose the decorated function.

    The function gets an `Evidence` and returns (C,) finite scores, one per channel; in each group
    those with the lowest go first.

    Args:
        name: the new value of `importance=`.

    Raises:
        ValueError: the name is taken or empty.
    """
    check_new_name("name", name, _KINDS)

    def register(kind: KindT) -> KindT:
        _KINDS[name] = kind
        return kind

    return register


def importance_kinds() -> tuple[str, ...]:
    """Names of the registered kinds; those of plug-ins too."""
    load_plugins()
    return tuple(_KINDS)


def importance_scores(
    kind: str,
    graph: ChannelGraph,
    model: nn.Module,
    *,
    images: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    rng: np.random.Generator | None = None,
) -> Scores:
    """Raw importance of every channel of every group; the model is left exactly as it was.

    Raw means in the kind's own unit: comparable inside a group, and between groups only as far as
    the kind says (`normalise` makes groups comparable).

    Args:
        kind: A registered kind: "l1", "l2", "taylor", "reconstruction", "bn_scale", "random" or
            one of the user's own.
        graph: Channel graph of `model`.
        model: The dense model.
        images: (N, ...) normalised images on the model's device; "taylor" and "reconstruction"
            need them.
        labels: (N,) int64; "taylor" needs them.
        rng: "random" needs it.

    Returns:
        (C,) float64, finite.

    Raises:
        ValueError: The kind is unknown, needs something that was not given, does not apply to this
            network, or yields a score that is not finite (the message names the layer).
    """
    check_choice("kind", kind, importance_kinds())
    scores = np.asarray(_KINDS[kind](Evidence(graph, model, images, labels, rng)), np.float64)
    if scores.shape != (graph.num_channels,):
        raise ValueError(
            f"importance {kind!r} returned shape {scores.shape}; needed: ({graph.num_channels},)"
        )
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        group = graph.groups[graph.group_index[bad[0]]]
        raise NotFiniteError(
            f"importance {kind!r} of layer {group.name!r} is not finite "
            f"({bad.size} of {graph.num_channels} channels in all)"
        )
    return scores


def normalise(graph: ChannelGraph, scores: Scores) -> Scores:
    """Scores in units of their group's mean, (C,): the average channel of every group has 1.

    This makes groups comparable whatever their fan-in, depth and kind of importance. The mean, not
    the l2 norm of Molchanov et al. (2017), because a norm grows with the number of channels and
    would call narrow groups important. A group whose scores are all zero stays zero.
    """
    means = _group_sum(graph, scores) / graph.sizes
    return scores / np.where(means == 0.0, 1.0, means)[graph.group_index]


def group_sensitivity(graph: ChannelGraph, scores: Scores, keep: NDArray[np.bool_]) -> Scores:
    """How much an average remaining channel of each group matters, as shares that sum to 1.

    Args:
        graph: The graph.
        scores: (C,) raw scores, none negative.
        keep: (C,) bool, at least one channel per group.

    Returns:
        (L,) mean raw score over the channels kept, divided by the sum of these means; equal shares
        when all are zero.
    """
    means = _group_sum(graph, np.where(keep, scores, 0.0)) / graph.counts(keep)
    total = means.sum()
    return means / total if total > 0.0 else np.full(len(means), 1.0 / len(means))


@register_importance("l1")
def l1(evidence: Evidence) -> Scores:
    """Sum of |w| over the channel's own filters.

    Li et al. 2017, "Pruning Filters for Efficient ConvNets".

    Own filters are the weights of two or more dimensions that shrink with the channel: rows of the
    producing convolutions and linear layers, and depthwise kernels. Coupled layers are combined by
    `_balanced`.
    """
    return _balanced(
        evidence.graph,
        [
            (slot, channel_sums(evidence.graph, slot, rows.abs().sum(1)))
            for slot, rows in _filters(evidence)
        ],
    )


@register_importance("l2")
def l2(evidence: Evidence) -> Scores:
    """Euclidean norm of the channel's own filters; filters and combination as in `l1`."""
    return _balanced(
        evidence.graph,
        [
            (slot, np.sqrt(channel_sums(evidence.graph, slot, rows.square().sum(1))))
            for slot, rows in _filters(evidence)
        ],
    )


@register_importance("bn_scale")
def bn_scale(evidence: Evidence) -> Scores:
    """|gamma| of the channel's batch norms (Liu et al. 2017, "Network Slimming").

    Several batch norms on one group are combined by `_balanced`. There is no fallback: a group
    without batch norm would need a score in another unit, so it is an error.
    """
    graph = evidence.graph
    gammas = {
        f"{name}.weight": module.weight
        for name, module in evidence.model.named_modules()
        if isinstance(module, _BatchNorm) and module.affine
    }
    slots = [slot for slot in graph.slots if slot.tensor in gammas]
    covered = np.zeros(len(graph.groups), dtype=bool)
    for slot in slots:
        covered[_groups_of(graph, slot)] = True
    if not covered.all():
        missing = [graph.groups[index].name for index in np.flatnonzero(~covered)]
        raise ValueError(
            f"importance 'bn_scale': {len(missing)} of {len(graph.groups)} groups have no batch "
            f"norm with a scale, first {missing[0]!r}; kinds that need none: l1, l2, taylor"
        )
    return _balanced(
        graph, [(slot, channel_sums(graph, slot, gammas[slot.tensor].abs())) for slot in slots]
    )


@register_importance("taylor")
def taylor(evidence: Evidence) -> Scores:
    """First-order estimate of how much the loss moves when the channel is removed, in nats.

    The gate form of Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"
    (arXiv 1906.10771, section 3.1): |sum of w * dL/dw| over weights that go together, averaged over
    batches. The weights are the channel's columns in every layer that reads it. A layer is linear
    in them, so their sum is dL/dg for a gate g on the channel where it is read, behind its norms
    and activations and in every branch: removing the channel is exactly g = 0. Layers that lose
    channels together need no balancing, as all scores are in units of the loss; for the same reason
    groups can be compared raw.

    Two things keep the gradients of a trained network from vanishing. L is the cross-entropy of the
    logits divided by `TAYLOR_TEMPERATURE`: a network that fits its images perfectly has no gradient
    at temperature 1, and its scores are noise. And the absolute value is taken per batch of
    `TAYLOR_BATCH` images, since over all images the gradient of every gate is near zero.

    Mean accuracy of 25 random distributions at a quarter of the parameters of the digits ResNet-8,
    and at half of CIFAR-10 ResNet-20's (512 images for scores, batch norm re-estimated): 0.53 and
    0.43; at temperature 1 with batches of 32, 0.34 and 0.35; sum of |w * dL/dw| at temperature 1,
    as in RL-Pruner, 0.28 and 0.41; l1 0.42 and 0.39; bn_scale 0.46 and 0.31; random 0.34 and 0.23.

    The model is read in eval mode through detached tensors: no gradient, statistic, flag or hook of
    it changes. What it costs, and when, is in gates.py.
    """
    images, labels = evidence.images, evidence.labels
    if images is None or labels is None or len(images) == 0:
        raise ValueError("images and labels: importance 'taylor' needs at least one labelled image")
    return taylor_scores(evidence.graph, evidence.model, images, labels)


def taylor_scores(
    graph: ChannelGraph,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    keep: NDArray[np.bool_] | None = None,
) -> Scores:
    """What `taylor` says of a network, also of one that is pruned already.

    Args:
        graph: Channel graph of the dense network.
        model: The dense network, or the one pruned to `keep`; left as it was.
        images: (N, ...) normalised, on the model's device, N at least 1.
        labels: (N,) int64.
        keep: (C,) bool, the channels that `model` has; None: all.

    Returns:
        (C,) float64, in nats; 0 for channels that are gone.

    Raises:
        NotFiniteError: A gradient is not finite; the message names the layer.
    """

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits / TAYLOR_TEMPERATURE, targets, reduction="sum") / len(labels)

    gates = gate_gradients(graph, model, images, labels, loss, TAYLOR_BATCH, keep)
    return np.abs(gates).sum(0)


@register_importance("reconstruction")
def reconstruction(evidence: Evidence) -> Scores:
    """What is lost of the layers' outputs once those that read the channel have been fitted anew.

    Made for `recovery="reconstruct"`: the channel that the others explain best goes first. Scores
    are shares of variance, 0 for a channel that others explain in full; see `residuals`.

    Source: the optimal brain surgeon (Hassibi and Stork 1993), applied to a layer's outputs as in
    Dong et al. 2017, "Learning to Prune Deep Neural Networks via Layer-wise Optimal Brain Surgeon",
    here with whole channels for weights, the taps of a kernel taken alike.
    """
    if evidence.images is None or len(evidence.images) == 0:
        raise ValueError("images: importance 'reconstruction' needs at least one image")
    with reading(evidence.model):
        return residuals(evidence.graph, evidence.model, evidence.images)


@register_importance("taylor_weights")
def taylor_weights(evidence: Evidence) -> Scores:
    """Sum of |w * dL/dw| over the channel's own filters, L the mean cross-entropy of all images.

    RL-Pruner's (Wang and Kindratenko, arXiv 2411.06463): one pass back, and the plain mean over
    layers that lose channels together. Biases and norms do not count. The model is read in eval
    mode and stays as it is.
    """
    images, labels = evidence.images, evidence.labels
    if images is None or labels is None or len(images) == 0:
        raise ValueError(
            "images and labels: importance 'taylor_weights' needs at least one labelled image"
        )
    weights = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in evidence.model.named_parameters()
    }
    with reading(evidence.model), computing_gradients():
        outputs = call_with(evidence.model, weights, laid_out(images, evidence.model))
        loss = F.cross_entropy(outputs, labels)
        found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    gradients = dict(zip(weights, found, strict=True))
    graph = evidence.graph
    scores, members = np.zeros(graph.num_channels), np.zeros(len(graph.groups))
    for slot, rows in _filters(evidence):
        gradient = rows_of(gradients[slot.tensor].double(), slot.dim)
        scores += channel_sums(graph, slot, (rows * gradient).abs().sum(1))
        members[_groups_of(graph, slot)] += 1
    return scores / np.maximum(members, 1)[graph.group_index]


@register_importance("random")
def random(evidence: Evidence) -> Scores:
    """Uniform in [0, 1): the baseline every other kind has to beat."""
    if evidence.rng is None:
        raise ValueError("rng=None: importance 'random' needs a numpy.random.Generator")
    return evidence.rng.random(evidence.graph.num_channels)


def _balanced(graph: ChannelGraph, members: list[tuple[Slot, Scores]]) -> Scores:
    """Combine the scores of layers that lose channels together.

    Each member layer is divided by its mean over the group before the members are averaged, so that
    all have one vote in the ranking whatever their scale; the result is scaled by the average of
    those means, so that the group keeps its raw level. A group with one member keeps its scores
    unchanged. Members whose scores are all zero cannot rank anything and have no vote.
    """
    size = len(graph.groups)
    votes, level, present = np.zeros(graph.num_channels), np.zeros(size), np.zeros(size)
    voters = np.zeros(size)
    for slot, scores in members:
        groups = _groups_of(graph, slot)
        means = _group_sum(graph, scores) / graph.sizes
        votes += scores / np.where(means == 0.0, 1.0, means)[graph.group_index]
        voters += means != 0.0
        level += means
        present[groups] += 1
    weight = level / np.maximum(present, 1) / np.maximum(voters, 1)
    return votes * weight[graph.group_index]


def _filters(evidence: Evidence) -> Iterator[tuple[Slot, torch.Tensor]]:
    """Weights of two or more dimensions that shrink with a channel: (slot indices, rest)."""
    parameters = dict(evidence.model.named_parameters())
    for slot in evidence.graph.slots:
        weight = parameters.get(slot.tensor)
        if slot.role != "in" and weight is not None and weight.ndim >= 2:
            yield slot, rows_of(weight.detach().double(), slot.dim)


def _groups_of(graph: ChannelGraph, slot: Slot) -> NDArray[np.int64]:
    """Indices of the groups that own a part of the slot."""
    return np.unique(graph.group_index[slot.channels[slot.channels >= 0]])


def _group_sum(graph: ChannelGraph, scores: Scores) -> Scores:
    """(C,) -> (L,)."""
    return np.bincount(graph.group_index, scores, len(graph.groups)).astype(np.float64, copy=False)
