"""Images in tar shards: their names and labels, the members that count, and damaged shards."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import COLOURS, coloured
from tests.training.refusals import refusal
from training.data.cache import cached_canvases
from training.data.datasets import class_names, fingerprint, open_dataset
from training.data.examples import Example
from training.data.images import ImageError, TarMember, read_bytes, read_square
from training.learning.evaluation import evaluate_models
from training.learning.request import Request
from training.learning.session import train
from training.network.model import read_card

BLOCK = tarfile.BLOCKSIZE


def write_shard(file: Path, contents: Mapping[str, bytes]) -> Path:
    """Write a tar file without the usual padding to 10,240 bytes, which makes offsets simple."""
    file.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in contents.items():
            add(tar, name, content)
        num_bytes = tar.offset
    file.write_bytes(out.getvalue()[:num_bytes] + b"\0" * 2 * BLOCK)
    return file


def add(tar: tarfile.TarFile, name: str, content: bytes, **others: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in others.items():
        setattr(info, attribute, value)
    tar.addfile(info, io.BytesIO(content))


def png(label: str, seed: int) -> bytes:
    out = io.BytesIO()
    coloured(label, seed).save(out, "PNG")
    return out.getvalue()


def bmp(level: int) -> bytes:
    out = io.BytesIO()
    coloured("red", 0).point(lambda _: level).save(out, "BMP")
    return out.getvalue()


def examples(data: Path | str) -> tuple[Example, ...]:
    return open_dataset(data).examples


def listed(data: Path | str) -> list[tuple[str, str | None]]:
    return [(example.path, example.label) for example in examples(data)]


def content(example: Example) -> bytes:
    assert isinstance(example.source, TarMember)
    return read_bytes(example.source)


def test_a_member_is_named_after_its_shard_and_labelled_by_its_first_folder(tmp_path: Path) -> None:
    file = write_shard(
        tmp_path / "photos.tar",
        {
            "dog/2.jpg": b"two",
            "./cat/1.jpg": b"one",
            "cat/kittens/0.jpg": b"nought",
            "3.jpg": b"three",
        },
    )
    assert listed(file) == [
        ("photos/3.jpg", None),
        ("photos/cat/1.jpg", "cat"),
        ("photos/cat/kittens/0.jpg", "cat"),
        ("photos/dog/2.jpg", "dog"),
    ]
    assert [content(example) for example in examples(file)] == [b"three", b"one", b"nought", b"two"]
    assert open_dataset(file).name == str(file)


def test_a_sibling_member_names_the_class_as_in_webdataset(tmp_path: Path) -> None:
    members = {
        "1.jpg": b"",
        "1.cls": b"cat\n",
        "2.cls": b"7",
        "2.seg.png": b"",
        "3.jpg": b"",
        "3.json": b'{"label": 3, "size": [9, 9]}',
        "4.jpg": b"",
        "4.json": b'{"caption": "a dog"}',
        "5.jpg": b"",
        "5.txt": b"a caption",
        "b/6.jpg": b"",
        "b/6.cls": b" ",
        "a/6.json": b'{"label": "not this"}',
        "a/6.jpg": b"",
        "a/6.cls": "\ufeffmüsli".encode(),
    }
    examples_of_x = listed(write_shard(tmp_path / "x.tar", members))
    assert {path.removeprefix("x/"): label for path, label in examples_of_x} == {
        "1.jpg": "cat",
        "2.seg.png": "7",
        "3.jpg": "3",
        "4.jpg": None,
        "5.jpg": None,
        "a/6.jpg": "müsli",
        "b/6.jpg": "b",
    }


def test_links_sparse_files_hidden_members_and_descriptions_are_left_out(
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.tar"
    sparse = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "cat/sparse.jpg",
        "GNU.sparse.realsize": "99",
    }
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "cat", b"", type=tarfile.DIRTYPE)
        add(tar, "cat/link.jpg", b"", type=tarfile.SYMTYPE, linkname="1.jpg")
        add(tar, "cat/hard.jpg", b"", type=tarfile.LNKTYPE, linkname="cat/1.jpg")
        add(tar, "cat/pipe.jpg", b"", type=tarfile.FIFOTYPE)
        add(tar, "cat/sparse.jpg", b"0\n".ljust(BLOCK, b"\0"), pax_headers=sparse)
        for description in ("cat/1.txt", "cat/1.npy", "cat/1.CLS"):
            add(tar, description, b"")
        for hidden in ("cat/.2.jpg", ".git/2.jpg", "../2.jpg", "cat/Thumbs.db"):
            add(tar, hidden, b"")
        add(tar, f"cat/{'long' * 40}.jpg", b"")
        add(tar, "cat/1.heif", b"")
    assert listed(file) == [("x/cat/1.heif", "cat"), (f"x/cat/{'long' * 40}.jpg", "cat")]


def test_the_last_of_several_members_with_one_name_counts(tmp_path: Path) -> None:
    members = {"./cat/1.jpg": b"old", "cat/2.jpg": b"two", "cat/1.jpg": b"new"}
    file = write_shard(tmp_path / "x.tar", members)
    assert [content(example) for example in examples(file)] == [b"new", b"two"]


def test_names_that_are_not_utf8_become_text_that_can_be_stored(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        add(tar, "café/1.jpg", b"")
    assert listed(file) == [(r"x/caf\xe9/1.jpg", r"caf\xe9")]


def test_a_pattern_names_shards_by_numbers_or_by_wildcards(tmp_path: Path) -> None:
    folder = tmp_path / "shards [old]"
    for number in range(8, 12):
        write_shard(folder / f"photos-{number:02}.tar", {"cat/1.jpg": b""})
    write_shard(folder / "more" / "photos-08.tar", {"cat/1.jpg": b""})
    (folder / "index.json").touch()
    four = [f"photos-{number:02}/cat/1.jpg" for number in range(8, 12)]
    assert [path for path, _ in listed(f"{folder}/photos-{{08..11}}.tar")] == four
    assert [path for path, _ in listed(f"{folder}/photos-{{1..1}}{{0..1}}.tar")] == four[2:]
    assert [path for path, _ in listed(f"{folder}/photos-{{0..1}}[189].tar")] == [
        four[0],
        four[1],
        four[3],
    ]
    assert [path for path, _ in listed(f"{folder}/photos-*.tar")] == four
    assert [path for path, _ in listed(f"{folder}/**/*-08.tar")] == [
        "more/photos-08/cat/1.jpg",
        "photos-08/cat/1.jpg",
    ]


def test_relative_patterns_name_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "a.tar", {"cat/1.jpg": b"one"})
    write_shard(tmp_path / "b.tar", {"cat/1.jpg": b"two"})
    monkeypatch.chdir(tmp_path)
    for pattern in ("*.tar", "./?.tar", tmp_path / "[ab].tar"):
        assert listed(pattern) == [("a/cat/1.jpg", "cat"), ("b/cat/1.jpg", "cat")]
    assert [content(example) for example in examples("*.tar")] == [b"one", b"two"]


def test_a_pattern_is_refused_if_a_shard_is_missing(tmp_path: Path) -> None:
    write_shard(tmp_path / "photos-0.tar", {})
    write_shard(tmp_path / "photos-2.tar", {})
    pattern = f"{tmp_path}/photos-{{0..2}}.tar"
    assert refusal(pattern).startswith(
        f"{tmp_path}/photos-1.tar (from {pattern}) does not exist; pass the pattern"
    )
    pattern = f"{tmp_path}/shards/*.tar"
    assert refusal(pattern) == (
        f"{pattern} matches no file; pass the pattern of .tar files that exist, "
        "such as 'photos-{000..010}.tar' or 'photos-*.tar'"
    )


def test_shards_whose_images_would_have_the_same_names_are_refused(tmp_path: Path) -> None:
    for name in ("photos-0.tar", "photos-0.TAR"):
        write_shard(tmp_path / name, {})
    message = refusal(f"{tmp_path}/photos-*")
    assert "would have the same names, photos-0/...; rename one of the two" in message


@pytest.mark.parametrize(
    ("compress", "remedy"),
    [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz")],
    ids=["gz", "bz2", "xz"],
)
@pytest.mark.parametrize("name", ["x.tar", "x.tar.z", "x.tgz"])
def test_a_compressed_shard_is_refused_with_the_command_that_decompresses_it(
    tmp_path: Path, compress: Callable[[bytes], bytes], remedy: str, name: str
) -> None:
    file = write_shard(tmp_path / name, {"cat/1.jpg": b"one"})
    file.write_bytes(compress(file.read_bytes()))
    assert refusal(file).endswith(
        f"so its images cannot be read by position; decompress it first: {remedy} {file}"
    )


def test_a_file_that_is_not_a_tar_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    for noise in (b"", b"hello", b"hello" * 1000):
        file.write_bytes(noise)
        assert f"{file} is not a tar file, or is damaged" in refusal(file)
    (tmp_path / "y.tar").mkdir()
    assert f"{tmp_path}/y.tar is not a file; pass .tar files only" in refusal(f"{tmp_path}/y*")


@pytest.mark.parametrize(
    ("name", "label", "complaint"),
    [
        ("cat/1.cls", b"\xff", "can't decode byte 0xff"),
        ("cat/1.cls", b"cat\ndog", "it has 2 lines"),
        ("cat/1.cls", b" " * 2_000_000, "it has 2,000,000 bytes; at most 1,048,576 are read"),
        ("cat/1.json", b"{", "Expecting property name"),
        ("cat/1.json", b'{"label": [1, 2]}', "its label is a list"),
        ("cat/1.json", b'{"label": true}', "its label is a bool"),
    ],
)
def test_a_label_that_cannot_be_understood_is_refused_with_its_member_and_shard(
    tmp_path: Path, name: str, label: bytes, complaint: str
) -> None:
    file = write_shard(tmp_path / "x.tar", {"cat/1.jpg": b"", name: label})
    message = refusal(file)
    assert f"{name} in {file} must contain the name or number of a class" in message
    assert complaint in message


def test_a_label_that_is_not_valid_text_can_still_be_stored(tmp_path: Path) -> None:
    members = {"1.jpg": b"", "1.json": rb'{"label": "\ud800"}'}
    (example,) = examples(write_shard(tmp_path / "x.tar", members))
    assert example.label == r"\ud800"


def two_cats(tmp_path: Path) -> tuple[Path, int, int]:
    """A shard with two members of 700 bytes, the end of the first with its padding, and the end of
    the second's content."""
    file = write_shard(tmp_path / "x.tar", {"cat/1.jpg": b"a" * 700, "cat/2.jpg": b"b" * 700})
    end_of_first = BLOCK + 2 * BLOCK
    return file, end_of_first, end_of_first + BLOCK + 700


def test_the_end_of_a_shard_needs_neither_padding_nor_a_marker(tmp_path: Path) -> None:
    file, end_of_first, end_of_second = two_cats(tmp_path)
    whole = file.read_bytes()
    padded = 2 * end_of_first
    marked = padded + 2 * BLOCK
    assert len(whole) == marked
    for num_bytes in (
        end_of_second,
        end_of_second + 10,
        padded,
        padded + 10,
        marked - BLOCK,
        marked,
    ):
        file.write_bytes(whole[:num_bytes])
        assert len(examples(file)) == 2
    file.write_bytes(whole[:end_of_first])
    assert len(examples(file)) == 1


def test_a_shard_that_is_cut_off_in_a_member_is_refused(tmp_path: Path) -> None:
    file, end_of_first, end_of_second = two_cats(tmp_path)
    whole = file.read_bytes()
    for num_bytes in (end_of_second - 1, end_of_first + BLOCK):
        file.write_bytes(whole[:num_bytes])
        assert refusal(file) == (
            f"{file} is cut off within cat/2.jpg: it has {num_bytes:,} bytes of "
            f"{end_of_second:,}; use a complete copy of the file"
        )


def test_a_shard_that_is_cut_off_or_damaged_in_a_header_is_refused(tmp_path: Path) -> None:
    file, end_of_first, _ = two_cats(tmp_path)
    whole = file.read_bytes()
    for content in (
        whole[: end_of_first + 100],
        whole[:end_of_first] + b"rubbish!" + whole[end_of_first + 8 :],
    ):
        file.write_bytes(content)
        assert refusal(file) == (
            f"{file} is cut off or damaged after {end_of_first:,} of its {len(content):,} bytes; "
            "use a complete copy of the file"
        )


def test_only_headers_are_read(tmp_path: Path) -> None:
    file = write_shard(tmp_path / "x.tar", {"cat/1.jpg": b"one"})
    info = tarfile.TarInfo("cat/2.jpg")
    info.size = 1 << 40  # a hole in the file that would take an hour to read
    with file.open("r+b") as out:
        out.seek(2 * BLOCK)
        out.write(info.tobuf())
        out.truncate(out.tell() + info.size)
    with file.open("ab") as end, tarfile.open(fileobj=end, mode="w") as tar:
        add(tar, "cat/3.jpg", b"three")
    one, two, three = examples(file)
    assert (content(one), content(three)) == (b"one", b"three")
    with pytest.raises(ImageError, match=r"1,099,511,627,776 bytes; at most 536,870,912 are read"):
        content(two)


def test_a_member_is_read_from_any_thread(tmp_path: Path) -> None:
    contents = {f"cat/{number:03}.jpg": bytes([number]) * (1000 + number) for number in range(200)}
    members = examples(write_shard(tmp_path / "x.tar", contents))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(content, members * 5)) == list(contents.values()) * 5


def test_a_member_is_the_same_image_as_its_file(tmp_path: Path) -> None:
    (example,) = examples(write_shard(tmp_path / "x.tar", {"red/1.png": png("red", 1)}))
    np.testing.assert_array_equal(read_square(example.source, 67), read_square(png("red", 1), 67))


def test_reading_an_image_fails_clearly_if_its_shard_has_changed_or_gone(tmp_path: Path) -> None:
    file = write_shard(tmp_path / "x.tar", {"cat/1.jpg": b"one"})
    (example,) = examples(file)
    assert str(example.source) == f"{file}, byte 512"
    os.truncate(file, 514)
    with pytest.raises(ImageError, match="has become shorter than it was"):
        read_square(example.source, 67)
    file.unlink()
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        read_square(example.source, 67)


def test_shards_that_were_moved_keep_their_fingerprint(tmp_path: Path) -> None:
    here, there = (
        write_shard(tmp_path / folder / "x.tar", {**before, "cat/1.jpg": b"one"})
        for folder, before in (("a", {}), ("b", {"y.txt": b"y"}))
    )
    assert fingerprint(examples(here)) == fingerprint(examples(there))
    write_shard(there, {"cat/1.jpg": b"three"})
    assert fingerprint(examples(here)) != fingerprint(examples(there))


def test_a_cache_notices_that_a_shard_has_changed(tmp_path: Path) -> None:
    cache = tmp_path / "canvases.u8"

    def red_of_canvases() -> list[int]:
        members = examples(tmp_path / "x.tar")
        canvases = cached_canvases("x.tar", members, 67, cache, num_threads=2)
        return [int(pixels[..., 0].mean()) for pixels in canvases.pixels]

    contents = {"1.bmp": bmp(10), "2.bmp": bmp(20)}
    file = write_shard(tmp_path / "x.tar", contents)
    assert red_of_canvases() == [10, 20]
    made = cache.stat().st_mtime_ns
    assert red_of_canvases() == [10, 20]
    assert cache.stat().st_mtime_ns == made
    write_shard(file, contents | {"2.bmp": bmp(30)})  # with the same size and offset
    os.utime(file, ns=(1, 1))
    assert red_of_canvases() == [10, 30]


def test_a_network_is_trained_and_evaluated_on_shards(tmp_path: Path) -> None:
    for number in range(3):
        images = {
            f"{label}/{number}-{seed}.png": png(label, 10 * number + seed)
            for label in COLOURS
            for seed in range(2)
        }
        write_shard(
            tmp_path / "shards" / f"train-{number:03}.tar",
            images | {"red/cut.png": images[f"red/{number}-0.png"][:50]},
        )
    flat = {
        f"{number}.{kind}": content
        for number, label in enumerate(COLOURS)
        for kind, content in (("png", png(label, 99)), ("cls", label.encode()))
    }
    val = write_shard(tmp_path / "shards" / "val-000.tar", flat)
    data = f"{tmp_path}/shards/train-{{000..002}}.tar"
    settings = ("batch_size=8", "learning_rate=0.002", "precision=float32")
    out = tmp_path / "model"
    request = Request(
        data=data, out=out, validation=str(val), image_size=67, epochs=1, settings=settings
    )
    result = train(request)
    assert [item.path for item in result.skipped] == [
        f"train-{number:03}/red/cut.png" for number in range(3)
    ]
    card = read_card(tmp_path / "model")
    assert card.class_names == tuple(COLOURS) == class_names(examples(data))
    assert (card.data["name"], card.data["num_train"], card.data["num_held_out"]) == (data, 18, 3)
    assert evaluate_models([tmp_path / "model"], str(val)).as_dict() == pytest.approx(card.metrics)


def test_a_fifth_of_each_class_is_held_out_of_shards_too(tmp_path: Path) -> None:
    members = {f"{label}/{number}.png": b"" for label in COLOURS for number in range(10)}
    file = write_shard(tmp_path / "x.tar", members)
    dataset = open_dataset(file)
    assert len(dataset.part("train")) == 24
    assert len(dataset.part("held-out")) == 6
    assert len(dataset.part("all")) == 30
