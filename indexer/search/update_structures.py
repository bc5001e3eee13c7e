"""Makes the FAISS structures that an index is searched by, keeps them up with its items, and measures what they miss."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np

from indexer.array_types import Floats, Rows
from indexer.metrics import DISTANCES, METRICS, Metric
from indexer.search.exact import nearest
from indexer.search.faiss_structure import (
    READ_FLAGS,
    Structure,
    breadth_fact,
    read_faiss,
    resolve_search_device,
)
from indexer.search.kinds import (
    HNSW_LINKS,
    MAX_TRAINING_ROWS,
    MIN_POINTS_A_LIST,
    Kind,
    KindChoice,
    choose,
    estimate_bytes,
    num_lists,
)
from indexer.search.searcher import approximate, num_candidates
from indexer.storage.index import Index
from indexer.storage.manifest import Artefact, IndexDirectoryError
from indexer.storage.writer import IndexWriter
from training.devices import Device
from training.network.model import NUM_FEATURES
from training.progress import Bar, console

MIN_TAIL, TAIL_SHARE = 20_000, 0.2
"""How many items may have been added since, in number and as a share of those covered, before a structure takes them in: until then
they are scanned. What an addition costs so stays in proportion to it."""
MAX_REMOVED_SHARE = 0.5
"""The share of covered items that may be removed before a structure is made anew."""
MAX_GROWTH = 4
"""A structure is made anew once it covers so many times the items that it was first made of: it knows the others' places less well."""
RECALL_TARGET, RECALL_K, NUM_RECALL_QUERIES = 0.95, 10, 200
TIE = 1 + 1e-6
"""A match as near as the tenth nearest, up to rounding, is no miss."""
LEAST_BREADTH = {"nprobe": 1, "ef_search": 64}
HNSW_TRAINING_ROWS = 8192
BLOCK_ROWS = 2048
SEED = 0


def update_search(
    writer: IndexWriter,
    *,
    kind: KindChoice | None = None,
    memory_bytes: int | None = None,
    device: Device = "auto",
    anew: bool = False,
) -> None:
    """Brings the structures up to date with the writer's items, for its next commit: extends, makes or drops them, if that is due.

    `kind` and `memory_bytes` are remembered; None is what was asked last, at first `auto` and half of the machine's memory. What
    the writer has pending is committed first where there is something to make. `anew` makes them in any case.
    """
    if kind is not None:
        writer.search["kind"] = kind
    if memory_bytes is not None:
        writer.search["memory_bytes"] = memory_bytes
    asked: KindChoice = writer.search.get("kind", "auto")
    artefacts = {metric: writer.manifest.artefacts.get(metric) for metric in METRICS}
    wanted = choose(asked, writer.num_items, writer.search.get("memory_bytes"))
    if wanted.kind == "flat" and (asked == "flat" or not any(artefacts.values())):
        for metric in METRICS:
            writer.drop_artefact(metric)
        return
    writer.commit()
    index = Index.open(writer.directory)
    is_asked = asked != "auto" or kind is not None or memory_bytes is not None
    dues = {
        metric: "make" if anew else _due(index, artefact, wanted.kind, is_asked)
        for metric, artefact in artefacts.items()
    }
    if wanted.warning and any(dues.values()):
        console.print(wanted.warning)
    for metric, due in dues.items():
        if due and (wanted.kind == "flat" or not len(index.ids)):
            writer.drop_artefact(metric)
        elif due:
            _write(
                writer,
                index,
                metric,
                wanted.kind,
                artefacts[metric] if due == "extend" else None,
                device,
            )


def recall_at_10(index: Index, structure: Structure) -> tuple[float, int]:
    """The share of the 10 truly nearest that a structure finds, and over how many items of the index that ask for their like."""
    return _RecallMeter(index, structure.metric).recall(structure), min(
        NUM_RECALL_QUERIES, len(index.ids)
    )


def _due(index: Index, artefact: Artefact | None, wanted: Kind, is_asked: bool) -> str:
    """`make`, `extend`, or nothing; another kind than the one asked for is due at once, a better one with the next change."""
    if artefact is None:
        return "make"
    facts = artefact.facts
    num_alive = int(np.searchsorted(index.ids, facts["last_id"], "right"))
    num_covered, num_tail = facts["num_covered"], len(index.ids) - num_alive
    if (
        is_asked and wanted != facts["kind"]
    ) or num_covered - num_alive > MAX_REMOVED_SHARE * num_covered:
        return "make"
    if num_tail <= max(MIN_TAIL, TAIL_SHARE * num_covered):
        return ""
    return (
        "make"
        if wanted != facts["kind"] or num_covered + num_tail > MAX_GROWTH * facts["num_first"]
        else "extend"
    )


def _write(
    writer: IndexWriter,
    index: Index,
    metric: Metric,
    kind: Kind,
    earlier: Artefact | None,
    device: Device,
) -> None:
    """Makes a structure, or extends the earlier one, and hands it to the writer with what it is worth."""
    searched, num_first, first_new = None, len(index.ids), 0
    if earlier:
        try:
            searched = read_faiss(index, earlier)
            num_first, first_new = (
                earlier.facts["num_first"],
                int(np.searchsorted(index.ids, earlier.facts["last_id"], "right")),
            )
        except IndexDirectoryError as error:
            console.print(f"{error}; it is made anew")
    with Bar(f"Search, {metric}", len(index.ids) - first_new) as bar:
        bar.advance(0, kind)
        on_device = _on_device(device)
        searched = searched or _trained(index, metric, kind, on_device)
        add = _adder(searched, on_device)
        for rows in _blocks(index.rows[first_new:]):
            add(
                DISTANCES[metric].as_euclidean(index.features[rows]),
                index.records["id"][rows].astype(np.int64),
            )
            bar.advance(len(rows))
    structure = Structure(
        searched, kind, metric, LEAST_BREADTH[breadth_fact(kind)], int(index.ids[-1]), index.ids
    )
    recall = _tune(index, structure)
    facts = {
        "kind": kind,
        breadth_fact(kind): structure.breadth,
        "recall_at_10": round(recall, 4),
        "num_queries": min(NUM_RECALL_QUERIES, len(index.ids)),
        "num_covered": searched.ntotal,
        "num_first": num_first,
        "last_id": structure.last_id,
        "memory_bytes": estimate_bytes(kind, searched.ntotal) // len(METRICS),
    }
    with writer.artefact(metric, "faiss", facts) as path:
        try:
            faiss.write_index(searched, str(path))
            faiss.read_index(
                str(path), READ_FLAGS
            )  # FAISS says nothing of a last block that found no room
        except RuntimeError as error:
            code = (
                errno.ENOSPC
                if os.strerror(errno.ENOSPC) in str(error)
                or not shutil.disk_usage(path.parent).free
                else errno.EIO
            )
            raise OSError(code, os.strerror(code)) from error


def _trained(index: Index, metric: Metric, kind: Kind, on_device: Callable[[Any], Any]) -> Any:
    """An empty FAISS index that has learnt its cells, or the range of each number, from a sample; seeded."""
    family, _, storage = kind.partition("-")
    num_items = len(index.rows)
    lists = num_lists(num_items)
    num_rows = min(num_items, MAX_TRAINING_ROWS, max(lists * MIN_POINTS_A_LIST, HNSW_TRAINING_ROWS))
    quantizer: Any = {
        "fp16": faiss.ScalarQuantizer.QT_fp16,
        "sq8": faiss.ScalarQuantizer.QT_8bit,
    }.get(storage)
    if family == "hnsw":
        searched: Any = faiss.IndexIDMap(faiss.IndexHNSWSQ(NUM_FEATURES, quantizer, HNSW_LINKS))
        num_rows = min(num_items, HNSW_TRAINING_ROWS)
    else:
        cells = faiss.IndexFlatL2(NUM_FEATURES)
        if storage:
            searched = faiss.IndexIVFScalarQuantizer(
                cells, NUM_FEATURES, lists, quantizer, faiss.METRIC_L2
            )
        else:
            searched = faiss.IndexIVFFlat(cells, NUM_FEATURES, lists, faiss.METRIC_L2)
        searched.cp.seed = SEED
        searched.cp.min_points_per_centroid = (
            1  # of few items there are few lists, of which FAISS would warn
        )
        searched.clustering_index = clustering = on_device(faiss.IndexFlatL2(NUM_FEATURES))
    sample = np.sort(np.random.default_rng(SEED).permutation(num_items)[:num_rows])
    searched.train(DISTANCES[metric].as_euclidean(index.features[index.rows[sample]]))
    if family == "ivf":
        searched.clustering_index = None
        del clustering
    return searched


def _adder(searched: Any, on_device: Callable[[Any], Any]) -> Callable[[Floats, Rows], None]:
    """What adds vectors (B, 4096) with their ids (B,); the cells they belong to are found on the device."""
    if not isinstance(searched, faiss.IndexIVF):
        return searched.add_with_ids  # type: ignore[no-any-return]
    cells = on_device(faiss.downcast_index(searched.quantizer))

    def add(vectors: Floats, ids: Rows) -> None:
        places = np.ascontiguousarray(cells.search(vectors, 1)[1][:, 0])
        searched.add_core(
            len(ids), faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(places)
        )

    return add


def _on_device(device: Device) -> Callable[[Any], Any]:
    """What moves an index of centroids to the GPU, where there is one."""
    if resolve_search_device(device) == "cpu":
        return lambda index: index
    resources = faiss.StandardGpuResources()
    return lambda index: faiss.index_cpu_to_gpu(resources, 0, index)


def _tune(index: Index, structure: Structure) -> float:
    """Sets the least breadth that reaches the recall wanted, or else all there is; the recall it reaches."""
    meter = _RecallMeter(index, structure.metric)
    too_narrow, most = structure.breadth - 1, structure.max_breadth
    while (recall := meter.recall(structure)) < RECALL_TARGET and structure.breadth < most:
        too_narrow, structure.breadth = structure.breadth, min(2 * structure.breadth, most)
    while recall >= RECALL_TARGET and structure.breadth - too_narrow > 1:
        enough, enough_recall = structure.breadth, recall
        structure.breadth = (too_narrow + enough) // 2
        if (recall := meter.recall(structure)) < RECALL_TARGET:
            too_narrow, structure.breadth, recall = structure.breadth, enough, enough_recall
    return recall


class _RecallMeter:
    """Items that ask for the 10 nearest others; who those truly are is found out once."""

    def __init__(self, index: Index, metric: Metric):
        places = np.sort(
            np.random.default_rng(SEED).permutation(len(index.ids))[:NUM_RECALL_QUERIES]
        )
        self._index, self._own_rows = index, index.rows[places]
        self._queries = index.features[self._own_rows]
        self._k = min(RECALL_K, len(index.ids) - 1)
        exact = nearest(index, index.rows, self._queries, self._k + 1, metric)
        self._farthest = [
            self._others(found, own)[self._k - 1]
            for found, own in zip(exact, self._own_rows, strict=True)
            if self._k
        ]

    def recall(self, structure: Structure) -> float:
        if not self._k:
            return 1.0
        ids = structure.candidates(self._queries, num_candidates(self._k + 1))
        found = approximate(self._index, structure, self._queries, self._k + 1, ids)
        hits = [
            np.count_nonzero(self._others(one, own) <= farthest * TIE)
            for one, own, farthest in zip(found, self._own_rows, self._farthest, strict=True)
        ]
        return float(np.sum(hits)) / (self._k * len(hits))

    def _others(self, found: tuple[np.ndarray, Rows], own: int) -> np.ndarray:
        """The distances (k,) or fewer of those found, but for the item that asks."""
        distances, rows = found
        kept: np.ndarray = distances[rows != own][: self._k]
        return kept


def _blocks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
