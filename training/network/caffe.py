"""Read the weights in Caffe's files.

A .caffemodel file is a NetParameter message: a list of named layers with their blobs. The format
has two generations, and both can be read. The module declares only those messages and fields of
caffe.proto that it needs.
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
"""The fields of each message: name, number, type, and whether the field repeats. The numbers come
from BVLC's caffe.proto."""
_MESSAGE_OF_FIELD = {
    "shape": "BlobShape",
    "blobs": "BlobProto",
    "layers": "V1LayerParameter",
    "layer": "LayerParameter",
}
_PACKAGE = "lookalike.caffe"


class CaffeError(UserError):
    """The file does not contain the expected message of caffe.proto."""


def read_caffemodel(file: Path) -> dict[str, list[Floats]]:
    """Read the blobs of every layer; raises CaffeError.

    The result maps each layer's name to its blobs, in the order of the network.

    If a layer has weights, the first blob is its weights, (out, in, height, width) or (out, in),
    and the second is its biases. A layer without weights, such as a pooling, has an empty list.
    """
    net = _parse("NetParameter", file)
    layers = {
        layer.name: [_to_array(blob, file) for blob in layer.blobs]
        for layer in (*net.layers, *net.layer)
    }
    if not any(layers.values()):
        raise CaffeError(f"{file} has no layer with weights; pass a .caffemodel file")
    return layers


def read_blob(file: Path) -> Floats:
    """Read the blob in a .binaryproto file, such as a mean image (1, 3, H, W) in BGR order.

    Raises CaffeError.
    """
    return _to_array(_parse("BlobProto", file), file)


def _parse(name: str, file: Path) -> Any:
    """Parse a file as the message `name`; raises CaffeError."""
    parsed = _CLASSES[name]()
    try:
        parsed.ParseFromString(file.read_bytes())
    except message.DecodeError as error:
        raise CaffeError(
            f"{file} is cut off, or is not a Caffe file; restore it from a copy"
        ) from error
    return parsed


def _to_array(blob: Any, file: Path) -> Floats:
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    data = np.array(blob.data, np.float32)
    if data.size != np.prod(shape):
        raise CaffeError(
            f"{file} has a blob with {data.size} numbers for the shape {shape}, so it is cut off "
            "or damaged; restore it from a copy"
        )
    return data.reshape(shape)


def _message_classes() -> dict[str, Any]:
    """The protobuf classes of _MESSAGES, by message name."""
    proto = descriptor_pb2.FileDescriptorProto(
        name="lookalike/caffe.proto", package=_PACKAGE, syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        described = proto.message_type.add(name=message_name)
        for name, number, field_type, is_repeated in fields:
            label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
            field = described.field.add(name=name, number=number, type=field_type, label=label)
            if name in _MESSAGE_OF_FIELD:
                field.type_name = f".{_PACKAGE}.{_MESSAGE_OF_FIELD[name]}"
            if name == "data":
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _message_classes()
