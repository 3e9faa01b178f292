"""What several test files share: time limits, the `data` marker and the real images behind it."""

from __future__ import annotations

import os

import pytest

from pruning_env.tasks.data import DATA_VARIABLE, Splits, load_cifar10

#: Seconds after which a slow test counts as hanging; pyproject.toml has the limit of the others.
SLOW_TIMEOUT = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))
    if os.environ.get(DATA_VARIABLE):
        return
    absent = pytest.mark.skip(reason=f"{DATA_VARIABLE} is not set")
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def cifar10() -> Splits:
    """The real CIFAR-10; only for tests marked `data`."""
    return load_cifar10()
