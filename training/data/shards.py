"""Tar shards, WebDataset's way: images are read where they lie in the archives, and nothing is extracted.

photos.tar                        one shard
'shards/photos-{000..010}.tar'    eleven, all of which must be there; the quotes keep the braces from the shell
'shards/*.tar'                    as many as there are

The member `cat/1.jpg` of photos.tar becomes `photos/cat/1.jpg`, with the label cat. Where it has a sibling `cat/1.cls` (the
name or number of a class) or `cat/1.json` with a "label", that is the label (https://github.com/webdataset/webdataset).
"""

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from training.data.examples import DataError, Example, storable
from training.data.images import ImageError, TarMember, read_bytes

SIDE_EXTENSIONS = frozenset(
    {
        "bbox",
        "caption",
        "cbor",
        "cls",
        "csv",
        "html",
        "id",
        "index",
        "json",
        "jsonl",
        "md",
        "msg",
        "npy",
        "npz",
        "parquet",
        "pickle",
        "pkl",
        "pt",
        "pth",
        "pyd",
        "safetensors",
        "ten",
        "text",
        "transcript",
        "tsv",
        "txt",
        "url",
        "xml",
        "yaml",
        "yml",
    }
)
"""Of members that say something about an image. Any other member is an image, or is skipped as none."""
MAX_LABEL_BYTES = 1024 * 1024

_SHARD_NAME = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
"""How a compressed file begins, and what undoes it."""


def are_shards(data: str) -> bool:
    """Whether DATA names tar shards: a file by its ending, or a pattern where no file has that very name."""
    if Path(data).exists():
        return bool(_SHARD_NAME.search(data))
    return bool(_RANGE.search(data) or set(data) & set("*?["))


def shard_examples(data: str) -> list[Example]:
    """The images in the shards that `data` names, in the order of their paths; raises DataError.

    Only headers and labels are read. Hidden members, links, sparse files and what only goes with an image are left out; of
    members of the same name the last one counts, as it does in extracting.
    """
    files = _files(data)
    root = os.path.commonpath([file.parent for file in files])
    by_name: dict[str, Path] = {}
    for file in files:
        name = storable(file.relative_to(root).with_suffix("").as_posix())
        if name in by_name:
            raise DataError(
                f"the images of {by_name[name]} and {file} would have the same names, {name}/...; rename one of the two"
            )
        by_name[name] = file
    examples = (example for name, file in by_name.items() for example in _examples(file, name))
    return sorted(examples, key=lambda example: example.path)


def _files(data: str) -> list[Path]:
    """The shards, in order. Each name that a range stands for must be there."""
    if Path(data).exists():
        return [Path(data)]
    files: dict[Path, None] = {}
    for pattern in _expanded(data):
        found = _matching(pattern)
        if not found:
            which = (
                f"{pattern}, of {data}, is not there"
                if pattern != data
                else f"{data} matches no file"
            )
            raise DataError(
                f"{which}; pass the pattern of .tar files that exist, such as 'photos-{{000..010}}.tar' or 'photos-*.tar'"
            )
        files.update(dict.fromkeys(found))
    return list(files)


def _expanded(pattern: str) -> Iterator[str]:
    """photos-{08..10}.tar -> photos-08.tar, photos-09.tar, photos-10.tar, as bash has it."""
    braces = _RANGE.search(pattern)
    if not braces:
        yield pattern
        return
    first, last = braces.groups()
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    for number in range(int(first), int(last) + 1):
        yield from _expanded(
            f"{pattern[: braces.start()]}{number:0{width}}{pattern[braces.end() :]}"
        )


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.exists():
        return [path]
    folder = next(
        (parent for parent in path.parents if parent.is_dir()), path
    )  # is meant literally, [brackets] and all
    return [
        folder / name
        for name in sorted(
            glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)
        )
    ]


def _examples(shard: Path, prefix: str) -> Iterator[Example]:
    members = {
        name: TarMember(shard, info.offset_data, info.size)
        for info in _headers(shard)
        if not _is_hidden(name := _name(info))
    }
    labels = _labels(members)
    for name, member in members.items():
        if PurePosixPath(name).suffix[1:].lower() not in SIDE_EXTENSIONS:
            folder = name.split("/")[0] if "/" in name else None
            yield Example(f"{prefix}/{name}", labels.get(_key(name)[0]) or folder, member)


def _headers(shard: Path) -> Iterator[tarfile.TarInfo]:
    """Of every regular member, seeking over the contents; raises DataError where the shard is no whole, plain tar file."""
    if not shard.is_file():
        raise DataError(f"{shard} is not a file; pass .tar files only")
    try:
        with shard.open("rb") as file:
            head = file.read(8)
            if remedy := next(
                (command for magic, command in _COMPRESSED.items() if head.startswith(magic)), None
            ):
                raise DataError(
                    f"{shard} is compressed, so its images cannot be read by position; decompress it first: {remedy} {shard}"
                )
            file.seek(0)
            with tarfile.open(
                fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape"
            ) as tar:
                yield from _whole(tar, shard)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(
            f"{shard} is not a tar file, or a damaged one ({error}); pass .tar files only, or copy it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{shard} cannot be read: {error.strerror or error}; pass .tar files that can be"
        ) from error


def _whole(tar: tarfile.TarFile, shard: Path) -> Iterator[tarfile.TarInfo]:
    """tarfile itself takes any header that it cannot read for the end of the archive."""
    num_bytes, position = shard.stat().st_size, 0
    while position < num_bytes and (info := tar.next()):
        tar.members.clear()  # type: ignore[attr-defined]  # it keeps every header otherwise
        if tar.offset <= position:  # a negative size
            raise tarfile.ReadError(f"{info.name} has {info.size} bytes")
        position = tar.offset
        if not info.isreg() or info.issparse():
            continue
        if (end := info.offset_data + info.size) > num_bytes:
            raise DataError(
                f"{shard} is cut off within {storable(info.name)}: it has {num_bytes:,} bytes of {end:,}; copy or write it again, whole"
            )
        yield info
    if position < num_bytes:
        with shard.open("rb") as file:
            file.seek(position)
            block = file.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0"):  # the end of an archive is zeros, where it is marked
            raise DataError(
                f"{shard} is cut off or damaged after {position:,} of its {num_bytes:,} bytes; copy or write it again, whole"
            )


def _name(info: tarfile.TarInfo) -> str:
    """`./cat//1.jpg` -> `cat/1.jpg`"""
    return str(PurePosixPath(storable(info.name).lstrip("/")))


def _is_hidden(name: str) -> bool:
    *_, last = parts = name.split("/")
    return any(part.startswith(".") for part in parts) or last in ("Thumbs.db", "desktop.ini")


def _key(name: str) -> tuple[str, str]:
    """`cat/1.seg.png` -> (`cat/1`, `seg.png`): to WebDataset a key ends at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _labels(members: Mapping[str, TarMember]) -> dict[str, str | None]:
    """What a .cls or else a .json member says of its key."""
    sides: dict[str, str] = {}
    for name in members:
        key, extension = _key(name)
        if extension == "cls" or (extension == "json" and key not in sides):
            sides[key] = name
    return {key: _label_in(members[name], name) for key, name in sides.items()}


def _label_in(member: TarMember, name: str) -> str | None:
    """None where it says nothing about a class."""
    try:
        if member.num_bytes > MAX_LABEL_BYTES:
            raise ValueError(
                f"it has {member.num_bytes:,} bytes; at most {MAX_LABEL_BYTES:,} are read"
            )
        label = read_bytes(member).decode("utf-8-sig")
        if name.lower().endswith("json"):
            label = _label_of(json.loads(label))
        lines = label.strip().splitlines()
        if len(lines) > 1:
            raise ValueError(f"it has {len(lines)} lines")
    except (ImageError, ValueError) as error:
        raise DataError(
            f"{name} in {member.file} must hold the name or number of a class as text in UTF-8, but {error}; mend it, or leave it out"
        ) from error
    return lines[0].encode("utf-8", "backslashreplace").decode() if lines else None


def _label_of(content: object) -> str:
    """The "label" in a .json member; empty where there is none."""
    label = content.get("label") if isinstance(content, dict) else None
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise ValueError(f"its label is a {type(label).__name__}")
    return "" if label is None else str(label)
