"""Records: their layout on the disk, and checksums that find damage."""

from zlib import crc32

import numpy as np
import pytest

from indexer.storage.records import RECORD, ItemBytes, file_name, find_damage, hash_of, sealed
from tests.indexer.damage import NUM_POSITIONS


def record_of(item_bytes: ItemBytes) -> np.void:
    """A sealed record with the checksums of these bytes."""
    record = np.zeros((), RECORD)
    record["id"], record["width"], record["norm"] = 7, 640, 1.5
    record["feature_crc32"] = crc32(item_bytes.feature)
    record["text_crc32"] = crc32(item_bytes.text)
    record["thumbnail_crc32"] = crc32(item_bytes.thumbnail)
    (sealed_record,) = np.frombuffer(sealed(record), RECORD)
    assert isinstance(sealed_record, np.void)
    return sealed_record


ITEM_BYTES = ItemBytes(bytes(range(200)), b"cat/1.jpgcat", b"\xff\xd8 a thumbnail")


def test_a_record_has_the_size_that_the_file_format_promises() -> None:
    assert RECORD.itemsize == 128


def test_an_item_as_it_was_written_has_no_damage() -> None:
    assert find_damage(record_of(ITEM_BYTES), ITEM_BYTES) == []


@pytest.mark.parametrize(
    ("field", "name"), [("feature", "feature"), ("text", "path"), ("thumbnail", "thumbnail")]
)
def test_a_changed_byte_is_found_in_the_part_that_it_belongs_to(field: str, name: str) -> None:
    content = getattr(ITEM_BYTES, field)
    changed = ITEM_BYTES._replace(**{field: bytes([content[0] ^ 1]) + content[1:]})
    shorter = ITEM_BYTES._replace(**{field: content[:-1]})
    assert find_damage(record_of(ITEM_BYTES), changed) == [name]
    assert find_damage(record_of(ITEM_BYTES), shorter) == [name]


def test_every_changed_byte_of_a_record_is_found() -> None:
    content = record_of(ITEM_BYTES).tobytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 255
        (record,) = np.frombuffer(bytes(changed), RECORD)
        assert "record" in find_damage(record, ITEM_BYTES), position


def test_hashes_of_texts_fit_into_64_bits_and_are_never_0() -> None:
    hashes = {hash_of(str(number)) for number in range(NUM_POSITIONS)}
    assert len(hashes) == NUM_POSITIONS
    assert all(0 < value < 2**64 for value in hashes)
    assert hash_of("cat") == int.from_bytes(bytes.fromhex("77af778b51abd4a3"), "little")


def test_a_growing_file_is_named_after_its_kind_and_number() -> None:
    assert (file_name("features", 0), file_name("codes", 7)) == ("features-0.f32", "codes-7.bin")
