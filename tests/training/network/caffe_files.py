"""Caffe's files, written byte by byte, so that the reader is not tested against itself."""

import struct
from collections.abc import Iterator, Mapping

from torch import Tensor

Layers = Mapping[str, tuple[Tensor, ...]]
"""The blobs of each layer, by its name, in the network's order."""


def caffemodel(layers: Layers, *, is_new: bool) -> Iterator[bytes]:
    """The chunks of a .caffemodel file, in the first or the second generation of the format."""
    yield _chunk(1, b"AlexNet")
    layer_field, name_field, blob_field = (100, 1, 7) if is_new else (2, 4, 6)
    for name, tensors in layers.items():
        blobs = b"".join(_chunk(blob_field, blob(tensor, is_new=is_new)) for tensor in tensors)
        # Real files have many fields that the reader does not know, as this learning rate.
        unknown = _varint(103 << 3 | 5) + struct.pack("<f", 2.0)
        yield _chunk(layer_field, _chunk(name_field, name.encode()) + unknown + blobs)


def blob(tensor: Tensor, *, is_new: bool, shape: tuple[int, ...] | None = None) -> bytes:
    """A BlobProto, with a wrong shape if one is given.

    The first generation stores the shape in four fields, padded with ones.
    """
    shape = shape or tuple(tensor.shape)
    if is_new:
        header = _chunk(7, _chunk(1, b"".join(map(_varint, shape))))
    else:
        padded = (1,) * (4 - len(shape)) + shape
        sizes = (_varint(field << 3) + _varint(size) for field, size in enumerate(padded, 1))
        header = b"".join(sizes)
    return header + _chunk(5, tensor.numpy().astype("<f4").tobytes())


def unpacked_blob(tensor: Tensor) -> bytes:
    """A BlobProto with one field per number, as writers without packed fields make it."""
    numbers = (_varint(5 << 3 | 5) + struct.pack("<f", number) for number in tensor.flatten())
    return _chunk(7, _chunk(1, b"".join(map(_varint, tensor.shape)))) + b"".join(numbers)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _chunk(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
