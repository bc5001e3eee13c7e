"""The real service over real HTTP: uvicorn in a thread, on a free port."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from indexer.embedder import Embedder, Embedding
from indexer.opening import open_for_queries
from service.app import create_app
from service.engine import Engine
from service.server import Server, bind
from service.settings import Settings
from training.data.images import Pixels

PATIENCE_S = 60
"""How long a test waits for what it waits for: machines may be busy."""
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
    """A service that runs: a client for it, and the parts that a test may look at or stop."""

    client: httpx.Client
    url: str
    engine: Engine
    server: Server


class HeldEmbedder(Embedder):
    """The network, but every pass waits until the test lets it go."""

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
    """`with run(max_k=3) as service:` runs one on the tiny index, or another `index`, with these settings, and perhaps an `embedder`."""

    @contextmanager
    def run_one(
        *, index: Path = tiny_index, embedder: Embedder | None = None, **settings: object
    ) -> Iterator[Service]:
        opened, own_embedder, searcher = open_for_queries(index)
        app = create_app(
            opened,
            embedder or own_embedder,
            searcher,
            Settings.model_validate({**LIMITS, **settings}),
        )
        listener = bind("127.0.0.1", 0)
        listens = threading.Event()
        server = Server(app, listens.set)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            assert listens.wait(PATIENCE_S)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
                yield Service(client, url, app.state.engine, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)

    return run_one


@pytest.fixture(scope="session")
def service(run: Run) -> Iterator[Service]:
    """One service for all tests that only ask."""
    with run() as running:
        yield running


@pytest.fixture(scope="session")
def client(service: Service) -> httpx.Client:
    return service.client


Browse = Callable[..., Page]


@pytest.fixture
def browse() -> Iterator[Browse]:
    """`browse(url)` opens a page in Chromium, with Playwright's options. Fails if it asked another server or broke its own policy."""
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if not chromium:
        pytest.skip("needs Chromium, which is not installed")
    opened: list[str] = []
    asked: list[str] = []
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )  # which root may not use

        def open_page(url: str, **options: Any) -> Page:
            opened.append(url)
            page = browser.new_page(**{"viewport": {"width": 1280, "height": 860}, **options})
            page.set_default_timeout(PATIENCE_S * 1000)
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(f"Uncaught: {error}"))
            page.goto(url)
            page.wait_for_selector(".card")
            return page

        yield open_page
        browser.close()
    assert not [url for url in asked if not url.startswith((*opened, "blob:", "data:"))]
    assert not [text for text in said if "Content Security Policy" in text or "Uncaught" in text]
