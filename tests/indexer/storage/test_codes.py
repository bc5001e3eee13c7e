"""Binary codes: what a bit says, and that every row of an index has the code of its feature, whatever comes between."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.search.searcher import Searcher
from indexer.storage.codes import CodeFacts, Encoder, check_num_bits, facts_of, load_encoder
from indexer.storage.growing_files import CodesFile
from indexer.storage.index import Index
from indexer.storage.manifest import (
    Extent,
    IndexDirectoryError,
    read_copy,
    read_manifest,
    write_manifest,
)
from indexer.storage.writer import IndexWriter
from indexer.updates.build import add, build, remove
from indexer.updates.compact import compact
from indexer.updates.verify import mend, verify
from tests.conftest import Run, coloured
from tests.indexer.damage import flip, some_places
from tests.indexer.items import made_up_item
from training.errors import UserError
from training.files import file_sha256
from training.network.model import CARD_FILE, ONNX_FILE, ModelCard, write_card

NUM_ITEMS = 20
ENCODER_FILE, CODES_FILE = "autoencoder-2.npz", "codes-2.bin"


def made_up_encoder(num_bits: int = 32, seed: int = 0) -> Encoder:
    weights = np.random.default_rng(seed).normal(0, 1, (num_bits, 4096)).astype(np.float32)
    facts = CodeFacts(
        num_bits=num_bits, num_fitted=NUM_ITEMS, seed=seed, commit=1, loss=(0.5, 0.25)
    )
    return Encoder(facts, weights, np.zeros(num_bits, np.float32))


def made_up_features(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1.0, 1.0, (count, 4096)).astype(
        np.float32
    ) - np.float32(0.5)


def encode(directory: Path, encoder: Encoder) -> None:
    with IndexWriter.open(directory) as writer:
        writer.write_codes(encoder)
        writer.commit()


def add_made_up(directory: Path, numbers: range) -> None:
    with IndexWriter.open(directory) as writer:
        for number, feature in zip(
            numbers, made_up_features(len(numbers), seed=numbers.start), strict=True
        ):
            writer.add(made_up_item(number, feature))
        writer.commit()


def assert_every_row_has_its_code(directory: Path, encoder: Encoder) -> None:
    index = Index.open(directory)
    assert index.codes is not None
    assert index.codes.shape == (len(index.records), encoder.facts.num_bits // 8)
    np.testing.assert_array_equal(index.codes, encoder.encode(index.features))
    assert facts_of(index.manifest) == encoder.facts
    assert verify(directory).is_clean


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty made-up items, in an index of a model that is never asked."""
    root = tmp_path_factory.mktemp("plain")
    (root / ONNX_FILE).write_bytes(b"never asked")
    card = ModelCard(
        id="0" * 64,
        onnx_sha256=file_sha256(root / ONNX_FILE),
        architecture={},
        class_names=("any",),
        image_size=67,
        recipe={},
        data={},
        metrics={},
        versions={},
        created_at="",
    )
    write_card(card, root)
    assert (root / CARD_FILE).is_file()
    IndexWriter.open(root / "index", root).close()
    add_made_up(root / "index", range(NUM_ITEMS))
    return root / "index"


@pytest.fixture
def index(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "index"))


@pytest.fixture
def coded(index: Path) -> Path:
    """The same, with codes of 32 bits."""
    encode(index, made_up_encoder())
    return index


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Sets how large a file may become, for the time of the test: as good as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda num_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_bit_says_on_which_side_of_its_plane_a_feature_lies() -> None:
    weights, thresholds = np.zeros((16, 4096), np.float32), np.zeros(16, np.float32)
    weights[np.arange(16), np.arange(16)] = 1
    thresholds[1] = 0.9
    encoder = replace(made_up_encoder(16), weights=weights, thresholds=thresholds)
    features = np.zeros((3, 4096), np.float32)
    features[0, [0, 1, 9]] = 5, 0.8, 5  # the second is not beyond 0.9
    features[1, 1] = 1
    assert encoder.encode(features).tolist() == [[0b1, 0b10], [0b10, 0], [0, 0]]


@pytest.mark.parametrize("num_bits", [0, 8, 20, 1032])
def test_a_number_of_bits_that_makes_no_code_is_refused(num_bits: int) -> None:
    assert [check_num_bits(number) for number in (16, 256, 1024)] == [16, 256, 1024]
    with pytest.raises(UserError, match="multiple of 8 from 16 to 1024"):
        check_num_bits(num_bits)


def test_an_index_without_an_encoder_has_no_codes(index: Path) -> None:
    opened = Index.open(index)
    assert (opened.codes, opened.stats()["codes"], load_encoder(index, opened.manifest)) == (
        None,
        None,
        None,
    )


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


def test_codes_of_additions_are_made_some_at_a_time_and_are_all_in_every_commit(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, encode_rows = list[int](), Encoder.encode

    def counting(self: Encoder, features: np.ndarray) -> np.ndarray:
        sizes.append(len(features))
        return encode_rows(self, features)

    monkeypatch.setattr("indexer.storage.growing_files.BLOCK_ROWS", 4)
    with monkeypatch.context() as patched, IndexWriter.open(coded) as writer:
        patched.setattr(Encoder, "encode", counting)
        for number, feature in enumerate(made_up_features(10)):
            writer.add(made_up_item(100 + number, feature))
            feature[:] = 0  # the caller's to use again
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
    encode(index, encoder)
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


def test_codes_written_with_additions_pending_are_of_these_too(index: Path) -> None:
    with IndexWriter.open(index) as writer:
        writer.add(made_up_item(100, made_up_features(1)[0]))
        writer.write_codes(made_up_encoder())
        writer.add(made_up_item(101, made_up_features(1)[0]))
        writer.commit()
    assert len(Index.open(index).records) == NUM_ITEMS + 2
    assert_every_row_has_its_code(index, made_up_encoder())


def test_a_second_encoder_takes_the_place_of_the_first_and_readers_keep_what_they_opened(
    coded: Path,
) -> None:
    first, second = made_up_encoder(), made_up_encoder(64, seed=1)
    reader = Index.open(coded)
    encode(coded, second)
    assert_every_row_has_its_code(coded, second)
    np.testing.assert_array_equal(
        Index(coded, reader.manifest).codes, first.encode(reader.features)
    )  # one that is about to open it
    add_made_up(coded, range(100, 101))
    assert {file.name for file in coded.glob("[ca][ou][dt]*-*")} == {
        "codes-3.bin",
        "autoencoder-3.npz",
    }
    assert_every_row_has_its_code(coded, second)
    compact(coded, force=True)
    np.testing.assert_array_equal(reader.codes, first.encode(reader.features))


def test_a_reader_that_comes_between_two_encoders_finds_the_latters_codes(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = read_manifest(coded)
    for seed in (1, 2):
        encode(coded, made_up_encoder(seed=seed))
    manifests = iter([earlier, read_manifest(coded)])
    monkeypatch.setattr("indexer.storage.index.read_manifest", lambda _: next(manifests))
    np.testing.assert_array_equal(
        Index.open(coded).codes,
        made_up_encoder(seed=2).encode(Index(coded, read_manifest(coded)).features),
    )


def test_two_encoders_in_one_sitting_and_a_compaction_after_them(index: Path) -> None:
    with IndexWriter.open(index) as writer:
        for seed in (1, 2):
            writer.write_codes(made_up_encoder(seed=seed))
        writer.commit()
        writer.rewrite(writer.index.rows[3:])
    assert_every_row_has_its_code(index, made_up_encoder(seed=2))


def test_dropped_codes_are_gone_with_their_encoder_and_additions_have_none(coded: Path) -> None:
    with IndexWriter.open(coded) as writer:
        writer.add(made_up_item(100, made_up_features(1)[0]))
        writer.drop_codes()
        writer.add(made_up_item(101, made_up_features(1)[0]))
        writer.commit()
    opened = Index.open(coded)
    assert (
        opened.codes,
        opened.count(),
        "codes" in opened.manifest.files,
        verify(coded).is_clean,
    ) == (None, NUM_ITEMS + 2, False, True)
    IndexWriter.open(coded).close()  # which sweeps what the last commit replaced
    assert not list(coded.glob("codes-*")) + list(coded.glob("autoencoder-*"))


@pytest.mark.parametrize("is_coded", [False, True])
def test_codes_of_a_writer_that_was_killed_before_its_commit_are_swept(
    index: Path, tmp_path: Path, is_coded: bool
) -> None:
    if is_coded:
        encode(index, made_up_encoder())
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
    encode(killed, made_up_encoder(64, seed=1))
    assert_every_row_has_its_code(killed, made_up_encoder(64, seed=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda index: encode(index, made_up_encoder(seed=1)),
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


def test_a_writer_that_is_killed_between_the_manifest_and_its_copy_leaves_two_whole_commits(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_manifest(coded)
    with monkeypatch.context() as patched:
        patched.setattr("indexer.storage.manifest.write_copy", lambda _: None)
        encode(coded, made_up_encoder(64, seed=1))
    assert read_copy(coded) == before
    assert_every_row_has_its_code(coded, made_up_encoder(64, seed=1))
    (coded / "manifest.json").write_bytes(b"damaged")
    mend(coded)
    assert_every_row_has_its_code(coded, made_up_encoder())
    encode(coded, made_up_encoder(64, seed=2))  # under the number of the commit that was lost
    assert_every_row_has_its_code(coded, made_up_encoder(64, seed=2))


@pytest.mark.parametrize(("limit", "name"), [(9000, "codes"), (20_000, "autoencoder")])
def test_a_disk_too_full_for_codes_keeps_the_commit_and_its_room(
    coded: Path, limit: int, name: str, file_size_limit: Callable[[int], None]
) -> None:
    add_made_up(coded, range(100, 180))  # codes of 1024 bits take 12,800 bytes
    before, files = (
        read_manifest(coded),
        {file.name: file.stat().st_size for file in coded.iterdir()},
    )
    file_size_limit(limit)
    with pytest.raises(OSError, match=rf"File too large: '{coded}/{name}-4\."):
        encode(coded, made_up_encoder(1024))
    file_size_limit(resource.RLIM_INFINITY)
    assert (read_manifest(coded), {file.name: file.stat().st_size for file in coded.iterdir()}) == (
        before,
        files,
    )
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_additions_whose_codes_find_no_room_are_not_committed(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(CodesFile, "append", full)
        with pytest.raises(OSError, match="No space left"):
            add_made_up(coded, range(100, 103))
    assert Index.open(coded).count() == NUM_ITEMS
    add_made_up(coded, range(100, 103))
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_a_changed_byte_of_the_codes_is_found_and_mended_from_the_features(coded: Path) -> None:
    (damage_file,) = coded.glob("codes-*.bin")
    for place in range(0, damage_file.stat().st_size, 7):
        flip_back = flip(coded / CODES_FILE, place)
        (damage,) = verify(coded).damages
        assert (damage.file, damage.part) == (str(coded / CODES_FILE), "codes")
        assert (
            damage.remedy == f"lookalike index verify {coded} --mend, which makes the codes again"
        )
        flip_back()
    flip(coded / CODES_FILE, 40)
    assert mend(coded) == NUM_ITEMS
    assert read_manifest(coded).generation == 0
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_a_changed_byte_of_the_encoder_is_found_and_takes_the_codes_with_it(
    coded: Path, run: Run
) -> None:
    for place in list(some_places(coded / ENCODER_FILE)):
        flip_back = flip(coded / ENCODER_FILE, place)
        (damage,) = verify(coded).damages
        again = f"learn it again with: lookalike index encode {coded} --bits 32"
        assert (damage.file, damage.remedy) == (
            str(coded / ENCODER_FILE),
            f"lookalike index verify {coded} --mend, which drops it and the codes; then {again}",
        )
        flip_back()
    flip(coded / ENCODER_FILE, 4000)
    np.testing.assert_array_equal(
        Index.open(coded).codes, made_up_encoder().encode(Index.open(coded).features)
    )
    done = run("index", "verify", coded, "--mend")
    assert (done.status, done.err) == (0, f"the encoder and its codes are dropped; {again}\n")
    assert (Index.open(coded).codes, Index.open(coded).count(), verify(coded).is_clean) == (
        None,
        NUM_ITEMS,
        True,
    )


def test_a_damaged_encoder_refuses_additions_and_nothing_is_lost(coded: Path) -> None:
    before = read_manifest(coded)
    flip(coded / ENCODER_FILE, 4000)
    with pytest.raises(
        IndexDirectoryError,
        match=rf"is damaged .*; learn it again: lookalike index encode {coded} --bits 32$",
    ):
        add_made_up(coded, range(100, 103))
    (coded / ENCODER_FILE).unlink()
    with pytest.raises(
        IndexDirectoryError,
        match=rf"cannot be read .*; learn it again: lookalike index encode {coded} --bits 32$",
    ):
        add_made_up(coded, range(100, 103))
    assert read_manifest(coded) == before
    remove(coded, ids=[1])
    compact(coded, force=True)  # whole codes need no encoder to be carried over
    np.testing.assert_array_equal(
        Index.open(coded).codes, made_up_encoder().encode(Index.open(coded).features)
    )
    encode(coded, made_up_encoder(seed=1))
    assert_every_row_has_its_code(coded, made_up_encoder(seed=1))


def shorten(directory: Path) -> None:
    with (directory / CODES_FILE).open("r+b") as file:
        file.truncate(10)


def make_older(directory: Path) -> None:
    """As if items had come since, without codes."""
    manifest = read_manifest(directory)
    files = {**manifest.files, "codes": Extent(CODES_FILE)}
    write_manifest(replace(manifest, files=files), directory)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            shorten,
            r"codes-2\.bin should hold 80 bytes but has 10; run: lookalike index verify .* --mend, which makes the codes again",
        ),
        (
            lambda directory: (directory / CODES_FILE).unlink(),
            r"codes-2\.bin is missing; run: lookalike index verify .* --mend",
        ),
        (
            make_older,
            r"the codes of .* are older than its items \(0 for 20 rows\); run: lookalike index encode .* --bits 32$",
        ),
    ],
)
def test_lost_codes_are_told_of_when_they_are_used_and_all_else_goes_on(
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


def test_items_and_codes_that_are_damaged_are_mended_at_once(coded: Path) -> None:
    flip(coded / CODES_FILE, 3)
    flip(coded / "features-0.f32", 5 * 4 * 4096)
    assert mend(coded) == NUM_ITEMS - 1
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_items_that_are_back_have_their_codes(coded: Path) -> None:
    remove(coded, ids=[1])
    flip(coded / "removed-0.u64", 0)
    assert mend(coded) == NUM_ITEMS
    assert_every_row_has_its_code(coded, made_up_encoder())


def test_damaged_codes_of_a_damaged_encoder_are_dropped_and_not_carried_over(coded: Path) -> None:
    flip(coded / CODES_FILE, 3)
    flip(coded / ENCODER_FILE, 4000)
    remove(coded, ids=[1])
    before = read_manifest(coded)
    with pytest.raises(IndexDirectoryError, match="lookalike index encode"):
        compact(coded, force=True)
    assert read_manifest(coded) == before
    assert mend(coded) == NUM_ITEMS - 1
    assert (Index.open(coded).codes, verify(coded).is_clean) == (None, True)


def test_stats_say_what_the_codes_are(coded: Path, run: Run) -> None:
    told = json.loads(run("index", "stats", coded, "--json").out)
    assert told["codes"] == {
        "num_bits": 32,
        "num_fitted": NUM_ITEMS,
        "commit": 1,
        "num_bytes": 4 * NUM_ITEMS,
    }
    assert (
        "codes  32 bits, learnt from 20 items of commit 1, 80 bytes\n"
        in run("index", "stats", coded).out
    )
