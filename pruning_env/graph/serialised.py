"""A traced graph as JSON, for files that come with a network and spare tracing it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pruning_env.graph.structure import Adapter, Attribute, ChannelGroup, Facts, Indices, Slot

__all__ = ["facts_from_json", "facts_to_json"]


def facts_to_json(facts: Facts) -> dict[str, Any]:
    """A value of JSON's types that `facts_from_json` reads."""
    return {field.name: _plain(getattr(facts, field.name)) for field in dataclasses.fields(facts)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def facts_from_json(value: Mapping[str, Any]) -> Facts:
    """The facts that `facts_to_json` made the value of.

    Raises:
        ValueError: It is of another form.
    """
    try:
        return Facts(
            groups=tuple(
                ChannelGroup(
                    **{
                        **each,
                        "layers": tuple(each["layers"]),
                        "consumers": tuple(each["consumers"]),
                        "summed": each.get("summed", _shared(each, value["slots"])),
                    }
                )
                for each in value["groups"]
            ),
            slots=tuple(
                Slot(**{**each, "channels": _indices(each["channels"])}) for each in value["slots"]
            ),
            frozen=dict(value["frozen"]),
            widened=_adapters(value["widened"]),
            normalised=_adapters(value["normalised"]),
            attributes=tuple(
                Attribute(**{**each, "channels": _indices(each["channels"])})
                for each in value["attributes"]
            ),
            shapes={name: tuple(shape) for name, shape in value["shapes"].items()},
            trainable=tuple(value["trainable"]),
            aliases={name: tuple(names) for name, names in value["aliases"].items()},
            train_only=tuple(value["train_only"]),
            caches=tuple((module, attribute) for module, attribute in value["caches"]),
            multiplications=tuple((name, rows) for name, rows in value["multiplications"]),
            products=tuple((tuple(map(_indices, axes)), rows) for axes, rows in value["products"]),
            constant_macs=value["constant_macs"],
            batch=value["batch"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"facts: not those of a channel graph: {error!r}") from error


def _shared(group: Mapping[str, Any], slots: list[dict[str, Any]]) -> bool:
    """Whether several layers make a group's channels: for files that say nothing of sums.

    Those are of networks in which nothing but sums makes layers share channels.
    """
    channels = range(group["start"], group["start"] + group["size"])
    makers = {
        slot["tensor"].rpartition(".")[0]
        for slot in slots
        if slot["role"] == "out" and not set(channels).isdisjoint(slot["channels"])
    }
    return len(makers) > 1


def _adapters(values: list[dict[str, Any]]) -> tuple[Adapter, ...]:
    return tuple(
        Adapter(**{**each, "entry": _indices(each["entry"]), "exit": _indices(each["exit"])})
        for each in values
    )


def _indices(values: list[int]) -> Indices:
    return np.array(values, np.int64)
