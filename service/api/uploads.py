"""Read uploads. Bytes are counted while they arrive, and large files are kept on the disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO

from fastapi import Depends, Request
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.dependencies import TheEngine
from service.api.problems import ProblemError, ProblemResponse
from service.engine import QueryImageError
from service.settings import Settings

FIELD = "image"
MAX_FILENAME_CHARACTERS = 255
LINGER_S = 5.0
"""Maximum time for which the rest of a refused request is read, in seconds."""

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
                            "description": "An image file. Repeat the field for several images.",
                        }
                    },
                }
            }
        },
    }
}
"""The description of an upload for FastAPI's argument `openapi_extra`."""


@dataclass(frozen=True)
class Upload:
    """One file of a request. It is not decoded yet.

    `filename` comes from the user. It may be shown, but never used as a path.
    """

    filename: str
    """A short and printable name without folders."""
    file: BinaryIO


class BodyLimit:
    """ASGI middleware that refuses a request body of more than `max_bytes`.

    If the Content-Length is too large, the request is refused before its body arrives. Most clients
    read the answer only after they have sent the whole body. If the connection were closed earlier,
    these clients would lose the answer. So the rest of the body is read for at most LINGER_S
    seconds and discarded.
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
                await _discard_rest(receive)
                message = {"type": "http.response.body"}
            await send(message)

        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            # A client that sends `Expect` waits for this answer before it sends the body.
            must_linger = "expect" not in headers
            response = ProblemResponse.of(self._too_large(f"{int(announced):,}"))
            return await response(scope, receive, send_lingering)
        await self.app(scope, receive_counted, send_lingering)

    def _too_large(self, num_bytes: str) -> ProblemError:
        return ProblemError(
            "too-many-bytes",
            f"the request has {num_bytes} bytes; at most {self.max_bytes:,} are accepted, "
            "so send smaller or fewer images",
            headers={"Connection": "close"},
        )


async def read_uploads(request: Request, engine: TheEngine) -> AsyncIterator[list[Upload]]:
    """Read the files of the field `image`. They stay open until the request has been answered.

    Raises ProblemError for a wrong request. Turns a QueryImageError of the engine into a
    ProblemError that contains the file name.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise ProblemError(
            "not-an-upload",
            f"the images must be sent as multipart/form-data in the field {FIELD!r}, "
            f"but the content type is {content_type or 'missing'}; "
            f"for example: curl -F {FIELD}=@cat.jpg",
        )
    try:
        form = await request.form()
    except HTTPException as error:  # raised by the parser
        raise ProblemError(
            "malformed-upload",
            f"{error.detail.rstrip('.')}; send multipart/form-data, "
            f"for example with: curl -F {FIELD}=@cat.jpg",
        ) from error
    try:
        uploads = _uploads(form, engine.settings)
        try:
            yield uploads
        except QueryImageError as error:
            filename = uploads[error.position].filename
            raise ProblemError(error.reason, f"{filename}: {error}", filename=filename) from error
    finally:
        await form.close()


Uploads = Annotated[list[Upload], Depends(read_uploads)]


async def _discard_rest(receive: Receive) -> None:
    """Read the rest of a request for at most LINGER_S and discard it.

    The limit is a time. If it were a number of bytes, a fast client could send more bytes. Then its
    connection would be reset, and the reset could arrive before the answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass


def _uploads(form: FormData, settings: Settings) -> list[Upload]:
    values = form.getlist(FIELD)
    files = [value for value in values if isinstance(value, UploadFile)]
    if not files:
        raise ProblemError(
            "missing-image",
            f"the form must contain a file in the field {FIELD!r}, but {_received(form, values)}",
        )
    if len(files) < len(values):
        raise ProblemError(
            "missing-image",
            f"each field {FIELD!r} must be a file, "
            f"but {len(values) - len(files)} of {len(values)} are text",
        )
    if len(files) > settings.max_images:
        raise ProblemError(
            "too-many-images",
            f"the request has {len(files)} images; at most {settings.max_images} are accepted "
            "at once, so send them in several requests",
        )
    uploads = []
    for number, file in enumerate(files, 1):
        upload = Upload(_shown_name(file.filename, number), file.file)
        if (file.size or 0) > settings.max_image_bytes:
            raise ProblemError(
                "too-many-bytes",
                f"{upload.filename}: the file has {file.size:,} bytes; "
                f"at most {settings.max_image_bytes:,} are accepted, so scale it down",
                filename=upload.filename,
            )
        uploads.append(upload)
    return uploads


def _received(form: FormData, values: Sequence[object]) -> str:
    """Describe a form that contains no file."""
    if values:
        return "the field is text without a file name"
    names = ", ".join(repr(name[:50]) for name in list(form)[:5])
    return f"it contains {names}" if names else "it contains no complete field"


def _shown_name(filename: str | None, number: int) -> str:
    """The last part of a user's file name, printable and short.

    If nothing is left of the name, the file is named by its number, for example `image 3`.
    """
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    printable = "".join(character for character in name if character.isprintable())
    return printable[-MAX_FILENAME_CHARACTERS:].strip() or f"image {number}"
