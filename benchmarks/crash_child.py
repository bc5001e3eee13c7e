"""A child process that does one job on an index. It can be killed before any of its writes."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import faiss

from indexer.embedder import Embedder, Embedding
from indexer.search import searcher
from indexer.storage.growing_files import GrowingFile
from indexer.updates import pipeline
from training.data.images import Pixels

PRELOADED = ["indexer.updates.build", "indexer.updates.compact", "indexer.updates.verify"]

Work = Callable[[Path, Path], None]
"""A job. It changes the index, and uses the images and the model in the scratch folder."""


class Finished(NamedTuple):
    """The report that a child sends at the end of its job."""

    duration_s: float
    num_embedded: int
    """Number of images that the child embedded."""
    num_writes: int
    """Number of appends, syncs, renames, deletions and opened files in the index directory."""


def start(
    work: Work, index: Path, scratch: Path, kill_before_write: int | None = None
) -> tuple[BaseProcess, Connection]:
    """Start a job and wait until it begins. Return the process and the connection for its reports.

    The child is forked from a server that has imported everything. If `kill_before_write` is given,
    the child kills itself just before that write. Writes count from 1.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    messages, childs_end = context.Pipe(duplex=False)
    arguments = (work, index, scratch, kill_before_write, childs_end)
    child = context.Process(target=_do_job, args=arguments)
    child.start()
    childs_end.close()
    messages.recv()
    return child, messages


def finish(work: Work, index: Path, scratch: Path) -> Finished:
    """Do a complete job in another process; raises RuntimeError if the job fails."""
    child, messages = start(work, index, scratch)
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{work.__name__} failed with status {child.exitcode}")
    finished: Finished = messages.recv()
    messages.close()
    return finished


class _WriteCounter:
    """Counts the writes of this process to an index, and kills the process before one of them."""

    def __init__(self, index: Path, kill_before: int | None):
        self.num_writes = 0
        self._index = str(index)
        self._kill_before = kill_before
        self._fsync, self._append = os.fsync, GrowingFile.append

    def install(self) -> None:
        """Count all later writes until the process ends."""

        def fsync(descriptor: Any) -> None:
            self._count()
            self._fsync(descriptor)

        def append(file: GrowingFile, content: bytes) -> None:
            self._count()
            self._append(file, content)

        patch.object(os, "fsync", fsync).start()
        patch.object(GrowingFile, "append", append).start()
        sys.addaudithook(self._on_audit_event)

    def _on_audit_event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("open", "os.rename", "os.remove", "os.truncate"):
            paths = [str(one) for one in arguments[:2] if isinstance(one, str | Path)]
            if any(path.startswith(self._index) for path in paths):
                self._count()

    def _count(self) -> None:
        self.num_writes += 1
        if self.num_writes == self._kill_before:
            os.kill(os.getpid(), signal.SIGKILL)


def _do_job(
    work: Work, index: Path, scratch: Path, kill_before_write: int | None, messages: Connection
) -> None:
    """Do a job in this process. Send a message when it begins, and a report at the end."""
    # With batches of one image, a feature does not depend on which images remain.
    pipeline.BATCH_SIZES["cpu"] = 1
    pipeline.COMMIT_INTERVAL_S = 0.0  # a commit after each batch
    # Several FAISS threads wait for each other. On a busy machine, this takes seconds.
    searcher.NUM_CORES = 1
    faiss.omp_set_num_threads(1)
    num_embedded, embed = 0, Embedder.embed

    def embed_and_count(self: Embedder, squares: Pixels) -> Embedding:
        nonlocal num_embedded
        num_embedded += len(squares)
        return embed(self, squares)

    patch.object(Embedder, "embed", embed_and_count).start()
    counter = _WriteCounter(index, kill_before_write)
    counter.install()
    messages.send(None)
    started = time.perf_counter()
    work(index, scratch)
    messages.send(Finished(time.perf_counter() - started, num_embedded, counter.num_writes))
