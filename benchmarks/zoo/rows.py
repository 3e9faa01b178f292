"""What is written down about one network of the zoo, and when it counts as a failure."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from pruning_agents.search.rows import Provenance, keyed_rows
from pruning_env.files import atomic_write

#: Largest relative error of a pruned model against its masked twin, by precision; float32 rounding
#: grows with depth.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}

#: In a network that magnifies rounding, pruned and masked outputs, computed in other orders, may
#: differ by this multiple of what a change in the last digit of its input does.
ROUNDING_FACTOR = 10

#: A pruned model's output has to depend on its input by this multiple of the tolerance: in one that
#: says the same of everything, wrong channels would not show.
SIGNAL_FACTOR = 10

#: The reason that every network's head stays for.
HEAD = "an output of the model"

#: Parameters that stay for other reasons than the head, as a share: from here on they are named.
MUCH = 0.05

#: A mask that changes the output by less than this proves nothing.
SMALLEST_EFFECT = 1e-3


@dataclass(frozen=True)
class Timing:
    """Medians over repetitions in one thread.

    Attributes:
        wall_ms: Milliseconds by the clock; grows when other processes use the machine.
        cpu_ms: Milliseconds of processor time.
        repetitions: How many.
    """

    wall_ms: float
    cpu_ms: float
    repetitions: int


@dataclass(frozen=True)
class Measurement:
    """Our side of a row.

    Attributes:
        groups: Number of channel groups.
        channels: Number of removable channels.
        frozen: Reason by layer.
        params: Of the dense model.
        macs: Of the dense model, per image.
        prunable_share: Share of the parameters that goes when every group is cut to one channel.
        trace: One trace; the process has traced another network before.
        prune: A fresh random mask that keeps each channel with probability 0.5, and the surgery.
        params_left: Ratio to dense, at the first of `ratios`.
        macs_left: The same for MACs.
        ratios: Probabilities with which channels are kept in the masks that are compared.
        dtype: Precision of the comparison.
        error: Largest difference of pruned and masked outputs, relative to the largest output.
        rounding: The same of the masked model's outputs when its inputs change in their last digit:
            what rounding alone does to this network.
        effect: Smallest difference of masked and dense outputs, on the same scale.
        signal: Smallest difference of a pruned model's outputs for two inputs, on the same scale.
        params_counted: Whether `graph.params` is what counting on the pruned model gives.
        macs_counted: Whether `graph.macs` is half of what `FlopCounterMode` counts on it.
        trains: "" when the pruned model runs forward and backward in train mode, else the error.
        stays: Share of the parameters that stay when every group is cut to one channel, by reason;
            empty in rows that were made before this was measured.
    """

    groups: int
    channels: int
    frozen: dict[str, str]
    params: int
    macs: int
    prunable_share: float
    trace: Timing
    prune: Timing
    params_left: float
    macs_left: float
    ratios: tuple[float, ...]
    dtype: str
    error: float
    effect: float
    signal: float
    params_counted: bool
    macs_counted: bool
    trains: str
    rounding: float = 0.0
    stays: dict[str, float] = field(default_factory=dict)

    @property
    def lost(self) -> float:
        """Share of the parameters that stay for other reasons than the head; 0 if not measured."""
        return sum(self.stays.values()) - self.stays.get(HEAD, 0.0)


@dataclass(frozen=True)
class Peer:
    """Torch-Pruning on the same model in the same process, in turns with us.

    Attributes:
        version: Its version.
        failure: "" when its model is smaller and runs, in eval and train mode; else what happened.
        prune: `deepcopy`, pruner and step; None when that fails or was stopped.
        ours: Our mask and surgery, in turns with it.
        params_left: Ratio to dense.
    """

    version: str
    failure: str
    prune: Timing | None
    ours: Timing | None
    params_left: float | None


@dataclass(frozen=True)
class ZooRow:
    """One network of the zoo.

    Attributes:
        model: Its name.
        family: Its family.
        shapes: Of its inputs.
        seed: Of weights, inputs and masks.
        skipped: "" or why it was not measured (too large, took too long).
        crashed: "" or what stopped the measurement.
        ours: None when skipped or crashed.
        peer: None when not asked for, not installed, or ours is None.
        provenance: How, where and when.
    """

    model: str
    family: str
    shapes: tuple[tuple[int, ...], ...]
    seed: int
    skipped: str
    crashed: str
    ours: Measurement | None
    peer: Peer | None
    provenance: Provenance

    def failures(self) -> tuple[str, ...]:
        """What is wrong with the pruned model, in words; empty when nothing is, or if skipped."""
        if self.skipped:
            return ()
        ours = self.ours
        if ours is None:
            return (self.crashed,)
        found = []
        allowed = max(TOLERANCE[ours.dtype], ROUNDING_FACTOR * ours.rounding)
        if not ours.error <= allowed:  # NaN is no agreement
            found.append(f"pruned differs from masked by {ours.error:.1e} in {ours.dtype}")
        if not ours.effect >= SMALLEST_EFFECT:
            found.append(f"the mask changes the output by {ours.effect:.1e} only")
        if not ours.signal >= SIGNAL_FACTOR * allowed:
            found.append(f"two inputs change the pruned model's output by {ours.signal:.1e} only")
        if not ours.params_counted:
            found.append("params differ from counting")
        if not ours.macs_counted:
            found.append("macs differ from FlopCounterMode / 2")
        if ours.trains:
            found.append(f"train mode: {ours.trains}")
        return tuple(found)

    def to_json(self) -> str:
        """One line of JSON; infinite and undefined numbers become null."""
        return json.dumps(_finite(dataclasses.asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> ZooRow:
        """The row that `to_json` wrote.

        Raises:
            ValueError: When the line is none.
        """
        try:
            data = json.loads(line)
            data["shapes"] = tuple(map(tuple, data["shapes"]))
            data["provenance"] = Provenance(**data["provenance"])
            data["ours"] = measurement_from(data["ours"]) if data["ours"] else None
            data["peer"] = peer_from(data["peer"]) if data["peer"] else None
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of the zoo: {error}") from error


def measurement_from(data: dict) -> Measurement:
    """A `Measurement` from its JSON object; null numbers are NaN."""
    for name in ("trace", "prune"):
        data[name] = Timing(**data[name])
    for name in ("error", "rounding", "effect", "signal"):
        if name in data and data[name] is None:
            data[name] = math.nan
    data["ratios"] = tuple(data["ratios"])
    return Measurement(**data)


def peer_from(data: dict) -> Peer:
    """A `Peer` from its JSON object."""
    for name in ("prune", "ours"):
        data[name] = Timing(**data[name]) if data[name] else None
    return Peer(**data)


def to_json(value: Measurement | Peer) -> str:
    """A part of a row as one line of JSON."""
    return json.dumps(_finite(dataclasses.asdict(value)), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def read_rows(path: str | os.PathLike[str]) -> dict[str, ZooRow]:
    """Rows by model; see `pruning_agents.search.rows.keyed_rows`."""
    return keyed_rows(path, ZooRow.from_json, lambda row: row.model)


def write_rows(path: str | os.PathLike[str], rows: Iterable[ZooRow]) -> None:
    """Write all rows, so that a killed run leaves the old file or the new one."""
    atomic_write(path, "".join(row.to_json() + "\n" for row in rows))
