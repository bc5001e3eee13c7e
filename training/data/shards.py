"""Tar shards in WebDataset's layout. Images are read from the archives; nothing is extracted.

photos.tar                        one shard
'shards/photos-{000..010}.tar'    eleven shards; all of them must exist, and the quotes prevent the
                                  shell from expanding the braces
'shards/*.tar'                    all shards that match

The member `cat/1.jpg` of photos.tar becomes `photos/cat/1.jpg`, with the label cat. A member
`cat/1.cls` (the name or number of a class) or `cat/1.json` with a "label" overrides that label
(https://github.com/webdataset/webdataset).
"""

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from training.data.examples import DataError, Example
from training.data.images import ImageError, TarMember, read_bytes
from training.naming import storable

_LABEL_EXTENSIONS = ("bbox", "cls", "id", "index", "json", "jsonl", "yaml", "yml")
_TEXT_EXTENSIONS = ("caption", "html", "md", "text", "transcript", "txt", "url", "xml")
_TABLE_EXTENSIONS = ("csv", "parquet", "tsv")
_ARRAY_EXTENSIONS = ("npy", "npz", "pt", "pth", "safetensors", "ten")
_OBJECT_EXTENSIONS = ("cbor", "msg", "pickle", "pkl", "pyd")
SIDE_EXTENSIONS: frozenset[str] = frozenset().union(
    _LABEL_EXTENSIONS, _TEXT_EXTENSIONS, _TABLE_EXTENSIONS, _ARRAY_EXTENSIONS, _OBJECT_EXTENSIONS
)
"""Extensions of members that describe an image. All other members are examples."""
MAX_LABEL_BYTES = 1024 * 1024

_SHARD_NAME = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_DECOMPRESSORS = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
"""The first bytes of compressed files, and the commands that decompress them."""


def are_shards(data: str) -> bool:
    """Whether DATA names tar shards: an existing file with a tar extension, or a pattern."""
    if Path(data).exists():
        return bool(_SHARD_NAME.search(data))
    return bool(_RANGE.search(data) or set(data) & set("*?["))


def shard_examples(data: str) -> list[Example]:
    """The images in the shards that `data` names, ordered by path; raises DataError.

    Only headers and labels are read. Hidden members, links, sparse files and members that describe
    an image are left out. If two members have the same name, the last one is used. Extracting the
    shard would give the same result.
    """
    shards = _shard_files(data)
    root = os.path.commonpath([shard.parent for shard in shards])
    by_prefix: dict[str, Path] = {}
    for shard in shards:
        prefix = storable(shard.relative_to(root).with_suffix("").as_posix())
        if prefix in by_prefix:
            raise DataError(
                f"the images of {by_prefix[prefix]} and {shard} would have the same names, "
                f"{prefix}/...; rename one of the two"
            )
        by_prefix[prefix] = shard
    examples = (
        example for prefix, shard in by_prefix.items() for example in _examples(shard, prefix)
    )
    return sorted(examples, key=lambda example: example.path)


def _shard_files(data: str) -> list[Path]:
    """The shards that `data` names, in order; raises DataError if one of them does not exist."""
    if Path(data).exists():
        return [Path(data)]
    shards: dict[Path, None] = {}
    for pattern in _expand_range(data):
        matching = _matching_files(pattern)
        if not matching:
            missing = f"{data} matches no file"
            if pattern != data:
                missing = f"{pattern} (from {data}) does not exist"
            raise DataError(
                f"{missing}; pass the pattern of .tar files that exist, "
                "such as 'photos-{000..010}.tar' or 'photos-*.tar'"
            )
        shards.update(dict.fromkeys(matching))
    return list(shards)


def _expand_range(pattern: str) -> Iterator[str]:
    """Expand ranges as bash does: photos-{09..10}.tar to photos-09.tar and photos-10.tar."""
    braces = _RANGE.search(pattern)
    if not braces:
        yield pattern
        return
    first, last = braces.groups()
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    for number in range(int(first), int(last) + 1):
        yield from _expand_range(f"{before}{number:0{width}}{after}")


def _matching_files(pattern: str) -> list[Path]:
    """The files that match a pattern of wildcards, sorted.

    The longest existing folder at the start of the pattern is taken literally, because the name of
    a folder may contain [brackets].
    """
    path = Path(pattern)
    if path.exists():
        return [path]
    folder = next((parent for parent in path.parents if parent.is_dir()), path)
    names = glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)
    return [folder / name for name in sorted(names)]


def _examples(shard: Path, prefix: str) -> Iterator[Example]:
    """The images in one shard. Their paths begin with `prefix`. Raises DataError."""
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
    """The header of every regular member; raises DataError. The contents are not read."""
    if not shard.is_file():
        raise DataError(f"{shard} is not a file; pass .tar files only")
    try:
        with shard.open("rb") as file:
            _check_not_compressed(file.read(8), shard)
            file.seek(0)
            with _TarFile.open(
                fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape"
            ) as tar:
                yield from _checked_headers(tar, shard)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(
            f"{shard} is not a tar file, or is damaged ({error}); "
            "pass .tar files only, or copy it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{shard} cannot be read: {error.strerror or error}; pass .tar files that can be read"
        ) from error


class _TarFile(tarfile.TarFile):
    """A tar file whose list of headers can be emptied."""

    members: list[tarfile.TarInfo]


def _check_not_compressed(head: bytes, shard: Path) -> None:
    """Raise DataError if the first bytes of a shard are those of a compressed file."""
    for magic, command in _DECOMPRESSORS.items():
        if head.startswith(magic):
            raise DataError(
                f"{shard} is compressed, so its images cannot be read by position; "
                f"decompress it first: {command} {shard}"
            )


def _checked_headers(tar: _TarFile, shard: Path) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar file; raises DataError if the file is cut off or damaged.

    The module tarfile does not report this damage. It treats a header that it cannot read as the
    end of the archive.
    """
    num_bytes, position = shard.stat().st_size, 0
    while position < num_bytes and (info := tar.next()):
        tar.members.clear()  # tarfile would keep every header in memory
        if tar.offset <= position:  # a negative size
            raise tarfile.ReadError(f"{info.name} has {info.size} bytes")
        position = tar.offset
        if not info.isreg() or info.issparse():
            continue
        if (end := info.offset_data + info.size) > num_bytes:
            raise DataError(
                f"{shard} is cut off within {storable(info.name)}: "
                f"it has {num_bytes:,} bytes of {end:,}; use a complete copy of the file"
            )
        yield info
    if position < num_bytes:
        with shard.open("rb") as file:
            file.seek(position)
            block = file.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0"):  # zeros are allowed: they mark the end of an archive
            raise DataError(
                f"{shard} is cut off or damaged after {position:,} of its {num_bytes:,} bytes; "
                "use a complete copy of the file"
            )


def _name(info: tarfile.TarInfo) -> str:
    """The normal form of a member's name: `./cat//1.jpg` -> `cat/1.jpg`."""
    return str(PurePosixPath(storable(info.name).lstrip("/")))


def _is_hidden(name: str) -> bool:
    *_, last = parts = name.split("/")
    return any(part.startswith(".") for part in parts) or last in ("Thumbs.db", "desktop.ini")


def _key(name: str) -> tuple[str, str]:
    """Split a name at its first dot like WebDataset: `cat/1.seg.png` -> (`cat/1`, `seg.png`)."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _labels(members: Mapping[str, TarMember]) -> dict[str, str | None]:
    """The labels in .cls and .json members, by key; raises DataError.

    If a key has both members, the .cls member is used.
    """
    label_members: dict[str, str] = {}
    for name in members:
        key, extension = _key(name)
        if extension == "cls" or (extension == "json" and key not in label_members):
            label_members[key] = name
    return {key: _read_label(members[name], name) for key, name in label_members.items()}


def _read_label(member: TarMember, name: str) -> str | None:
    """Read the label in a .cls or .json member; raises DataError. None if it has no label."""
    try:
        if member.num_bytes > MAX_LABEL_BYTES:
            raise ValueError(
                f"it has {member.num_bytes:,} bytes; at most {MAX_LABEL_BYTES:,} are read"
            )
        label = read_bytes(member).decode("utf-8-sig")
        if name.lower().endswith("json"):
            label = _json_label(json.loads(label))
        lines = label.strip().splitlines()
        if len(lines) > 1:
            raise ValueError(f"it has {len(lines)} lines")
    except (ImageError, ValueError) as error:
        raise DataError(
            f"{name} in {member.file} must contain the name or number of a class as UTF-8 text, "
            f"but {error}; correct it, or remove it"
        ) from error
    return lines[0].encode("utf-8", "backslashreplace").decode() if lines else None


def _json_label(content: object) -> str:
    """The "label" in the content of a .json member; raises ValueError. Empty if it has no label."""
    label = content.get("label") if isinstance(content, dict) else None
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise ValueError(f"its label is a {type(label).__name__}")
    return "" if label is None else str(label)
