"""Reading uploads safely: bytes are counted while they arrive, pixels before they are decoded; large files wait on disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import ProblemError, ProblemResponse
from service.settings import Settings
from training.data.images import ImageError, Pixels, open_picture, to_square

FIELD = "image"
MAX_FILENAME_CHARACTERS = 255
LINGER_S = 5.0

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "An image file; repeat the field for several.",
                        }
                    },
                }
            }
        },
    }
}
"""What OpenAPI says of an upload: FastAPI's `openapi_extra`."""


@dataclass(frozen=True)
class Upload:
    """A file of a request, not decoded yet. `filename` is the user's, short and printable: show it, never open it."""

    filename: str
    file: BinaryIO


class BodyLimit:
    """ASGI middleware: a request body of more than `max_bytes` is refused, before it is read if its Content-Length says so.

    Most clients read the answer only once they have sent everything, and lose it if the connection is closed before: so what they
    still send is thrown away for a while.
    """

    def __init__(self, app: ASGIApp, max_bytes: int):
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        must_linger = False
        num_received = 0

        async def receive_counted() -> Message:
            nonlocal must_linger, num_received
            message = await receive()
            num_received += len(message.get("body", b""))
            if num_received > self.max_bytes:
                must_linger = message.get("more_body", False)
                raise self._too_large(f"more than {self.max_bytes:,}")
            return message

        async def send_lingering(message: Message) -> None:
            if must_linger and message["type"] == "http.response.body":
                await send({**message, "more_body": True})
                await _discard(receive, self.max_bytes)
                message = {"type": "http.response.body"}
            await send(message)

        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            must_linger = (
                "expect" not in headers
            )  # such a client waits for this answer and sends nothing
            return await ProblemResponse.of(self._too_large(f"{int(announced):,}"))(
                scope, receive, send_lingering
            )
        await self.app(scope, receive_counted, send_lingering)

    def _too_large(self, num_bytes: str) -> ProblemError:
        detail = f"the request has {num_bytes} bytes; at most {self.max_bytes:,} are accepted, so send smaller or fewer images"
        return ProblemError("too-many-bytes", detail, headers={"Connection": "close"})


async def read_uploads(request: Request) -> AsyncIterator[list[Upload]]:
    """A dependency: the files of field `image`, open for as long as the request takes; raises ProblemError."""
    settings: Settings = request.app.state.engine.settings
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise ProblemError(
            "not-an-upload",
            f"the images must come as multipart/form-data in the field {FIELD!r}, but the content type is {kind or 'missing'}; "
            f"for example: curl -F {FIELD}=@cat.jpg",
        )
    try:
        form = await request.form()
    except HTTPException as error:  # the parser's
        detail = f"{error.detail.rstrip('.')}; send multipart/form-data, for example with: curl -F {FIELD}=@cat.jpg"
        raise ProblemError("malformed-upload", detail) from error
    try:
        yield _uploads(form, settings)
    finally:
        await form.close()


def decode(upload: Upload, *, size: int, max_pixels: int) -> Pixels:
    """The square (size, size, 3) that the network sees; raises ProblemError, which names the file."""
    try:
        return to_square(open_picture(upload.file.read(), size=size, max_pixels=max_pixels), size)
    except ImageError as error:
        raise ProblemError(
            error.reason, f"{upload.filename}: {error}", filename=upload.filename
        ) from error


async def _discard(receive: Receive, max_bytes: int) -> None:
    """Reads the rest of a request, but not more than this, and not for long."""
    num_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while num_bytes < max_bytes:
                message = await receive()
                num_bytes += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _uploads(form: FormData, settings: Settings) -> list[Upload]:
    values = form.getlist(FIELD)
    files = [value for value in values if isinstance(value, UploadFile)]
    if not files:
        raise ProblemError(
            "missing-image",
            f"the form must have a file in the field {FIELD!r}, but {_found(form, values)}",
        )
    if len(files) < len(values):
        raise ProblemError(
            "missing-image",
            f"each field {FIELD!r} must be a file, but {len(values) - len(files)} of {len(values)} are text",
        )
    if len(files) > settings.max_images:
        detail = f"the request has {len(files)} images; at most {settings.max_images} are accepted at once, so send them in several requests"
        raise ProblemError("too-many-images", detail)
    uploads = [
        Upload(_clean(file.filename, number), file.file) for number, file in enumerate(files, 1)
    ]
    for upload, file in zip(uploads, files, strict=True):
        if (file.size or 0) > settings.max_image_bytes:
            raise ProblemError(
                "too-many-bytes",
                f"{upload.filename}: the file has {file.size:,} bytes; at most {settings.max_image_bytes:,} are accepted, so scale it down",
                filename=upload.filename,
            )
    return uploads


def _found(form: FormData, values: Sequence[object]) -> str:
    if values:
        return "it came as text, without a file name"
    names = ", ".join(repr(name[:50]) for name in list(form)[:5])
    return f"it has {names}" if names else "it has no field that is complete"


def _clean(filename: str | None, number: int) -> str:
    """The last part of a user's file name, printable and short; `image 3` for the third if nothing is left."""
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    return (
        "".join(character for character in name if character.isprintable())[
            -MAX_FILENAME_CHARACTERS:
        ].strip()
        or f"image {number}"
    )
