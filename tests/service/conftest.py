"""The real service over real HTTP: uvicorn in a thread, on a free port."""

import io
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, sync_playwright

from indexer.array_types import Floats
from indexer.embedder import Embedder, Embedding
from indexer.learned.item_map import make_map
from indexer.learned.probe_fitting import make_probe
from indexer.opening import open_index
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.writer import IndexWriter
from service import logs
from service.app import create_app
from service.engine import Engine
from service.live_index import LiveIndex
from service.server import Server, bind
from service.settings import Settings
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from training.data.images import Pixels

PATIENCE_S = 60
"""How long a test waits, because machines may be busy."""
ENCODER = Encoder(
    CodeFacts(num_bits=64, num_fitted=18, seed=0, commit=1, loss=(1.0,)),
    np.random.default_rng(0).standard_normal((64, 4096), np.float32),
    np.zeros(64, np.float32),
)
LIMITS = {
    "max_image_bytes": 200_000,
    "max_request_bytes": 400_000,
    "max_images": 4,
    "max_pixels": 1_000_000,
    "max_k": 10,
    "max_items": 100,
}


@pytest.fixture(scope="session")
def copy_index(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`copy_index("mapped")` copies the tiny index into a directory of this name."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("copies") / name))

    return copy


@pytest.fixture
def own_index(copy_index: Callable[[str], Path]) -> Path:
    """A copy of the tiny index for one test, which may change it."""
    return copy_index("photos")


@pytest.fixture(scope="session")
def encoded_index(copy_index: Callable[[str], Path]) -> Path:
    directory = copy_index("encoded")
    with IndexWriter.open(directory) as writer:
        writer.write_codes(ENCODER)
        writer.commit()
    return directory


@pytest.fixture(scope="session")
def probed_index(copy_index: Callable[[str], Path]) -> Path:
    directory = copy_index("probed")
    make_probe(directory)
    return directory


@pytest.fixture(scope="session")
def mapped_index(copy_index: Callable[[str], Path]) -> Path:
    """An index with a map that has one row of dots per colour.

    The points of t-SNE depend on the processor, and some dots could coincide.
    """
    directory = copy_index("mapped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.learned.item_map.lay_out", grid)
        make_map(directory)
    return directory


def grid(features: Floats) -> Floats:
    """Points (n, 2) in rows of NUM_IMAGES_PER_COLOUR, for features (n, 4096)."""
    rows, columns = np.divmod(np.arange(len(features), dtype=np.float32), NUM_IMAGES_PER_COLOUR)
    return np.stack([columns / NUM_IMAGES_PER_COLOUR, rows / len(COLOURS)], axis=1)


@dataclass(frozen=True)
class Service:
    """A running service: a client for it, and the parts that a test may look at or stop."""

    client: httpx.Client
    url: str
    engine: Engine
    server: Server
    app: FastAPI

    @property
    def live_index(self) -> LiveIndex:
        live_index: LiveIndex = self.app.state.live_index
        return live_index


class TriedOutEmbedder(Embedder):
    """The network. Its first image, which a service tries it out with, takes the usual way."""

    is_tried_out = False

    def embed(self, squares: Pixels) -> Embedding:
        if self.is_tried_out:
            self.prepare()
        self.is_tried_out = True
        return super().embed(squares)

    def prepare(self) -> None:
        """Called before each batch but the first."""


class HeldEmbedder(TriedOutEmbedder):
    """The network, but every batch waits until the test lets it go on."""

    def __init__(self, model_directory: Path):
        super().__init__(model_directory)
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def prepare(self) -> None:
        self.has_begun.set()
        assert self.may_go_on.wait(PATIENCE_S)


class BrokenEmbedder(TriedOutEmbedder):
    """The network, but it fails with words that no user should read."""

    def prepare(self) -> None:
        raise RuntimeError("the secret reason")


Run = Callable[..., AbstractContextManager[Service]]


@pytest.fixture(scope="session")
def run(tiny_index: Path) -> Run:
    """`with run(max_k=3) as service:` runs a service with these settings.

    It serves the tiny index unless `index` names another. `model` is a model directory to use
    instead of the index's own copy. `embedder` replaces the network.
    """

    @contextmanager
    def run_one(
        *,
        index: Path = tiny_index,
        model: Path | None = None,
        embedder: Embedder | None = None,
        **settings: object,
    ) -> Iterator[Service]:
        precision: Any = settings.get("precision", "auto")
        opened = open_index(index, model, precision=precision)
        if embedder:
            opened = replace(opened, embedder=embedder)
        app = create_app(opened, Settings.model_validate({**LIMITS, **settings}))
        listener = bind("127.0.0.1", 0)
        listens = threading.Event()
        server = Server(app, listens.set)
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            assert listens.wait(PATIENCE_S)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
                yield Service(client, url, app.state.engine, server, app)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the service does not stop"

    return run_one


@pytest.fixture(scope="session")
def service(run: Run) -> Iterator[Service]:
    """One service for all tests that change nothing."""
    with run() as running:
        yield running


@pytest.fixture(scope="session")
def client(service: Service) -> httpx.Client:
    return service.client


LogTo = Callable[..., io.StringIO]


@pytest.fixture
def log_to() -> Iterator[LogTo]:
    """`log_to(log_format="json")` writes the log of this process to the stream that it returns."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client of the tests

    def configure(**settings: object) -> io.StringIO:
        stream = io.StringIO()
        logs.configure(Settings.model_validate(settings), stream)
        return stream

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    logs.request_id.set("")


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
