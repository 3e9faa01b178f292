"""Where test data lie: one place, whose openings are counted and which is neither copied nor sent.

It keeps honest code from looking by accident, and makes every look show. It does not stop code
that reads the data set from disk again, or this object's private attribute. Knows nothing of what
it holds.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

from pruning_env.ledger import Ledger

__all__ = ["Vault"]

Content = TypeVar("Content")


class Vault(Generic[Content]):
    """Holds test data.

    Args:
        content: what is kept.
        ledger: where openings are counted.

    Attributes:
        ledger: as given; another one may be put in its place.
    """

    def __init__(self, content: Content, ledger: Ledger) -> None:
        self._content = content
        self.ledger = ledger

    def open(self) -> Content:
        """What is kept; counted."""
        self.ledger.opened()
        return self._content

    def __copy__(self) -> Vault[Content]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Vault[Content]:
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse: a pickle would be a copy of the test data that nobody counts.

        Raises:
            TypeError: always.
        """
        raise TypeError("test data are sealed and cannot be pickled; pickle the environment")
