"""HTTP caching with ETag and If-None-Match (RFC 9110, sections 8.8.3 and 13.1.2)."""

import re
from typing import Any

from fastapi import Request, Response

_ENTITY_TAG = re.compile(r'(?:W/)?"([^"]*)"')

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The client already has the current content"}
}
"""The description of status 304 for FastAPI's argument `responses`."""


def is_known(request: Request, tag: str) -> bool:
    """Whether the client already has the content with the ETag `tag`, according to If-None-Match.

    The header If-None-Match is `*` or a list of ETags. Weak ETags match too (section 13.1.2).
    """
    header = ", ".join(request.headers.getlist("if-none-match"))
    return header.strip() == "*" or tag in _ENTITY_TAG.findall(header)


def not_modified(tag: str, cache_control: str) -> Response:
    """A response without content, for a client that already has the content with this ETag."""
    return Response(status_code=304, headers=_headers(tag, cache_control))


def tagged(content: bytes | str, media_type: str, tag: str, cache_control: str) -> Response:
    """A response with content and its ETag. The client sends the ETag back in If-None-Match."""
    return Response(content, media_type=media_type, headers=_headers(tag, cache_control))


def _headers(tag: str, cache_control: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": cache_control}
