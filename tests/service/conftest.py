"""The real service over real HTTP: uvicorn in a thread, on a free port."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from indexer.embedder import Embedder, Embedding
from indexer.opening import open_index
from service.app import create_app
from service.engine import Engine
from service.server import Server, bind
from service.settings import Settings
from training.data.images import Pixels

PATIENCE_S = 60
"""How long a test waits, because machines may be busy."""
LIMITS = {
    "max_image_bytes": 200_000,
    "max_request_bytes": 400_000,
    "max_images": 4,
    "max_pixels": 1_000_000,
    "max_k": 10,
    "max_items": 100,
}


@dataclass(frozen=True)
class Service:
    """A running service: a client for it, and the parts that a test may look at or stop."""

    client: httpx.Client
    url: str
    engine: Engine
    server: Server


class HeldEmbedder(Embedder):
    """The network, but every batch waits until the test lets it go on."""

    def __init__(self, model_directory: Path):
        super().__init__(model_directory)
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def embed(self, squares: Pixels) -> Embedding:
        self.has_begun.set()
        assert self.may_go_on.wait(PATIENCE_S)
        return super().embed(squares)


class BrokenEmbedder(Embedder):
    """The network, but it fails with words that no user should read."""

    def embed(self, squares: Pixels) -> Embedding:
        raise RuntimeError("the secret reason")


Run = Callable[..., AbstractContextManager[Service]]


@pytest.fixture(scope="session")
def run(tiny_index: Path) -> Run:
    """`with run(max_k=3) as service:` runs a service with these settings.

    It serves the tiny index unless `index` names another. `embedder` replaces the network.
    """

    @contextmanager
    def run_one(
        *, index: Path = tiny_index, embedder: Embedder | None = None, **settings: object
    ) -> Iterator[Service]:
        opened = open_index(index)
        if embedder:
            opened = replace(opened, embedder=embedder)
        app = create_app(opened, Settings.model_validate({**LIMITS, **settings}))
        listener = bind("127.0.0.1", 0)
        listens = threading.Event()
        server = Server(app, listens.set)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            assert listens.wait(PATIENCE_S)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            # The server closes idle connections after 5 s. The client must not reuse one just then.
            limits = httpx.Limits(keepalive_expiry=1.0)
            with httpx.Client(base_url=url, timeout=PATIENCE_S, limits=limits) as client:
                yield Service(client, url, app.state.engine, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)

    return run_one


@pytest.fixture(scope="session")
def service(run: Run) -> Iterator[Service]:
    """One service for all tests that change nothing."""
    with run() as running:
        yield running


@pytest.fixture(scope="session")
def client(service: Service) -> httpx.Client:
    return service.client


Browse = Callable[..., Page]


@pytest.fixture
def browse() -> Iterator[Browse]:
    """`browse(url)` opens a page in Chromium, with Playwright's options.

    The test fails if the page asks another server or breaks its own security policy.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if not chromium:
        pytest.skip("needs Chromium, which is not installed")
    opened: list[str] = []
    requested: list[str] = []
    messages: list[str] = []
    with sync_playwright() as playwright:
        # Chromium's sandbox does not start as root.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_page(url: str, **options: Any) -> Page:
            opened.append(url)
            page = browser.new_page(**{"viewport": {"width": 1280, "height": 860}, **options})
            page.set_default_timeout(PATIENCE_S * 1000)
            page.on("request", lambda request: requested.append(request.url))
            page.on("console", lambda message: messages.append(message.text))
            page.on("pageerror", lambda error: messages.append(f"Uncaught: {error}"))
            page.goto(url)
            page.wait_for_selector(".card")
            return page

        yield open_page
        browser.close()
    assert not [url for url in requested if not url.startswith((*opened, "blob:", "data:"))]
    assert not [text for text in messages if "Content Security" in text or "Uncaught" in text]
