"""Fixtures of the tests that download."""

from collections.abc import Iterator

import pytest

from tests.training.network.file_server import PROXY_VARIABLES, FileServer, serve_file


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of a file. Proxies are not used, and attempts follow each other without a pause."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("training.network.download.PAUSES_S", (0, 0, 0))
    with serve_file() as served:
        yield served
