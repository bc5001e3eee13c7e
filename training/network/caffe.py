"""Caffe's files, as far as weights go: the few messages of caffe.proto that hold them, read by protobuf itself.

A .caffemodel is a NetParameter: layers by name, in either of the two generations of the format, each with its blobs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from training.errors import UserError

Floats = npt.NDArray[np.float32]

_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, tuple[tuple[str, int, int, bool], ...]] = {
    # message: (field, number, type, is repeated), the numbers of BVLC's caffe.proto
    "BlobShape": (("dim", 1, _Field.TYPE_INT64, True),),
    "BlobProto": (
        ("num", 1, _Field.TYPE_INT32, False),
        ("channels", 2, _Field.TYPE_INT32, False),
        ("height", 3, _Field.TYPE_INT32, False),
        ("width", 4, _Field.TYPE_INT32, False),
        ("data", 5, _Field.TYPE_FLOAT, True),
        ("shape", 7, _Field.TYPE_MESSAGE, False),
    ),
    "V1LayerParameter": (
        ("name", 4, _Field.TYPE_STRING, False),
        ("blobs", 6, _Field.TYPE_MESSAGE, True),
    ),
    "LayerParameter": (
        ("name", 1, _Field.TYPE_STRING, False),
        ("blobs", 7, _Field.TYPE_MESSAGE, True),
    ),
    "NetParameter": (
        ("layers", 2, _Field.TYPE_MESSAGE, True),
        ("layer", 100, _Field.TYPE_MESSAGE, True),
    ),
}
_TYPES = {
    "shape": "BlobShape",
    "blobs": "BlobProto",
    "layers": "V1LayerParameter",
    "layer": "LayerParameter",
}


class CaffeError(UserError):
    """A file that is no message of caffe.proto."""


def read_caffemodel(file: Path) -> dict[str, list[Floats]]:
    """The blobs of every layer by its name, in the network's order: weights (out, in, height, width) or (out, in), then biases.

    A layer without weights, such as a pooling, has none. Raises CaffeError.
    """
    net = _read("NetParameter", file)
    layers = {
        layer.name: [_array(blob, file) for blob in layer.blobs]
        for layer in (*net.layers, *net.layer)
    }
    if not any(layers.values()):
        raise CaffeError(f"{file} holds no layer with weights; pass a .caffemodel file")
    return layers


def read_blob(file: Path) -> Floats:
    """A .binaryproto file, such as a mean image (1, 3, H, W) BGR; raises CaffeError."""
    return _array(_read("BlobProto", file), file)


def _read(kind: str, file: Path) -> Any:
    parsed = _CLASSES[kind]()
    try:
        parsed.ParseFromString(file.read_bytes())
    except message.DecodeError as error:
        raise CaffeError(f"{file} is cut off, or no file of Caffe's") from error
    return parsed


def _array(blob: Any, file: Path) -> Floats:
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    data = np.array(blob.data, np.float32)
    if data.size != np.prod(shape):
        raise CaffeError(
            f"{file} has a blob of {data.size} numbers for the shape {shape}; it is cut off or damaged"
        )
    return data.reshape(shape)


def _classes() -> dict[str, Any]:
    proto = descriptor_pb2.FileDescriptorProto(
        name="lookalike/caffe.proto", package="lookalike.caffe", syntax="proto2"
    )
    for kind, fields in _MESSAGES.items():
        described = proto.message_type.add(name=kind)
        for name, number, field_type, is_repeated in fields:
            field = described.field.add(
                name=name,
                number=number,
                type=field_type,
                label=_Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL,
            )
            if name in _TYPES:
                field.type_name = f".lookalike.caffe.{_TYPES[name]}"
            if name == "data":
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return {
        kind: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lookalike.caffe.{kind}"))
        for kind in _MESSAGES
    }


_CLASSES = _classes()
