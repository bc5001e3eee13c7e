"""Images as bytes, for the tests of the service."""

import io
import time
from collections.abc import Callable
from typing import Any

import httpx
from PIL import Image

from tests.conftest import coloured


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(label: str = "red", seed: int = 7) -> bytes:
    """A PNG of one colour that is not in the index."""
    return encoded(coloured(label, 1000 + seed))


def upload(*files: bytes | tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """httpx's `files` for these, in field `image`."""
    named = [("picture.png", file) if isinstance(file, bytes) else file for file in files]
    return [("image", file) for file in named]


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem that a response must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["type"] == f"urn:lookalike:problem:{kind}"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    return found


def wait_until(is_so: Callable[[], bool], patience_s: float = 60) -> None:
    deadline_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to pass"
        time.sleep(0.01)
