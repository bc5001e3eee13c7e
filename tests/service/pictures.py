"""Images as bytes, and the answers to them, for the tests of the service."""

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
    """These files in the field `image`, as httpx's `files`."""
    named = [("picture.png", file) if isinstance(file, bytes) else file for file in files]
    return [("image", file) for file in named]


def problem(response: httpx.Response, status: int, type: str) -> dict[str, Any]:
    """The problem in a response, which must have this status and type."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["type"] == f"urn:lookalike:problem:{type}"
    assert content["status"] == status
    assert content["title"]
    assert content["detail"]
    return content


def detail_of(response: httpx.Response, status: int, type: str) -> str:
    """The detail of the problem in a response, which must have this status and type."""
    return str(problem(response, status, type)["detail"])


def wait_until(is_so: Callable[[], bool], patience_s: float = 60) -> None:
    deadline_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"still not true after {patience_s} s"
        time.sleep(0.01)
