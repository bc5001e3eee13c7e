"""What does each kind of search cost, and how many matches of an exact scan does it miss?

    python -m benchmarks.search_kinds [--num-items N] [--num-queries N] [--directory DIR]
        [--kinds KIND ...]

The features are made up, but similar to those of fc7: they form clusters, no number is negative,
and half of the numbers are zero. The queries are other features of the same clusters. Recall is
measured against an exact scan in the same run. DIR keeps the items for the next run. The structures
are made in every run. The time to the first answer is measured in a new process. It starts after
the imports, when the index is opened.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.made_up import made_up_blocks, made_up_item, make_model
from benchmarks.record import ROOT, record
from indexer.array_types import Floats
from indexer.metrics import METRICS, Metric
from indexer.search.kinds import KINDS, RequestedKind
from indexer.search.searcher import Searcher
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from indexer.storage.writer import IndexWriter
from training.progress import Bar

K = 10
UNLIMITED_BYTES = 2**60
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
print(json.dumps({
    "open_s": round(opened - started, 4), "first_answer_s": round(answered - started, 4)
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-items", type=int, default=100_000)
    parser.add_argument("--num-queries", type=int, default=200)
    parser.add_argument("--directory", type=Path)
    all_kinds = [kind for kind in KINDS if kind != "auto"]
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=all_kinds)
    arguments = parser.parse_args()
    own_directory = nullcontext(arguments.directory) if arguments.directory else None
    with own_directory or TemporaryDirectory() as directory:
        index = make_index(Path(directory), arguments.num_items)
        blocks = made_up_blocks(arguments.num_queries, seed=1, num_items=arguments.num_items)
        queries = np.concatenate(list(blocks))
        searcher = Searcher(Index.open(index))
        exact = {metric: _match_ids(searcher, queries, metric, exact=True) for metric in METRICS}
        del searcher  # because its structures will be replaced
        by_kind = {kind: measure(index, kind, queries, exact) for kind in arguments.kinds}
    figures = {
        "num_items": arguments.num_items,
        "num_queries": arguments.num_queries,
        "k": K,
        "by_kind": by_kind,
    }
    record("search_kinds", figures)


def make_index(directory: Path, num_items: int) -> Path:
    """Make an index of made-up items, or use the index of this size in `directory`."""
    model, index = directory / "model", directory / f"index-{num_items}"
    if (index / MANIFEST_FILE).exists() and read_manifest(index).is_complete:
        return index
    if not model.exists():
        make_model(model, num_classes=1000, normalization="response")
    with IndexWriter.open(index, model) as writer, Bar("Making items", num_items, "items") as bar:
        if writer.num_items:
            raise SystemExit(f"{index} is not complete; remove it and run the command again")
        number = 0
        for block in made_up_blocks(num_items, seed=0, num_items=num_items):
            for feature in block:
                writer.add(made_up_item(number, feature))
                number += 1
            bar.advance(len(block))
        writer.commit(is_complete=True)
    return index


def measure(
    index: Path, kind: RequestedKind, queries: Floats, exact: dict[Metric, list[list[int]]]
) -> dict[str, Any]:
    """Make new structures of a kind, and measure searches with them.

    `exact` contains the ids of each query's nearest items, by metric.
    """
    started = time.perf_counter()
    with IndexWriter.open(index) as writer:
        update_search(writer, kind=kind, memory_bytes=UNLIMITED_BYTES, anew=True)
        writer.commit()
    build_s = time.perf_counter() - started
    searcher = Searcher(Index.open(index))
    artefacts = searcher.index.manifest.artefacts
    return {
        "build_s": round(build_s, 1),
        "num_bytes": sum(artefact.num_bytes for artefact in artefacts.values()),
        "first_answer": _first_answer(index, queries),
        **{metric: _measure_metric(searcher, metric, queries, exact[metric]) for metric in METRICS},
    }


def _measure_metric(
    searcher: Searcher, metric: Metric, queries: Floats, exact: list[list[int]]
) -> dict[str, Any]:
    """Measure recall, and the speed of one query at a time and of all queries together."""
    recall = recall_at_k(_match_ids(searcher, queries, metric), exact)
    seconds = []
    for query in queries:
        started = time.perf_counter()
        searcher.search(query[None], K, metric=metric)
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    searcher.search(queries, K, metric=metric)
    together_s = time.perf_counter() - started
    artefact = searcher.index.manifest.artefacts.get(metric)
    facts = dict(artefact.facts) if artefact else {}
    return {
        "recall_at_10": round(recall, 4),
        "recall_at_10_in_manifest": searcher.index.manifest.recall_at_10(metric),
        "breadth": facts.get("nprobe", facts.get("ef_search")),
        "one_query_ms": {
            f"p{share}": round(1000 * float(np.percentile(seconds, share)), 2) for share in (50, 95)
        },
        "queries_per_s_together": round(len(queries) / together_s, 1),
    }


def recall_at_k(ids: list[list[int]], exact: list[list[int]]) -> float:
    """The share of a query's K nearest ids that its answer contains, as a mean over the queries.

    `ids` are the answers, and `exact` are the nearest ids.
    """
    shares = [len({*some} & {*nearest}) / K for some, nearest in zip(ids, exact, strict=True)]
    return float(np.mean(shares))


def _match_ids(
    searcher: Searcher, queries: Floats, metric: Metric, *, exact: bool = False
) -> list[list[int]]:
    """The ids of the K nearest items to each query."""
    answers = searcher.search(queries, K, metric=metric, exact=exact)
    return [[match.item.id for match in matches] for matches in answers]


def _first_answer(index: Path, queries: Floats) -> dict[str, float]:
    """Measure the seconds to the first answer in a new process.

    The page cache is not changed between the build and this measurement.
    """
    with TemporaryDirectory() as scratch:
        query = Path(scratch, "query.npy")
        np.save(query, queries[:1])
        command = [sys.executable, "-c", FIRST_ANSWER, str(index.resolve()), str(query)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


if __name__ == "__main__":
    main()
