"""What do codes save? A search by codes and rerank beside FAISS's exact one, and 10,000,000 codes, scanned and looked up.

    python -m benchmarks.codes_speed MODEL DATA DIRECTORY [--num-items 100000] [--bits 256] [--reranks 500 1000 2000 4000]
        [--num-codes 10000000]

The items are the images of DATA and augmented copies of them (random resized crops of half the area or more, mirrored or not), embedded
by MODEL; queries are other such copies. DIRECTORY keeps the index (1.7 GB for 100,000 items) and takes what is there again. One query at
a time, medians; each kind of search takes its turn in every round. Recall is of the 10 Euclidean neighbours. Memory held is what a
search keeps beside the memory-mapped features: FAISS's own copy of them, or the codes and the encoder.

The many codes are resampled from the index's, 4 % of the bits flipped. Their lookups' recall is of the distances of the 10 nearest.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from PIL import Image

from benchmarks.record import record
from indexer.array_types import Codes, Floats
from indexer.embedder import Embedder
from indexer.learned.autoencoder import Settings, fit
from indexer.learned.encode import encode
from indexer.search.code_buckets import Addresses
from indexer.search.code_search import Cores, scan
from indexer.search.searcher import NUM_CORES, Searcher
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE
from indexer.storage.writer import IndexWriter, NewItem
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import Pixels, read_square
from training.network.model import NUM_FEATURES, read_card
from training.parallel import map_ahead, num_cores
from training.progress import Bar

K, NUM_QUERIES, NUM_ROUNDS = 10, 100, 3
NUM_LEARNT = 10_000
BATCH = 32
LEAST_AREA = 0.5
FLIPPED_SHARE, BLOCK = 0.04, 1_000_000
FLIPS = (0, 1, 2, 3)
QUERIES_FILE = "queries.npy"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--num-items", type=int, default=100_000)
    parser.add_argument("--bits", type=int, default=256)
    parser.add_argument("--reranks", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--num-codes", type=int, default=10_000_000)
    arguments = parser.parse_args()
    directory = arguments.directory / f"index-{arguments.num_items}"
    queries = _make(arguments.model, arguments.data, directory, arguments.num_items)
    started = time.perf_counter()
    encode(directory, num_bits=arguments.bits)
    encoding_s = time.perf_counter() - started
    index = Index.open(directory)
    started = time.perf_counter()
    fit(np.array(index.features[:NUM_LEARNT]), Settings(num_bits=arguments.bits))
    learning_s = time.perf_counter() - started
    figures = {
        "model": read_card(arguments.model).id[:12],
        "num_items": arguments.num_items,
        "num_bits": arguments.bits,
        "encoding_s": round(encoding_s, 1),
        f"learning_{NUM_LEARNT}_s": round(learning_s, 1),
        "search": _search(index, queries, arguments.reranks),
        "many_codes": _many(index, queries, arguments.num_codes),
    }
    record("codes_speed", figures)


def _search(index: Index, queries: Floats, reranks: list[int]) -> dict[str, Any]:
    flat = faiss.IndexFlatL2(NUM_FEATURES)
    flat.add(np.ascontiguousarray(index.features[index.rows]))
    searcher = Searcher(index)
    found = flat.search(queries, K)[1]
    nearest = [set(index.ids[row].tolist()) for row in found]
    ways: dict[str, Callable[[Floats], Any]] = {"flat": lambda query: flat.search(query, K)}
    ways["codes alone"] = lambda query: searcher.search(query, K, metric="hamming", rerank=0)
    for rerank in reranks:
        ways[f"codes, {rerank} reranked"] = partial(
            searcher.search, k=K, metric="hamming", rerank=rerank
        )
    times_s = _timed(ways, queries)
    held = {
        "flat": flat.ntotal * NUM_FEATURES * 4,
        "codes": searcher.codes.of_items.nbytes + searcher.codes.encoder.weights.nbytes,
    }
    flat_s = statistics.median(times_s["flat"])
    result: dict[str, Any] = {
        "memory_bytes": held,
        "memory_share": round(held["codes"] / held["flat"], 4),
    }
    for name, way in ways.items():
        median_s = statistics.median(times_s[name])
        recall = (
            1.0 if name == "flat" else _recall([way(query[None]) for query in queries], nearest)
        )
        ratios = [own / one for own, one in zip(times_s["flat"], times_s[name], strict=True)]
        result[name] = {
            **_told(times_s[name]),
            "recall@10": round(recall, 4),
            "times_faster": round(flat_s / median_s, 1),
            "times_faster_by_query_median": round(statistics.median(ratios), 1),
        }
    return result


def _told(times_s: list[float]) -> dict[str, float]:
    return {
        "ms": round(1000 * statistics.median(times_s), 3),
        "p95_ms": round(1000 * float(np.percentile(times_s, 95)), 3),
    }


def _recall(answers: list[Any], nearest: list[set[int]]) -> float:
    hits = [
        len({match.item.id for match in matches} & wanted)
        for (matches,), wanted in zip(answers, nearest, strict=True)
    ]
    return sum(hits) / (K * len(hits))


def _many(index: Index, queries: Floats, count: int) -> dict[str, Any]:
    encoder = Searcher(index).codes.encoder
    codes, asking = _resampled(np.asarray(index.codes), count), encoder.encode(queries)
    cores = Cores(NUM_CORES)
    started = time.perf_counter()
    addresses = Addresses(codes)
    result: dict[str, Any] = {
        "num_codes": count,
        "buckets_made_in_s": round(time.perf_counter() - started, 2),
    }
    ways: dict[str, Callable[[Codes], Any]] = {"scan": lambda query: scan(cores, query, codes, K)}
    for flips in FLIPS:
        ways[f"lookup, {flips} flips"] = partial(addresses.nearest, k=K, flips=flips)
    times_s = _timed(ways, asking)
    farthest = [scan(cores, query[None], codes, K)[0][0, -1] for query in asking]
    for name, way in ways.items():
        hits = 0
        for query, most in zip(asking, farthest, strict=True):
            distances, places = way(query[None])
            hits += int(np.count_nonzero((places[0] >= 0) & (distances[0] <= most)))
        result[name] = {**_told(times_s[name]), "recall@10": round(hits / (K * len(asking)), 4)}
    return result


def _resampled(codes: Codes, count: int) -> Codes:
    random = np.random.default_rng(0)
    made = np.empty((count, codes.shape[1]), np.uint8)
    for start in range(0, count, BLOCK):
        block = made[start : start + BLOCK]
        flips = random.random((len(block), 8 * codes.shape[1]), np.float32) < FLIPPED_SHARE
        block[:] = codes[random.integers(0, len(codes), len(block))] ^ np.packbits(flips, axis=1)
    return made


def _timed(ways: dict[str, Callable[[Any], Any]], queries: np.ndarray) -> dict[str, list[float]]:
    """Seconds a query, of each way in turn, after a round that does not count."""
    times_s: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(NUM_ROUNDS + 1):
        for name, way in ways.items():
            for query in queries[:, None]:
                started = time.perf_counter()
                way(query)
                if number:
                    times_s[name].append(time.perf_counter() - started)
    return times_s


def _make(model: Path, data: str, directory: Path, count: int) -> Floats:
    """Makes the index, unless it is there, and the queries beside it, (n, 4096)."""
    file = directory.with_name(f"{directory.name}-{QUERIES_FILE}")
    queries: Floats
    if (directory / MANIFEST_FILE).is_file() and file.is_file():
        queries = np.load(file)
        return queries
    examples, embedder = open_dataset(data).part("all"), Embedder(model, num_threads=1)
    copies = [(examples[number % len(examples)], number) for number in range(count + NUM_QUERIES)]
    batches = [copies[start : start + BATCH] for start in range(0, len(copies), BATCH)]

    def embed(batch: list[tuple[Example, int]]) -> Floats:
        return embedder.embed(
            np.stack(
                [_copy(example, number, embedder.card.image_size) for example, number in batch]
            )
        ).features

    asking = []
    with (
        IndexWriter.open(directory, model) as writer,
        Bar("Embedding", len(copies)) as bar,
        ThreadPoolExecutor(num_cores()) as pool,
    ):
        for batch, features in zip(
            batches, map_ahead(pool, embed, batches, ahead=2 * num_cores()), strict=True
        ):
            for (example, number), feature in zip(batch, features, strict=True):
                if number < count:
                    writer.add(_item(example, number, feature))
                else:
                    asking.append(feature)
            bar.advance(len(batch))
        writer.commit(is_complete=True)
    queries = np.stack(asking)
    np.save(file, queries)
    return queries


def _item(example: Example, number: int, feature: Floats) -> NewItem:
    return NewItem(
        path=f"{number}/{example.path}",
        label=example.label,
        sha256=f"{number:064x}",
        width=1,
        height=1,
        thumbnail=b"",
        feature=feature,
    )


def _copy(example: Example, number: int, size: int) -> Pixels:
    """A random part of the image's square, always the same for a number."""
    square = read_square(example.source, size)
    random = np.random.default_rng(number)
    side = round(size * float(random.uniform(LEAST_AREA**0.5, 1)))
    left, top = random.integers(0, size - side + 1, 2).tolist()
    image = Image.fromarray(square).resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    return np.asarray(
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.integers(2) else image
    )


if __name__ == "__main__":
    main()
