"""Keep the service on the newest commit of its index, and change the index.

Another process may add and remove items, compact the index, or put another index in its place. The
service notices that by the contents of manifest.json. It opens the new commit beside the old one,
tries it, and then answers new requests from it. If the new commit cannot be used, the service goes
on with the old one, and tries again later.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

from indexer.storage.manifest import MANIFEST_FILE, IndexDirectoryError, read_manifest
from indexer.updates.additions import Added, Addition, Removal, Removed, apply_changes
from service.admission import Admission
from service.engine import Engine
from service.metrics import Metrics
from service.snapshot import Snapshot
from service.stage import Stage
from service.ticket import Ticket
from training.errors import UserError

logger = logging.getLogger(__name__)

MAX_REQUESTS = 64
"""Maximum number of requests whose changes are committed together."""
MAX_WAIT_S = 10.0
"""Maximum time that changes may wait for earlier changes, in seconds."""
RETRY_S = 10.0
"""Time after which a commit that cannot be used is tried again, in seconds. Somebody may restore a
missing file, and then the manifest stays the same."""
Change = Addition | Removal
Changed = Added | Removed


class LiveIndex:
    """Follows the index directory of an engine. It runs inside `async with live.running()`."""

    def __init__(self, engine: Engine, metrics: Metrics):
        self._engine, self._metrics = engine, metrics
        self.directory = engine.snapshot.index.directory
        self.problem: str | None = None
        """Why the newest commit is not served. None if it is served."""
        self.admission = Admission(max_waiting=engine.settings.max_waiting, max_wait_s=MAX_WAIT_S)
        """The changes that wait. Queries have an admission of their own, because a change takes
        much longer."""
        self._seen = self._content_of_snapshot()
        """The content of the newest manifest that was looked at. None if it could not be read."""
        self._tried_s = 0.0
        """When the newest commit was tried last."""
        self._swapping = asyncio.Lock()
        self._writing: Stage[str, Sequence[Change], tuple[Sequence[Changed], int]] = Stage(
            "write", self._write, max_batch=MAX_REQUESTS, on_batch=metrics.count_batch
        )
        metrics.serve(engine.snapshot)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the index inside the block."""
        async with self._writing:
            following = asyncio.create_task(self._follow())
            try:
                yield
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following

    async def change(
        self, snapshot: Snapshot, changes: Sequence[Change], ticket: Ticket
    ) -> tuple[Sequence[Changed], int]:
        """Commit changes whose features were made by the model of `snapshot`.

        Return their results and the commit. The changes are on the disk, and new requests see them.
        Raises IndexDirectoryError if the index is in use, and OSError if it cannot be written. Then
        none of these changes was made. Raises Dropped if the request is dropped.
        """
        (outcome,) = await self._writing.do(snapshot.card.id, [changes], ticket)
        if isinstance(outcome, BaseException):
            raise outcome
        await self.refresh()
        return outcome

    async def refresh(self) -> None:
        """Go on to the newest commit, if there is one that can be used."""
        async with self._swapping:
            content = await asyncio.to_thread(_read, self.directory)
            is_new = content != self._seen
            must_retry = self.problem and time.monotonic() >= self._tried_s + RETRY_S
            if not is_new and not must_retry:
                return
            self._tried_s = time.monotonic()
            try:
                snapshot = await asyncio.to_thread(self._open)
            except Exception as error:
                self._refuse(error, is_new=is_new)
            else:
                self._engine.snapshot = snapshot
                self.problem = None
                self._metrics.serve(snapshot)
                self._metrics.count_swap(is_ok=True)
                manifest = snapshot.index.manifest
                logger.info("serving commit %d, %d items", manifest.commit, manifest.num_items)
            self._seen = content

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._engine.settings.poll_s)
            try:
                await self.refresh()
            except Exception:  # it must go on, whatever happens
                logger.exception("the newest commit could not be looked for")

    def _open(self) -> Snapshot:
        opened = self._engine.snapshot.opened.reopened()
        snapshot = Snapshot(opened, max_k=self._engine.settings.max_k)
        snapshot.try_out()
        return snapshot

    def _refuse(self, error: Exception, *, is_new: bool) -> None:
        reason = str(error) if isinstance(error, UserError) else type(error).__name__
        text = "the newest commit of the index cannot be used"
        problem = f"{text}: {self._without_paths(reason)}"
        if is_new or problem != self.problem:
            unexpected = None if isinstance(error, UserError) else error
            served = self._engine.snapshot.index.manifest.commit
            logger.error(
                "%s: %s; still serving commit %d", text, reason, served, exc_info=unexpected
            )
            self._metrics.count_swap(is_ok=False)
        self.problem = problem

    def _without_paths(self, text: str) -> str:
        """A text for users. They need not know where the server has its directories."""
        for directory in (self.directory, self._engine.snapshot.opened.model_directory):
            if len(directory.parts) > 1:
                text = text.replace(str(directory), directory.name)
        return text

    def _content_of_snapshot(self) -> bytes | None:
        """The content of the manifest, if it is that of the engine's snapshot.

        If another commit has been made since the snapshot was opened, the result is empty.
        """
        content = _read(self.directory)
        try:
            newest = read_manifest(self.directory)
        except IndexDirectoryError:
            return b""
        return content if newest == self._engine.snapshot.index.manifest else b""

    def _write(
        self, model_id: str, requests: Sequence[Sequence[Change]]
    ) -> list[tuple[Sequence[Changed], int]]:
        """Commit the changes of several requests together."""
        changes = [change for request in requests for change in request]
        results, commit = apply_changes(self.directory, changes, model_id)
        rest = iter(results)
        return [(list(islice(rest, len(request))), commit) for request in requests]


def _read(directory: Path) -> bytes | None:
    """The content of the manifest; None if it cannot be read.

    Its times would not do, because some file systems store them coarsely.
    """
    try:
        return (directory / MANIFEST_FILE).read_bytes()
    except OSError:
        return None
