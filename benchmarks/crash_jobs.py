"""The jobs that benchmarks/index_crashes.py kills, and the indexes that they start with."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.crash_child import Work, finish
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.remove import remove
from training.files import file_sha256
from training.network.model import NUM_FEATURES, ONNX_FILE, ModelCard, write_card

IMAGE_PX = 64
NUM_BITS = 64
NUM_IVF_IMAGES = 135
"""81 of these images remain after a compaction. This is enough for two inverted lists."""


@dataclass(frozen=True)
class Job:
    """A change of an index. `start` is the index before the change, or None for a new index."""

    name: str
    work: Work
    start: Path | None


def prepare_jobs(scratch: Path, num_images: int) -> list[Job]:
    """Make the images, the model and the indexes that the jobs start with. Return the jobs."""
    _write_images(scratch / "earlier", range(num_images), seed=1)
    _write_images(scratch / "later", range(num_images // 3, num_images), seed=1)
    # These files have the same names as earlier files, but other content.
    _write_images(scratch / "later", range(num_images // 2, num_images * 2 // 3), seed=2)
    _write_images(scratch / "later", range(num_images, num_images * 4 // 3), seed=1)
    _write_images(scratch / "more", range(num_images // 2), seed=3)
    _write_images(scratch / "many", range(NUM_IVF_IMAGES), seed=4)
    make_model(scratch / "model")
    full, sparse, large, coded, coded_sparse = (
        scratch / name for name in ("full", "sparse", "large", "coded", "coded-sparse")
    )
    finish(_build_earlier, full, scratch)
    shutil.copytree(full, sparse)
    finish(_remove, sparse, scratch)
    finish(_build_many, large, scratch)
    finish(_remove, large, scratch)
    for plain, with_codes in ((full, coded), (sparse, coded_sparse)):
        shutil.copytree(plain, with_codes)
        finish(_encode_first, with_codes, scratch)
    return [
        Job("build", _build_earlier, None),
        Job("update", _build_later, full),
        Job("add", _add, full),
        Job("remove", _remove, full),
        Job("compact", _compact, sparse),
        Job("compact-ivf", _compact_to_ivf, large),
        Job("encode", _encode_again, coded),
        Job("add-codes", _add, coded),
        Job("compact-codes", _compact, coded_sparse),
    ]


def make_model(directory: Path) -> None:
    """Write a model directory. The network has one random layer.

    It loads quickly, so most kills happen while the index is written.
    """
    import onnx  # not needed in the child processes
    from onnx import TensorProto, helper, numpy_helper

    pooled = 3 * (IMAGE_PX // 8) ** 2
    weights = np.random.default_rng(0).normal(0, 1e-3, (pooled, NUM_FEATURES)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["linear"]),
        helper.make_node("Relu", ["linear"], ["features"]),
        helper.make_node("ReduceMax", ["features"], ["logits"], axes=[1]),
    ]
    images = helper.make_tensor_value_info(
        "images", TensorProto.UINT8, ["B", IMAGE_PX, IMAGE_PX, 3]
    )
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size])
        for name, size in (("logits", 1), ("features", 4096))
    ]
    graph = helper.make_graph(
        nodes, "crashes", [images], outputs, [numpy_helper.from_array(weights, "weights")]
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    id = hashlib.sha256(weights.tobytes()).hexdigest()
    helper.set_model_props(network, {"model_id": id})
    directory.mkdir()
    onnx.save(network, str(directory / ONNX_FILE))
    write_card(
        ModelCard(
            id=id,
            onnx_sha256=file_sha256(directory / ONNX_FILE),
            architecture={},
            class_names=("any",),
            image_size=IMAGE_PX,
            recipe={},
            data={},
            metrics={},
            versions={},
            created_at="",
        ),
        directory,
    )


def _write_images(folder: Path, numbers: range, seed: int) -> None:
    """Write PNG images of noise with awkward names, in three class folders."""
    for number in numbers:
        file = folder / str(number % 3) / f"{number}'\n\u00e9.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([seed, number]).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((96, 72)).save(file)


def _build_earlier(index: Path, scratch: Path) -> None:
    build(str(scratch / "earlier"), scratch / "model", index, device="cpu")


def _build_later(index: Path, scratch: Path) -> None:
    build(str(scratch / "later"), scratch / "model", index, device="cpu")


def _build_many(index: Path, scratch: Path) -> None:
    build(str(scratch / "many"), scratch / "model", index, device="cpu")


def _add(index: Path, scratch: Path) -> None:
    add(index, [str(scratch / "more")], prefix="more/")


def _remove(index: Path, scratch: Path) -> None:
    """Remove two of every five items, one at a time."""
    for id in Index.open(index).ids.tolist():
        if id % 5 < 2:
            remove(index, ids=[id])


def _compact(index: Path, scratch: Path) -> None:
    compact(index, force=True)


def _compact_to_ivf(index: Path, scratch: Path) -> None:
    compact(index, force=True, kind="ivf")


def _encode_first(index: Path, scratch: Path) -> None:
    _encode(index, seed=1)


def _encode_again(index: Path, scratch: Path) -> None:
    _encode(index, seed=2)


def _encode(index: Path, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(0, 1, (NUM_BITS, NUM_FEATURES)).astype(np.float32)
    facts = CodeFacts(num_bits=NUM_BITS, num_fitted=0, seed=seed, commit=0, loss=())
    with IndexWriter.open(index) as writer:
        writer.write_codes(Encoder(facts, weights, np.zeros(NUM_BITS, np.float32)))
        writer.commit()
