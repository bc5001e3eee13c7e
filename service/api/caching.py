"""Answers that a client may keep: ETag and If-None-Match (RFC 9110, sections 8.8.3 and 13.1.2)."""

import re
from typing import Any

from fastapi import Request, Response

_ENTITY_TAG = re.compile(r'(?:W/)?"([^"]*)"')

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The content is still the one that If-None-Match names"}
}
"""Describes the answer without content to OpenAPI, as FastAPI's `responses`."""


def is_known(request: Request, tag: str) -> bool:
    """Whether If-None-Match says that the client has the content with this tag.

    The header is `*` or a list of tags. Weak tags count too, as section 13.1.2 prescribes.
    """
    header = ", ".join(request.headers.getlist("if-none-match"))
    return header.strip() == "*" or tag in _ENTITY_TAG.findall(header)


def not_modified(tag: str, cache_control: str) -> Response:
    """The answer without content for a client that has the content with this tag."""
    return Response(status_code=304, headers=_headers(tag, cache_control))


def tagged(content: bytes | str, media_type: str, tag: str, cache_control: str) -> Response:
    """The content with its tag, which the client sends back in If-None-Match."""
    return Response(content, media_type=media_type, headers=_headers(tag, cache_control))


def _headers(tag: str, cache_control: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": cache_control}
