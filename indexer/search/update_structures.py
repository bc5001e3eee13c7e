"""Keep an index's FAISS structures up to date with its items: make, extend or drop them."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np

from indexer.metrics import METRICS, Metric
from indexer.search.faiss_structure import READ_FLAGS, Structure, breadth_fact, read_faiss
from indexer.search.kinds import RequestedKind, SearchKind, choose, estimate_bytes
from indexer.search.recall import RecallMeter, tune_breadth
from indexer.search.structure_building import StructureBuilder
from indexer.storage.index import Index
from indexer.storage.manifest import Artefact, IndexDirectoryError
from indexer.storage.writer import IndexWriter
from training.devices import Device
from training.progress import Bar, console

MIN_TAIL, TAIL_SHARE = 20_000, 0.2
"""New items are added to the structure when there are more than MIN_TAIL new items, and also more
than TAIL_SHARE times the number of items in the structure. Until then, searches scan the new items.
In this way, the total cost of additions stays proportional to the number of added items."""
MAX_REMOVED_SHARE = 0.5
"""A structure is built again when more than this share of its items has been removed."""
MAX_GROWTH = 4
"""A structure is built again when it would contain more than MAX_GROWTH times as many items as at
its training. The reason is that its cells fit later items less well."""
LEAST_BREADTH = {"nprobe": 1, "ef_search": 64}

Task = Literal["make", "extend", "nothing"]
"""The work that a structure needs."""


def update_search(
    writer: IndexWriter,
    *,
    kind: RequestedKind | None = None,
    memory_bytes: int | None = None,
    device: Device = "auto",
    anew: bool = False,
) -> None:
    """Bring the structures up to date with the writer's items. The next commit contains them.

    `kind` and `memory_bytes` are stored in the index. If an argument is None, the stored value is
    used. If there is no stored value either, the kind is `auto`, and the memory limit is half of
    the machine's memory. If structures are made or extended, the writer's pending changes are
    committed first. With `anew`, all structures are built again.
    """
    if kind is not None:
        writer.search_options["kind"] = kind
    if memory_bytes is not None:
        writer.search_options["memory_bytes"] = memory_bytes
    requested: RequestedKind = writer.search_options.get("kind", "auto")
    artefacts = {metric: writer.manifest.artefacts.get(metric) for metric in METRICS}
    chosen = choose(requested, writer.num_items, writer.search_options.get("memory_bytes"))
    if chosen.kind == "flat" and (requested == "flat" or not any(artefacts.values())):
        for metric in METRICS:
            writer.drop_artefact(metric)
        return
    writer.commit()
    index = Index.open(writer.directory)
    is_requested = requested != "auto" or kind is not None or memory_bytes is not None
    tasks: dict[Metric, Task] = {
        metric: "make" if anew else _task(index, artefact, chosen.kind, is_requested)
        for metric, artefact in artefacts.items()
    }
    if chosen.warning and any(task != "nothing" for task in tasks.values()):
        console.print(chosen.warning)
    for metric, task in tasks.items():
        if task == "nothing":
            continue
        if chosen.kind == "flat" or not len(index.ids):
            writer.drop_artefact(metric)
        else:
            earlier = artefacts[metric] if task == "extend" else None
            _make(writer, index, metric, chosen.kind, earlier, device)


def _task(index: Index, artefact: Artefact | None, wanted: SearchKind, is_requested: bool) -> Task:
    """Whether a structure must be made, must be extended, or can stay as it is.

    If the user requested another kind than the structure has, the structure is made again at once.
    If `auto` prefers another kind, the structure is not made again until items have to be added.
    """
    if artefact is None:
        return "make"
    facts = artefact.facts
    num_kept = int(np.searchsorted(index.ids, facts["last_id"], "right"))
    num_covered, num_tail = facts["num_covered"], len(index.ids) - num_kept
    is_other_kind = wanted != facts["kind"]
    num_removed = num_covered - num_kept
    if (is_requested and is_other_kind) or num_removed > MAX_REMOVED_SHARE * num_covered:
        return "make"
    if num_tail <= max(MIN_TAIL, TAIL_SHARE * num_covered):
        return "nothing"
    has_outgrown = num_covered + num_tail > MAX_GROWTH * facts["num_first"]
    return "make" if is_other_kind or has_outgrown else "extend"


def _make(
    writer: IndexWriter,
    index: Index,
    metric: Metric,
    kind: SearchKind,
    earlier: Artefact | None,
    device: Device,
) -> None:
    """Make a structure or extend the earlier one, measure its recall, and pass it to the writer."""
    faiss_index, num_first, first_new = None, len(index.ids), 0
    if earlier:
        try:
            faiss_index = read_faiss(index, earlier)
            num_first = earlier.facts["num_first"]
            first_new = int(np.searchsorted(index.ids, earlier.facts["last_id"], "right"))
        except IndexDirectoryError as error:
            console.print(f"{error}; the structure is built again")
    with Bar(f"Search, {metric}", len(index.ids) - first_new) as bar:
        bar.advance(0, kind)
        builder = StructureBuilder(index, metric, device)
        if faiss_index is None:
            faiss_index = builder.train(kind)
        builder.add(faiss_index, index.rows[first_new:], bar)
    last_id, least_breadth = int(index.ids[-1]), LEAST_BREADTH[breadth_fact(kind)]
    structure = Structure(faiss_index, kind, metric, least_breadth, last_id, index.ids)
    meter = RecallMeter(index, metric)
    recall = tune_breadth(meter, structure)
    facts = {
        "kind": kind,
        breadth_fact(kind): structure.breadth,
        "recall_at_10": round(recall, 4),
        "num_queries": meter.num_queries,
        "num_covered": faiss_index.ntotal,
        "num_first": num_first,
        "last_id": last_id,
        "memory_bytes": estimate_bytes(kind, faiss_index.ntotal) // len(METRICS),
    }
    with writer.artefact(metric, "faiss", facts) as path:
        _write_faiss(faiss_index, path)


def _write_faiss(faiss_index: Any, path: Path) -> None:
    """Write a FAISS index. If writing fails or the disk is full, raises OSError."""
    try:
        faiss.write_index(faiss_index, str(path))
        # FAISS does not notice if the disk has no space for the last block, so read it back.
        faiss.read_index(str(path), READ_FLAGS)
    except RuntimeError as error:
        is_named = os.strerror(errno.ENOSPC) in str(error)
        is_full = is_named or not shutil.disk_usage(path.parent).free
        code = errno.ENOSPC if is_full else errno.EIO
        raise OSError(code, os.strerror(code)) from error
