"""`groups=` of the environments: which groups of a graph are pruned.

Knows nothing of models, budgets or actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.structure import Counts

__all__ = ["Groups", "check_groups", "chosen_groups"]

Groups = str | Sequence[str]
"""`"all"`, `"inner"`, or patterns of layer names; see `chosen_groups`."""

ALL, INNER = "all", "inner"

_NOT = "!"


def check_groups(groups: Groups) -> None:
    """Raise `ValueError` unless `groups` has the form that `chosen_groups` reads."""
    if isinstance(groups, str):
        if groups in (ALL, INNER):
            return
    elif isinstance(groups, Sequence) and groups and all(_is_pattern(each) for each in groups):
        return
    raise ValueError(
        f"groups={groups!r} is not allowed; give '{ALL}', '{INNER}', or a list of patterns of "
        f"layer names, in which '{_NOT}' before a pattern leaves out what it matches"
    )


def chosen_groups(graph: ChannelGraph, groups: Groups) -> Counts:
    """Indices of the groups that `groups` means.

    Args:
        graph: The graph that has them.
        groups: `"all"`; `"inner"`, those in which the model adds up nothing of several layers, as
            inside residual blocks; or patterns of `fnmatch` for names of layers that lose outputs
            or per-channel parameters with a group. Groups that a pattern matches are in, all where
            no pattern includes any, but those that a pattern behind `"!"` matches.

    Raises:
        ValueError: It is none of these, a pattern matches no layer of any group, or no group is
            left.
    """
    check_groups(groups)
    if groups == ALL:
        return np.arange(len(graph.groups))
    if groups == INNER:
        indices = np.array([i for i, g in enumerate(graph.groups) if not g.summed], np.int64)
    else:
        include = [pattern for pattern in groups if not pattern.startswith(_NOT)]
        exclude = [pattern[len(_NOT) :] for pattern in groups if pattern.startswith(_NOT)]
        try:
            indices = graph.select(include or ("*",), exclude)
        except ValueError as error:
            raise ValueError(f"groups={groups!r}: {error}") from error
    if graph.groups and not indices.size:
        raise ValueError(
            f"groups={groups!r} leaves nothing to prune of "
            f"{', '.join(group.name for group in graph.groups[:5])}"
            f"{', ...' if len(graph.groups) > 5 else ''}"
        )
    return indices


def _is_pattern(pattern: object) -> bool:
    return isinstance(pattern, str) and pattern not in ("", _NOT)
