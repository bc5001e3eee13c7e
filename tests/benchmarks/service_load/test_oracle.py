"""The oracle of the soak test accepts right answers, and only those."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.service_load.oracle import ADDED, PHOTO, Times, Writer
from service.client.answers import Added, Match


def answer(*matches: tuple[str, str]) -> bytes:
    found = [{"path": path, "label": label} for path, label in matches]
    return json.dumps({"results": [{"matches": found}]}).encode()


RIGHT = [(PHOTO, "even"), ("1.png", ADDED), ("indexed/3.jpg", "even")]


@pytest.fixture
def times() -> Times:
    times = Times()
    for name in ("even", "1.png"):
        times.appear(name)
    return times


def test_a_right_answer_is_accepted(times: Times) -> None:
    now_s = time.monotonic()
    assert times.check(answer(*RIGHT), now_s, now_s + 1) == ""


@pytest.mark.parametrize(
    "matches",
    [
        [],
        [("1.png", ADDED)],
        [*RIGHT, ("2.png", ADDED)],
        [*RIGHT, ("indexed/3.jpg", "odd")],
        [(PHOTO, "odd")],
    ],
)
def test_a_wrong_answer_is_refused(times: Times, matches: Sequence[tuple[str, str]]) -> None:
    now_s = time.monotonic()
    assert times.check(answer(*matches), now_s, now_s + 1)


def test_an_answer_from_two_indexes_is_refused_even_while_they_change(times: Times) -> None:
    start_s = time.monotonic()
    times.appear("odd")
    times.vanish("even")
    end_s = time.monotonic()
    assert times.check(answer((PHOTO, "odd")), start_s, end_s) == ""
    assert times.check(answer((PHOTO, "even")), start_s, end_s) == ""
    assert times.check(answer((PHOTO, "odd"), ("indexed/3.jpg", "even")), start_s, end_s)
    assert times.check(answer((PHOTO, "even")), end_s + 1, end_s + 2)


class FakeClient:
    """A service that may forget what it has acknowledged."""

    def __init__(self, *, forgets: bool, keeps_removed: bool):
        self.items: dict[bytes, Match] = {}
        self.forgets, self.keeps_removed = forgets, keeps_removed

    def add(self, image: bytes, *, label: str, path: str) -> Added:
        id = len(self.items)
        shown = "other.png" if self.forgets else path
        self.items[image] = Match(id=id, path=shown, label=label, distance=0, thumbnail="")
        return Added(filename="", id=id, path=path, label=label, status="added")

    def remove(self, id: int) -> None:
        if not self.keeps_removed:
            (image,) = [image for image, item in self.items.items() if item.id == id]
            self.items[image] = self.items[image].model_copy(update={"path": "other.png"})

    def similar(self, image: bytes, k: int) -> list[Match]:
        return [self.items[image]]


@pytest.mark.parametrize(
    ("forgets", "keeps_removed", "complaint"),
    [(False, False, None), (True, False, "is not found"), (False, True, "is still found")],
)
def test_the_writer_notices_what_is_lost_and_what_stays(
    monkeypatch: pytest.MonkeyPatch, forgets: bool, keeps_removed: bool, complaint: str | None
) -> None:
    monkeypatch.setattr("benchmarks.service_load.oracle.MAX_PRESENT", 2)
    client: Any = FakeClient(forgets=forgets, keeps_removed=keeps_removed)
    with Writer(client, Times(), period_s=0.001) as writer:
        deadline_s = time.monotonic() + 60
        while writer.counts["removals"] < 3 and time.monotonic() < deadline_s:
            time.sleep(0.001)
    assert writer.counts["removals"] >= 3
    assert any(complaint in one for one in writer.failures) if complaint else not writer.failures
