"""Services on indexes with codes, a probe or a map."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.reports.distance_choice import store_choice
from tests.service.conftest import Run, Service


@pytest.fixture(scope="session")
def cosine_index(copy_index: Callable[[str], Path]) -> Path:
    """An index on which cosine distance was measured to rank better."""
    directory = copy_index("cosine")
    store_choice(directory, {"euclidean": 0.8, "cosine": 0.9}, k=6, commit=1)
    return directory


@pytest.fixture(scope="module")
def encoded_service(run: Run, encoded_index: Path) -> Iterator[Service]:
    """A service that can search by codes."""
    with run(index=encoded_index) as running:
        yield running


@pytest.fixture(scope="module")
def probed_service(run: Run, probed_index: Path) -> Iterator[Service]:
    """A service that can classify by the items' labels."""
    with run(index=probed_index) as running:
        yield running


@pytest.fixture(scope="module")
def mapped_service(run: Run, mapped_index: Path) -> Iterator[Service]:
    """A service with a map of its items."""
    with run(index=mapped_index) as running:
        yield running


@pytest.fixture(scope="module")
def cosine_service(run: Run, cosine_index: Path) -> Iterator[Service]:
    """A service on an index on which cosine distance ranks better."""
    with run(index=cosine_index) as running:
        yield running
