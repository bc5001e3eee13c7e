"""Does an index survive a kill at any instant, and can the killed job then be run to its end?

    python -m benchmarks.index_crashes [--kills 200] [--images 45] [--seed 0]

Child processes do one of nine jobs:

- build (a new index), update (a build on an index of earlier data), add, remove, compact
- compact-ivf: compact with --kind ivf, so that two FAISS structures are also made
- encode: replace the codes
- add-codes and compact-codes: add and compact on an index with codes

Half of the kills happen at a random time within the measured duration of the job. The other half
happen just before a random write to the index: an append, a sync, a rename, a deletion or an opened
file. All writes are equally likely, so the few milliseconds around a commit are hit as often as the
long work before. A batch has one image, and a commit follows each batch. This gives as many
different states as possible.

After each kill, the index must open, and `lookalike index verify` must find it clean. It must
contain every item that the job does not remove. It must not contain any item that is neither in the
index at the start nor in the index at the end. If it has an encoder, it must contain the code of
every row. The job is then run again. It must not embed any image that was committed before the
kill. At the end, the items, the structures and the encoder must be the same, byte for byte, as
after a job that was not killed.

SIGKILL does not change the kernel's page cache, so this does not test a power failure.
"""

import argparse
import hashlib
import os
import random
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.crash_child import finish, start
from benchmarks.crash_jobs import Job, prepare_jobs
from benchmarks.record import record
from indexer.metrics import METRICS
from indexer.storage.codes import load_encoder
from indexer.storage.index import Index
from indexer.storage.manifest import (
    ENCODER,
    MANIFEST_FILE,
    MODEL_FOLDER,
    IndexDirectoryError,
    read_manifest,
)
from indexer.storage.writer import IndexWriter
from indexer.updates.verify import verify

NUM_TIMED = 3
LATEST_SHARE = 1.05
"""Time of the latest kill, as a share of the measured duration. It is above 1, so that some kills
happen after the last commit."""

Content = frozenset[tuple[str, str | None, str, str]]
"""For each item: path, label, SHA-256 of the file, and SHA-256 of the feature and the thumbnail."""


class State(NamedTuple):
    """The items of an index, and the names and SHA-256 of its structures and encoder."""

    items: Content
    artefacts: frozenset[tuple[str, str]]


NOTHING = State(frozenset(), frozenset())


@dataclass(frozen=True)
class Kill:
    """When a job is killed: after some seconds, or just before a write. Writes count from 1."""

    after_s: float | None = None
    before_write: int | None = None


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
    """Kill each job several times. `failures` in the result contains one sentence per failure."""
    jobs = prepare_jobs(scratch, num_images)
    choice = random.Random(seed)
    failures: list[str] = []
    by_job = {}
    for position, job in enumerate(jobs):
        end, duration_s, num_writes = _undisturbed(job, scratch)
        counts: Counter[str] = Counter()
        count = num_kills // len(jobs) + (position < num_kills % len(jobs))
        for number in range(count):
            if number % 2:
                kill = Kill(before_write=choice.randint(1, num_writes))
            else:
                kill = Kill(after_s=choice.uniform(0, LATEST_SHARE) * duration_s)
            complaints = _kill_and_run_again(job, scratch, kill, end, counts)
            failures += [f"{job.name} {number}, {kill}: {complaint}" for complaint in complaints]
        by_job[job.name] = {
            "kills": count,
            "duration_s": round(duration_s, 3),
            "writes": num_writes,
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


def _undisturbed(job: Job, scratch: Path) -> tuple[State, float, int]:
    """The index after the job, the median duration of the job, and its minimum number of writes."""
    runs = []
    for _ in range(NUM_TIMED):
        index = _copy_start(job.start, scratch)
        runs.append(finish(job.work, index, scratch))
    duration_s = statistics.median(run.duration_s for run in runs)
    return _state(Index.open(index)), duration_s, min(run.num_writes for run in runs)


def _copy_start(start: Path | None, scratch: Path) -> Path:
    """Make a new index directory: a copy of `start`, or nothing if `start` is None.

    The files of the model are hard-linked. This is safe, because jobs only replace them.
    """
    index = scratch / "index"
    shutil.rmtree(index, ignore_errors=True)
    if start:
        shutil.copytree(start, index, ignore=shutil.ignore_patterns(MODEL_FOLDER))
        shutil.copytree(start / MODEL_FOLDER, index / MODEL_FOLDER, copy_function=os.link)
    return index


def _state(index: Index) -> State:
    """The content of an index. Each item is looked up by its path."""
    items = []
    for item in index.items(limit=index.count()):
        (row,) = index.rows_of_path(item.path)
        item_bytes = index.item_bytes(row)
        content = hashlib.sha256(item_bytes.feature + item_bytes.thumbnail).hexdigest()
        items.append((item.path, item.label, item.sha256, content))
    artefacts = index.manifest.artefacts
    names = [name for name in (*METRICS, ENCODER) if name in artefacts]
    return State(frozenset(items), frozenset((name, artefacts[name].sha256) for name in names))


def _kill_and_run_again(
    job: Job, scratch: Path, kill: Kill, end: State, counts: Counter[str]
) -> Iterator[str]:
    """Kill the job and run it again. Yield one sentence per failure.

    `counts` is updated: when the kill happened, and which files remained.
    """
    index = _copy_start(job.start, scratch)
    first_commit = read_manifest(index).commit if job.start else -1
    before = _state(Index.open(index)) if job.start else NOTHING
    child, messages = start(job.work, index, scratch, kill.before_write)
    if kill.after_s is not None:
        time.sleep(kill.after_s)
        child.kill()
    child.join()
    messages.close()
    killed, is_begun = NOTHING, False
    if (index / MANIFEST_FILE).exists():
        try:
            opened = Index.open(index)
            killed = _state(opened)
            yield from _complaints(opened, killed, before, end)
        except (IndexDirectoryError, ValueError) as error:
            yield str(error)
            return
        is_begun = opened.manifest.commit > first_commit
        leftovers = _leftovers(index)
        counts["leftovers"] += bool(leftovers)
        counts["structures"] += any(".faiss" in name for name in leftovers)
    elif job.start:
        yield "the index is gone"
    counts["after" if is_begun and killed == end else "between" if is_begun else "before"] += 1
    num_needed = len(end.items - killed.items)
    num_embedded_again = finish(job.work, index, scratch).num_embedded - num_needed
    counts["committed"] += len(killed.items - before.items)
    counts["embedded again"] += num_embedded_again
    if num_embedded_again:
        yield f"the job run again embeds {num_embedded_again} images that were committed"
    ended = Index.open(index)
    if _state(ended) != end or not ended.manifest.is_complete or not _has_its_codes(ended):
        yield "the job run again ends in other items, structures or codes"
    # The last commit kept the files that it replaced, because a reader may need them. The next
    # writer removes these files.
    IndexWriter.open(index).close()
    if not verify(index).is_clean or _leftovers(index):
        yield "the job run again leaves an index that is not clean"


def _complaints(index: Index, killed: State, before: State, end: State) -> Iterator[str]:
    """One sentence for each fault of an index after the kill."""
    if not verify(index.directory).is_clean:
        yield "the index is not clean"
    if not _has_its_codes(index):
        yield "a row does not have the code of its feature"
    lost = before.items & end.items - killed.items
    unexpected = killed.items - (before.items | end.items)
    if lost or unexpected or len(killed.items) != index.manifest.num_items:
        yield f"{len(lost)} committed items are lost, {len(unexpected)} items are unexpected"
    if killed.artefacts not in (before.artefacts, end.artefacts):
        yield "a structure or the encoder belongs to neither the start nor the end"


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
    present = {
        file.name: file.stat().st_size
        for file in index.iterdir()
        if file.is_file() and file.name not in (".lock", MANIFEST_FILE)
    }
    return {name for name, _ in present.items() ^ committed.items()}


if __name__ == "__main__":
    main()
