"""Measure the service under load, beside other servers."""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import benchmarks.service_load as package
from benchmarks.made_up import made_up_blocks, made_up_item, make_model
from benchmarks.record import record
from benchmarks.service_load.processes import Running, lookalike, peer
from benchmarks.service_load.wrk import Load, press
from indexer.learned.encode import encode
from indexer.opening import open_index
from indexer.storage.writer import IndexWriter
from training.data.images import read_square
from training.parallel import num_cores

CLIENTS = 16
OVERLOAD = 10
"""How many times as many requests as the service can take are sent in the overload."""
WARM_UP_S = 3
NUM_SINGLE = 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=package.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--coded-items", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--overload-seconds", type=float, default=60)
    parser.add_argument("--name", default="service_load")
    arguments = parser.parse_args()
    photo, seconds = arguments.photo.resolve(), arguments.seconds
    with TemporaryDirectory() as scratch:
        model, index = arguments.model, Path(scratch, "index")
        if model is None:
            model = Path(scratch, "model")
            make_model(model, num_classes=1000, normalization="response")
        make_index(index, model, arguments.items)
        figures: dict[str, Any] = {
            "items": arguments.items,
            "clients": CLIENTS,
            "one_client": one_client(index, photo),
            "many_clients": many_clients(index, photo, seconds),
        }
        if arguments.coded_items:
            coded = Path(scratch, "coded")
            make_index(coded, model, arguments.coded_items)
            encode(coded)
            figures["by_codes"] = by_codes(coded, photo, seconds)
        figures["overload"] = overload(index, photo, arguments.overload_seconds)
    record(arguments.name, figures, model=arguments.model)


def make_index(directory: Path, model: Path, count: int) -> None:
    """An index of made-up features, in clusters as real ones are."""
    number = 0
    with IndexWriter.open(directory, model) as writer:
        for block in made_up_blocks(count, seed=0, num_items=count):
            for feature in block:
                writer.add(made_up_item(number, feature))
                number += 1
            writer.commit()
        writer.commit(is_complete=True)


def one_client(index: Path, photo: Path) -> dict[str, Any]:
    """One keep-alive client in a row, beside the same work in one process without a server."""
    opened, content = open_index(index), photo.read_bytes()
    size = opened.embedder.card.image_size

    def classify() -> None:
        opened.embedder.embed(read_square(content, size)[None])

    def similar() -> None:
        features = opened.embedder.embed(read_square(content, size)[None]).features
        opened.searcher.search(features, 6)

    figures: dict[str, Any] = {}
    for name, bare in (("classify", classify), ("similar", similar)):
        bare_ms = 1000 * _median_s(bare)
        with lookalike(index) as service:
            _warm_up(service, f"/{name}", photo)
            load = press(f"{service.url}/{name}", photo, clients=1, seconds=10)
        figures[name] = {
            "bare_p50_ms": round(bare_ms, 1),
            "p50_ms": load.p50_ms,
            "times_bare": round(load.p50_ms / bare_ms, 2),
        }
    return figures


def many_clients(index: Path, photo: Path, seconds: float) -> dict[str, Any]:
    """16 clients on each server, and the limit that the processor sets."""
    limit = images_per_s_limit(index, photo)
    with lookalike(index) as service:
        _warm_up(service, "/classify", photo)
        classify = press(f"{service.url}/classify", photo, clients=CLIENTS, seconds=seconds)
        similar = press(f"{service.url}/similar", photo, clients=CLIENTS, seconds=seconds)
    figures: dict[str, Any] = {
        "limit_images_per_s": round(limit, 1),
        "classify": asdict(classify),
        "similar": asdict(similar),
        "classify_share_of_limit": round(classify.images_per_s / limit, 3),
        "similar_share_of_classify": round(similar.images_per_s / classify.images_per_s, 3),
    }
    peers: list[tuple[str, str, str, Load]] = [
        ("plain", "/classify", "image", classify),
        ("flat", "/similar", "image", similar),
    ]
    if find_spec("litserve"):
        peers.append(("litserve", "/classify", "image", classify))
    else:
        print("LitServe is left out, because it is not installed; to compare: pip install litserve")
    for kind, path, field, ours in peers:
        with peer(kind, index if kind == "flat" else None) as other:
            _warm_up(other, path, photo, field)
            load = press(f"{other.url}{path}", photo, clients=CLIENTS, seconds=seconds, field=field)
        figures[kind] = {
            **asdict(load),
            "times_as_fast": round(ours.images_per_s / load.images_per_s, 2),
            "share_of_its_p99": round(ours.p99_ms / load.p99_ms, 2),
        }
    return figures


def by_codes(index: Path, photo: Path, seconds: float) -> dict[str, Any]:
    """Searches by codes in a large index, beside classifying."""
    with lookalike(index) as service:
        _warm_up(service, "/classify", photo)
        classify = press(f"{service.url}/classify", photo, clients=CLIENTS, seconds=seconds)
        path = "/similar?metric=hamming"
        _warm_up(service, path, photo)
        similar = press(f"{service.url}{path}", photo, clients=CLIENTS, seconds=seconds)
    return {
        "items": open_index(index).index.manifest.num_items,
        "classify": asdict(classify),
        "similar": asdict(similar),
        "similar_share_of_classify": round(similar.images_per_s / classify.images_per_s, 3),
    }


def overload(index: Path, photo: Path, seconds: float) -> dict[str, Any]:
    """Ten times as many requests as the service can take, and how it is afterwards."""
    with lookalike(index) as service:
        _warm_up(service, "/classify", photo)
        maximum = press(f"{service.url}/classify", photo, clients=CLIENTS, seconds=10)
        before_mb = service.resident_mb
        # Each connection waits for a second between its requests, so there is one per second.
        clients = round(OVERLOAD * maximum.images_per_s)
        load = press(
            f"{service.url}/classify", photo, clients=clients, seconds=seconds, pause_ms=1000
        )
        after_mb = service.resident_mb
        time.sleep(2)
        normal = press(f"{service.url}/classify", photo, clients=1, seconds=3)
    return {
        "clients": clients,
        "maximum": asdict(maximum),
        "overloaded": asdict(load),
        "goodput_share": round(load.images_per_s / maximum.images_per_s, 3),
        "memory_before_mb": before_mb,
        "memory_after_mb": after_mb,
        "one_client_afterwards": asdict(normal),
    }


def images_per_s_limit(index: Path, photo: Path) -> float:
    """How many images the cores could decode and embed per second if nothing else were done."""
    opened, content = open_index(index, num_threads=1), photo.read_bytes()
    size = opened.embedder.card.image_size
    square = read_square(content, size)
    batch = np.stack([square] * CLIENTS)
    decode_s = _median_s(lambda: read_square(content, size))
    forward_s = _median_s(lambda: opened.embedder.embed(batch), count=10) / CLIENTS
    return num_cores() / (decode_s + forward_s)


def _median_s(work: Callable[[], object], count: int = NUM_SINGLE) -> float:
    times_s = []
    work()
    for _ in range(count):
        start_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s)


def _warm_up(server: Running, path: str, photo: Path, field: str = "") -> None:
    press(f"{server.url}{path}", photo, clients=CLIENTS, seconds=WARM_UP_S, field=field)
