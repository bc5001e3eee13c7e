"""POST /classify, /similar and /features."""

import io
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from indexer.embedder import Embedder
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR, coloured
from tests.service.conftest import Run, Service
from tests.service.pictures import encoded, picture, problem, upload
from training.data.images import read_square
from training.network.model import NUM_FEATURES

PLAIN = coloured("red", 1)
GREY = coloured("green", 2).convert("L")
NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


def features(client: httpx.Client, *files: bytes) -> np.ndarray:
    response = client.post(
        "/features", files=upload(*files), headers={"Accept": "application/x-npy"}
    )
    assert response.status_code == 200, response.text
    array: np.ndarray = np.load(io.BytesIO(response.content), allow_pickle=False)
    return array


def test_classify_gives_the_likeliest_classes_first(client: httpx.Client, service: Service) -> None:
    response = client.post("/classify?k=3", files=upload(("cat.png", picture()))).json()
    assert response["model"] == service.engine.card.id
    (result,) = response["results"]
    assert result["filename"] == "cat.png"
    probabilities = [one["probability"] for one in result["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    assert {(one["name"], one["index"]) for one in result["classes"]} == {
        (name, place) for place, name in enumerate(COLOURS)
    }


def test_similar_finds_images_of_the_same_colour(client: httpx.Client) -> None:
    for colour in COLOURS:
        (result,) = client.post("/similar?k=6", files=upload(picture(colour))).json()["results"]
        assert [match["label"] for match in result["matches"]] == [colour] * 6
        distances = [match["distance"] for match in result["matches"]]
        assert distances == sorted(distances)


def test_similar_finds_an_indexed_image_first_at_no_distance(
    client: httpx.Client, service: Service
) -> None:
    item = service.engine.index.items()[0]
    image = encoded(coloured(str(item.label), int(item.path.split("/")[-1].removesuffix(".png"))))
    (result,) = client.post("/similar", files=upload(image)).json()["results"]
    assert result["matches"][0]["path"] == item.path
    assert result["matches"][0]["distance"] == pytest.approx(0, abs=1e-2)
    assert client.get(result["matches"][0]["thumbnail"]).headers["content-type"] == "image/jpeg"


def test_similar_searches_among_one_label(client: httpx.Client) -> None:
    (result,) = client.post("/similar?k=4&label=blue", files=upload(picture("red"))).json()[
        "results"
    ]
    assert [match["label"] for match in result["matches"]] == ["blue"] * 4


def test_similar_gives_all_there_is_where_k_is_more(client: httpx.Client, run: Run) -> None:
    (result,) = client.post("/similar?k=10&label=blue", files=upload(picture())).json()["results"]
    assert len(result["matches"]) == NUM_IMAGES_PER_COLOUR
    with run(max_k=100) as service:
        (result,) = service.client.post("/similar?k=100", files=upload(picture())).json()["results"]
        assert len(result["matches"]) == NUM_ITEMS
        (result,) = service.client.post("/classify?k=100", files=upload(picture())).json()[
            "results"
        ]
        assert len(result["classes"]) == len(COLOURS)


def test_several_images_are_answered_in_their_order(client: httpx.Client) -> None:
    files = upload(*((f"{colour}.png", picture(colour)) for colour in COLOURS))
    results = client.post("/similar?k=1", files=files).json()["results"]
    assert [(one["filename"], one["matches"][0]["label"]) for one in results] == [
        (f"{colour}.png", colour) for colour in COLOURS
    ]


def test_requests_at_the_same_time_get_their_own_answers(client: httpx.Client) -> None:
    def nearest_label(colour: str) -> str:
        (result,) = client.post("/similar?k=1", files=upload(picture(colour))).json()["results"]
        return str(result["matches"][0]["label"])

    colours = [*COLOURS] * 8
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(nearest_label, colours)) == colours


def test_features_are_the_networks(client: httpx.Client, service: Service) -> None:
    embedder = Embedder(service.engine.index.directory / "model")
    expected = embedder.embed(read_square(picture(), 67)[None]).features
    found = features(client, picture(), picture())
    assert found.dtype == np.float32
    assert found.shape == (2, NUM_FEATURES)
    np.testing.assert_allclose(found, np.repeat(expected, 2, 0), atol=1e-3)


def test_features_come_as_json_unless_npy_is_asked_for(client: httpx.Client) -> None:
    (result,) = client.post("/features", files=upload(picture())).json()["results"]
    np.testing.assert_allclose(result["features"], features(client, picture())[0], atol=1e-3)


@pytest.mark.parametrize(
    ("variant", "plain"),
    [
        pytest.param(
            encoded(
                PLAIN.transpose(Image.Transpose.ROTATE_90),
                exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0",
            ),
            encoded(PLAIN),
            id="rotated by EXIF",
        ),
        pytest.param(encoded(GREY), encoded(GREY.convert("RGB")), id="greyscale"),
        pytest.param(encoded(PLAIN.convert("CMYK"), "TIFF"), encoded(PLAIN), id="CMYK"),
        pytest.param(
            encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)),
            encoded(GREY),
            id="16-bit",
        ),
        pytest.param(
            encoded(GREY.quantize(4), transparency=bytes(4)),
            encoded(Image.new("RGB", GREY.size, "white")),
            id="transparent palette",
        ),
        pytest.param(
            encoded(PLAIN, save_all=True, append_images=[coloured("blue", 3)], duration=100),
            encoded(PLAIN),
            id="animated, first frame",
        ),
        pytest.param(encoded(PLAIN, "WEBP", lossless=True), encoded(PLAIN), id="WebP"),
    ],
)
def test_an_unusual_image_is_seen_as_its_plain_twin(
    client: httpx.Client, variant: bytes, plain: bytes
) -> None:
    found, expected = features(client, variant, plain)
    assert np.linalg.norm(found - expected) <= 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "address",
    [
        "/similar?k=0",
        "/similar?k=11",
        "/classify?k=-1",
        "/classify?k=1000000000000000000000",
        "/similar?k=x",
    ],
)
def test_k_out_of_range_is_refused(client: httpx.Client, address: str) -> None:
    assert (
        "k:"
        in problem(client.post(address, files=upload(picture())), 422, "invalid-request")["detail"]
    )


def test_a_misspelt_parameter_is_refused(client: httpx.Client) -> None:
    assert (
        "lable"
        in problem(
            client.post("/similar?lable=red", files=upload(picture())), 422, "invalid-request"
        )["detail"]
    )


def test_an_unknown_label_is_refused_with_some_that_exist(client: httpx.Client) -> None:
    detail = problem(
        client.post("/similar?label=purple", files=upload(picture())), 422, "unknown-label"
    )["detail"]
    assert all(part in detail for part in ("purple", "red", "green", "blue"))


def test_similar_searches_by_cosine_distance_too(client: httpx.Client, service: Service) -> None:
    asked = features(client, picture("red"))[0].astype(np.float64)
    answer = client.post("/similar?metric=cosine&k=10", files=upload(picture("red"))).json()
    assert answer["metric"] == "cosine"
    index = service.engine.index
    for match in answer["results"][0]["matches"]:
        feature = index.features[index.rows_of_ids([match["id"]])[0]].astype(np.float64)
        assert match["distance"] == pytest.approx(
            1 - asked @ feature / np.linalg.norm(asked) / np.linalg.norm(feature), abs=1e-5
        )
    distances = [match["distance"] for match in answer["results"][0]["matches"]]
    assert distances == sorted(distances)
    assert distances[0] < 0.1


def test_a_metric_that_the_index_lacks_is_refused(client: httpx.Client) -> None:
    detail = problem(
        client.post("/similar?metric=hamming", files=upload(picture())), 422, "unavailable-metric"
    )["detail"]
    assert detail.startswith(
        "metric: the index that is served has no binary codes, as hamming needs; pass one of euclidean, cosine"
    )


def test_an_unknown_metric_is_refused(client: httpx.Client) -> None:
    assert (
        "manhattan"
        in problem(
            client.post("/similar?metric=manhattan", files=upload(picture())),
            422,
            "invalid-request",
        )["detail"]
    )
