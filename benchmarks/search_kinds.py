"""What does each kind of search cost, and what does it miss, beside an exact scan of the same items?

    python -m benchmarks.search_kinds [--num-items N] [--num-queries N] [--directory DIR] [--kinds KIND ...]

The features are made up, with fc7's shape: in clusters, never negative, half of the numbers zero; the queries are other ones of the
same kind. Recall is against the exact scan in the same run. With a DIR the items are made once and found there again; the structures
are made in every run. Time to the first answer is from opening the index, in a fresh process, whose imports are not counted.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.record import record
from benchmarks.service_start import make_model
from indexer.metrics import METRICS, Metric
from indexer.search.kinds import KINDS, KindChoice
from indexer.search.searcher import Searcher
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from indexer.storage.writer import IndexWriter, NewItem
from training.network.model import NUM_FEATURES
from training.progress import Bar

K = 10
ITEMS_A_CLUSTER, NOISE = 100, 1.5
"""Beside a spread of 2 between the clusters' centres."""
BLOCK = 1000
FIRST_ANSWER = """
import json, sys, time
from pathlib import Path
import numpy as np
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
query = np.load(sys.argv[2])
started = time.perf_counter()
index = Index.open(Path(sys.argv[1]))
opened = time.perf_counter()
matches = Searcher(index).search(query, 10)
answered = time.perf_counter()
assert len(matches[0]) == 10
print(json.dumps({"open_s": round(opened - started, 4), "first_answer_s": round(answered - started, 4)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-items", type=int, default=100_000)
    parser.add_argument("--num-queries", type=int, default=200)
    parser.add_argument("--directory", type=Path)
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=[kind for kind in KINDS if kind != "auto"]
    )
    arguments = parser.parse_args()
    with (
        nullcontext(arguments.directory)
        if arguments.directory
        else TemporaryDirectory() as directory
    ):
        index = make_index(Path(directory), arguments.num_items)
        queries = np.concatenate(
            [*made_up(arguments.num_queries, seed=1, num_items=arguments.num_items)]
        )
        searcher = Searcher(Index.open(index))
        exact = {metric: ids(searcher, queries, metric, exact=True) for metric in METRICS}
        del searcher
        by_kind = {kind: measure(index, kind, queries, exact) for kind in arguments.kinds}
    record(
        "search_kinds",
        {
            "num_items": arguments.num_items,
            "num_queries": arguments.num_queries,
            "k": K,
            "by_kind": by_kind,
        },
    )


def make_index(directory: Path, num_items: int) -> Path:
    """An index of made-up items, where there is none of so many yet."""
    model, index = directory / "model", directory / f"index-{num_items}"
    if (index / MANIFEST_FILE).exists() and read_manifest(index).is_complete:
        return index
    if not model.exists():
        make_model(model)
    with IndexWriter.open(index, model) as writer, Bar("Making items", num_items, "items") as bar:
        number = writer.num_items
        if number:
            raise SystemExit(f"{index} was left half-done; remove it")
        for block in made_up(num_items, seed=0, num_items=num_items):
            for feature in block:
                name, sha256 = f"{number}.jpg", f"{number:064}"
                item = NewItem(
                    path=name,
                    label=str(number % 10),
                    sha256=sha256,
                    width=224,
                    height=224,
                    thumbnail=b"",
                    feature=feature,
                )
                writer.add(item)
                number += 1
            bar.advance(len(block))
        writer.commit(is_complete=True)
    return index


def made_up(count: int, *, seed: int, num_items: int) -> Iterator[np.ndarray]:
    """(BLOCK, 4096) float32 at a time; the clusters' centres follow from their number, so they need no room."""
    random = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        clusters = random.integers(0, max(1, num_items // ITEMS_A_CLUSTER), size)
        centres = np.stack(
            [
                np.random.default_rng(10_000 + cluster).standard_normal(NUM_FEATURES, np.float32)
                for cluster in clusters
            ]
        )
        yield np.maximum(
            2 * centres + NOISE * random.standard_normal((size, NUM_FEATURES), np.float32), 0
        )


def measure(
    index: Path, kind: KindChoice, queries: np.ndarray, exact: dict[Metric, list[list[int]]]
) -> dict[str, Any]:
    """Makes the structures of a kind anew, and asks them."""
    started = time.perf_counter()
    with IndexWriter.open(index) as writer:
        update_search(writer, kind=kind, memory_bytes=2**60, anew=True)
        writer.commit()
    figures: dict[str, Any] = {"build_s": round(time.perf_counter() - started, 1)}
    searcher = Searcher(Index.open(index))
    artefacts = searcher.index.manifest.artefacts
    figures |= {
        "num_bytes": sum(artefact.num_bytes for artefact in artefacts.values()),
        "first_answer": first_answer(index, queries),
    }
    for metric in METRICS:
        found = ids(searcher, queries, metric)
        recalls = [
            len({*some} & {*nearest}) / K
            for some, nearest in zip(found, exact[metric], strict=True)
        ]
        seconds = []
        for query in queries:
            started = time.perf_counter()
            searcher.search(query[None], K, metric=metric)
            seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        searcher.search(queries, K, metric=metric)
        facts = dict(artefacts[metric].facts) if metric in artefacts else {}
        figures[metric] = {
            "recall_at_10": round(float(np.mean(recalls)), 4),
            "recall_at_10_in_manifest": searcher.index.manifest.recall_at_10(metric),
            "breadth": facts.get("nprobe", facts.get("ef_search")),
            "one_query_ms": {
                f"p{share}": round(1000 * float(np.percentile(seconds, share)), 2)
                for share in (50, 95)
            },
            "queries_per_s_together": round(len(queries) / (time.perf_counter() - started), 1),
        }
    return figures


def ids(
    searcher: Searcher, queries: np.ndarray, metric: Metric, *, exact: bool = False
) -> list[list[int]]:
    return [
        [match.item.id for match in matches]
        for matches in searcher.search(queries, K, metric=metric, exact=exact)
    ]


def first_answer(index: Path, queries: np.ndarray) -> dict[str, float]:
    """Seconds in a fresh process; the files are as warm as the build left them."""
    with TemporaryDirectory() as scratch:
        np.save(Path(scratch, "query.npy"), queries[:1])
        command = [
            sys.executable,
            "-c",
            FIRST_ANSWER,
            str(index.resolve()),
            str(Path(scratch, "query.npy")),
        ]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
