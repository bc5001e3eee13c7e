"""Uploads that are accepted, and how the others are refused."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.api import uploads
from service.api.problems import ProblemError, ProblemResponse
from service.api.uploads import BodyLimit
from tests.conftest import coloured
from tests.service.conftest import LIMITS
from tests.service.pictures import detail_of, encoded, picture, problem, upload

JPEG = encoded(coloured("red", 5, (300, 200)), "JPEG")
TOO_LARGE = b"\0" * (LIMITS["max_request_bytes"] + 1)


@pytest.mark.parametrize("address", ["/classify", "/similar", "/features"])
@pytest.mark.parametrize(
    ("content", "status", "type"),
    [
        pytest.param(b"", 400, "empty", id="empty"),
        pytest.param(JPEG[: len(JPEG) // 2], 400, "truncated", id="truncated"),
        pytest.param(JPEG[:10], 400, "truncated", id="cut off in its header"),
        pytest.param(b"just some words", 415, "not-an-image", id="text"),
        pytest.param(b"%PDF-1.7 ...", 415, "unsupported", id="PDF"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported", id="SVG"),
        pytest.param(
            encoded(Image.new("1", (2000, 501))), 413, "too-many-pixels", id="too many pixels"
        ),
        pytest.param(
            b"\0" * (LIMITS["max_image_bytes"] + 1), 413, "too-many-bytes", id="too many bytes"
        ),
    ],
)
def test_a_bad_file_is_refused_by_its_name(
    client: httpx.Client, address: str, content: bytes, status: int, type: str
) -> None:
    response = client.post(address, files=upload(("holiday.jpg", content)))
    refused = problem(response, status, type)
    assert refused["filename"] == "holiday.jpg"
    assert "holiday.jpg" in refused["detail"]


def test_a_file_of_exactly_the_most_bytes_is_accepted(client: httpx.Client) -> None:
    content = picture().ljust(LIMITS["max_image_bytes"], b"\0")
    assert client.post("/classify", files=upload(content)).status_code == 200
    response = client.post("/classify", files=upload(content + b"\0"))
    assert "200,001 bytes; at most 200,000" in detail_of(response, 413, "too-many-bytes")


def test_one_bad_image_of_several_is_named(client: httpx.Client) -> None:
    response = client.post(
        "/classify",
        files=upload(("good.png", picture()), ("bad.png", b"no"), ("fine.png", picture())),
    )
    assert problem(response, 415, "not-an-image")["filename"] == "bad.png"


def test_too_many_images_are_refused(client: httpx.Client) -> None:
    assert client.post("/classify", files=upload(*[picture()] * 4)).status_code == 200
    response = client.post("/classify", files=upload(*[picture()] * 5))
    assert "5 images; at most 4" in detail_of(response, 413, "too-many-images")


async def count_bytes(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the number of bytes that it received."""
    try:
        num_bytes = len(await Request(scope, receive).body())
    except ProblemError as error:
        return await ProblemResponse.of(error)(scope, receive, send)
    await PlainTextResponse(str(num_bytes))(scope, receive, send)


@pytest.mark.parametrize("has_length", [True, False])
def test_a_request_of_exactly_the_most_bytes_is_accepted(has_length: bool) -> None:
    async def post(num_bytes: int) -> httpx.Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(num_bytes):
                yield b"x"

        transport = httpx.ASGITransport(BodyLimit(count_bytes, max_bytes=10))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/", content=b"x" * num_bytes if has_length else chunks())

    assert asyncio.run(post(10)).text == "10"
    problem(asyncio.run(post(11)), 413, "too-many-bytes")


def test_a_large_request_is_refused_by_its_content_length(client: httpx.Client) -> None:
    response = client.post("/classify", files=upload(TOO_LARGE))
    assert "400,000" in detail_of(response, 413, "too-many-bytes")


def test_a_client_that_reads_only_after_sending_gets_the_refusal(client: httpx.Client) -> None:
    request = client.build_request("POST", "/classify", files=upload(TOO_LARGE))
    body = request.read()
    response = client.post(
        "/classify",
        content=(body for _ in range(50)),  # without a Content-Length
        headers={"Content-Type": request.headers["Content-Type"]},
    )
    problem(response, 413, "too-many-bytes")


def test_an_endless_request_is_refused_while_it_arrives(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "LINGER_S", 0.2)
    request = client.build_request("POST", "/classify", files=upload(TOO_LARGE))
    head = (
        f"POST /classify HTTP/1.1\r\nHost: {client.base_url.host}\r\n"
        f"Content-Type: {request.headers['Content-Type']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = request.read()
    chunk = b"%x\r\n%b\r\n" % (len(body), body)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head.encode())
        answers: list[bytes] = []
        reader = threading.Thread(target=lambda: answers.append(connection.recv(65536)))
        reader.start()
        with contextlib.suppress(ConnectionError):  # raised when the server closes the connection
            while True:
                connection.sendall(chunk)
        reader.join()
    assert answers[0].startswith(b"HTTP/1.1 413 ")


def test_a_chunked_request_is_answered(client: httpx.Client) -> None:
    request = client.build_request("POST", "/classify", files=upload(picture()))
    body = request.read()
    response = client.post(
        "/classify",
        content=iter([body[:100], body[100:]]),
        headers={"Content-Type": request.headers["Content-Type"]},
    )
    assert response.status_code == 200


def test_a_form_without_the_field_is_refused_with_those_it_has(client: httpx.Client) -> None:
    response = client.post("/classify", files={"picture": ("a.png", picture())})
    assert "'picture'" in detail_of(response, 422, "missing-image")


def test_text_in_place_of_a_file_is_refused(client: httpx.Client) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    body = head + b"http://example.com/cat.jpg\r\n--x--\r\n"
    response = client.post(
        "/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert "text" in detail_of(response, 422, "missing-image")


@pytest.mark.parametrize(
    "content_type", ["image/png", "application/json", "application/x-www-form-urlencoded", ""]
)
def test_a_body_that_is_not_an_upload_is_refused(client: httpx.Client, content_type: str) -> None:
    response = client.post("/classify", content=picture(), headers={"Content-Type": content_type})
    assert "multipart/form-data" in detail_of(response, 415, "not-an-upload")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param("multipart/form-data", b"", id="no boundary"),
        pytest.param("multipart/form-data; boundary=x", b"garbage", id="garbage"),
        pytest.param(
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n",
            id="no name",
        ),
    ],
)
def test_a_malformed_form_is_refused(client: httpx.Client, content_type: str, body: bytes) -> None:
    problem(
        client.post("/classify", content=body, headers={"Content-Type": content_type}),
        400,
        "malformed-upload",
    )


# Starlette leaves the unfinished file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_form_that_breaks_off_is_refused(client: httpx.Client) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = head + picture()
    response = client.post(
        "/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert "complete" in detail_of(response, 422, "missing-image")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\cat.jpg", "cat.jpg"),
        ("<script>.png", "<script>.png"),
        ("naïve 猫.png", "naïve 猫.png"),
        ("\x1b[31m\x07.png", "[31m.png"),
        ("a" * 500 + ".png", "a" * 251 + ".png"),
    ],
)
def test_a_file_name_is_shown_short_and_without_folders(
    client: httpx.Client, sent: str, shown: str
) -> None:
    quoted = sent.replace("\\", "\\\\").encode()
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="%b"\r\n\r\n' % quoted
    response = client.post(
        "/classify",
        content=head + picture() + b"\r\n--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert response.json()["results"][0]["filename"] == shown
