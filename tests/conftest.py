"""What test files share: time limits, the `data` marker, real images, one trace of each network."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pruning_env.graph import reading
from pruning_env.tasks.data import DATA_VARIABLE, Splits, load_cifar10
from tests.helpers.tracing import remembered

_READ_ONCE = remembered(reading.read_model)

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


@pytest.fixture(scope="module", autouse=True)
def traced_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Networks of many tests are traced once in a process, but for the tests of tracing itself."""
    with pytest.MonkeyPatch.context() as patch:
        if "/tests/graph/" not in request.path.as_posix():
            patch.setattr(reading, "read_model", _READ_ONCE)
        yield
