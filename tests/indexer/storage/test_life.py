"""The life of an index against a plain dictionary: changes, kills at any instant, and readers.

Hypothesis makes sequences of additions, replacements, removals, commits, encodings, compactions,
abandoned changes and kills, and compares the index with a dictionary after each step.

A kill is simulated: when the chosen disk operation is due, the directory is copied as it is, and an
exception stops the writer. Life goes on with the copy, so nothing that the stopped writer does
later can repair it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from indexer.storage.codes import facts_of
from indexer.storage.growing_files import GrowingFile
from indexer.storage.index import Index
from indexer.storage.manifest import read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.compact import compact
from indexer.updates.verify import verify
from tests.indexer.items import made_up_encoder, made_up_features, made_up_item

FEATURES = made_up_features(8)
"""Items have one of these features."""
FEATURE_NUMBERS = {feature.tobytes(): number for number, feature in enumerate(FEATURES)}
ENCODERS = tuple(made_up_encoder(16, seed) for seed in range(2))
PATHS = st.lists(st.integers(0, 9).map(lambda number: f"{number}.png"), min_size=1, max_size=6)
ENCODER_NUMBERS = st.integers(0, len(ENCODERS) - 1)
MAX_READERS = 4
"""When there are more readers, the oldest is forgotten."""


class Killed(BaseException):
    """The writer was killed. Not an Exception, so that no handler can catch it by accident."""


@dataclass(frozen=True)
class ItemState:
    """The expected state of an item."""

    path: str
    label: str | None
    feature_number: int


@dataclass(frozen=True)
class State:
    """The expected state of a commit: the items by id, and the encoder."""

    items: dict[int, ItemState]
    encoder_number: int | None = None


def state_of(index: Index) -> State:
    """The state that a reader sees. Every row, also a removed one, must have its feature's code."""
    items = {
        item.id: ItemState(
            item.path, item.label, FEATURE_NUMBERS[index.item_bytes(int(row)).feature]
        )
        for row, item in zip(index.rows, index.items(limit=10**6), strict=True)
    }
    assert len(items) == index.manifest.num_items == index.count()
    if (facts := facts_of(index.manifest)) is None:
        assert index.codes is None
        return State(items)
    np.testing.assert_array_equal(index.codes, ENCODERS[facts.seed].encode(index.features))
    return State(items, facts.seed)


class Killer:
    """Raises Killed instead of a disk operation, and copies the directory just before.

    Operations are appends, syncs, renames, truncations and deletions.
    """

    def __init__(self, num_operations: int):
        self._num_left = num_operations
        """Number of operations that still succeed. The one after them is the last."""

    @contextmanager
    def watching(self, directory: Path, copy: Path) -> Iterator[None]:
        """Count the operations of the block."""

        def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
            def count_and_do(*arguments: Any, **options: Any) -> Any:
                self._num_left -= 1
                if self._num_left == -1:
                    shutil.copytree(directory, copy)
                    raise Killed
                return operation(*arguments, **options)

            return count_and_do

        with pytest.MonkeyPatch.context() as patched:
            for name in ("fsync", "replace", "truncate", "unlink"):
                patched.setattr(os, name, counted(getattr(os, name)))
            patched.setattr(GrowingFile, "append", counted(GrowingFile.append))
            yield


class Life(RuleBasedStateMachine):
    """An index that is changed and killed, and the state that it should have."""

    model: ClassVar[Path]
    """A model directory."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="index-life-"))
        self.directory, self.num_directories = self.root / "0", 1
        self.committed = self.pending = State({})
        self.used_ids: set[int] = set()
        self.readers: list[tuple[Index, State]] = []
        self.killer: Killer | None = None
        self.writer = IndexWriter.open(self.directory, self.model)

    def teardown(self) -> None:
        self.writer.close()
        shutil.rmtree(self.root)

    @initialize(
        paths=PATHS,
        encoder_number=st.none() | ENCODER_NUMBERS,
        num_operations=st.none() | st.integers(0, 120),
    )
    def begin(
        self, paths: list[str], encoder_number: int | None, num_operations: int | None
    ) -> None:
        """Begin with some items, and perhaps with codes and the first kill."""
        if num_operations is not None:
            self.prepare_a_kill(num_operations)
        self.add(paths, None, 0)
        self.commit()
        if encoder_number is not None:
            self.encode(encoder_number)

    @rule(num_operations=st.integers(0, 40))
    def prepare_a_kill(self, num_operations: int) -> None:
        """Let the writer do some more disk operations, in this or the next steps."""
        self.killer = Killer(num_operations)

    @rule(
        paths=PATHS,
        label=st.sampled_from([None, "label 2", "label 10"]),
        feature_number=st.integers(0, len(FEATURES) - 1),
    )
    def add(self, paths: list[str], label: str | None, feature_number: int) -> None:
        """Add items. They replace earlier items with their paths."""
        feature = FEATURES[feature_number]
        with self.may_be_killed():
            for path in paths:
                items = self.pending.items
                kept = {id: item for id, item in items.items() if item.path != path}
                self.writer.remove(items.keys() - kept.keys())
                id = self.writer.add(replace(made_up_item(1, feature), path=path, label=label))
                added = ItemState(path, label, feature_number)
                self.pending = replace(self.pending, items={**kept, id: added})

    @rule(position=st.integers(0, 9), count=st.integers(1, 4))
    def remove(self, position: int, count: int) -> None:
        ids = sorted(self.pending.items)
        start = position % max(len(ids), 1)
        removed = ids[start : start + count]
        kept = {id: self.pending.items[id] for id in ids if id not in removed}
        with self.may_be_killed():
            self.writer.remove(removed)
            self.pending = replace(self.pending, items=kept)

    @rule()
    def commit(self) -> None:
        with self.may_be_killed(self.pending):
            self.writer.commit()
            self.note_commit(self.pending)

    @rule(encoder_number=ENCODER_NUMBERS)
    def encode(self, encoder_number: int) -> None:
        """Write codes. Pending changes are committed first."""
        encoded = replace(self.pending, encoder_number=encoder_number)
        with self.may_be_killed(self.pending, encoded):
            self.writer.write_codes(ENCODERS[encoder_number])
            self.writer.commit()
            self.note_commit(encoded)

    @rule()
    def drop_codes(self) -> None:
        without_codes = replace(self.pending, encoder_number=None)
        with self.may_be_killed(without_codes):
            self.writer.drop_codes()
            self.writer.commit()
            self.note_commit(without_codes)

    @rule(force=st.booleans())
    def compact(self, force: bool) -> None:
        """Compact after the writer has left without a commit."""
        self.writer.close()
        with self.may_be_killed(self.committed):
            compact(self.directory, force=force, device="cpu")
            manifest = read_manifest(self.directory)
            assert not force or manifest.num_rows == manifest.num_items
            self.open_writer()

    @rule()
    def reopen(self) -> None:
        """Leave without a commit, and come back."""
        self.writer.close()
        self.open_writer()

    @rule()
    def open_reader(self) -> None:
        self.readers.append((Index.open(self.directory), self.committed))
        del self.readers[:-MAX_READERS]

    @invariant()
    def the_index_holds_what_was_committed_and_nothing_else(self) -> None:
        assert state_of(Index.open(self.directory)) == self.committed

    @invariant()
    def readers_keep_the_commit_that_they_opened(self) -> None:
        for reader, state in self.readers:
            assert state_of(reader) == state

    @invariant()
    def every_committed_byte_matches_its_checksum(self) -> None:
        assert verify(self.directory).damages == []

    def note_commit(self, state: State) -> None:
        new_ids = state.items.keys() - self.committed.items.keys()
        assert not new_ids & self.used_ids, "an id was used again"
        self.used_ids |= new_ids
        self.committed = self.pending = state

    def open_writer(self) -> None:
        self.writer = IndexWriter.open(self.directory)
        self.pending = self.committed

    @contextmanager
    def may_be_killed(self, *later_states: State) -> Iterator[None]:
        """Run a block that the killer may stop.

        After a kill the index must be in its earlier state or, if there was a commit, in one of
        the later states.
        """
        if self.killer is None:
            yield
            return
        copy, commit = self.root / str(self.num_directories), read_manifest(self.directory).commit
        try:
            with self.killer.watching(self.directory, copy):
                yield
            return
        except Killed:
            self.writer.close()
        shutil.rmtree(self.directory)
        self.directory, self.num_directories = copy, self.num_directories + 1
        self.killer = None
        killed = Index.open(self.directory)
        state = state_of(killed)
        if killed.manifest.commit == commit:
            assert state == self.committed
        else:
            assert state in later_states
            self.note_commit(state)
        self.open_writer()


def test_an_index_lives_through_changes_and_kills(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LifeOfStandIn(Life):
        model = stand_in

    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test pulls the plug, and it costs time
    run_state_machine_as_test(
        LifeOfStandIn,
        settings=settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=120,
            stateful_step_count=30,
            phases=[Phase.generate],  # add Phase.shrink for a shorter example, in minutes
        ),
    )
