"""Which channels of a CNN hang together: the `ChannelGraph`.

A *channel* is the smallest unit that can be removed: all the slices of all the tensors that must go
together. A *group* is the set of channels that live in the same tensors, what the literature calls
a layer or a coupled layer. Nothing here knows of data, accuracy or reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from pruning_env.graph import explain, surgery
from pruning_env.graph.layers import Layers, matching, tensors_of
from pruning_env.graph.restriction import restricted_facts
from pruning_env.graph.structure import (
    ChannelGroup,
    ChannelStructure,
    Counts,
    Facts,
    Indices,
    Keep,
    Slot,
)

__all__ = ["ChannelGraph", "ChannelGroup", "Counts", "Keep", "Slot"]


class ChannelGraph(ChannelStructure):
    """The removable channels of a model, and what removing them costs and saves.

    Build one with `ChannelGraph.trace`; it holds names and index arrays, never the model. A *keep
    mask* is a boolean array `(C,)` over all removable channels, group after group; any mask that
    leaves every group at least one channel is valid.

    Attributes:
        groups: The groups, in execution order.
        slots: Every tensor dimension that shrinks.
        frozen: `{layer name: reason}` for layers some or all of whose outputs cannot be removed.
        widened: Parameter-free modules that run at full width between a scatter and a gather.
        normalised: Norms and gates whose statistics run over removable channels, or that hold their
            number without a tensor to show it.
        attributes: Numbers of channels in attributes of modules, which follow.
        aliases: Other names of tensors that several modules share, by the first.
        train_only: Parameters that only train mode uses, where that mode could not be captured.
        caches: `(module, attribute)` of what forward keeps from one call to the next: empty in
            pruned and masked models, which fill it anew.
        num_channels: C, the length of a keep mask.
        sizes: `(L,)` int64, channels per group.
        group_index: `(C,)` int64, the group of each channel.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        # None for itself: a graph that held itself would outlive its last user.
        self._whole: ChannelGraph | None = None
        self._of_whole: Indices = np.arange(self.num_channels)

    @property
    def whole(self) -> ChannelGraph:
        """The graph of all removable channels of the model: this one, unless it is restricted."""
        return self if self._whole is None else self._whole

    @classmethod
    def trace(
        cls,
        model: nn.Module,
        example_input: Any,
        *,
        example_kwargs: Mapping[str, Any] | None = None,
        ignore: Layers = (),
        check: bool = True,
    ) -> ChannelGraph:
        """Find the removable channels of any model that `torch.export` can capture.

        A model without any gives a graph without groups; `frozen` says why.

        Args:
            model: The network; it, and all that it can reach, is left as it was.
            example_input: What `model` accepts, batch first: a tensor, or a tuple of the inputs by
                position, which may be tensors, None, numbers, and lists and dicts of these. A dict
                or a list is one input.
            example_kwargs: Inputs by name.
            ignore: Layers that are to lose no outputs: patterns of names as `fnmatch` has them
                (`"layer1.*"`), module types, or modules of `model`; what is in such a module
                belongs to it. They may lose inputs.
            check: Prune on trial and compare with the masked model, in eval and train mode; groups
                that code with written-out sizes gets wrong are frozen. Costs ten forward passes and
                more where code compares sizes.

        Raises:
            ValueError: When `model` does not accept the example, `torch.export` cannot capture it,
                or `ignore` means nothing in it.
        """
        # A graph that was read before needs none of this, nor torch's tracing.
        from pruning_env.graph.example import Example
        from pruning_env.graph.reading import read_model

        example = Example.of(example_input, example_kwargs)
        ignored = tensors_of(model, ignore, "ignore")
        return cls(read_model(model, example, ignored, check=check))

    def select(self, include: Iterable[str] = ("*",), exclude: Iterable[str] = ()) -> Counts:
        """Indices of the groups with a layer of a name that is included, and none excluded.

        Args:
            include: Patterns of `fnmatch` for names of layers that lose outputs or per-channel
                parameters with the group.
            exclude: Likewise.

        Raises:
            ValueError: When a pattern matches no layer of any group.
        """
        names = list(dict.fromkeys(name for group in self.groups for name in group.layers))
        wanted = matching(names, include, "include")
        unwanted = matching(names, exclude, "exclude")
        return np.array(
            [
                index
                for index, group in enumerate(self.groups)
                if not wanted.isdisjoint(group.layers) and unwanted.isdisjoint(group.layers)
            ],
            np.int64,
        )

    def restrict(self, indices: Sequence[int] | Counts) -> ChannelGraph:
        """The graph of the same model, of which only these groups may lose channels.

        Masks are shorter; what they cost is still that of the whole model.

        Args:
            indices: Of groups, each once, such as `select` gives.

        Raises:
            ValueError: An index is of no group.
        """
        chosen = np.unique(np.asarray(indices, np.int64))
        if chosen.size and not 0 <= chosen[0] <= chosen[-1] < len(self.groups):
            raise ValueError(
                f"indices={chosen.tolist()} must lie in [0, {len(self.groups)}), one per group"
            )
        facts, channels = restricted_facts(self.facts, chosen)
        graph = ChannelGraph(facts)
        graph._whole, graph._of_whole = self.whole, self._of_whole[channels]
        return graph

    def whole_keep(self, keep: Keep) -> Keep:
        """The mask of `whole` that means what `keep` `(C,)` means here."""
        mask = self.whole.full()
        mask[self._of_whole] = self.valid(keep)
        return mask

    # Surgery

    def prune(self, model: nn.Module, keep: Keep) -> nn.Module:
        """A really smaller module: same class and `state_dict` names, sliced copies of the tensors.

        Raises:
            ValueError: When `model` does not have the tensors that were traced, or `keep` is no
                valid mask.
        """
        return surgery.prune(self, model, self.valid(keep))

    def mask(self, model: nn.Module, keep: Keep) -> nn.Module:
        """The full-size module whose outputs equal those of the pruned one: the oracle of `prune`.

        Consumers' weights for removed channels are zero. Norms with statistics over removable
        channels take them over the channels kept, and gates that mix neighbouring channels (ECA's)
        those that are neighbours then.
        """
        return surgery.mask(self, model, self.valid(keep))

    # In words

    def explain(self, layer: str) -> str:
        """What hangs together with `layer`, and why it is frozen if it is."""
        return explain.explain(self, layer)

    def table(self, width: int = 120) -> str:
        """All groups with their layers, and all frozen layers with reasons, as text."""
        return explain.table(self, width)

    def __repr__(self) -> str:
        return (
            f"ChannelGraph({len(self.groups)} groups, {self.num_channels} channels, "
            f"{len(self.frozen)} frozen layers)"
        )
