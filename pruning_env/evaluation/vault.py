"""Holds the test data, counts each read of them, and never copies or pickles them.

It keeps honest code from looking by accident, and makes every look show. It does not stop code
that reads the data set from disk again, or this object's private attribute. Knows nothing of what
it holds.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pruning_env.evaluation.ledger import Ledger

__all__ = ["Vault"]

Content = TypeVar("Content")


class Vault(Generic[Content]):
    """Holds the test data and counts how often they are read.

    Args:
        content: what is kept; None in what comes out of a pickle.
        ledger: where openings are counted.

    Attributes:
        ledger: as given; another one may be put in its place.
    """

    def __init__(self, content: Content | None, ledger: Ledger) -> None:
        self._content = content
        self.ledger = ledger

    def open(self) -> Content:
        """What is kept; counted.

        Raises:
            RuntimeError: this vault came out of a pickle, and is empty.
        """
        if self._content is None:
            raise RuntimeError(
                "test data stay in the process that loaded them; open the environment's own vault, "
                "by its report()"
            )
        self.ledger.opened()
        return self._content

    def __copy__(self) -> Vault[Content]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Vault[Content]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """An empty vault: a pickle with content would be a copy that nobody counts."""
        return Vault, (None, self.ledger)
