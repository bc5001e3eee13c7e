"""Compare FAISS on the GPU with FAISS on the CPU: the same neighbours, queries/s and build times.

`flat` and `ivf` are the kinds of search of an index of 100,000 items. `float16` is an exact scan of
a million vectors in half precision, by FAISS alone. The vectors are made up; see
benchmarks.search_kinds.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import faiss
import torch

from benchmarks.gpu.embedding import model_directory
from benchmarks.gpu.job import Job, Skipped, need_faiss_gpu, rate
from benchmarks.made_up import made_up_blocks
from benchmarks.search_kinds import K, make_index, recall_at_k
from indexer.array_types import Rows
from indexer.search.kinds import SearchKind
from indexer.search.searcher import Searcher
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from training.devices import Device
from training.network.model import NUM_FEATURES

DEVICES: tuple[Device, ...] = ("cpu", "gpu")
NUM_QUERIES = 64
FLOAT16_BLOCK_ROWS = 50_000
FREE_BYTES_PER_BYTE = 1.5
"""Memory that a structure needs while it is made, over its own size."""


def run(job: Job) -> None:
    num_items = job.size(1000, 100_000)
    job.measure("index", lambda: _make_index(job, num_items))
    kinds: tuple[SearchKind, ...] = ("flat", "ivf")
    for kind in kinds:
        for device in DEVICES:
            job.measure(f"{kind}_{device}", lambda: _search(job, num_items, kind, device))  # noqa: B023
    num_vectors = job.size(2000, 1_000_000)
    for device in DEVICES:
        job.measure(f"float16_{device}", lambda: _float16(job, num_vectors, device))  # noqa: B023


def _make_index(job: Job, num_items: int) -> Mapping[str, Any]:
    model_directory(job)  # in the folder in which make_index would make one
    make_index(job.workdir, num_items)
    return {"num_items": num_items}


def _search(job: Job, num_items: int, kind: SearchKind, device: Device) -> Mapping[str, Any]:
    """Build the structures, and search for the neighbours of other features."""
    if device == "gpu":
        need_faiss_gpu(job)
    directory = make_index(job.workdir, num_items)
    started_s = perf_counter()
    with IndexWriter.open(directory) as writer:
        update_search(writer, kind=kind, memory_bytes=2**60, device=device, anew=True)
        writer.commit()
    build_s = perf_counter() - started_s
    queries = next(made_up_blocks(NUM_QUERIES, seed=1, num_items=num_items))
    started_s = perf_counter()
    searcher = Searcher(Index.open(directory), device=device)
    searcher.search(queries[:1], K)
    first_answer_s = perf_counter() - started_s
    exact, matches = (
        [
            [match.item.id for match in answer]
            for answer in searcher.search(queries, K, exact=is_exact)
        ]
        for is_exact in (True, False)
    )
    seconds = job.size(0.1, 4.0)
    return {
        "build_s": round(build_s, 2) if kind != "flat" else None,
        "open_and_first_answer_s": round(first_answer_s, 2),
        "recall_at_10": round(recall_at_k(matches, exact), 4),
        "queries_per_s_one_at_a_time": rate(
            job, lambda: searcher.search(queries[:1], K), 1, seconds=seconds
        ),
        "queries_per_s_together": rate(
            job, lambda: searcher.search(queries, K), len(queries), seconds=seconds
        ),
    }


def _float16(job: Job, num_vectors: int, device: Device) -> Mapping[str, Any]:
    """An exact scan of vectors in half precision, against a scan in float32 by torch."""
    structure = _float16_structure(job, num_vectors, device)
    queries = _cluster_block(job, NUM_QUERIES, seed=1)
    expected = _Nearest(queries, job)
    started_s, add_s = perf_counter(), 0.0
    for start in range(0, num_vectors, FLOAT16_BLOCK_ROWS):
        count = min(FLOAT16_BLOCK_ROWS, num_vectors - start)
        vectors = _cluster_block(job, count, seed=2 + start)
        expected.add(vectors, start)
        block, added_s = vectors.cpu().numpy(), perf_counter()
        structure.add(block)
        add_s += perf_counter() - added_s
    host_queries = queries.cpu().numpy()
    ids = structure.search(host_queries, K)[1]

    def search(count: int) -> Callable[[], object]:
        return lambda: structure.search(host_queries[:count], K)

    seconds = job.size(0.1, 4.0)
    return {
        "num_vectors": num_vectors,
        "add_s": round(add_s, 1),
        "with_making_the_vectors_s": round(perf_counter() - started_s, 1),
        "recall_at_10": round(recall_at_k(ids.tolist(), expected.ids.tolist()), 4),
        "queries_per_s_one_at_a_time": rate(job, search(1), 1, seconds=seconds),
        "queries_per_s_together": rate(job, search(NUM_QUERIES), NUM_QUERIES, seconds=seconds),
    }


def _float16_structure(job: Job, num_vectors: int, device: Device) -> Any:
    """An empty FAISS index on the device; raises Skipped if the vectors would not fit."""
    num_bytes = 2 * NUM_FEATURES * num_vectors
    if device == "cpu":
        flat = faiss.ScalarQuantizer.QT_fp16
        _check_free(_free_memory(), num_bytes, "memory")
        return faiss.IndexScalarQuantizer(NUM_FEATURES, flat, faiss.METRIC_L2)
    need_faiss_gpu(job)
    _check_free(torch.cuda.mem_get_info()[0], num_bytes, "memory on the GPU")
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    return faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), NUM_FEATURES, config)


class _Nearest:
    """The K nearest vectors of all blocks so far, by an exact scan in float32."""

    def __init__(self, queries: torch.Tensor, job: Job):
        self._queries, count = queries, len(queries)
        self._distances = torch.full((count, K), torch.inf, device=job.device)
        self._ids = torch.full((count, K), -1, device=job.device)

    def add(self, vectors: torch.Tensor, first_id: int) -> None:
        """Compare vectors (n, 4096), whose ids start at `first_id`."""
        distances = torch.cdist(self._queries, vectors)  # (Q, n)
        ids = torch.arange(first_id, first_id + len(vectors), device=vectors.device)
        all_distances = torch.cat((self._distances, distances), 1)
        all_ids = torch.cat((self._ids, ids.expand(len(distances), -1)), 1)
        self._distances, chosen = all_distances.topk(K, dim=1, largest=False)
        self._ids = all_ids.gather(1, chosen)

    @property
    def ids(self) -> Rows:
        """(Q, K)."""
        ids: Rows = self._ids.cpu().numpy()
        return ids


def _cluster_block(job: Job, count: int, seed: int) -> torch.Tensor:
    """Random vectors (count, 4096) on the device, never negative, in a thousand clusters."""
    centres_random = torch.Generator(job.device).manual_seed(0)
    random = torch.Generator(job.device).manual_seed(seed)
    shape = (1000, NUM_FEATURES)
    centres = torch.randn(shape, generator=centres_random, device=job.device)
    clusters = torch.randint(0, len(centres), (count,), generator=random, device=job.device)
    noise = torch.randn((count, NUM_FEATURES), generator=random, device=job.device)
    return (2.0 * centres[clusters] + 1.5 * noise).clamp_(min=0)


def _check_free(free_bytes: int, num_bytes: int, name: str) -> None:
    needed = int(FREE_BYTES_PER_BYTE * num_bytes)
    if free_bytes < needed:
        raise Skipped(
            f"needs {needed / 2**30:.0f} GiB of {name}; {free_bytes / 2**30:.0f} are free"
        )


def _free_memory() -> int:
    """Bytes of memory that are free on this computer."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
