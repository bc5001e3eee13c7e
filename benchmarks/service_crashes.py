"""Does the service lose anything that it has acknowledged when it is killed?

    python -m benchmarks.service_crashes [--kills 100] [--clients 4] [--seed 0]

The service serves an index of 20 items with a small network. Several clients add images without a
pause, and remove every third of them. The service is killed with SIGKILL at a random time, soon
after it has acknowledged some changes. Then it is started again on the same index.

After each kill, the index must open, and `lookalike index verify` must find it clean. It must
contain every image whose addition was acknowledged in any round, with its bytes, and none whose
removal was acknowledged. A change that was not acknowledged before the kill may have been made or
not. The index must not contain anything else.

SIGKILL does not change the kernel's page cache, so this does not test a power failure.
"""

import argparse
import hashlib
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.made_up import made_up_feature, made_up_item, make_model
from benchmarks.record import record
from benchmarks.service_load.pictures import picture
from benchmarks.service_load.processes import Running, lookalike
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from indexer.updates.verify import verify
from service.client import Client, NoAnswerError

KEY = "write-key"
NUM_BEFORE = 20
IMAGE_SIZE = 67
MIN_ACKNOWLEDGED = 3
"""Number of changes that are acknowledged in a round before the service is killed."""
LATEST_S = 0.5
"""Latest time of the kill after that, in seconds."""
PATIENCE_S = 120.0


class Changes:
    """The changes that clients have asked for, and those that the service has acknowledged.

    Safe to use from several threads. An image is known by the path that it is added with.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self.hashes: dict[str, str] = {}
        """SHA-256 of each image that was sent."""
        self.stored: dict[str, int] = {}
        """The ids of images whose addition was acknowledged, without those to be removed."""
        self.removed: set[str] = set()
        """Images whose removal was acknowledged."""
        self.num_acknowledged = 0

    def make(self) -> tuple[str, bytes]:
        """A new image and its path."""
        with self._lock:
            self._next += 1
            path, image = f"{self._next}.png", picture(self._next)
            self.hashes[path] = hashlib.sha256(image).hexdigest()
        return path, image

    def add(self, client: Client) -> None:
        """Add a new image, and remove every third one. Raises NoAnswerError after a kill."""
        path, image = self.make()
        id = client.add(image, path=path).id
        with self._lock:
            self.stored[path] = id
            self.num_acknowledged += 1
        if int(path.partition(".")[0]) % 3 == 0:
            with self._lock:
                del self.stored[path]
            client.remove(id)
            with self._lock:
                self.removed.add(path)
                self.num_acknowledged += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        figures = measure(
            Path(scratch),
            num_kills=arguments.kills,
            num_clients=arguments.clients,
            seed=arguments.seed,
        )
    record("service_crashes", figures)
    if figures["failures"]:
        raise SystemExit(1)


def measure(scratch: Path, *, num_kills: int, num_clients: int, seed: int) -> dict[str, Any]:
    """Kill the service several times. `failures` in the result has one sentence per failure."""
    index = _make_index(scratch)
    choice, changes = random.Random(seed), Changes()
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(num_kills):
        with lookalike(index, write_key=KEY) as service:
            _change_and_kill(service, changes, num_clients, choice.uniform(0, LATEST_S))
        failures += [f"kill {number}: {one}" for one in complaints(index, changes, counts)]
    return {
        "kills": num_kills,
        "clients": num_clients,
        "seed": seed,
        "failures": failures,
        "changes_acknowledged": changes.num_acknowledged,
        "images_acknowledged_and_found": len(changes.stored) - counts["lost"],
        "images_not_acknowledged": counts["not acknowledged"],
        "images_not_acknowledged_but_stored": counts["stored anyway"],
        "kills_with_uncommitted_bytes": counts["uncommitted bytes"],
    }


def _make_index(scratch: Path) -> Path:
    model, index = scratch / "model", scratch / "index"
    make_model(model, num_classes=10, normalization="batch", image_size=IMAGE_SIZE)
    generator = np.random.default_rng(0)
    with IndexWriter.open(index, model) as writer:
        for number in range(NUM_BEFORE):
            writer.add(made_up_item(number, made_up_feature(generator), picture(-1 - number)))
        writer.commit(is_complete=True)
    return index


def _change_and_kill(service: Running, changes: Changes, num_clients: int, wait_s: float) -> None:
    """Let clients change the index, and kill the service `wait_s` after the first changes."""

    def work() -> None:
        with Client(service.url, key=KEY, max_retries=0) as client:
            while True:
                try:
                    changes.add(client)
                except NoAnswerError:
                    return

    enough, deadline_s = changes.num_acknowledged + MIN_ACKNOWLEDGED, time.monotonic() + PATIENCE_S
    with ThreadPoolExecutor(num_clients) as threads:
        try:
            clients = [threads.submit(work) for _ in range(num_clients)]
            while changes.num_acknowledged < enough and time.monotonic() < deadline_s:
                time.sleep(0.001)
            time.sleep(wait_s)
        finally:
            service.process.kill()
        for client in clients:
            client.result()
    if changes.num_acknowledged < enough:
        raise RuntimeError(f"the service acknowledged too little within {PATIENCE_S:.0f} s")


def complaints(index: Path, changes: Changes, counts: Counter[str]) -> list[str]:
    """One sentence for each fault of the index after a kill. `counts` is updated."""
    try:
        opened, report = Index.open(index), verify(index)
    except (IndexDirectoryError, ValueError) as error:
        return [f"the index does not open: {error}"]
    items = {item.path: item for item in opened.items(limit=opened.count())}
    added = {path: item for path, item in items.items() if path in changes.hashes}
    lost = {
        path for path, id in changes.stored.items() if path not in items or items[path].id != id
    }
    wrong = {path for path, item in added.items() if item.sha256 != changes.hashes[path]}
    back, num_others = changes.removed & added.keys(), len(items) - len(added)
    unclear = changes.hashes.keys() - changes.stored.keys() - changes.removed
    counts["lost"] = len(lost)
    counts["not acknowledged"] = len(unclear)
    counts["stored anyway"] = len(unclear & added.keys())
    counts["uncommitted bytes"] += _has_uncommitted_bytes(opened)
    faults = {
        "the index is not clean": not report.is_clean,
        f"{len(lost)} acknowledged images are lost": lost,
        f"{len(wrong)} images have other bytes": wrong,
        f"{len(back)} removed images are there again": back,
        f"{num_others} of {NUM_BEFORE} earlier items are left": num_others != NUM_BEFORE,
    }
    return [text for text, is_so in faults.items() if is_so]


def _has_uncommitted_bytes(index: Index) -> bool:
    """Whether the kill left bytes behind a committed end of a file."""
    return any(
        (index.directory / extent.file).stat().st_size > extent.num_bytes
        for extent in index.manifest.files.values()
    )


if __name__ == "__main__":
    main()
