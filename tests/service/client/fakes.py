"""A service in memory that follows the HTTP API, with failures that a real service rarely has."""

import hashlib
import json
from collections.abc import Sequence
from email import message_from_bytes
from email.message import Message
from typing import Any

import httpx

PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of an image. For the fake service, they are enough."""
KEY = "the-write-key"
URL = "http://photos.example"
CLASSES = [{"name": "red", "index": 2, "probability": 0.9}]
MATCHES = [{"id": 7, "path": "red/7.png", "label": "red", "distance": 0.5, "thumbnail": "/t"}]
LIMITS = {
    "max_image_bytes": 1000,
    "max_request_bytes": 4000,
    "max_images": 4,
    "max_pixels": 1000,
    "max_k": 10,
    "max_items": 100,
}

Failure = httpx.Response | httpx.RequestError


def problem(
    type: str, status: int, detail: str = "the detail", filename: str | None = None, **headers: str
) -> httpx.Response:
    """A problem response, as the service sends it. `retry_after` is the header Retry-After."""
    content = _problem(type, status, detail, filename)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(
        status,
        content=json.dumps(content),
        headers={"Content-Type": "application/problem+json", **named},
    )


def page(status: int, **headers: str) -> httpx.Response:
    """A page of a proxy."""
    return httpx.Response(status, html="<h1>Please\nsign in</h1>", headers=headers)


def again(response: httpx.Response) -> httpx.Response:
    """A copy of a response, because a response can be sent only once."""
    return httpx.Response(response.status_code, headers=response.headers, content=response.content)


class FakeService:
    """Answers requests, after it has given `failures` as the outcomes of the first requests.

    It keeps the requests, and the items that were added.
    """

    def __init__(self, failures: Sequence[Failure] = ()):
        self.failures = list(failures)
        self.requests: list[httpx.Request] = []
        self.items: dict[int, dict[str, Any]] = {}

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, httpx.RequestError):
                raise failure
            return again(failure)
        match request.method, request.url.path.strip("/").split("/"):
            case "GET", ["readyz"]:
                return httpx.Response(200, json={"status": "ready"})
            case "GET", ["info"]:
                return httpx.Response(200, json=_info(len(self.items)))
            case "POST", ["classify"]:
                return _per_image(request, 200, lambda name, content: {"classes": CLASSES})
            case "POST", ["similar"]:
                return _per_image(request, 200, lambda name, content: {"matches": MATCHES})
            case "GET", ["items"]:
                return self._list(request)
            case "GET", ["items", id, "similar"]:
                return httpx.Response(200, json={"metric": "cosine", "matches": MATCHES[: int(id)]})
            case _ if request.headers.get("Authorization") != f"Bearer {KEY}":
                return problem("unauthorized", 401)
            case "POST", ["items"]:
                return _per_image(request, 201, lambda *image: self._add(request, *image))
            case "DELETE", ["items", id] if int(id) in self.items:
                del self.items[int(id)]
                return httpx.Response(200, json={"index": "photos", "commit": 8, "id": int(id)})
        return problem("unknown-item", 404)

    def _list(self, request: httpx.Request) -> httpx.Response:
        offset, limit = (int(request.url.params[name]) for name in ("offset", "limit"))
        items = list(self.items.values())
        listed = items[offset : offset + limit]
        return httpx.Response(200, json={"items": listed, "total": len(items)})

    def _add(self, request: httpx.Request, name: str, content: bytes) -> dict[str, Any]:
        path, label = (request.url.params.get(name) for name in ("path", "label"))
        item = {"path": path or name, "label": label, "sha256": hashlib.sha256(content).hexdigest()}
        status = "added"
        for id, other in list(self.items.items()):
            if item.items() <= other.items():
                return {"id": id, "path": path, "label": label, "status": "unchanged"}
            if other["path"] == item["path"]:
                del self.items[id]
                status = "replaced"
        id = len(self.requests)
        sizes = {"width": 1, "height": 1, "added_at": "", "thumbnail": ""}
        self.items[id] = {"id": id, **item, **sizes}
        return {"id": id, "path": item["path"], "label": label, "status": status}


def images(request: httpx.Request) -> list[tuple[str, bytes]]:
    """The names and the bytes of the images in a request."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    found = []
    for part in message_from_bytes(head + request.read()).get_payload():
        assert isinstance(part, Message)
        assert part.get_param("name", header="content-disposition") == "image"
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((str(part.get_filename()), content))
    return found


def _per_image(request: httpx.Request, status: int, answer: Any) -> httpx.Response:
    """An answer for each usable image. If no image is usable, the problem of the first."""
    results: list[dict[str, Any]] = []
    for name, content in images(request):
        is_usable = content.startswith(PNG)
        found = (
            answer(name, content) if is_usable else {"problem": _unusable(name), "classes": None}
        )
        results.append({"filename": name, **found})
    if all("problem" in result for result in results):
        return problem(**_unusable(results[0]["filename"], short=True))
    body = {"model": "m", "index": "photos", "commit": 7, "results": results, "new": [1]}
    return httpx.Response(status, json=body)


def _unusable(name: str, *, short: bool = False) -> dict[str, Any]:
    detail = f"{name}: the file is not an image"
    if short:
        return {"type": "not-an-image", "status": 415, "detail": detail, "filename": name}
    return _problem("not-an-image", 415, detail, name)


def _problem(type: str, status: int, detail: str, filename: str | None) -> dict[str, Any]:
    content = {"type": f"urn:lookalike:problem:{type}", "title": "The title", "status": status}
    return {**content, "detail": detail, **({"filename": filename} if filename else {})}


def _info(num_items: int) -> dict[str, Any]:
    model = {"id": "m", "class_names": [], "image_size": 67, "metrics": {}, "created_at": ""}
    index = {
        **{"commit": 7, "model": "m", "kind": "flat", "recall_at_10": {}, "num_items": num_items},
        **{"num_labels": 0, "labels": {}, "metrics": [], "better_metric": None, "probe": None},
        **{"map": None, "updated_at": ""},
    }
    return {"model": model, "index": index, "limits": LIMITS, "versions": {}}
