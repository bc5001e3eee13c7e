"""Uploads that are accepted, and how the others are refused."""

import struct

import httpx
import pytest
from PIL import Image

from tests.conftest import coloured
from tests.service.conftest import LIMITS
from tests.service.pictures import detail_of, encoded, picture, problem, upload

JPEG = encoded(coloured("red", 5, (300, 200)), "JPEG")


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


BAD_AMONG_GOOD = [("good.png", picture("red")), ("bad.png", b"no"), ("fine.png", picture("blue"))]


@pytest.mark.parametrize("address", ["/classify", "/similar", "/features"])
def test_one_bad_image_of_several_has_a_problem_beside_the_answers(
    client: httpx.Client, address: str
) -> None:
    response = client.post(address, files=upload(*BAD_AMONG_GOOD))
    assert response.status_code == 200
    good, bad, fine = response.json()["results"]
    assert (bad["filename"], bad["problem"]["status"]) == ("bad.png", 415)
    assert bad["problem"]["type"] == "urn:lookalike:problem:not-an-image"
    for image, one in ((BAD_AMONG_GOOD[0], good), (BAD_AMONG_GOOD[2], fine)):
        alone = client.post(address, files=upload(image)).json()["results"][0]
        assert one.keys() == alone.keys()
        assert "problem" not in one


@pytest.mark.parametrize("address", ["/classify?strict=true", "/similar?strict=true"])
def test_one_bad_image_of_several_fails_a_strict_request(
    client: httpx.Client, address: str
) -> None:
    response = client.post(address, files=upload(*BAD_AMONG_GOOD))
    assert problem(response, 415, "not-an-image")["filename"] == "bad.png"


def test_a_bad_image_at_each_place_leaves_the_others_answered(client: httpx.Client) -> None:
    poison = {"empty": b"", "cut.jpg": JPEG[:300], "text": b"x" * 99, "huge": b"\0" * 200_001}
    for place, (name, content) in enumerate(poison.items()):
        images = [(f"{number}.png", picture()) for number in range(3)]
        images.insert(place, (name, content))
        results = client.post("/classify", files=upload(*images)).json()["results"]
        assert [one["filename"] for one in results] == [name for name, _ in images]
        assert ["problem" in one for one in results] == [one[0] == name for one in images]


def test_if_all_images_are_bad_the_first_one_is_the_problem(client: httpx.Client) -> None:
    response = client.post("/similar", files=upload(("a.png", b""), ("b.png", b"words")))
    assert problem(response, 400, "empty")["filename"] == "a.png"


def test_too_many_images_are_refused(client: httpx.Client) -> None:
    assert client.post("/classify", files=upload(*[picture()] * 4)).status_code == 200
    response = client.post("/classify", files=upload(*[picture()] * 5))
    assert "more than 4 images" in detail_of(response, 413, "too-many-images")


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


def test_the_options_may_be_fields_of_the_form(client: httpx.Client) -> None:
    def matches(address: str, **fields: object) -> list[dict[str, object]]:
        response = client.post(address, files=upload(picture()), data=fields)
        assert response.status_code == 200, response.text
        found: list[dict[str, object]] = response.json()["results"][0]["matches"]
        return found

    assert len(matches("/similar", k="2")) == 2
    assert matches("/similar", k="10", label="blue") == matches("/similar?k=10&label=blue")
    both = matches("/similar", k="10", label=["blue", "green"], metric="cosine")
    assert {match["label"] for match in both} == {"blue", "green"}
    assert both == matches("/similar?k=10&metric=cosine&label=green&label=blue")
    assert both == matches("/similar?k=10", metric="cosine", label=["blue", "green"])
    assert len(matches("/similar", k="8", label="")) == 8


def test_strict_may_be_a_field_of_the_form(client: httpx.Client) -> None:
    for address in ("/classify", "/similar", "/features"):
        response = client.post(address, files=upload(*BAD_AMONG_GOOD), data={"strict": "true"})
        assert problem(response, 415, "not-an-image")["filename"] == "bad.png"


def test_an_array_cannot_have_a_problem_so_one_bad_image_fails_the_request(
    client: httpx.Client,
) -> None:
    headers = {"Accept": "application/x-npy"}
    response = client.post("/features", files=upload(*BAD_AMONG_GOOD), headers=headers)
    problem(response, 415, "not-an-image")


@pytest.mark.parametrize(
    ("address", "fields", "name"),
    [
        pytest.param("/similar", {"lable": "red"}, "lable", id="unknown"),
        pytest.param("/classify", {"metric": "cosine"}, "metric", id="of another address"),
        pytest.param("/similar", {"k": ["2", "3"]}, "k", id="twice"),
        pytest.param("/similar?k=2", {"k": "2"}, "k", id="in the address too"),
        pytest.param("/similar?label=red", {"label": "blue"}, "label", id="a label in both"),
        pytest.param("/similar", {"k": "two"}, "k", id="not a number"),
        pytest.param("/similar", {"k": "11"}, "k", id="out of range"),
        pytest.param("/similar", {"k": ""}, "k", id="empty"),
        pytest.param("/features", {"strict": "perhaps"}, "strict", id="not a truth value"),
    ],
)
def test_a_wrong_field_of_the_form_is_refused(
    client: httpx.Client, address: str, fields: dict[str, object], name: str
) -> None:
    response = client.post(address, files=upload(picture()), data=fields)
    detail = detail_of(response, 422, "invalid-request")
    assert detail.startswith(f"{name}: ")


def test_a_file_in_another_field_is_refused(client: httpx.Client) -> None:
    files = [*upload(picture()), ("label", ("red.png", picture()))]
    detail = detail_of(client.post("/similar", files=files), 422, "invalid-request")
    assert detail == "label: images must be in the field 'image'"


def test_a_form_with_too_many_or_too_long_fields_is_refused(client: httpx.Client) -> None:
    for fields in ({"label": ["red"] * 40}, {"label": "x" * 20_000}):
        problem(
            client.post("/similar", files=upload(picture()), data=fields), 400, "malformed-upload"
        )


def scans(num_scans: int) -> bytes:
    """A progressive JPEG with this number of scans."""
    data = encoded(Image.new("RGB", (900, 900)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (num_scans - data.count(b"\xff\xda")) * last + data[-2:]


@pytest.mark.parametrize(
    ("content", "status", "type"),
    [
        pytest.param(scans(101), 413, "too-costly", id="scans"),
        pytest.param(b"P3\n2 2\n255\n" + b"#\n0 " * 12, 415, "unsupported", id="plain PNM"),
        pytest.param(
            b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 50_000_000, 1, 1, 8, 1) + bytes(20),
            415,
            "unsupported",
            id="run lengths",
        ),
        pytest.param(b"GIF89a" + bytes(7) + bytes(20_000), 413, "too-costly", id="GIF blocks"),
    ],
)
def test_a_costly_file_is_refused_with_its_reason(
    client: httpx.Client, content: bytes, status: int, type: str
) -> None:
    refused = problem(client.post("/similar", files=upload(("a.jpg", content))), status, type)
    assert refused["detail"].startswith("a.jpg: ")
