"""What came of a client on an environment, and the file that keeps it. Runs nothing."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass

from pruning_agents.search.rows import Provenance, keyed_rows

__all__ = ["ClientRow", "read_rows"]


@dataclass(frozen=True)
class ClientRow:
    """One client on one environment.

    Attributes:
        client: its name.
        version: of its package, in its own virtual environment.
        gymnasium: version there.
        env_id: of `gym.make`.
        error: "" if it ran to the end, else the last line that it said.
        seconds: that it ran, imports included.
        provenance: how, where and when.
    """

    client: str
    version: str
    gymnasium: str
    env_id: str
    error: str
    seconds: float
    provenance: Provenance

    @property
    def key(self) -> tuple[str, str]:
        """The later of two rows with the same one counts."""
        return self.client, self.env_id

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> ClientRow:
        """The row that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            data = json.loads(line)
            return cls(**{**data, "provenance": Provenance(**data["provenance"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of a client: {error}") from error


def read_rows(path: str | os.PathLike[str]) -> dict[tuple[str, str], ClientRow]:
    """Rows by key, the last of each; none if there is no file."""
    return keyed_rows(path, ClientRow.from_json, lambda row: row.key)
