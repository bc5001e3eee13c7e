"""Does an index survive being killed at any instant, and does the job that was killed end as if nothing had happened?

    python -m benchmarks.index_crashes [--kills 200] [--images 45] [--seed 0]

Children do one of nine jobs (build: from nothing; update: a build on an index of earlier data; add, remove, compact; compact-ivf: with
--kind ivf, so that two FAISS structures are made and written too; encode: binary codes in place of others; add-codes, compact-codes: of
an index with codes) and are killed with SIGKILL after a random share of the job's measured duration. Batches of one image and a commit
after each make as many instants worth hitting as can be. After each kill the index must open and verify as clean, hold every item that
the job does not itself remove, nothing that is in neither the start nor the end, and the code of every row, if it has an encoder. The
job, run again, must embed no image that was committed before the kill, and end in the same items, structures and encoder, byte for byte,
as one that was left in peace. SIGKILL leaves the kernel's page cache as it is: this is no test of a power cut.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import faiss
import numpy as np
from PIL import Image

from benchmarks.record import record
from indexer.embedder import Embedder, Embedding
from indexer.metrics import METRICS
from indexer.search import searcher as faiss_search
from indexer.storage.codes import CodeFacts, Encoder, load_encoder
from indexer.storage.index import MODEL_FOLDER, Index
from indexer.storage.manifest import ENCODER, MANIFEST_FILE, IndexDirectoryError, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates import build as batch
from indexer.updates.compact import compact
from indexer.updates.verify import verify
from training.data.images import Pixels
from training.files import file_sha256
from training.network.model import NUM_FEATURES, ONNX_FILE, ModelCard, write_card

IMAGE_PX = 64
NUM_TIMED = 3
LATEST_SHARE = 1.05
"""Of the measured duration, so that some are killed after the last commit."""

NUM_BITS = 64
NUM_IVF_IMAGES = 135
"""Of which a compaction leaves 81: enough for two inverted lists."""

Content = frozenset[tuple[str, str | None, str, str]]
"""Path, label, SHA-256 of the file, and of feature and thumbnail, of each item."""


class State(NamedTuple):
    """What an index holds: its items, and each FAISS structure and the encoder as its name and the SHA-256 of its file."""

    items: Content
    structures: frozenset[tuple[str, str]]


NOTHING = State(frozenset(), frozenset())


class Finished(NamedTuple):
    """What a child tells of a job that it did to the end."""

    duration_s: float
    num_embedded: int


@dataclass(frozen=True)
class Job:
    """What a child does to an index, and what it starts from: a directory to copy, or nothing."""

    name: str
    work: Callable[[Path, Path], None]
    start: Path | None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--images", type=int, default=45)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        figures = measure(
            Path(scratch),
            num_kills=arguments.kills,
            num_images=arguments.images,
            seed=arguments.seed,
        )
    record("index_crashes", figures)
    if figures["failures"]:
        raise SystemExit(1)


def measure(scratch: Path, *, num_kills: int, num_images: int, seed: int) -> dict[str, Any]:
    """What came of so many kills, shared among the jobs; `failures` are sentences, none where all went well."""
    jobs = _prepare(scratch, num_images)
    choice = random.Random(seed)
    failures: list[str] = []
    by_job = {}
    for place, job in enumerate(jobs):
        end, durations_s = _ends_in(job, scratch)
        counts: Counter[str] = Counter()
        count = num_kills // len(jobs) + (place < num_kills % len(jobs))
        for number in range(count):
            instant_s = choice.uniform(0, LATEST_SHARE) * statistics.median(durations_s)
            found = _kill_and_go_on(job, scratch, instant_s, end, counts)
            failures += [
                f"{job.name} {number}, killed after {instant_s:.4f} s: {complaint}"
                for complaint in found
            ]
        by_job[job.name] = {
            "kills": count,
            "duration_s": round(statistics.median(durations_s), 3),
            "before_first_commit": counts["before"],
            "between_commits": counts["between"],
            "after_last_commit": counts["after"],
            "left_uncommitted_bytes": counts["leftovers"],
            "left_uncommitted_structures": counts["structures"],
            "images_committed_before_kill": counts["committed"],
            "images_embedded_again": counts["embedded again"],
        }
    return {
        "kills": num_kills,
        "images": num_images,
        "seed": seed,
        "failures": failures,
        "by_job": by_job,
    }


def _prepare(scratch: Path, num_images: int) -> list[Job]:
    """Makes the images, the model and what each job starts from."""
    _write_images(scratch / "earlier", range(num_images), seed=1)
    _write_images(scratch / "later", range(num_images // 3, num_images), seed=1)
    _write_images(
        scratch / "later", range(num_images // 2, num_images * 2 // 3), seed=2
    )  # other bytes under the same names
    _write_images(scratch / "later", range(num_images, num_images * 4 // 3), seed=1)
    _write_images(scratch / "more", range(num_images // 2), seed=3)
    _write_images(scratch / "many", range(NUM_IVF_IMAGES), seed=4)
    _make_model(scratch / "model")
    full, sparse, large, coded, coded_sparse = (
        scratch / name for name in ("full", "sparse", "large", "coded", "coded-sparse")
    )
    _finish(Job("start", _build_earlier, None), full, scratch)
    shutil.copytree(full, sparse)
    _finish(Job("start", _remove, None), sparse, scratch)
    _finish(Job("start", _build_many, None), large, scratch)
    _finish(Job("start", _remove, None), large, scratch)
    for plain, with_codes in ((full, coded), (sparse, coded_sparse)):
        shutil.copytree(plain, with_codes)
        _finish(Job("start", _encode_first, None), with_codes, scratch)
    return [
        Job("build", _build_earlier, None),
        Job("update", _build_later, full),
        Job("add", _add, full),
        Job("remove", _remove, full),
        Job("compact", _compact, sparse),
        Job("compact-ivf", _compact_to_ivf, large),
        Job("encode", _encode_again, coded),
        Job("add-codes", _add, coded),
        Job("compact-codes", _compact, coded_sparse),
    ]


def _make_model(directory: Path) -> None:
    """A model directory whose network is one random layer: loaded in no time, so that the instants fall upon the index."""
    import onnx  # here, so that the children need not load it
    from onnx import TensorProto, helper, numpy_helper

    pooled = 3 * (IMAGE_PX // 8) ** 2
    weights = np.random.default_rng(0).normal(0, 1e-3, (pooled, NUM_FEATURES)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["features"]),
        helper.make_node("ReduceMax", ["features"], ["logits"], axes=[1]),
    ]
    images = helper.make_tensor_value_info(
        "images", TensorProto.UINT8, ["B", IMAGE_PX, IMAGE_PX, 3]
    )
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size])
        for name, size in (("logits", 1), ("features", 4096))
    ]
    graph = helper.make_graph(
        nodes, "crashes", [images], outputs, [numpy_helper.from_array(weights, "weights")]
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    id = hashlib.sha256(weights.tobytes()).hexdigest()
    helper.set_model_props(network, {"model_id": id})
    directory.mkdir()
    onnx.save(network, str(directory / ONNX_FILE))
    write_card(
        ModelCard(
            id=id,
            onnx_sha256=file_sha256(directory / ONNX_FILE),
            architecture={},
            class_names=("any",),
            image_size=IMAGE_PX,
            recipe={},
            data={},
            metrics={},
            versions={},
            created_at="",
        ),
        directory,
    )


def _write_images(folder: Path, numbers: range, seed: int) -> None:
    for number in numbers:
        file = folder / str(number % 3) / f"{number}'\n\u00e9.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([seed, number]).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((96, 72)).save(file)


def _build_earlier(index: Path, scratch: Path) -> None:
    batch.build(str(scratch / "earlier"), scratch / "model", index, device="cpu")


def _build_later(index: Path, scratch: Path) -> None:
    batch.build(str(scratch / "later"), scratch / "model", index, device="cpu")


def _build_many(index: Path, scratch: Path) -> None:
    batch.build(str(scratch / "many"), scratch / "model", index, device="cpu")


def _add(index: Path, scratch: Path) -> None:
    batch.add(index, [str(scratch / "more")], prefix="more/")


def _remove(index: Path, scratch: Path) -> None:
    """Two of every five of the images that the index was built of, one at a time."""
    for id in Index.open(index).ids.tolist():
        if id % 5 < 2:
            batch.remove(index, ids=[id])


def _compact(index: Path, scratch: Path) -> None:
    compact(index, force=True)


def _compact_to_ivf(index: Path, scratch: Path) -> None:
    compact(index, force=True, kind="ivf")


def _encode_first(index: Path, scratch: Path) -> None:
    _encode(index, seed=1)


def _encode_again(index: Path, scratch: Path) -> None:
    _encode(index, seed=2)


def _encode(index: Path, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(0, 1, (NUM_BITS, NUM_FEATURES)).astype(np.float32)
    facts = CodeFacts(num_bits=NUM_BITS, num_fitted=0, seed=seed, commit=0, loss=())
    with IndexWriter.open(index) as writer:
        writer.write_codes(Encoder(facts, weights, np.zeros(NUM_BITS, np.float32)))
        writer.commit()


def _child(
    work: Callable[[Path, Path], None], index: Path, scratch: Path, messages: Connection
) -> None:
    """Does a job, in a process of its own: says when it begins, and what came of it."""
    # One image at a time gives the same feature whichever others are left to do; and a commit after each.
    batch.BATCH_SIZE["cpu"], batch.COMMIT_INTERVAL_S = 1, 0.0
    # FAISS's threads wait for each other, for seconds where the machine is busy.
    faiss_search.NUM_CORES = 1
    faiss.omp_set_num_threads(1)
    embed, embedded = Embedder.embed, list[int]()

    def embed_and_count(self: Embedder, squares: Pixels) -> Embedding:
        embedded.append(len(squares))
        return embed(self, squares)

    Embedder.embed = embed_and_count  # type: ignore[method-assign]
    messages.send(None)
    started = time.perf_counter()
    work(index, scratch)
    messages.send(Finished(time.perf_counter() - started, sum(embedded)))


def _started(
    job: Job, index: Path, scratch: Path
) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """A child that has just begun, and where it tells what came of it. Forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["indexer.updates.build", "indexer.updates.compact", "indexer.updates.verify"]
    )
    messages, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(job.work, index, scratch, theirs))
    child.start()
    theirs.close()
    messages.recv()
    return child, messages


def _finish(job: Job, index: Path, scratch: Path) -> Finished:
    """Runs a job to its end."""
    child, messages = _started(job, index, scratch)
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{job.name} failed with status {child.exitcode}")
    finished: Finished = messages.recv()
    messages.close()
    return finished


def _ends_in(job: Job, scratch: Path) -> tuple[State, list[float]]:
    """What the job ends in when it is left in peace, and how long that takes."""
    durations_s = []
    for _ in range(NUM_TIMED):
        index = _copy_of(job.start, scratch)
        durations_s.append(_finish(job, index, scratch).duration_s)
    return _state(Index.open(index)), durations_s


def _copy_of(start: Path | None, scratch: Path) -> Path:
    """A fresh index directory; the model, which is only ever replaced, is linked."""
    index = scratch / "index"
    shutil.rmtree(index, ignore_errors=True)
    if start:
        shutil.copytree(start, index, ignore=shutil.ignore_patterns(MODEL_FOLDER))
        shutil.copytree(start / MODEL_FOLDER, index / MODEL_FOLDER, copy_function=os.link)
    return index


def _state(index: Index) -> State:
    """All that an index holds, each item as a search by its path finds it."""
    found = []
    for item in index.items(limit=index.count()):
        (row,) = index.rows_of_path(item.path)
        parts = index.parts(row)
        found.append(
            (
                item.path,
                item.label,
                item.sha256,
                hashlib.sha256(parts.feature + parts.thumbnail).hexdigest(),
            )
        )
    artefacts = index.manifest.artefacts
    return State(
        frozenset(found),
        frozenset(
            (metric, artefacts[metric].sha256)
            for metric in (*METRICS, ENCODER)
            if metric in artefacts
        ),
    )


def _kill_and_go_on(
    job: Job, scratch: Path, instant_s: float, end: State, counts: Counter[str]
) -> Iterator[str]:
    """Kills the job at an instant and runs it again; says what was not as it should be, and counts where the instant fell."""
    index = _copy_of(job.start, scratch)
    first_commit = read_manifest(index).commit if job.start else -1
    start = _state(Index.open(index)) if job.start else NOTHING
    child, messages = _started(job, index, scratch)
    time.sleep(instant_s)
    child.kill()
    child.join()
    messages.close()
    killed, is_begun = NOTHING, False
    if (index / MANIFEST_FILE).exists():
        try:
            opened = Index.open(index)
            killed = _state(opened)
            if not verify(index).is_clean:
                yield "the index is not clean"
            if not _has_its_codes(opened):
                yield "a row has not the code of its feature"
        except (IndexDirectoryError, ValueError) as error:
            yield str(error)
            return
        if (
            len(killed.items) != opened.manifest.num_items
            or not start.items & end.items <= killed.items <= start.items | end.items
        ):
            lost, strange = (
                start.items & end.items - killed.items,
                killed.items - (start.items | end.items),
            )
            yield f"{len(lost)} committed items are lost, {len(strange)} come from nowhere"
        if killed.structures not in (start.structures, end.structures):
            yield "a structure or the encoder is neither of the start nor of the end"
        is_begun = opened.manifest.commit > first_commit
        leftovers = _leftovers(index)
        counts["leftovers"] += bool(leftovers)
        counts["structures"] += any(".faiss" in name for name in leftovers)
    elif job.start:
        yield "there is no index any more"
    counts["after" if is_begun and killed == end else "between" if is_begun else "before"] += 1
    num_embedded_again = _finish(job, index, scratch).num_embedded - len(end.items - killed.items)
    counts["committed"] += len(killed.items - start.items)
    counts["embedded again"] += num_embedded_again
    if num_embedded_again:
        yield f"the job run again embeds {num_embedded_again} images that were committed"
    ended = Index.open(index)
    if _state(ended) != end or not ended.manifest.is_complete or not _has_its_codes(ended):
        yield "the job run again ends in other items, structures or codes"
    IndexWriter.open(
        index
    ).close()  # which sweeps what the last commit replaced, and readers might have been about to open
    if not verify(index).is_clean or _leftovers(index):
        yield "the job run again leaves an index that is not clean"


def _has_its_codes(index: Index) -> bool:
    """Whether every row has the code of its feature, if the index has an encoder."""
    encoder, codes = load_encoder(index.directory, index.manifest), index.codes
    if encoder is None or codes is None:
        return encoder is None and codes is None
    return np.array_equal(codes, encoder.encode(index.features))


def _leftovers(index: Path) -> set[str]:
    """The names of files with bytes that belong to no commit."""
    manifest = read_manifest(index)
    committed = {extent.file: extent.num_bytes for extent in manifest.files.values()}
    committed |= {artefact.file: artefact.num_bytes for artefact in manifest.artefacts.values()}
    found = {
        file.name: file.stat().st_size
        for file in index.iterdir()
        if file.is_file() and file.name not in (".lock", MANIFEST_FILE)
    }
    return {name for name, _ in found.items() ^ committed.items()}


if __name__ == "__main__":
    main()
