"""Does the service stay correct, fast and small while it is used and changed for half an hour?

    python -m benchmarks.service_soak PHOTO [--minutes 30] [--items 10000] [--model MODEL]
        [--measure-seconds 20]

PHOTO is a JPEG, for example with 400 x 533 pixels. Without a MODEL, the network is the paper's
network at 224 pixels, with 1000 classes and random weights. The features of the index are made up.
First, the maximum load is measured: 16 connections send the photograph to /similar without a pause.
Then a load of 80 % of this maximum runs for some minutes. The requests have fixed times, and a
duration counts from the time at which a request is due. Meanwhile:

- A client adds an image every two seconds, searches for it and for another one, and removes the
  oldest. Its images are a part of the 80 %. As users do, it sends a request again if the index is
  busy.
- Once per minute, `lookalike index compact --force` runs beside the service.
- Once per minute, another index is moved into the place of the one that is served.

A request has failed if its answer is not 200, or is wrong. In each index, one item has the feature
of the photograph, and it must be the nearest. An answer must not contain an item that is not in the
index at that time, or items of two indexes. After each compaction, the list of the added images
must be the list of those that were acknowledged. The program ends with status 1 if anything has
failed.

The service, the load and the compactions run on the same cores.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.made_up import made_up_blocks, made_up_item, make_model
from benchmarks.record import ROOT, record
from benchmarks.service_load.oracle import IMAGES_PER_PERIOD, PERIOD_S, PHOTO, Times, Writer
from benchmarks.service_load.paced import PacedLoad, Sent
from benchmarks.service_load.processes import Running, lookalike
from indexer.embedder import Embedder
from indexer.storage.manifest import MODEL_FOLDER
from indexer.storage.writer import IndexWriter
from service.client import Client
from training.data.images import read_square

CLIENTS = 16
SHARE = 0.8
"""Share of the maximum load."""
KEY = "write-key"
LABELS = ("even", "odd")
"""The labels of the two indexes that replace each other."""
NUM_TRIES = 20
"""How many times a compaction is tried while the service is changing the index."""
PATIENCE_S = 60.0
MAX_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The two indexes, the one that is served, and the photograph."""

    indexes: tuple[Path, Path]
    served: Path
    photo: bytes
    num_items: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--measure-seconds", type=float, default=20)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        model = arguments.model
        if model is None:
            model = Path(scratch, "model")
            make_model(model, num_classes=1000, normalization="response")
        setup = prepare(Path(scratch), model, arguments.photo.read_bytes(), arguments.items)
        figures = measure(setup, minutes=arguments.minutes, maximum_s=arguments.measure_seconds)
    record("service_soak", figures, model=arguments.model)
    if figures["failed_requests"] or figures["failures"]:
        raise SystemExit(1)


def prepare(scratch: Path, model: Path, photo: bytes, num_items: int) -> Setup:
    """Make two indexes with made-up items and the photograph, and serve a copy of the first."""
    square = read_square(photo, Embedder(model).card.image_size)
    feature = Embedder(model).embed(square[None]).features[0]
    indexes = (scratch / LABELS[0], scratch / LABELS[1])
    for index, label in zip(indexes, LABELS, strict=True):
        blocks = made_up_blocks(num_items, seed=LABELS.index(label), num_items=num_items)
        with IndexWriter.open(index, model) as writer:
            writer.add(replace(made_up_item(num_items, feature), label=label, path=PHOTO))
            for number, one in enumerate(row for block in blocks for row in block):
                writer.add(replace(made_up_item(number, one), label=label))
            writer.commit(is_complete=True)
    served = scratch / "served"
    _copy(indexes[0], served)
    return Setup(indexes=indexes, served=served, photo=photo, num_items=num_items + 1)


def measure(
    setup: Setup, *, minutes: int, maximum_s: float, minute_s: float = 60.0
) -> dict[str, Any]:
    """Measure the maximum load, and run the load and the changes for some minutes."""
    times = Times()
    times.appear(LABELS[0])
    with lookalike(setup.served, write_key=KEY) as service, Client(service.url, key=KEY) as client:
        address = f"{service.url}/similar"
        with PacedLoad(address, setup.photo, clients=CLIENTS) as warming:
            time.sleep(maximum_s / 4)
        with PacedLoad(address, setup.photo, clients=CLIENTS, check=times.check) as unpaced:
            time.sleep(maximum_s)
        maximum = sum(not one.failure for one in unpaced.sent) / maximum_s
        rate = max(SHARE * maximum - IMAGES_PER_PERIOD / PERIOD_S, maximum / 10)
        load = PacedLoad(address, setup.photo, clients=CLIENTS, rate=rate, check=times.check)
        memory: list[dict[str, int]] = []
        starts_s = [time.monotonic()]
        with load, Writer(client, times) as writer:
            for minute in range(minutes):
                now_s = starts_s[-1]
                _sleep_until(now_s + minute_s / 4)
                _compact(setup, writer, num_others=setup.num_items)
                _sleep_until(now_s + minute_s * 5 / 8)
                _swap(setup, minute, client, writer, times)
                _sleep_until(now_s + minute_s)
                memory.append(_memory(service))
                starts_s.append(time.monotonic())
                if problem := client.info().index.problem:
                    writer.failures.append(problem)
    return {
        "items": setup.num_items,
        "minutes": minutes,
        "warm_up_requests": len(warming.sent),
        "maximum_images_per_s": round(maximum, 1),
        "paced_images_per_s": round(rate, 1),
        "writer_images_per_s": IMAGES_PER_PERIOD / PERIOD_S,
        **summary(load.sent, memory, starts_s),
        **{f"num_{name}": count for name, count in sorted(writer.counts.items())},
        "failures": writer.failures[:MAX_SHOWN],
    }


def summary(
    sent: Sequence[Sent], memory: Sequence[dict[str, int]], starts_s: Sequence[float]
) -> dict[str, Any]:
    """The failed requests by reason, the times per minute, and how much the memory has grown.

    `memory` has the figures at the end of each minute. `starts_s` says when each minute started,
    and when the last one ended.
    """
    by_minute: list[list[Sent]] = [[] for _ in memory]
    for one in sent:
        minute = bisect_right(starts_s, one.due_s) - 1
        if 0 <= minute < len(by_minute):
            by_minute[minute].append(one)
    failed = Counter(one.failure for one in sent if one.failure)
    return {
        "requests": len(sent),
        "failed_requests": failed.total(),
        "failed_by_reason": dict(failed),
        "resident_growth": _growth(memory, "resident_mb"),
        "anonymous_growth": _growth(memory, "anonymous_mb"),
        "by_minute": [
            {
                "requests": len(of_minute),
                "failed": sum(bool(one.failure) for one in of_minute),
                "p50_ms": _percentile_ms(of_minute, 50),
                "p99_ms": _percentile_ms(of_minute, 99),
                **figures,
            }
            for of_minute, figures in zip(by_minute, memory, strict=True)
        ],
    }


def _growth(memory: Sequence[dict[str, int]], name: str) -> float:
    """The growth of the memory from the end of the first minute to the end, as a share."""
    return round(memory[-1][name] / memory[0][name] - 1, 4)


def _percentile_ms(sent: Sequence[Sent], percent: int) -> float | None:
    times_ms = [1000 * one.took_s for one in sent]
    if len(times_ms) < 2:
        return round(times_ms[0], 1) if times_ms else None
    cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
    return round(cuts[percent - 1], 1)


def _memory(service: Running) -> dict[str, int]:
    return {"resident_mb": service.resident_mb, "anonymous_mb": service.anonymous_mb}


def _compact(setup: Setup, writer: Writer, *, num_others: int) -> None:
    """Compact the index beside the service, and compare what is listed then."""
    command = [sys.executable, "lookalike.py", "index", "compact", str(setup.served), "--force"]
    for _ in range(NUM_TRIES):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not done.returncode:
            writer.counts["compactions"] += 1
            break
        time.sleep(0.2)
    else:
        writer.failures.append(f"the compaction failed: {done.stderr.strip()[-300:]}")
    with writer.lock:
        writer.compare(num_others)


def _swap(setup: Setup, minute: int, client: Client, writer: Writer, times: Times) -> None:
    """Move a copy of the other index into the place of the one that is served."""
    old_label, label = LABELS[minute % 2], LABELS[(minute + 1) % 2]
    fresh, old = setup.served.with_name("fresh"), setup.served.with_name("old")
    _copy(setup.indexes[(minute + 1) % 2], fresh)
    with writer.lock:
        times.appear(label)
        setup.served.rename(old)
        fresh.rename(setup.served)
        deadline_s = time.monotonic() + PATIENCE_S
        while label not in client.info().index.labels:
            if time.monotonic() > deadline_s:
                writer.failures.append(f"the new index is not served after {PATIENCE_S:.0f} s")
                break
            time.sleep(0.05)
        times.vanish(old_label)
        writer.forget()
    writer.counts["swaps"] += 1
    shutil.rmtree(old)


def _copy(index: Path, target: Path) -> None:
    """Copy an index. The files of the model are linked, because nothing writes to them."""
    shutil.copytree(index, target, ignore=shutil.ignore_patterns(MODEL_FOLDER))
    shutil.copytree(index / MODEL_FOLDER, target / MODEL_FOLDER, copy_function=os.link)


def _sleep_until(time_s: float) -> None:
    time.sleep(max(0.0, time_s - time.monotonic()))


if __name__ == "__main__":
    main()
