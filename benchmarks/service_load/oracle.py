"""Check what searches find while images are added and removed."""

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

from benchmarks.service_load.pictures import picture
from service.client import Client
from training.errors import UserError

ADDED = "added"
"""The label of the images that the writer adds."""
PHOTO = "photo.jpg"
"""The path of an item in each whole index. It has the feature of the photograph of the load."""
PERIOD_S = 2.0
IMAGES_PER_PERIOD = 4
"""Number of images that the writer sends per period, to add one and to search for three."""
MAX_PRESENT = 30
"""Number of added images from which on the writer removes the oldest one in each period."""


class Times:
    """When a name can be in answers. Names are the labels of indexes, and paths of added images."""

    def __init__(self) -> None:
        self._times: dict[str, tuple[float, float | None]] = {}

    def appear(self, name: str) -> None:
        """From now on, an answer may contain the name."""
        self._times[name] = (time.monotonic(), None)

    def vanish(self, name: str) -> None:
        """An answer to a request that starts from now on must not contain the name."""
        self._times[name] = (self._times[name][0], time.monotonic())

    def could_contain(self, name: str, start_s: float, end_s: float) -> bool:
        """Whether the answer to a request from `start_s` to `end_s` may contain the name."""
        from_s, until_s = self._times.get(name, (float("inf"), None))
        return from_s <= end_s and (until_s is None or until_s >= start_s)

    def check(self, content: bytes, start_s: float, end_s: float) -> str:
        """Say what is wrong with an answer to a search by the photograph. Empty means nothing.

        The nearest item must be the photograph itself. All items must be from one index.
        """
        matches = json.loads(content)["results"][0]["matches"]
        if not matches or matches[0]["path"] != PHOTO:
            return "the photograph is not found"
        label = matches[0]["label"]
        names = {one["path"] if one["label"] == ADDED else one["label"] for one in matches}
        wrong = [name for name in names if not self.could_contain(name, start_s, end_s)]
        if wrong or {one["label"] for one in matches} - {label, ADDED}:
            return "an item is found that is not in the index"
        return ""


@dataclass(frozen=True)
class Present:
    """An image that the service has acknowledged."""

    id: int
    image: bytes


class Writer:
    """Adds and removes images inside its `with` block, and searches for them.

    An added image must be found by the next search, and a removed one must not. Hold `lock` to keep
    it from changing the index.
    """

    def __init__(self, client: Client, times: Times, *, period_s: float = PERIOD_S):
        self._client, self._times, self._period_s = client, times, period_s
        self._thread = threading.Thread(target=self._run)
        self._is_over = threading.Event()
        self._choice, self._next = random.Random(0), 0
        self.lock = threading.Lock()
        self.present: dict[str, Present] = {}
        """The added images by their paths, in the order in which they were added."""
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def forget(self) -> None:
        """Note that another index has replaced the one with the added images."""
        for path in self.present:
            self._times.vanish(path)
        self.present.clear()

    def compare(self, num_others: int) -> None:
        """Compare the list of the added images, and the number of all items, with what it knows."""
        listed = {item.path: item.id for item in self._client.all_items(label=ADDED)}
        if listed != {path: one.id for path, one in self.present.items()}:
            self.failures.append("the listed images are not those that were acknowledged")
        num_items = self._client.info().index.num_items
        if num_items != num_others + len(self.present):
            self.failures.append(f"the index has {num_items} items")

    def _run(self) -> None:
        while not self._is_over.wait(self._period_s):
            with self.lock:
                try:
                    self._change()
                except UserError as error:
                    self.failures.append(str(error))

    def _change(self) -> None:
        self._next += 1
        path, image = f"{self._next}.png", picture(self._next)
        self._times.appear(path)
        added = self._client.add(image, label=ADDED, path=path)
        self.counts["additions"] += 1
        self.present[path] = Present(added.id, image)
        self._search(path, image, must_be_found=True)
        other = self._choice.choice(list(self.present))
        self._search(other, self.present[other].image, must_be_found=True)
        if len(self.present) > MAX_PRESENT:
            oldest = next(iter(self.present))
            removed = self.present.pop(oldest)
            self._client.remove(removed.id)
            self._times.vanish(oldest)
            self.counts["removals"] += 1
            self._search(oldest, removed.image, must_be_found=False)

    def _search(self, path: str, image: bytes, *, must_be_found: bool) -> None:
        self.counts["searches"] += 1
        (match,) = self._client.similar(image, k=1)
        if (match.path == path) != must_be_found:
            found = "not found" if must_be_found else "still found"
            self.failures.append(f"{path} is {found} by the next search")
