"""Pack everything that `python -m benchmarks.gpu` needs on a machine without a network.

    python -m benchmarks.gpu_bundle OUT.tar.xz [--imagenette DIR] [--faiss ARCHIVE]
        [--python 3.12] [--quality 20] [--without PACKAGE ...]

The GPU machine needs Python and torch, torchvision and numpy. The bundle contains:

- the sources of the working tree;
- `packages`: the other packages at the versions of requirements/dev.txt, unpacked, for Linux on
  x86-64 and the given version of Python;
- `imagenette`: the images of DIR (`train` and `val` with class folders) at 146 pixels as WebP, with
  the given quality, enough for training at 128 pixels.

There, run: tar xf OUT.tar.xz && cd lookalike-gpu && ./run

Everything that follows ./run is passed to benchmarks.gpu. The wheel faiss-gpu is large, because it
has code for many GPUs, and it needs cuBLAS of CUDA 12. --faiss names an archive with another build
of FAISS, to be unpacked into `packages` instead. --without leaves out packages that the machine
has already.
"""

import argparse
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from benchmarks.record import COMMIT_FILE, ROOT, commit_of
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import open_picture, to_canvas
from training.parallel import num_cores

FOLDER = "lookalike-gpu"
LEFT_OUT = ("benchmarks/results/", "docs/", "requirements/", ".ci/")
"""Folders of the working tree that the benchmark does not use."""
PACKAGES = """
    annotated-doc annotated-types anyio certifi click faiss-gpu fastapi fastapi-offline flatbuffers
    h11 httpcore httpx hypothesis idna iniconfig markdown-it-py mdurl ml-dtypes onnx onnx-ir
    onnxruntime onnxscript opentelemetry-api packaging pluggy protobuf pydantic pydantic-core
    pydantic-settings pygments pytest pytest-timeout python-dotenv python-multipart rich safetensors
    shellingham sortedcontainers starlette typer typing-inspection uvicorn
""".split()  # noqa: SIM905 - a list would take 40 lines
"""The packages of the tests and of the service, without those that torch itself needs."""
IMAGE_SIZE = 128
"""Side of the squares that the carried images are large enough for, in pixels."""
RUN = """#!/bin/sh
# Run the GPU benchmark with the packages beside this file. PYTHON names another Python.
here=$(cd "$(dirname "$0")" && pwd)
cd "$here" || exit 1
export PYTHONPATH="$here:$here/packages" PYTHONDONTWRITEBYTECODE=1
[ -d imagenette ] && set -- --data "$here/imagenette" "$@"
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
"""
XZ_FILTERS = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 * 2**20},
]
"""Machine code compresses by a fifth better with the filter for x86 and a large dictionary."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--imagenette", type=Path)
    parser.add_argument("--faiss", type=Path)
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--quality", type=int, default=20)
    parser.add_argument("--without", nargs="+", default=[], choices=PACKAGES)
    arguments = parser.parse_args()
    left_out = {*arguments.without, *(["faiss-gpu"] if arguments.faiss else [])}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch, FOLDER)
        copy_sources(ROOT, folder)
        install([name for name in PACKAGES if name not in left_out], folder, arguments.python)
        if arguments.faiss:
            with tarfile.open(arguments.faiss) as archive:
                archive.extractall(folder / "packages", filter="tar")
        if arguments.imagenette:
            copy_images(arguments.imagenette, folder / "imagenette", arguments.quality)
        pack(folder, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MiB")


def copy_sources(root: Path, folder: Path) -> None:
    """Copy the files that git tracks, or would track, and write COMMIT and the program `run`."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in sorted(set(filter(None, names.split("\0")))):
        if name.startswith(LEFT_OUT) or not (root / name).is_file():
            continue
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy)
    commit, is_dirty = commit_of(root)
    (folder / COMMIT_FILE).write_text(f"{commit}{' with changes' if is_dirty else ''}\n", "utf-8")
    (folder / "run").write_text(RUN, "utf-8")
    (folder / "run").chmod(0o755)


def install(packages: Sequence[str], folder: Path, python: str) -> None:
    """Unpack packages at their locked versions into `folder`/packages, without their tests."""
    target = folder / "packages"
    target.mkdir()
    with TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        lock = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
        requirements.write_text("\n".join(locked(lock, packages)), "utf-8")
        platform = ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
        uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet"]
        command = [*uv, "--target", str(target), *platform, *options, "-r", str(requirements)]
        subprocess.run(command, check=True)
    for name in ("tests", "test", "__pycache__", "bin"):
        for unused in [*target.rglob(name)]:
            shutil.rmtree(unused, ignore_errors=True)


def locked(lock: str, packages: Iterable[str]) -> Iterator[str]:
    """The requirements of these packages in a lock file, with their hashes."""
    by_name = {
        match[1]: block
        for block in re.split(r"\n(?=[a-z0-9])", lock)
        if (match := re.match(r"([a-z0-9._-]+)==", block))
    }
    for name in packages:
        yield re.sub(r"\n *#.*", "", by_name[name])


def copy_images(source: Path, folder: Path, quality: int) -> None:
    """Write the canvases of a data set as small WebP files, in the same class folders."""
    dataset = open_dataset(source)
    parts = {"train": dataset.part("train"), "val": dataset.part("held-out")}
    for name, examples in parts.items():
        targets = [
            folder / name / str(example.label) / f"{number:05}.webp"
            for number, example in enumerate(examples)
        ]
        for class_folder in {target.parent for target in targets}:
            class_folder.mkdir(parents=True)
        with ThreadPoolExecutor(num_cores()) as pool:
            list(pool.map(_shrink, examples, targets, [quality] * len(targets)))


def _shrink(example: Example, target: Path, quality: int) -> None:
    canvas = to_canvas(open_picture(example.source, size=IMAGE_SIZE), IMAGE_SIZE)
    Image.fromarray(canvas).save(target, "WEBP", quality=quality, method=6)


def pack(folder: Path, out: Path) -> None:
    """Write a folder as a .tar.xz archive, without owners and times."""
    with (
        lzma.open(out, "wb", filters=XZ_FILTERS) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        archive.add(folder, FOLDER, filter=_without_owner)


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
