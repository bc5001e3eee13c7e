"""The file of codes: every row has the code of its feature, whatever changes or breaks."""

import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.search.searcher import Searcher
from indexer.storage.code_files import CodeFile
from indexer.storage.codes import Encoder, facts_of
from indexer.storage.index import Index
from indexer.storage.manifest import (
    Extent,
    IndexDirectoryError,
    read_copy,
    read_manifest,
    write_manifest,
)
from indexer.storage.writer import IndexWriter
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.mend import mend
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from tests.conftest import Run, coloured
from tests.indexer.damage import flip, some_positions, truncate
from tests.indexer.items import (
    add_made_up,
    made_up_encoder,
    made_up_features,
    made_up_item,
    write_codes,
)
from tests.indexer.storage.conftest import NUM_ITEMS

ENCODER_FILE, CODES_FILE = "autoencoder-2.npz", "codes-2.bin"


def assert_every_row_has_its_code(directory: Path, encoder: Encoder) -> None:
    index = Index.open(directory)
    assert index.codes is not None
    assert index.codes.shape == (len(index.records), encoder.facts.num_bits // 8)
    np.testing.assert_array_equal(index.codes, encoder.encode(index.features))
    assert facts_of(index.manifest) == encoder.facts
    assert verify(directory).is_clean


def file_sizes(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in directory.iterdir()}


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Limits how large a file may become until the test ends, which has the effect of a full
    disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda num_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_every_row_keeps_its_code_through_additions_removals_and_compactions(coded: Path) -> None:
    encoder = made_up_encoder()
    assert_every_row_has_its_code(coded, encoder)
    add_made_up(coded, range(100, 110))
    assert_every_row_has_its_code(coded, encoder)
    remove(coded, ids=[1, 5, 25])
    assert_every_row_has_its_code(coded, encoder)
    compact(coded, force=True)
    assert_every_row_has_its_code(coded, encoder)
    add_made_up(coded, range(200, 203))
    assert_every_row_has_its_code(coded, encoder)
    assert len(Index.open(coded).records) == 30


def test_added_items_are_encoded_in_blocks_and_every_commit_has_all_their_codes(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, encode_rows = list[int](), Encoder.encode

    def counting(self: Encoder, features: np.ndarray) -> np.ndarray:
        sizes.append(len(features))
        return encode_rows(self, features)

    monkeypatch.setattr("indexer.storage.code_files.ENCODING_BLOCK_ROWS", 4)
    with monkeypatch.context() as patched, IndexWriter.open(coded) as writer:
        patched.setattr(Encoder, "encode", counting)
        for number, feature in enumerate(made_up_features(10)):
            writer.add(made_up_item(100 + number, feature))
            feature[:] = 0  # the caller may reuse its array
            if number == 6:
                writer.commit()
        writer.commit()
    assert sizes == [4, 3, 3]
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_files_that_are_added_or_changed_have_codes(
    own_colour_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    index, encoder = tmp_path / "index", made_up_encoder()
    build(str(own_colour_folder), tiny_model, index, device="cpu")
    write_codes(index, encoder)
    coloured("red", 501).save(own_colour_folder / "red" / "0.png")
    coloured("red", 502).save(own_colour_folder / "red" / "new.png")
    (own_colour_folder / "blue" / "0.png").unlink()
    report = build(str(own_colour_folder), tiny_model, index, device="cpu")
    assert (report.num_added, report.num_changed, report.num_removed) == (1, 1, 1)
    assert_every_row_has_its_code(index, encoder)
    coloured("green", 503).save(tmp_path / "alone.png")
    add(index, [str(tmp_path / "alone.png")])
    assert_every_row_has_its_code(index, encoder)
    assert len(Index.open(index).records) == 21


def test_codes_that_are_written_while_additions_are_pending_include_them(index: Path) -> None:
    with IndexWriter.open(index) as writer:
        writer.add(made_up_item(100, made_up_features(1)[0]))
        writer.write_codes(made_up_encoder())
        writer.add(made_up_item(101, made_up_features(1)[0]))
        writer.commit()
    assert len(Index.open(index).records) == NUM_ITEMS + 2
    assert_every_row_has_its_code(index, made_up_encoder())


def test_a_second_encoder_replaces_the_first_and_readers_keep_what_they_opened(
    coded: Path,
) -> None:
    first, second = made_up_encoder(), made_up_encoder(64, seed=1)
    reader = Index.open(coded)
    write_codes(coded, second)
    assert_every_row_has_its_code(coded, second)
    late_reader = Index(coded, reader.manifest)  # it had read the manifest but not opened the files
    np.testing.assert_array_equal(late_reader.codes, first.encode(reader.features))
    add_made_up(coded, range(100, 101))
    code_files = {file.name for file in (*coded.glob("codes-*"), *coded.glob("autoencoder-*"))}
    assert code_files == {"codes-3.bin", "autoencoder-3.npz"}
    assert_every_row_has_its_code(coded, second)
    compact(coded, force=True)
    np.testing.assert_array_equal(reader.codes, first.encode(reader.features))


def test_a_reader_that_comes_between_two_encoders_sees_the_codes_of_the_second(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = read_manifest(coded)
    for seed in (1, 2):
        write_codes(coded, made_up_encoder(seed=seed))
    manifests = iter([earlier, read_manifest(coded)])
    monkeypatch.setattr("indexer.storage.index.read_manifest", lambda _: next(manifests))
    features = Index(coded, read_manifest(coded)).features
    expected = made_up_encoder(seed=2).encode(features)
    np.testing.assert_array_equal(Index.open(coded).codes, expected)


def test_one_writer_can_write_two_encoders_and_compact_after_them(index: Path) -> None:
    with IndexWriter.open(index) as writer:
        for seed in (1, 2):
            writer.write_codes(made_up_encoder(seed=seed))
        writer.commit()
        writer.rewrite(writer.index.rows[3:])
    assert_every_row_has_its_code(index, made_up_encoder(seed=2))


def test_codes_are_dropped_with_their_encoder_and_later_additions_have_none(coded: Path) -> None:
    with IndexWriter.open(coded) as writer:
        writer.add(made_up_item(100, made_up_features(1)[0]))
        writer.drop_codes()
        writer.add(made_up_item(101, made_up_features(1)[0]))
        writer.commit()
    opened = Index.open(coded)
    assert (opened.codes, opened.count()) == (None, NUM_ITEMS + 2)
    assert "codes" not in opened.manifest.files
    assert verify(coded).is_clean
    IndexWriter.open(coded).close()  # deletes what the last commit replaced
    assert not list(coded.glob("codes-*")) + list(coded.glob("autoencoder-*"))


@pytest.mark.parametrize("is_coded", [False, True])
def test_codes_of_a_writer_that_was_killed_before_its_commit_are_deleted(
    index: Path, tmp_path: Path, is_coded: bool
) -> None:
    if is_coded:
        write_codes(index, made_up_encoder())
    before, files = read_manifest(index), {file.name for file in index.iterdir()}
    with IndexWriter.open(index) as writer:
        writer.write_codes(made_up_encoder(64, seed=1))
        writer.add(made_up_item(100, made_up_features(1)[0]))
        killed = Path(shutil.copytree(index, tmp_path / "killed"))
    for directory in (index, killed):
        assert read_manifest(directory) == before
        if is_coded:
            assert_every_row_has_its_code(directory, made_up_encoder())
        IndexWriter.open(directory).close()
        assert {file.name for file in directory.iterdir()} == files
    write_codes(killed, made_up_encoder(64, seed=1))
    assert_every_row_has_its_code(killed, made_up_encoder(64, seed=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda index: write_codes(index, made_up_encoder(seed=1)),
        lambda index: compact(index, force=True),
    ],
)
def test_a_change_that_fails_before_its_commit_leaves_the_codes_as_they_were(
    coded: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise MemoryError

    remove(coded, ids=[1])
    files = {file.name for file in coded.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr("indexer.storage.writer.write_manifest", die)
        with pytest.raises(MemoryError):
            change(coded)
    assert {file.name for file in coded.iterdir()} == files
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_a_writer_that_is_killed_between_the_manifest_and_its_copy_leaves_two_whole_encoders(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_manifest(coded)
    with monkeypatch.context() as patched:
        patched.setattr("indexer.storage.manifest.write_copy", lambda _: None)
        write_codes(coded, made_up_encoder(64, seed=1))
    assert read_copy(coded) == before
    assert_every_row_has_its_code(coded, made_up_encoder(64, seed=1))
    (coded / "manifest.json").write_bytes(b"damaged")
    mend(coded)
    assert_every_row_has_its_code(coded, made_up_encoder())
    write_codes(coded, made_up_encoder(64, seed=2))  # with the number of the commit that was lost
    assert_every_row_has_its_code(coded, made_up_encoder(64, seed=2))


@pytest.mark.parametrize(("limit", "name"), [(9000, "codes"), (20_000, "autoencoder")])
def test_a_disk_too_full_for_codes_keeps_the_commit_and_gets_its_space_back(
    coded: Path, limit: int, name: str, file_size_limit: Callable[[int], None]
) -> None:
    add_made_up(coded, range(100, 180))  # codes of 1024 bits take 12,800 bytes
    before, sizes = read_manifest(coded), file_sizes(coded)
    file_size_limit(limit)
    with pytest.raises(OSError, match=rf"File too large: '{coded}/{name}-4\."):
        write_codes(coded, made_up_encoder(1024))
    file_size_limit(resource.RLIM_INFINITY)
    assert (read_manifest(coded), file_sizes(coded)) == (before, sizes)
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_additions_whose_codes_do_not_fit_on_the_disk_are_not_committed(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(CodeFile, "append", full)
        with pytest.raises(OSError, match="No space left"):
            add_made_up(coded, range(100, 103))
    assert Index.open(coded).count() == NUM_ITEMS
    add_made_up(coded, range(100, 103))
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_a_changed_byte_of_the_codes_is_found_and_mended_from_the_features(coded: Path) -> None:
    remedy = f"to make the codes again, run: lookalike index verify {coded} --mend"
    for position in range(0, (coded / CODES_FILE).stat().st_size, 7):
        flip_back = flip(coded / CODES_FILE, position)
        (damage,) = verify(coded).damages
        assert (damage.file, damage.part) == (str(coded / CODES_FILE), "codes")
        assert damage.remedy == remedy
        flip_back()
    flip(coded / CODES_FILE, 40)
    assert mend(coded) == NUM_ITEMS
    assert read_manifest(coded).generation == 0
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_a_changed_byte_of_the_encoder_is_found_and_takes_the_codes_with_it(
    coded: Path, run: Run
) -> None:
    again = f"learn it again with: lookalike index encode {coded} --bits 32"
    mending = f"lookalike index verify {coded} --mend"
    remedy = f"to drop it and the codes, run: {mending}; then {again}"
    for position in some_positions(coded / ENCODER_FILE):
        flip_back = flip(coded / ENCODER_FILE, position)
        (damage,) = verify(coded).damages
        assert (damage.file, damage.remedy) == (str(coded / ENCODER_FILE), remedy)
        flip_back()
    flip(coded / ENCODER_FILE, 4000)
    opened = Index.open(coded)
    np.testing.assert_array_equal(opened.codes, made_up_encoder().encode(opened.features))
    done = run("index", "verify", coded, "--mend")
    assert (done.status, done.err) == (0, f"the encoder and its codes are dropped; {again}\n")
    assert (Index.open(coded).codes, Index.open(coded).count()) == (None, NUM_ITEMS)
    assert verify(coded).is_clean


def test_a_damaged_encoder_refuses_additions_and_nothing_is_lost(coded: Path) -> None:
    before = read_manifest(coded)
    again = f"to learn it again, run: lookalike index encode {coded} --bits 32$"
    flip(coded / ENCODER_FILE, 4000)
    with pytest.raises(IndexDirectoryError, match=rf"is damaged .*; {again}"):
        add_made_up(coded, range(100, 103))
    (coded / ENCODER_FILE).unlink()
    with pytest.raises(IndexDirectoryError, match=rf"cannot be read .*; {again}"):
        add_made_up(coded, range(100, 103))
    assert read_manifest(coded) == before
    remove(coded, ids=[1])
    compact(coded, force=True)  # intact codes are copied, which needs no encoder
    opened = Index.open(coded)
    np.testing.assert_array_equal(opened.codes, made_up_encoder().encode(opened.features))
    write_codes(coded, made_up_encoder(seed=1))
    assert_every_row_has_its_code(coded, made_up_encoder(seed=1))


def make_older(directory: Path) -> None:
    """Write a manifest in which the codes are older than the items."""
    manifest = read_manifest(directory)
    files = {**manifest.files, "codes": Extent(CODES_FILE)}
    write_manifest(replace(manifest, files=files), directory)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda directory: truncate(directory / CODES_FILE, 10),
            r"codes-2\.bin should hold 80 bytes but has 10; "
            r"to make the codes again, run: lookalike index verify .* --mend$",
        ),
        (
            lambda directory: (directory / CODES_FILE).unlink(),
            r"codes-2\.bin is missing; "
            r"to make the codes again, run: lookalike index verify .* --mend$",
        ),
        (
            make_older,
            r"should have one code per row but has 0 codes for 20 rows; "
            r"to learn codes again, run: lookalike index encode .* --bits 32$",
        ),
    ],
)
def test_lost_codes_are_an_error_only_when_they_are_used(
    coded: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(coded)
    index = Index.open(coded)
    assert Searcher(index).search(index.features[:1], 1)[0][0].item.path == "0.png"
    for _ in range(2):
        with pytest.raises(IndexDirectoryError, match=message):
            print(index.codes)
    with pytest.raises(IndexDirectoryError, match=message):
        add_made_up(coded, range(100, 103))
    remove(coded, ids=[2])
    with pytest.raises(IndexDirectoryError, match=message):
        print(Index.open(coded).codes)
    (found,) = verify(coded).damages
    assert (found.file, found.part) == (str(coded / CODES_FILE), "codes")
    other = Path(shutil.copytree(coded, coded.parent / "other"))
    compact(other, force=True)
    assert_every_row_has_its_code(other, made_up_encoder())
    assert mend(coded) == NUM_ITEMS - 1
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_damaged_items_and_damaged_codes_are_mended_together(coded: Path) -> None:
    flip(coded / CODES_FILE, 3)
    flip(coded / "features-0.f32", 5 * 4 * 4096)
    assert mend(coded) == NUM_ITEMS - 1
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_removed_items_that_come_back_have_their_codes(coded: Path) -> None:
    remove(coded, ids=[1])
    flip(coded / "removed-0.u64", 0)
    assert mend(coded) == NUM_ITEMS
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_damaged_codes_of_a_damaged_encoder_are_dropped_and_not_copied(coded: Path) -> None:
    flip(coded / CODES_FILE, 3)
    flip(coded / ENCODER_FILE, 4000)
    remove(coded, ids=[1])
    before = read_manifest(coded)
    with pytest.raises(IndexDirectoryError, match="lookalike index encode"):
        compact(coded, force=True)
    assert read_manifest(coded) == before
    assert mend(coded) == NUM_ITEMS - 1
    assert Index.open(coded).codes is None
    assert verify(coded).is_clean
