"""POST /classify, /similar and /features."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from indexer.embedder import Embedder
from indexer.storage.manifest import read_manifest
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR, coloured
from tests.service.conftest import Run, Service
from tests.service.pictures import detail_of, encoded, picture, problem, upload
from training.data.images import read_square
from training.network.model import NUM_FEATURES

PLAIN = coloured("red", 1)
GREY = coloured("green", 2).convert("L")
NUM_ITEMS = len(COLOURS) * NUM_IMAGES_PER_COLOUR


def matches_of(
    client: httpx.Client, address: str, image: bytes | None = None
) -> list[dict[str, Any]]:
    """The matches of one picture, a red one unless another is given."""
    answer = client.post(address, files=upload(image or picture("red")))
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    matches: list[dict[str, Any]] = result["matches"]
    return matches


def classes_of(client: httpx.Client, address: str, image: bytes) -> list[dict[str, Any]]:
    (result,) = client.post(address, files=upload(image)).json()["results"]
    classes: list[dict[str, Any]] = result["classes"]
    return classes


def features(client: httpx.Client, *files: bytes) -> np.ndarray:
    headers = {"Accept": "application/x-npy"}
    response = client.post("/features", files=upload(*files), headers=headers)
    assert response.status_code == 200, response.text
    array: np.ndarray = np.load(io.BytesIO(response.content), allow_pickle=False)
    return array


def test_classify_gives_the_likeliest_classes_first(client: httpx.Client, service: Service) -> None:
    response = client.post("/classify?k=3", files=upload(("cat.png", picture()))).json()
    assert response["model"] == service.engine.snapshot.card.id
    (result,) = response["results"]
    assert result["filename"] == "cat.png"
    probabilities = [one["probability"] for one in result["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    assert {(one["name"], one["index"]) for one in result["classes"]} == {
        (name, position) for position, name in enumerate(COLOURS)
    }


def test_classify_by_items_names_the_colour_that_an_untrained_network_cannot(
    probed_service: Service,
) -> None:
    for colour in COLOURS:
        files = upload(picture(colour))
        answer = probed_service.client.post("/classify?by=items", files=files).json()
        assert answer["by"] == "items"
        classes = answer["results"][0]["classes"]
        assert classes[0]["name"] == colour
        assert classes[0]["index"] == sorted(COLOURS).index(colour)
        assert sum(one["probability"] for one in classes) == pytest.approx(1)


def test_classify_by_items_gives_k_labels(probed_service: Service) -> None:
    assert len(classes_of(probed_service.client, "/classify?by=items&k=1", picture())) == 1


def test_classify_without_by_gives_the_networks_classes(
    probed_service: Service, client: httpx.Client
) -> None:
    answers = [
        one.post(address, files=upload(picture())).json()
        for one in (probed_service.client, client)
        for address in ("/classify", "/classify?by=classes")
    ]
    assert all(answer["by"] == "classes" for answer in answers)
    names = [[one["name"] for one in answer["results"][0]["classes"]] for answer in answers]
    assert names == [names[0]] * 4


def test_classify_by_items_without_a_probe_says_how_to_fit_one(
    client: httpx.Client, tiny_index: Path
) -> None:
    response = client.post("/classify?by=items", files=upload(picture()))
    assert "lookalike index probe" in detail_of(response, 422, "no-probe")
    assert client.get("/info").json()["index"]["probe"] is None
    assert str(tiny_index) not in response.text


def test_classify_refuses_an_unknown_by(client: httpx.Client) -> None:
    response = client.post("/classify?by=labels", files=upload(picture()))
    assert "'classes' or 'items'" in detail_of(response, 422, "invalid-request")


def test_similar_names_the_index_and_its_commit(client: httpx.Client, service: Service) -> None:
    answer = client.post("/similar", files=upload(picture())).json()
    index = service.engine.snapshot.index
    assert answer["model"] == service.engine.snapshot.card.id
    assert (answer["index"], answer["commit"]) == (index.directory.name, index.manifest.commit)


def test_similar_finds_images_of_the_same_colour(client: httpx.Client) -> None:
    for colour in COLOURS:
        matches = matches_of(client, "/similar?k=6", picture(colour))
        assert [match["label"] for match in matches] == [colour] * 6
        distances = [match["distance"] for match in matches]
        assert distances == sorted(distances)


def test_similar_finds_an_indexed_image_first_at_no_distance(
    client: httpx.Client, service: Service
) -> None:
    item = service.engine.snapshot.index.items()[0]
    seed = int(item.path.split("/")[-1].removesuffix(".png"))
    nearest = matches_of(client, "/similar", encoded(coloured(str(item.label), seed)))[0]
    assert nearest["path"] == item.path
    assert nearest["distance"] == pytest.approx(0, abs=1e-2)
    assert client.get(nearest["thumbnail"]).headers["content-type"] == "image/jpeg"


def test_similar_searches_the_items_of_one_label(client: httpx.Client) -> None:
    matches = matches_of(client, "/similar?k=4&label=blue")
    assert [match["label"] for match in matches] == ["blue"] * 4


def test_similar_gives_all_items_if_k_is_larger(client: httpx.Client, run: Run) -> None:
    assert len(matches_of(client, "/similar?k=10&label=blue")) == NUM_IMAGES_PER_COLOUR
    with run(max_k=100) as service:
        assert len(matches_of(service.client, "/similar?k=100")) == NUM_ITEMS
        assert len(classes_of(service.client, "/classify?k=100", picture())) == len(COLOURS)


def test_several_images_are_answered_in_their_order(client: httpx.Client) -> None:
    files = upload(*((f"{colour}.png", picture(colour)) for colour in COLOURS))
    results = client.post("/similar?k=1", files=files).json()["results"]
    assert [(one["filename"], one["matches"][0]["label"]) for one in results] == [
        (f"{colour}.png", colour) for colour in COLOURS
    ]


def test_requests_at_the_same_time_get_their_own_answers(client: httpx.Client) -> None:
    def nearest_label(colour: str) -> str:
        return str(matches_of(client, "/similar?k=1", picture(colour))[0]["label"])

    colours = [*COLOURS] * 8
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(nearest_label, colours)) == colours


def test_features_are_the_networks(client: httpx.Client, service: Service) -> None:
    embedder = Embedder(service.engine.snapshot.index.directory / "model")
    expected = embedder.embed(read_square(picture(), 67)[None]).features
    served = features(client, picture(), picture())
    assert served.dtype == np.float32
    assert served.shape == (2, NUM_FEATURES)
    np.testing.assert_allclose(served, np.repeat(expected, 2, 0), atol=1e-3)


def test_features_come_as_json_unless_npy_is_asked_for(client: httpx.Client) -> None:
    (result,) = client.post("/features", files=upload(picture())).json()["results"]
    np.testing.assert_allclose(result["features"], features(client, picture())[0], atol=1e-3)


TURNED = encoded(
    PLAIN.transpose(Image.Transpose.ROTATE_90),
    exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0",
)
SIXTEEN_BIT = encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257))
TRANSPARENT = encoded(GREY.quantize(4), transparency=bytes(4))
WHITE = encoded(Image.new("RGB", GREY.size, "white"))
ANIMATED = encoded(PLAIN, save_all=True, append_images=[coloured("blue", 3)], duration=100)


@pytest.mark.parametrize(
    ("variant", "plain"),
    [
        pytest.param(TURNED, encoded(PLAIN), id="rotated by EXIF"),
        pytest.param(encoded(GREY), encoded(GREY.convert("RGB")), id="greyscale"),
        pytest.param(encoded(PLAIN.convert("CMYK"), "TIFF"), encoded(PLAIN), id="CMYK"),
        pytest.param(SIXTEEN_BIT, encoded(GREY), id="16-bit"),
        pytest.param(TRANSPARENT, WHITE, id="transparent palette"),
        pytest.param(ANIMATED, encoded(PLAIN), id="animated, first frame"),
        pytest.param(encoded(PLAIN, "WEBP", lossless=True), encoded(PLAIN), id="WebP"),
    ],
)
def test_an_unusual_image_has_the_feature_of_its_plain_form(
    client: httpx.Client, variant: bytes, plain: bytes
) -> None:
    served, expected = features(client, variant, plain)
    assert np.linalg.norm(served - expected) <= 0.01 * np.linalg.norm(expected)


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
    response = client.post(address, files=upload(picture()))
    assert "k:" in detail_of(response, 422, "invalid-request")


def test_a_misspelt_parameter_is_refused(client: httpx.Client) -> None:
    response = client.post("/similar?lable=red", files=upload(picture()))
    assert "lable" in detail_of(response, 422, "invalid-request")


def test_an_unknown_label_is_refused_with_some_that_exist(client: httpx.Client) -> None:
    response = client.post("/similar?label=purple", files=upload(picture()))
    detail = detail_of(response, 422, "unknown-label")
    assert all(part in detail for part in ("purple", "red", "green", "blue"))


def test_similar_searches_by_cosine_distance_too(client: httpx.Client, service: Service) -> None:
    query = features(client, picture("red"))[0].astype(np.float64)
    answer = client.post("/similar?metric=cosine&k=10", files=upload(picture("red"))).json()
    assert answer["metric"] == "cosine"
    matches = answer["results"][0]["matches"]
    index = service.engine.snapshot.index
    for match in matches:
        feature = index.features[index.rows_of_ids([match["id"]])[0]].astype(np.float64)
        cosine = query @ feature / np.linalg.norm(query) / np.linalg.norm(feature)
        assert match["distance"] == pytest.approx(1 - cosine, abs=1e-5)
    distances = [match["distance"] for match in matches]
    assert distances == sorted(distances)
    assert distances[0] < 0.1


def test_a_metric_that_the_index_lacks_is_refused(client: httpx.Client) -> None:
    response = client.post("/similar?metric=hamming", files=upload(picture()))
    detail = detail_of(response, 422, "unavailable-metric")
    assert detail.startswith(
        "metric: hamming needs binary codes, but the index that is served has none; "
        "pass one of euclidean, cosine"
    )


def test_an_unknown_metric_is_refused(client: httpx.Client) -> None:
    response = client.post("/similar?metric=manhattan", files=upload(picture()))
    assert "manhattan" in detail_of(response, 422, "invalid-request")


def test_reranked_codes_find_the_euclidean_neighbours_of_a_small_index(
    encoded_service: Service,
) -> None:
    client, files = encoded_service.client, upload(picture("red"))
    by_code = client.post("/similar?metric=hamming&k=10", files=files).json()
    assert (by_code["metric"], by_code["rerank"]) == ("hamming", 2000)
    euclidean = client.post("/similar?k=10", files=files).json()
    assert euclidean["rerank"] is None
    assert by_code["results"] == euclidean["results"]


def test_codes_alone_rank_by_the_bits_that_differ(encoded_service: Service) -> None:
    answer = encoded_service.client.post(
        "/similar?metric=hamming&rerank=0&k=10", files=upload(picture("red"))
    ).json()
    assert answer["rerank"] == 0
    distances = [match["distance"] for match in answer["results"][0]["matches"]]
    assert distances == sorted(distances)
    assert all(distance == int(distance) <= 64 for distance in distances)


def test_a_lookup_by_address_finds_the_nearest_too(encoded_service: Service) -> None:
    scanned = matches_of(encoded_service.client, "/similar?metric=hamming&rerank=0&k=3")
    looked_up = matches_of(encoded_service.client, "/similar?metric=hamming&rerank=0&k=3&flips=4")
    assert looked_up == scanned


def test_a_search_by_codes_keeps_to_a_label(encoded_service: Service) -> None:
    matches = matches_of(encoded_service.client, "/similar?metric=hamming&label=blue&k=10")
    assert [match["label"] for match in matches] == ["blue"] * 6


@pytest.mark.parametrize(
    ("option", "query"),
    [
        ("rerank", "rerank=5"),
        ("rerank", "metric=cosine&rerank=0"),
        ("rerank", "metric=hamming&rerank=-1"),
        ("rerank", "metric=hamming&rerank=10001"),
        ("flips", "flips=1"),
        ("flips", "metric=hamming&flips=5"),
        ("flips", "metric=hamming&flips=-1"),
    ],
)
def test_an_option_of_codes_is_refused_out_of_range_or_with_another_metric(
    encoded_service: Service, option: str, query: str
) -> None:
    response = encoded_service.client.post(f"/similar?{query}", files=upload(picture()))
    assert option in detail_of(response, 422, "invalid-request")


def test_damaged_codes_leave_the_other_distances(
    encoded_index: Path, tmp_path: Path, run: Run
) -> None:
    damaged = Path(shutil.copytree(encoded_index, tmp_path / "index"))
    (damaged / read_manifest(damaged).files["codes"].file).write_bytes(b"")
    with run(index=damaged) as service:
        assert service.client.post("/similar", files=upload(picture())).status_code == 200
        response = service.client.post("/similar?metric=hamming", files=upload(picture()))
        problem(response, 422, "unavailable-metric")
