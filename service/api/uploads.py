"""The images of a request: their limits, and the way from a form to answers.

Large files are kept on the disk. gate.py has refused some requests before their bodies are read
here.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO, TypeVar, get_origin

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from service.api.admitting import admitted
from service.api.dependencies import TheEngine
from service.api.gate import TIMEOUT_PARAMETER
from service.api.problems import Problem, ProblemError
from service.engine import Engine
from service.settings import Settings
from service.ticket import Ticket
from training.data.images import ImageError

FIELD = "image"
MAX_FILENAME_CHARACTERS = 255
MAX_FIELDS = 32
"""Maximum number of fields of a form that are text."""
MAX_FIELD_BYTES = 16_384

BODY: dict[str, Any] = {
    "parameters": [TIMEOUT_PARAMETER],
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
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "An image file. Repeat the field for several images. "
                            "The parameters may be fields of the form too.",
                        }
                    },
                }
            }
        },
    },
}
"""The description of an upload for FastAPI's argument `openapi_extra`."""
Options = TypeVar("Options", bound=BaseModel)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Upload:
    """One file of a request. It is not decoded yet.

    `filename` comes from the user. It may be shown, but never used as a path.
    """

    filename: str
    """A short and printable name without folders."""
    file: BinaryIO
    problem: ProblemError | None = None
    """Why the file cannot be used, if that is known before it is decoded."""


@dataclass(frozen=True)
class Uploads:
    """The files of a request, and the other fields of its form."""

    engine: Engine
    request: Request
    images: Sequence[Upload]
    fields: Mapping[str, list[str]]
    timeout_s: float | None
    """The time in which the client wants its answer. None means any time."""

    def options(self, query: Options) -> Options:
        """The parameters of the request. They may be in its address and in its form.

        Raises RequestValidationError for a field that is wrong, unknown or given in both places.
        """
        if not self.fields:
            return query
        given = {name: getattr(query, name) for name in self.request.query_params}
        if repeated := [name for name in self.fields if name in given]:
            raise ProblemError(
                "invalid-request",
                f"{repeated[0]}: is both in the address and in the form; send it once",
            )
        for name, values in self.fields.items():
            known = type(query).model_fields.get(name)
            is_list = known and get_origin(known.annotation) is list
            given[name] = values if is_list or len(values) > 1 else values[0]
        try:
            return type(query).model_validate(given)
        except ValidationError as error:
            errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
            raise RequestValidationError(errors) from error

    async def answered(
        self,
        work: Callable[[Sequence[BinaryIO], Ticket], Awaitable[list[Result | ImageError]]],
        *,
        strict: bool,
    ) -> list[Result | Problem]:
        """Admit the request, do its work, and return an answer or a problem for each image.

        If all images are unusable, or one of them and `strict` is true, raises the ProblemError of
        the first one. Raises Overloaded if the request is refused or has to wait too long.
        """
        problems = {at: one.problem for at, one in enumerate(self.images) if one.problem}
        files = [upload.file for upload in self.images if not upload.problem]
        if problems and (strict or not files):
            raise next(iter(problems.values()))
        answers = iter(await self._work(files, work))
        results: list[Result | Problem] = []
        for at, upload in enumerate(self.images):
            answer = problems.get(at) or next(answers)
            if isinstance(answer, ImageError):
                answer = problems[at] = _problem(upload, answer)
            results.append(answer.problem() if isinstance(answer, ProblemError) else answer)
        if problems and (strict or len(problems) == len(results)):
            raise problems[min(problems)]
        return results

    async def _work(
        self,
        files: Sequence[BinaryIO],
        work: Callable[[Sequence[BinaryIO], Ticket], Awaitable[list[Result | ImageError]]],
    ) -> list[Result | ImageError]:
        admission = self.engine.admission
        async with admitted(self.request, admission, len(files), self.timeout_s) as ticket:
            return await work(files, ticket)


async def read_uploads(request: Request, engine: TheEngine) -> AsyncIterator[Uploads]:
    """Read the form of a request. Its files stay open until the request has been answered.

    Raises ProblemError for a wrong request, and Overloaded if the request is refused.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise ProblemError(
            "not-an-upload",
            f"the images must be sent as multipart/form-data in the field {FIELD!r}, "
            f"but the content type is {content_type or 'missing'}; "
            f"for example: curl -F {FIELD}=@cat.jpg",
        )
    timeout_s: float | None = request.state.timeout_s  # from the gate
    start_s = time.monotonic()
    with engine.admission.uploading():
        form = await _read_form(request, engine.settings)
    left_s = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - start_s))
    try:
        yield Uploads(engine, request, _images(form, engine.settings), _fields(form), left_s)
    finally:
        await form.close()


TheUploads = Annotated[Uploads, Depends(read_uploads)]


async def _read_form(request: Request, settings: Settings) -> FormData:
    try:
        return await request.form(
            max_files=settings.max_images, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        )
    except HTTPException as error:  # raised by the parser
        if error.detail.startswith("Too many files"):
            raise ProblemError(
                "too-many-images",
                f"the request has more than {settings.max_images} images, and at most "
                f"{settings.max_images} are accepted at once, so send them in several requests",
            ) from error
        raise ProblemError(
            "malformed-upload",
            f"{error.detail.rstrip('.')}; send multipart/form-data, "
            f"for example with: curl -F {FIELD}=@cat.jpg",
        ) from error


def _images(form: FormData, settings: Settings) -> list[Upload]:
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
    uploads = []
    for number, file in enumerate(files, 1):
        name, num_bytes, problem = _shown_name(file.filename, number), file.size or 0, None
        if num_bytes > settings.max_image_bytes:
            problem = ProblemError(
                "too-many-bytes",
                f"{name}: the file has {num_bytes:,} bytes; "
                f"at most {settings.max_image_bytes:,} are accepted, so scale it down",
                filename=name,
            )
        uploads.append(Upload(name, file.file, problem))
    return uploads


def _fields(form: FormData) -> dict[str, list[str]]:
    """The values of the fields that are text."""
    fields: dict[str, list[str]] = {}
    for name in form:
        if name == FIELD:
            continue
        values = form.getlist(name)
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) < len(values):
            raise ProblemError(
                "invalid-request", f"{name[:50]}: images must be in the field {FIELD!r}"
            )
        fields[name] = texts
    return fields


def _problem(upload: Upload, error: ImageError) -> ProblemError:
    name = upload.filename
    return ProblemError(error.reason, f"{name}: {error}", filename=name)


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
