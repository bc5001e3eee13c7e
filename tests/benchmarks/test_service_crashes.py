from collections import Counter
from pathlib import Path

import pytest

from benchmarks.service_crashes import Changes, complaints, measure


@pytest.mark.slow  # starts the service four times, and kills it
def test_nothing_that_was_acknowledged_is_lost_when_the_service_is_killed(tmp_path: Path) -> None:
    figures = measure(tmp_path, num_kills=4, num_clients=4, seed=0)
    assert figures["failures"] == []
    assert figures["changes_acknowledged"] >= 4 * 3
    assert 0 < figures["images_acknowledged_and_found"] < figures["changes_acknowledged"]


def test_each_image_has_a_path_and_bytes_of_its_own() -> None:
    changes = Changes()
    made = [changes.make() for _ in range(20)]
    assert len({path for path, _ in made}) == len({image for _, image in made}) == 20
    assert len(set(changes.hashes.values())) == 20


def test_lost_images_returned_images_and_missing_items_are_noticed(tiny_index: Path) -> None:
    changes = Changes()
    changes.hashes = {"lost.png": "0" * 64, "blue/0.png": "1" * 64, "red/0.png": "2" * 64}
    changes.stored = {"lost.png": 99, "blue/0.png": 1}
    changes.removed = {"red/0.png"}
    counts: Counter[str] = Counter()
    assert complaints(tiny_index, changes, counts) == [
        "1 acknowledged images are lost",
        "2 images have other bytes",
        "1 removed images are there again",
        "16 of 20 earlier items are left",
    ]
    assert counts["lost"] == 1
