"""What may be uploaded, and what is said of everything else."""

from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.conftest import coloured
from tests.service.conftest import LIMITS
from tests.service.pictures import encoded, picture, problem, upload

JPEG = encoded(coloured("red", 5, (300, 200)), "JPEG")
TOO_LARGE = b"\0" * (LIMITS["max_request_bytes"] + 1)


@pytest.mark.parametrize("address", ["/classify", "/similar", "/features"])
@pytest.mark.parametrize(
    ("content", "status", "kind"),
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
    client: httpx.Client, address: str, content: bytes, status: int, kind: str
) -> None:
    found = problem(client.post(address, files=upload(("holiday.jpg", content))), status, kind)
    assert found["filename"] == "holiday.jpg"
    assert "holiday.jpg" in found["detail"]


def test_one_bad_image_of_several_is_named(client: httpx.Client) -> None:
    response = client.post(
        "/classify",
        files=upload(("good.png", picture()), ("bad.png", b"no"), ("fine.png", picture())),
    )
    assert problem(response, 415, "not-an-image")["filename"] == "bad.png"


def test_too_many_images_are_refused(client: httpx.Client) -> None:
    assert (
        "5 images; at most 4"
        in problem(
            client.post("/classify", files=upload(*[picture()] * 5)), 413, "too-many-images"
        )["detail"]
    )


def test_a_large_request_is_refused_by_its_content_length(client: httpx.Client) -> None:
    response = client.post("/classify", files=upload(TOO_LARGE))
    assert "400,000" in problem(response, 413, "too-many-bytes")["detail"]


def test_a_large_request_without_a_length_is_refused_while_it_arrives(client: httpx.Client) -> None:
    request = client.build_request("POST", "/classify", files=upload(TOO_LARGE))
    body = request.read()
    num_sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal num_sent
        while True:
            for start in range(0, len(body), 65536):
                num_sent += 65536
                yield body[start : start + 65536]

    response = client.post(
        "/classify", content=endless(), headers={"Content-Type": request.headers["Content-Type"]}
    )
    problem(response, 413, "too-many-bytes")
    assert num_sent < 1000 * LIMITS["max_request_bytes"]


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
    assert "'picture'" in problem(response, 422, "missing-image")["detail"]


def test_text_in_place_of_a_file_is_refused(client: httpx.Client) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nhttp://example.com/cat.jpg\r\n--x--\r\n'
    response = client.post(
        "/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert "text" in problem(response, 422, "missing-image")["detail"]


@pytest.mark.parametrize(
    "content_type", ["image/png", "application/json", "application/x-www-form-urlencoded", ""]
)
def test_a_body_that_is_no_upload_is_refused(client: httpx.Client, content_type: str) -> None:
    response = client.post("/classify", content=picture(), headers={"Content-Type": content_type})
    assert "multipart/form-data" in problem(response, 415, "not-an-upload")["detail"]


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


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # starlette leaves the unfinished file to the collector
def test_a_form_that_breaks_off_is_refused(client: httpx.Client) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture()
    )
    response = client.post(
        "/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert "complete" in problem(response, 422, "missing-image")["detail"]


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
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="'
        + sent.replace("\\", "\\\\").encode()
        + b'"\r\n\r\n'
    )
    response = client.post(
        "/classify",
        content=body + picture() + b"\r\n--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert response.json()["results"][0]["filename"] == shown
