"""How much faster and smaller than exact search is a search by codes, at 100,000 items?

    python -m benchmarks.codes_speed MODEL DATA QUERIES DIRECTORY [--num-items 100000] [--bits 256]
        [--reranks 500 1000 2000 4000] [--num-codes 10000000]

The items are augmented copies of the images of DATA, embedded by MODEL. A copy is a random resized
crop of at least half the area, mirrored or not. The queries are images of QUERIES. They are neither
indexed nor augmented. MODEL must not have been trained on QUERIES. DIRECTORY keeps the index for
the next run. An index of 100,000 items needs 1.7 GB.

The searches take turns with one query at a time and a warm page cache. The figures are medians.
"times_faster" compares a search with the fastest of these exact searches: FAISS's flat index on one
thread, the same on all threads, one part of the features per core, and this project's own exact
search. Recall counts the 10 Euclidean neighbours. The memory is the amount that a search keeps in
addition to the memory-mapped features. The features for the second ranking are read through the
page cache. "cold" is the time of a query when the page cache contains none of these features.

The second part searches 10,000,000 codes. They are resampled from the codes of the index, and 4 %
of their bits are flipped. Recall of a lookup counts matches that are as near as the 10 nearest.
"""

import argparse
import os
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
from indexer.array_types import Codes, Floats, Integers
from indexer.embedder import Embedder
from indexer.learned.autoencoder import AutoencoderSettings
from indexer.learned.autoencoder_fitting import fit
from indexer.learned.encode import encode
from indexer.metrics import DEFAULT_RERANK
from indexer.search.code_buckets import CodeBuckets
from indexer.search.code_search import CoreThreads, scan
from indexer.search.searcher import NUM_CORES, Match, Searcher
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE
from indexer.storage.row_writing import NewItem
from indexer.storage.writer import IndexWriter
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import Pixels, read_square
from training.network.model import NUM_FEATURES, read_card
from training.parallel import map_ahead, num_cores
from training.progress import Bar

K, NUM_QUERIES, NUM_ROUNDS, NUM_COLD = 10, 100, 3, 10
NUM_FITTED = 10_000
BATCH_SIZE = 32
MIN_CROP_AREA = 0.5
FLIPPED_SHARE, CODE_BLOCK_ROWS = 0.04, 1_000_000
FLIPS = (0, 1, 2, 3)
QUERIES_FILE = "queries.npy"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("queries")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--num-items", type=int, default=100_000)
    parser.add_argument("--bits", type=int, default=256)
    parser.add_argument("--reranks", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--num-codes", type=int, default=10_000_000)
    arguments = parser.parse_args()
    directory = arguments.directory / f"index-{arguments.num_items}"
    queries = _make(
        arguments.model, arguments.data, arguments.queries, directory, arguments.num_items
    )
    started = time.perf_counter()
    encode(directory, num_bits=arguments.bits)
    encoding_s = time.perf_counter() - started
    # Measured first, because pages that this process has mapped and read stay in the page cache.
    cold_s = [_cold_search_s(directory, query) for query in queries[:NUM_COLD]]
    index = Index.open(directory)
    started = time.perf_counter()
    fit(np.array(index.features[:NUM_FITTED]), AutoencoderSettings(num_bits=arguments.bits))
    learning_s = time.perf_counter() - started
    figures = {
        "model": read_card(arguments.model).id[:12],
        "num_items": arguments.num_items,
        "num_bits": arguments.bits,
        "encoding_s": round(encoding_s, 1),
        f"learning_{NUM_FITTED}_s": round(learning_s, 1),
        "search": _measure_search(index, queries, arguments.reranks),
        "cold_search": {"rerank": DEFAULT_RERANK, "queries": NUM_COLD, **_summary(cold_s)},
        "many_codes": _measure_many_codes(index, queries, arguments.num_codes),
    }
    record("codes_speed", figures, model=arguments.model)


def _measure_search(index: Index, queries: Floats, reranks: list[int]) -> dict[str, Any]:
    features = np.ascontiguousarray(index.features[index.rows])
    searcher = Searcher(index)
    searches: dict[str, Callable[[Floats], Any]] = _exact_searches(features, searcher)
    exact_names = list(searches)
    searches["codes alone"] = partial(searcher.search, k=K, metric="hamming", rerank=0)
    for rerank in reranks:
        searches[f"codes, {rerank} reranked"] = partial(
            searcher.search, k=K, metric="hamming", rerank=rerank
        )
    nearest = [set(index.ids[row].tolist()) for row in faiss.knn(queries, features, K)[1]]
    times_s = _times_s(searches, queries)
    fastest = min(exact_names, key=lambda name: statistics.median(times_s[name]))
    code_search = searcher.code_search
    code_bytes = code_search.item_codes.nbytes + code_search.encoder.weights.nbytes
    result: dict[str, Any] = {
        "memory_bytes": {"features": features.nbytes, "codes": code_bytes},
        "memory_share": round(code_bytes / features.nbytes, 4),
        "fastest_exact": fastest,
    }
    for name, search in searches.items():
        pairs = zip(times_s[fastest], times_s[name], strict=True)
        result[name] = {
            **_summary(times_s[name]),
            "times_faster": round(statistics.median(exact / own for exact, own in pairs), 2),
        }
        if name not in exact_names:
            answers = [search(query[None]) for query in queries]
            result[name]["recall@10"] = round(recall(answers, nearest), 4)
    del features
    return result


def _exact_searches(features: Floats, searcher: Searcher) -> dict[str, Callable[[Floats], Any]]:
    """The exact searches, by name. Each searches for one query (1, 4096)."""
    flat = faiss.IndexFlatL2(NUM_FEATURES)
    flat.add(features)
    parts = np.array_split(features, NUM_CORES)
    # FAISS runs single-threaded inside each thread of the pool.
    pool = ThreadPoolExecutor(NUM_CORES, initializer=faiss.omp_set_num_threads, initargs=(1,))

    def on_threads(num_threads: int, query: Floats) -> Any:
        faiss.omp_set_num_threads(num_threads)
        return flat.search(query, K)

    def in_parts(query: Floats) -> Any:
        return list(pool.map(lambda part: faiss.knn(query, part, K), parts))

    searches: dict[str, Callable[[Floats], Any]] = {
        "exact, FAISS on 1 thread": partial(on_threads, 1),
        f"exact, FAISS on {NUM_CORES} threads": partial(on_threads, NUM_CORES),
        "exact, one part per core": in_parts,
        "exact, this project": partial(searcher.search, k=K, exact=True),
    }
    return searches


def _cold_search_s(directory: Path, query: Floats) -> float:
    """The seconds for one search by codes when the page cache contains no features."""
    index = Index.open(directory)
    searcher = Searcher(index)
    searcher.search(query[None], K, metric="hamming", rerank=0)  # reads only the codes
    file = directory / index.manifest.files["features"].file
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    started = time.perf_counter()
    searcher.search(query[None], K, metric="hamming", rerank=DEFAULT_RERANK)
    return time.perf_counter() - started


def _summary(times_s: list[float]) -> dict[str, float]:
    return {
        "ms": round(1000 * statistics.median(times_s), 3),
        "p95_ms": round(1000 * float(np.percentile(times_s, 95)), 3),
    }


def recall(answers: list[list[list[Match]]], nearest: list[set[int]]) -> float:
    """The share of a query's K nearest ids that its answer contains, as a mean over the queries."""
    hits = [
        len({match.item.id for match in matches} & wanted)
        for (matches,), wanted in zip(answers, nearest, strict=True)
    ]
    return sum(hits) / (K * len(hits))


def _measure_many_codes(index: Index, queries: Floats, count: int) -> dict[str, Any]:
    """Measure a scan of `count` codes, and lookups in buckets of these codes."""
    encoder = Searcher(index).code_search.encoder
    codes = _resample(np.asarray(index.codes), count)
    query_codes = encoder.encode(queries)
    cores = CoreThreads(NUM_CORES)
    started = time.perf_counter()
    buckets = CodeBuckets(codes)
    buckets_s = time.perf_counter() - started
    searches: dict[str, Callable[[Codes], Any]] = {
        "scan": lambda query: scan(cores, query, codes, K)
    }
    for flips in FLIPS:
        searches[f"lookup, {flips} flips"] = partial(buckets.search, k=K, flips=flips)
    times_s = _times_s(searches, query_codes)
    farthest = [int(scan(cores, query[None], codes, K)[0][0, -1]) for query in query_codes]
    result: dict[str, Any] = {"num_codes": count, "buckets_made_in_s": round(buckets_s, 2)}
    for name, search in searches.items():
        answers = [search(query[None]) for query in query_codes]
        share = round(recall_by_distance(answers, farthest), 4)
        result[name] = {**_summary(times_s[name]), "recall@10": share}
    return result


def recall_by_distance(answers: list[tuple[Integers, Integers]], farthest: list[int]) -> float:
    """The mean share of matches that are as near as the K nearest.

    An answer contains distances and positions, (1, K) each. Position -1 means that there is no
    match. `farthest` contains the distance of each query to its K-th nearest code. Positions cannot
    be compared, because many codes are at the same distance.
    """
    hits = [
        np.count_nonzero((positions[0] >= 0) & (distances[0] <= limit))
        for (distances, positions), limit in zip(answers, farthest, strict=True)
    ]
    return float(np.sum(hits)) / (K * len(hits))


def _resample(codes: Codes, count: int) -> Codes:
    """Make `count` copies of random codes, and flip a share of their bits."""
    random = np.random.default_rng(0)
    copies = np.empty((count, codes.shape[1]), np.uint8)
    for start in range(0, count, CODE_BLOCK_ROWS):
        block = copies[start : start + CODE_BLOCK_ROWS]
        flips = random.random((len(block), 8 * codes.shape[1]), np.float32) < FLIPPED_SHARE
        block[:] = codes[random.integers(0, len(codes), len(block))] ^ np.packbits(flips, axis=1)
    return copies


def _times_s(
    searches: dict[str, Callable[[Any], Any]], queries: np.ndarray
) -> dict[str, list[float]]:
    """The seconds for each query, by name of the search.

    The searches take turns. The first round is not counted.
    """
    times_s: dict[str, list[float]] = {name: [] for name in searches}
    for number in range(NUM_ROUNDS + 1):
        for name, search in searches.items():
            for query in queries[:, None]:
                started = time.perf_counter()
                search(query)
                if number:
                    times_s[name].append(time.perf_counter() - started)
    return times_s


def _make(model: Path, data: str, queries_data: str, directory: Path, count: int) -> Floats:
    """Make the index and the queries (n, 4096), or read them from an earlier run."""
    file = directory.with_name(f"{directory.name}-{QUERIES_FILE}")
    queries: Floats
    if (directory / MANIFEST_FILE).is_file() and file.is_file():
        queries = np.load(file)
        return queries
    examples, embedder = open_dataset(data).part("all"), Embedder(model, num_threads=1)
    copies = [(examples[number % len(examples)], number) for number in range(count)]
    batches = [copies[start : start + BATCH_SIZE] for start in range(0, count, BATCH_SIZE)]
    size = embedder.card.image_size

    def embed(batch: list[tuple[Example, int]]) -> Floats:
        squares = [_copy(example, number, size) for example, number in batch]
        return embedder.embed(np.stack(squares)).features

    with (
        IndexWriter.open(directory, model) as writer,
        Bar("Embedding", count) as bar,
        ThreadPoolExecutor(num_cores()) as pool,
    ):
        embedded = map_ahead(pool, embed, batches, ahead=2 * num_cores())
        for batch, features in zip(batches, embedded, strict=True):
            for (example, number), feature in zip(batch, features, strict=True):
                writer.add(_item(example, number, feature))
            bar.advance(len(batch))
        writer.commit(is_complete=True)
    held_out = open_dataset(queries_data).part("all")
    chosen = np.random.default_rng(0).permutation(len(held_out))[:NUM_QUERIES]
    squares = [read_square(held_out[number].source, size) for number in chosen]
    queries = np.concatenate([embedder.embed(square[None]).features for square in squares])
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
    """A random crop of the image's square. The same number always gives the same crop."""
    square = read_square(example.source, size)
    random = np.random.default_rng(number)
    side = round(size * float(random.uniform(MIN_CROP_AREA**0.5, 1)))
    left, top = random.integers(0, size - side + 1, 2).tolist()
    box = (left, top, left + side, top + side)
    image = Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR, box=box)
    if random.integers(2):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


if __name__ == "__main__":
    main()
