"""An index of format 3, written from its documented layout alone.

Nothing here calls the code of the package that writes indexes, so a change of the format cannot
change this index with it. docs/index.md and indexer/storage/records.py describe the layout.
"""

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

MODEL_ID = "5e" * 32
NUM_FEATURES = 4096
ADDED_AT = 1_700_000_000
"""2023-11-14T22:13:20Z."""
RECORD_FORMAT = "<Q32sQQQIIQIIIfqQIII"
"""A record without its own CRC-32: id, SHA-256, hashes of path and label, text position, bytes of
path and label, thumbnail position and bytes, width, height, norm, time, stamp, three CRC-32s."""
REMOVED_ROW = 1


class GoldenItem(NamedTuple):
    """An item of the golden index."""

    id: int
    path: str
    label: str | None
    width: int
    height: int
    content: bytes
    """Stands for the image file. The index holds its SHA-256."""
    thumbnail: bytes
    feature: tuple[float, ...]


GOLDEN_ITEMS = (
    GoldenItem(4, "cat/1.jpg", "cat", 640, 480, b"first", b"\xff\xd8 one", (1.5,) * NUM_FEATURES),
    GoldenItem(5, "gone.jpg", None, 10, 10, b"second", b"\xff\xd8 two", (0.0,) * NUM_FEATURES),
    GoldenItem(
        9, "\u732b/\u00e9.png", None, 33, 65_000, b"third", b"", (0.0, 0.25) * (NUM_FEATURES // 2)
    ),
)
"""The items by row. The one in REMOVED_ROW has been removed."""


def write_golden_index(directory: Path, *, format_version: int = 3) -> None:
    """Write the index: three rows, two items, no artefacts."""
    growing, model = _growing_files(), {"model.json": b"{}\n", "model.onnx": b"a network"}
    (directory / "model").mkdir(parents=True)
    (directory / "copy").mkdir()
    for name, content in model.items():
        (directory / "model" / name).write_bytes(content)
    for name, content in growing.values():
        (directory / name).write_bytes(content)
    manifest = {
        "model_id": MODEL_ID,
        "commit": 7,
        "generation": 2,
        "num_items": 2,
        "num_rows": 3,
        "next_id": 12,
        "is_complete": True,
        "files": {
            kind: {"file": name, "num_bytes": len(content), "crc32": zlib.crc32(content)}
            for kind, (name, content) in growing.items()
        },
        "artefacts": {},
        "search": {"kind": "flat"},
        "model_files": {
            name: hashlib.sha256(content).hexdigest() for name, content in model.items()
        },
        "created_at": "2023-11-14T22:13:20+00:00",
        "updated_at": "2023-11-15T08:00:00+00:00",
        "format_version": format_version,
        "sha256": "",
    }
    text = manifest_text(manifest)
    (directory / "manifest.json").write_text(text)
    (directory / "copy" / "manifest.json").write_text(text)


def manifest_text(manifest: dict[str, Any]) -> str:
    """The text of a manifest: its SHA-256 is that of the text in which it is empty."""
    unsealed = json.dumps({**manifest, "sha256": ""}, indent=2) + "\n"
    sha256 = hashlib.sha256(unsealed.encode()).hexdigest()
    return unsealed.replace('"sha256": ""', f'"sha256": "{sha256}"')


def _growing_files() -> dict[str, tuple[str, bytes]]:
    """The name and content of each growing file, by kind."""
    records = features = texts = thumbnails = b""
    for item in GOLDEN_ITEMS:
        feature = struct.pack(f"<{NUM_FEATURES}f", *item.feature)
        path, label = item.path.encode(), (item.label or "").encode()
        record = struct.pack(
            RECORD_FORMAT,
            item.id,
            hashlib.sha256(item.content).digest(),
            _hash_of(item.path),
            0 if item.label is None else _hash_of(item.label),
            len(texts),
            len(path),
            len(label),
            len(thumbnails),
            len(item.thumbnail),
            item.width,
            item.height,
            sum(number * number for number in item.feature) ** 0.5,
            ADDED_AT,
            0,
            zlib.crc32(feature),
            zlib.crc32(item.thumbnail),
            zlib.crc32(path + label),
        )
        records += record + struct.pack("<I", zlib.crc32(record))
        features += feature
        texts += path + label
        thumbnails += item.thumbnail
    return {
        "records": ("records-2.bin", records),
        "features": ("features-2.f32", features),
        "texts": ("texts-2.utf8", texts),
        "thumbnails": ("thumbnails-2.jpeg", thumbnails),
        "removed": ("removed-2.u64", struct.pack("<Q", REMOVED_ROW)),
    }


def _hash_of(text: str) -> int:
    (number,) = struct.unpack("<Q", hashlib.sha256(text.encode()).digest()[:8])
    assert isinstance(number, int)
    return number
